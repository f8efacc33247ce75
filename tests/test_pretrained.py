"""A network that somebody else trained, in a study: its own T and SDE, the library's numbers, and no training."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from studies import study
from test_cli import call, refusal
from test_models import LINEAR, Harmful, checkpoint, latent, needs_diffusers, save
from test_scout import MEAN, SHAPE, SPREAD, gaussian_images, table

from difftime.diffusion.p_noise import diffused_moments
from difftime.images.pixel_prior import PixelPrior
from difftime.images.pixels import CENTRED, Scale, moments
from difftime.images.readers import load_images
from difftime.measures.curve import noises_at, running_elbo
from difftime.measures.image_elbo import over_images
from difftime.measures.pixel_decoder import PixelDecoder
from difftime.models import ForeignModel, scout
from difftime.models.check import true_bits
from difftime.models.diffusers_folder import schedule
from difftime.models.foreign import BadModel, Clock
from difftime.models.naming import model_for
from difftime.study.cell import load_noise, noise_file
from difftime.study.commands import model as command
from difftime.study.opening import open_cell
from difftime.study.settings import BadSettings, Cell, Study, parse, plain_study, read_study
from difftime.study.settings.own import own_T
from difftime.support.streams import stream
from difftime.tables import parquet

PICTURES = "datasets: {pictures: {kind: npz, path: pictures.npz}}\n"
NETS = "nets: {ddpm: {kind: pretrained, path: ./ddpm}, edm: {kind: pretrained, path: 'mine:edm'}}\n"


# its own T


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"num_train_timesteps": 10, "beta_start": 0.01, "beta_end": 0.7}, {"beta_start": 0.003, "beta_end": 0.003},
        {"beta_schedule": "squaredcos_cap_v2"}, {"beta_schedule": "scaled_linear"},
        {"trained_betas": [0.1, 0.2, 0.9]}, {"beta_schedule": "sigmoid", "num_train_timesteps": 50},
    ],
)  # fmt: skip
def test_the_T_of_a_model_is_the_one_that_its_reader_finds(tmp_path: Path, changes: dict[str, Any]) -> None:
    """The last index on the model's clock, found without PyTorch, to the six digits of a folder's name."""
    settings = LINEAR | changes
    (tmp_path / "scheduler_config.json").write_text(json.dumps(settings))
    sde, levels = schedule(settings, tmp_path)
    clock = Clock(sde, levels)
    last = clock.at_index(torch.tensor(clock.indices - 1.0, dtype=torch.float64)).item()
    assert own_T(str(tmp_path)) == float(f"{last:g}")


@pytest.mark.parametrize("text", ["", "[]", '{"beta_schedule": "linear", "beta_end": 3}', '{"beta_schedule": "linear", '
                                  '"num_train_timesteps": "many"}'])  # fmt: skip
def test_settings_of_a_scheduler_that_make_no_sense_are_left_to_the_reader(tmp_path: Path, text: str) -> None:
    (tmp_path / "scheduler_config.json").write_text(text)
    assert own_T(str(tmp_path)) == 1.0


# a study


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ddpm").mkdir()
    (tmp_path / "ddpm" / "scheduler_config.json").write_text(json.dumps(LINEAR))
    return tmp_path


def read(place: Path, blocks: str, nets: str = NETS) -> Any:
    (place / "mine.yaml").write_text(PICTURES + nets + f"study: {blocks}\n")
    return read_study([place / "mine.yaml"])


def test_two_lines_are_a_study_of_a_model(place: Path) -> None:
    whole = read(place, "[{dataset: pictures, net: ddpm}]")
    ((keys, _),) = whole.grid()
    assert keys == {"dataset": "pictures", "sde": "of-model", "net": "ddpm", "T": "1.00338"}


def test_every_model_of_a_block_has_its_own_T(place: Path) -> None:
    whole = read(place, "[{dataset: pictures, net: [ddpm, edm]}]")
    assert {(keys["net"], keys["T"]) for keys, _ in whole.grid()} == {("ddpm", "1.00338"), ("edm", "1")}


def test_a_study_in_its_results_does_not_ask_the_model_again(place: Path) -> None:
    whole = read(place, "[{dataset: pictures, net: ddpm}]")
    (place / "ddpm" / "scheduler_config.json").unlink()
    (place / "ddpm").rmdir()
    assert parse(Study, plain_study(whole), "study.json").grid() == whole.grid()


def test_its_cell_has_one_model_and_no_training_and_no_resources(place: Path) -> None:
    nets = "nets: {ddpm: {kind: pretrained, path: ./ddpm, gpu: 2, minutes: 5, memory: 9000, threads: 3}}\n"
    (place / "mine.yaml").write_text(
        nets + "datasets: {pictures: {kind: npz, path: p.npz, seeds: 3}}\nstudy: [{dataset: pictures, net: ddpm}]"
    )
    whole = read_study([place / "mine.yaml"])
    ((keys, _),) = whole.grid()
    cell = whole.cell(**keys)
    assert (cell.training, cell.seeds) == (None, 1)
    assert {*cell.network.model_dump()} == {"kind", "path", "pixels", "sde", "sigma_min", "sigma_max"}
    assert whole.needs("pictures").memory == 9000
    assert whole.needs("pictures").batches == ()


def test_no_record_is_planned_of_a_training_that_does_not_happen(place: Path) -> None:
    trained = "{dataset: pictures, sde: vp, net: unet-16, T: 0.5, measure: elbo}"
    whole = read(place, f"[{{dataset: pictures, net: ddpm}}, {trained}]").cells()
    history, runs = whole.files("pictures", "history"), whole.files("pictures", "runs")
    assert [part for part in history if "ddpm" in part] == []
    assert len(history) == 1
    assert {path.rpartition("/")[2] for path in runs if "ddpm" in path} == {
        f"run_{name}.parquet" for name in ("elbo", "likelihood", "samples")
    }
    assert len(whole.files("pictures", "training")) == 2


def test_its_curve_is_drawn_of_one_T_and_its_learning_is_not(place: Path) -> None:
    drawn = {figure for figure, _, _ in read(place, "[{dataset: pictures, net: ddpm}]").cells().figures()}
    assert {"prediction", "table1", "tradeoff", "images"} <= drawn
    assert "learning" not in drawn


FAULTS = {
    "later": ("{dataset: pictures, net: ddpm, T: [0.5, 1.1]}", "is above T = 1.00338, to which ddpm was trained"),
    "other sde": ("{dataset: pictures, net: ddpm, sde: vp}", "has an SDE of its own"),
    "its sde": ("{dataset: pictures, net: unet-16, sde: of-model, T: 1}", "has an SDE of its own"),
    "mixture": ("{dataset: toy, net: ddpm}", "ncsnpp or pretrained for images"),
    "no sde": ("{dataset: pictures, net: [ddpm, unet-16], T: 1}", "sde"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_block_that_does_not_fit_the_model_is_refused(place: Path, case: str) -> None:
    block, message = FAULTS[case]
    with pytest.raises(BadSettings, match=message):
        read(place, f"[{block}]")


def test_a_model_that_is_not_there_is_refused_while_the_settings_are_read(place: Path) -> None:
    with pytest.raises(BadSettings, match="is no model"):
        read(place, "[{dataset: pictures, net: gone}]", "nets: {gone: {kind: pretrained, path: ./gone}}\n")


def test_a_study_without_pretrained_networks_is_as_it_was() -> None:
    whole = study()
    assert whole.plain("toy")["pretrained"] == []
    assert all(whole.cell(**keys).training for keys, _ in whole.grid())


# its numbers


def exact(scale: Scale) -> str:
    """The code of a model of Gaussian images that was trained to perfection with pixels on this scale."""
    centre, spread = (scale.start + scale.width * MEAN).tolist(), (scale.width * SPREAD).tolist()
    return f"""
import torch
centre, spread = torch.tensor({centre}).reshape({SHAPE}), torch.tensor({spread}).reshape({SHAPE})
def make():
    def denoiser(x, sigma):
        s2 = sigma[:, None, None, None] ** 2
        return (spread**2 * x + s2 * centre) / (spread**2 + s2)
    return denoiser
"""


def cell(folder: Path, data: Path, T: float, **network: Any) -> Path:
    """The folder of a cell of a pretrained network, in which `model` was run."""
    folder.mkdir()
    settings = {
        "dataset": "mine", "sde": "of-model", "net": "theirs", "T": T, "seed": 0, "seeds": 1,
        "data": {"kind": "npz", "path": str(data)}, "diffusion": {"kind": "of-model"},
        "network": {"kind": "pretrained"} | network, "training": None,
    }  # fmt: skip
    (folder / "cell.json").write_text(Cell.model_validate(settings).canonical())
    command.run(folder, data_dir=Path("data"))
    return folder


def measure(name: str, folder: Path, p_noise: list[str], **settings: Any) -> None:
    path = folder / f"{name}-settings.json"
    path.write_text(json.dumps({"p_noise": p_noise} | settings))
    result = call(name, folder, "--settings", path)
    assert result.exit_code == 0, result.output


def gaussians(path: Path) -> Path:
    np.savez(path, train=gaussian_images(20_000, 0)[:, 0], test=gaussian_images(60, 1)[:, 0])
    return path


@pytest.mark.parametrize("pixels", ["cells", "centres"])
def test_a_perfect_model_has_the_true_bits_and_draws_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: str
) -> None:
    """At a T far below its own, where sigma is 0.09, from the p_noise with the moments of 20,000 images."""
    scale = CENTRED if pixels == "cells" else Scale.at_centres(-1.0, 1.0)
    (tmp_path / "perfect.py").write_text(exact(scale))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "perfect", raising=False)
    data = gaussians(tmp_path / "data.npz")
    folder = cell(tmp_path / "cell", data, 0.36, path="perfect:make", pixels=pixels)
    p_noise = ["matched"]
    measure("elbo", folder, p_noise, pairs=8, times=4)
    measure("likelihood", folder, p_noise, batch=30)
    measure("samples", folder, p_noise, images=100, steps_per_unit_time=300)

    model = dataclasses.replace(model_for(SHAPE, "", "perfect:make"), scale=scale)
    levels = load_images("npz", path=data, channels=None, test_share=None).test.flatten(1)
    truth = true_bits(model, levels, MEAN, SPREAD)
    for table_, slack in (("elbo_units", 0.0), ("likelihood_units", 0.01)):  # the ODE has no decoder
        units = parquet.read(folder / f"{table_}.parquet", table_).sort_values("unit")
        off, se = over_images(torch.tensor(units.bpd if "bpd" in units else units.elbo_bpd) - truth)
        assert abs(off) < 4 * se + slack
        assert se < 0.05
    drawn = parquet.read(folder / "images.parquet", "images")
    levels = np.stack([np.frombuffer(one, np.uint8) for one in drawn.pixels])
    assert np.abs(levels.mean(0) + 0.5 - MEAN.numpy()).max() < 5 * SPREAD.max().item() / 10
    assert (folder / "training.parquet").exists()


def of_the_library(
    model: ForeignModel, data: Path, T: float, times: int, pairs: int, name: str = "mine"
) -> torch.Tensor:
    """Bits per dimension [p_noises, times, images] by the library, from the random numbers of a cell on these data."""
    images = load_images("npz", path=data, channels=None, test_share=None)
    index, mean_cov = torch.arange(len(images.test)), model.scale.moments(moments(images.train))
    u = [torch.rand(model.shape, generator=stream(f"0/{name}", "dequantisation", 0, i)) for i in index.tolist()]
    x0 = model.scale.dequantised(images.test, torch.stack(u)).flatten(1)
    noises = noises_at(["standard", "matched"], model.sde, mean_cov.mean, mean_cov.covariance.diagonal())
    at = T * torch.arange(1, times + 1, dtype=torch.float64) / times
    found = running_elbo(
        model.score, model.sde, noises, at, x0, T, model.epsilon, seeds=[f"0/{name}/0"], indices=index, pairs=pairs,
        end_pairs=2, batch=256, decoder=PixelDecoder(PixelPrior.of(images.train), model.scale),
    )  # fmt: skip
    return model.scale.bits_per_dimension(found.elbo_x0[:, 0], model.d)


def noise_images(path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(path, train=rng.integers(256, size=(60, 8, 8), dtype=np.uint8),
             test=rng.integers(256, size=(40, 8, 8), dtype=np.uint8))  # fmt: skip
    return path


@pytest.mark.parametrize("form", ["DDPM++", "VE NCSN++"])
@pytest.mark.parametrize("T", [1.0, 0.4])
def test_a_cell_has_the_numbers_of_the_library_for_the_same_draws(tmp_path: Path, form: str, T: float) -> None:
    """A checkpoint of score_sde_pytorch, for data in [-1, 1] and in [0, 1], at its own T and below."""
    path, _ = checkpoint(tmp_path / "theirs.pth", form, channels=1)
    data = noise_images(tmp_path / "data.npz")
    folder = cell(tmp_path / "cell", data, T, path=str(path))
    measure("elbo", folder, ["standard", "matched"], pairs=2, times=5)
    expected = of_the_library(model_for((1, 8, 8), "", str(path)), data, T, 5, 2)
    found = parquet.read(folder / "curve_units.parquet", "curve_units").elbo_bpd.to_numpy().reshape(expected.shape)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12)
    last = parquet.read(folder / "elbo_units.parquet", "elbo_units").elbo_bpd.to_numpy().reshape(2, -1)
    np.testing.assert_allclose(last, expected[:, -1].numpy(), rtol=1e-12)


def test_a_checkpoint_is_scouted_from_the_command_line_as_from_python(tmp_path: Path) -> None:
    """The size of the images is the data's, and nothing but the path is typed."""
    path, _ = checkpoint(tmp_path / "checkpoint_8.pth", "VE NCSN++", channels=1)
    data = noise_images(tmp_path / "data.npz")
    result = call("scout-model", path, "--data", data, "--images", 32, "--pairs", 2, "--p-noise", "full")
    assert result.exit_code == 0, result.output
    images = load_images("npz", path=data, channels=None, test_share=None)
    found = scout.scout(
        model_for((1, 8, 8), "", str(path)), images.train, images.test, images=32, pairs=2, p_noise=["full"]
    )
    best = found.curve("full").best
    assert table(result.stdout)["full", "T*"][-2:] == [
        f"{best.bits.mean:.4f} ± {best.bits.se:.4f}", f"{best.behind.mean:+.4f} ± {best.behind.se:.4f}"
    ]  # fmt: skip
    assert f"{found.usual.bits.mean:.4f}" in table(result.stdout)["standard", "the model's own T"][-2]


@needs_diffusers
def test_a_p_noise_of_x_T_is_fitted_on_the_models_clock(tmp_path: Path) -> None:
    """full: the Gaussian with the moments of x_T under the SDE of a cosine table."""
    model = save(tmp_path / "ddpm", LINEAR | {"beta_schedule": "squaredcos_cap_v2"})
    data = noise_images(tmp_path / "data.npz")
    folder = cell(tmp_path / "cell", data, 0.5, path=str(model))
    (tmp_path / "full.json").write_text("{}")
    result = call("fit-noise", folder, "--p-noise", "full", "--settings", tmp_path / "full.json")
    assert result.exit_code == 0, result.output
    measure("elbo", folder, ["matched", "full"], pairs=1, times=2)
    _, problem = open_cell(folder, Path("data"))
    noise = load_noise(noise_file(folder, "full"), problem, "full")
    foreign = model_for((1, 8, 8), "", str(model))
    mean, covariance = diffused_moments(foreign.sde, 0.5, *problem.known_moments())
    assert torch.allclose(noise.mean, mean)
    assert torch.allclose(noise.spread, covariance.diagonal())


# what did not happen, and what cannot be


def test_no_training_is_told_of_a_model_and_none_is_done(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path / "theirs.pth", "DDPM++", channels=1)
    folder = cell(tmp_path / "cell", noise_images(tmp_path / "data.npz"), 1.0, path=str(path))
    (row,) = parquet.read(folder / "training.parquet", "training").to_dict("records")
    assert row["seeds"] == 1
    assert row["parameters"] == sum(p.numel() for p in model_for((1, 8, 8), "", str(path)).net.parameters())
    assert all(pd.isna(row[name]) for name in ("steps", "batch", "weighting", "precision"))
    written = {path.name for path in folder.iterdir()}
    assert written == {"cell.json", "model.json", "training.parquet"}
    assert "is not trained: its network is a model that somebody else trained" in refusal("train", folder)
    assert {path.name for path in folder.iterdir()} == written


def test_another_model_in_its_place_is_not_measured(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path / "theirs.pth", "DDPM++", channels=1)
    folder = cell(tmp_path / "cell", noise_images(tmp_path / "data.npz"), 1.0, path=str(path))
    (tmp_path / "elbo.json").write_text(json.dumps({"p_noise": ["standard"], "pairs": 1}))
    content = torch.load(path, weights_only=True)
    content["ema"]["shadow_params"][0] += 1
    torch.save(content, path)
    assert "has changed since" in refusal("elbo", folder, "--settings", tmp_path / "elbo.json")
    (folder / "model.json").unlink()
    assert "Snakemake writes it" in refusal("elbo", folder, "--settings", tmp_path / "elbo.json")


def harmful(path: Path) -> Path:
    torch.save({"model": Harmful()}, path)
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "pickle": (harmful, "holds code"),
    "conditional": (lambda path: save(path, num_class_embeds=3), "is a conditional model"),
    "latent": (latent, "is a latent-diffusion model"),
    "shape": (lambda path: save(path, sample_size=16), "was trained on images of 16 × 16 pixels"),
    "no scheduler": (lambda path: save(path, None), "has no scheduler"),
    "no levels": (lambda path: save(path, LINEAR | {"beta_end": 3}), "give no noise levels"),
    "of another form": (lambda path: save(path), "sde is not asked of"),
    "later": (lambda path: checkpoint(path, "DDPM++", channels=1)[0], "knows the times from 1e-05 to 1"),
}


@needs_diffusers
@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_cannot_be_measured_is_refused_before_it_is_written_down(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = REFUSED[case]
    path, data = make(tmp_path / "model"), noise_images(tmp_path / "data.npz")
    options = {"sde": "vp"} if case == "of another form" else {}
    with pytest.raises(BadModel, match=message):
        cell(tmp_path / "cell", data, 1.2 if case == "later" else 1.0, path=str(path), **options)
    assert [file.name for file in (tmp_path / "cell").iterdir()] == ["cell.json"]
    assert "this code ran" not in capsys.readouterr().out


def test_the_weights_of_ones_own_code_are_in_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import torch\nclass Net(torch.nn.Module):\n    def __init__(self, a):\n        super().__init__()\n"
        "        self.a = torch.nn.Parameter(torch.tensor(a))\n"
        "    def forward(self, x, s):\n        return self.a * x\n"
        "def one(): return Net(1.0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "weighted.py").write_text(code)
    monkeypatch.delitem(sys.modules, "weighted", raising=False)
    digest = model_for((1, 2, 2), "", "weighted:one").digest
    assert model_for((1, 2, 2), "", "weighted:one").digest == digest
    (tmp_path / "weighted.py").write_text(code.replace("Net(1.0)", "Net(0.5) "))
    monkeypatch.delitem(sys.modules, "weighted")
    assert model_for((1, 2, 2), "", "weighted:one").digest != digest
