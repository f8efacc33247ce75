"""Where to start a foreign model: the closed forms of an exact Gaussian, and what a person types."""

import dataclasses
import importlib.util
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_cli import call, plain, refusal
from test_models import LINEAR, save

from difftime.diffusion.sde import VE, VP, Gaussian, matched_noise, standard_noise
from difftime.diffusion.tabulated import Tabulated
from difftime.images.pixels import CENTRED, Scale
from difftime.images.readers import BadImages
from difftime.models import BadModel, scout
from difftime.models.check import exact_score, true_bits
from difftime.models.foreign import Clock, ForeignModel
from difftime.models.scout import Scouting
from difftime.study.commands.foreign import card_of, told
from difftime.tables import parquet

needs_diffusers = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs difftime[models]")
SHAPE = (1, 4, 4)
D = 16
MEAN, SPREAD = torch.linspace(90, 150, D).double(), torch.linspace(8, 14, D).double()
CENTRE, VARIANCE = CENTRED.start + CENTRED.width * MEAN, (CENTRED.width * SPREAD) ** 2


def gaussian_images(n: int, seed: int) -> torch.Tensor:
    z = torch.randn(n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (MEAN + SPREAD * z).floor().clamp(0, 255).to(torch.uint8).reshape(n, *SHAPE)


def exact(sde: VP | VE, table: Tabulated | None, epsilon: float, T: float) -> ForeignModel:
    """A model that was trained to perfection on Gaussian images."""
    clock = Clock(sde, table)
    model = ForeignModel("exact", lambda x, t: x, sde, epsilon, T, SHAPE, CENTRED, clock, None, "digest")
    return dataclasses.replace(model, score=exact_score(model, CENTRE, VARIANCE))


def ddpm() -> ForeignModel:
    clock = Clock(VP(), Tabulated.linear())
    first, last = clock.at_index(torch.tensor([0.0, 999.0], dtype=torch.float64)).tolist()
    return exact(VP(), Tabulated.linear(), first, last)


def kl_bits(p: Gaussian, q: Gaussian) -> float:
    """KL[p || q] in bits per dimension."""
    ratio = p.variance / q.variance
    return (0.5 * (ratio - 1 - ratio.log() + (p.mean - q.mean) ** 2 / q.variance)).mean().item() / math.log(2)


@pytest.fixture(scope="module")
def found() -> Scouting:
    return scout.scout(ddpm(), gaussian_images(20_000, 0), gaussian_images(400, 1), images=400, bpd=20)


def standard_kl(T: float) -> float:
    return kl_bits(matched_noise(VP(), T, CENTRE, VARIANCE), standard_noise(VP(), T, (D,)))


def test_a_short_start_costs_the_kl_at_its_end(found: Scouting) -> None:
    """With the exact score all that a start loses is KL[p(x, T) || p_noise] (Eq. 11)."""
    last = standard_kl(ddpm().T)
    for start in found.curve("standard").starts[10:]:
        lost = standard_kl(start.place.T) - last
        assert abs(start.behind.mean - lost) < 4 * start.behind.se + 1e-4


def test_the_bits_are_the_true_ones_at_every_start_from_the_right_noise(found: Scouting) -> None:
    """The moments of 20,000 images are right to less than the error of the images measured."""
    many = gaussian_images(50_000, 2).flatten(1)
    truth = true_bits(ddpm(), many, MEAN, SPREAD).mean().item()
    for name in ("matched", "full"):
        for start in found.curve(name).starts:
            assert abs(start.bits.mean - truth) < 4 * start.bits.se
            assert start.bits.se < 0.05


def test_the_shortest_start_is_where_the_kl_is_the_loss(found: Scouting) -> None:
    last = standard_kl(ddpm().T)
    for within in found.curve("standard").within:
        T = within.start.place.T
        assert standard_kl(T) - last < within.loss
        assert standard_kl(T - 5 * found.spacing) - last > within.loss
    first, second = found.curve("standard").within
    assert second.start.place.T <= first.start.place.T


def test_the_shortest_start_of_all_is_from_the_better_noise(found: Scouting) -> None:
    p_noise, place = found.chosen
    assert p_noise in ("matched", "full")
    assert place.T < 0.3 * found.curve("standard").within[0].start.place.T


def test_of_starts_at_one_t_the_chosen_one_has_the_best_described_noise(found: Scouting) -> None:
    """Whatever the order in which the p_noises were asked for."""
    curve, T = found.curve("full"), found.curve("full").starts[0].place
    at_once = tuple(scout.Within(loss, curve.starts[0]) for loss in scout.LOSSES)
    curves = [dataclasses.replace(curve, p_noise=name, within=at_once) for name in scout.P_NOISES]
    assert scout.shortest(curves) == scout.shortest(curves[::-1]) == ("full", T)
    assert scout.shortest(curves[:2]) == ("matched", T)


def test_a_model_that_is_worse_than_no_model_is_not_recommended_without_a_warning(found: Scouting) -> None:
    assert "WARNING" not in told(found)
    bad = dataclasses.replace(found.usual, bits=scout.Bits(8.1, 0.01))
    assert "more than 8 bits per dimension" in told(dataclasses.replace(found, usual=bad))


def test_more_time_is_better_where_only_the_start_is_wrong(found: Scouting) -> None:
    standard = found.curve("standard")
    assert standard.high == found.usual.place
    assert standard.low.T > 0.8


def test_the_ode_has_the_true_bits_at_both_starts_and_needs_less_from_the_shorter(found: Scouting) -> None:
    usual, short = found.ode
    assert (usual.p_noise, usual.place) == ("standard", found.usual.place)
    assert (short.p_noise, short.place) == found.chosen
    assert short.nfe < usual.nfe
    assert usual.behind == scout.Bits(0.0, 0.0)
    assert short.behind.mean == pytest.approx(short.bits.mean - usual.bits.mean)
    assert abs(short.behind.mean) < 0.01 + 4 * short.behind.se < 0.05
    truth = found.usual.bits.mean
    assert abs(usual.bits.mean - truth) < 4 * math.hypot(usual.bits.se, found.usual.bits.se)


def test_a_time_is_the_same_noise_level_on_every_clock(found: Scouting) -> None:
    for start in found.curve("full").starts:
        place = start.place
        assert place.vp_time == pytest.approx(place.T, rel=1e-3)
        assert place.index == pytest.approx(1000 * place.T, abs=5)
        assert place.ratio == pytest.approx((VP().noise_level(torch.tensor(place.T).double()) / 2).exp().item())
    assert found.usual.place.index == pytest.approx(999)


def test_a_continuous_ve_model_is_scouted_on_the_time_of_vp() -> None:
    model = exact(VE(0.002, 80.0, from_zero=False), None, 0.0, 1.0)
    found = scout.scout(model, gaussian_images(5000, 0), gaussian_images(64, 1), images=64, p_noise=["matched"])
    assert found.usual.place.index is None
    assert [curve.p_noise for curve in found.curves] == ["matched"]
    times = [start.place.vp_time for start in found.curves[0].starts]
    assert np.diff(times) == pytest.approx(found.spacing)
    assert abs(found.curves[0].within[0].start.behind.mean) < 0.02


def test_t_is_chosen_by_images_that_do_not_judge_it() -> None:
    """Bits that depend on T by luck alone: the chosen T looks better where it is chosen, and not where it is judged."""
    luck = torch.randn(200, 2, 40, 50, generator=torch.Generator().manual_seed(0)).double()
    places = [scout.Place(float(k), float(k), None, float(k)) for k in range(40)]
    chosen, judged = [], []
    for bits in luck:
        choosing, judging = bits
        starts = tuple(map(scout.Judged, places, scout.estimates(judging), scout.estimates(judging)))
        best = scout.curve_of("full", starts, choosing, choosing, "seed").best
        judged.append(best.bits.mean / best.bits.se)
        chosen.append(choosing.mean(1).min().item() * 50**0.5)
    assert np.mean(chosen) < -1.5
    assert abs(np.mean(judged)) < 4 / 200**0.5


def test_the_interval_covers_the_best_time_as_often_as_it_says() -> None:
    generator, t = torch.Generator().manual_seed(0), torch.linspace(0, 1, 41).double()
    covered = 0
    for k in range(100):
        # every image has a parabola with an optimum of its own, of mean 0.5
        own = 0.5 + 0.3 * torch.randn(60, generator=generator).double()
        low, high = scout.interval((t[:, None] - own) ** 2, str(k))
        covered += t[low] <= 0.5 <= t[high]
    assert 88 <= covered <= 100


def test_the_numbers_do_not_depend_on_the_batch_or_on_the_p_noises_asked_for() -> None:
    model, train, test = ddpm(), gaussian_images(500, 0), gaussian_images(40, 1)
    options = {"images": 40, "pairs": 2, "times": 5}
    one = scout.scout(model, train, test, **options, batch=7, p_noise=["matched"])
    other = scout.scout(model, train, test, **options, batch=64, p_noise=["full", "matched"])
    for left, right in zip(one.curve("matched").starts, other.curve("matched").starts, strict=True):
        assert left.bits.mean == pytest.approx(right.bits.mean, rel=1e-6)


def test_what_cannot_be_measured_is_refused() -> None:
    model, train, test = ddpm(), gaussian_images(100, 0), gaussian_images(40, 1)
    for options, error, message in (
        ({"images": 41}, BadImages, "of 40 test images"),
        ({"images": 8}, BadImages, "at least 32"),
        ({"images": 40, "bpd": 21}, BadImages, "20 of the 40 judge"),
        ({"images": 40, "p_noise": ["flow"]}, BadModel, "'flow' is not known"),
    ):
        with pytest.raises(error, match=message):
            scout.scout(model, train, test, **options)
    wide = torch.zeros(40, 1, 4, 5, dtype=torch.uint8)
    with pytest.raises(BadModel, match="trained on images of 4 × 4"):
        scout.scout(model, wide, wide, images=40)


def test_bits_that_are_not_finite_are_refused() -> None:
    model = dataclasses.replace(ddpm(), score=lambda x, t: torch.full_like(x, math.nan))
    with pytest.raises(BadModel, match="of 40 of 40 images is not finite"):
        scout.scout(model, gaussian_images(100, 0), gaussian_images(40, 1), images=40, pairs=1)


def test_a_covariance_that_memory_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scout, "available", lambda: 1000)
    with pytest.raises(BadModel, match="Leave the full p_noise out"):
        scout.noises_of(ddpm(), gaussian_images(100, 0), ["full"])
    scout.noises_of(ddpm(), gaussian_images(100, 0), ["matched"])


# what a person types


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", train=gaussian_images(300, 0)[:, 0], test=gaussian_images(40, 1)[:, 0])
    return tmp_path / "data.npz"


FACTORY = f"""
import torch
centre = torch.linspace({CENTRE[0]}, {CENTRE[-1]}, {D}).reshape({SHAPE})
spread = {CENTRED.width} * torch.linspace(8, 14, {D}).reshape({SHAPE})
def make():
    def denoiser(x, sigma):
        s2 = sigma[:, None, None, None] ** 2
        return (spread**2 * x + s2 * centre) / (spread**2 + s2)
    return denoiser
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "exactly.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "exactly", raising=False)
    return "exactly:make"


def table(text: str) -> dict[tuple[str, str], list[str]]:
    """The rows of the first table by p_noise and start."""
    lines = text.split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {(row[0], row[1]): row[2:] for row in rows}


def test_scout_model_prints_and_writes_what_scout_found(data: Path, factory: str, tmp_path: Path) -> None:
    result = call("scout-model", factory, "--data", data, "--pairs", 4, "--bpd", 4, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    rows = table(result.stdout)
    assert {p_noise for p_noise, _ in rows} == {"standard", "matched", "full"}
    written = json.loads((tmp_path / "out" / "scout.json").read_text())
    assert written["choosing"] == written["judging"] == 20
    assert written["evaluations"] == 40 * 2 * 6
    for curve in written["curves"]:
        best = curve["best"]
        T, vp_time, ratio, bits, behind = rows[curve["p_noise"], "T*"]
        for shown, key in ((T, "T"), (vp_time, "vp_time"), (ratio, "ratio")):
            assert float(shown.split()[0]) == pytest.approx(best["place"][key], rel=0.01)
        assert bits == f"{best['bits']['mean']:.4f} ± {best['bits']['se']:.4f}"
        assert behind == f"{best['behind']['mean']:+.4f} ± {best['behind']['se']:.4f}"
    assert "[" in T
    assert "20 images chose T, 20 others judge it" in result.stdout
    assert "Probability-flow ODE" in result.stdout
    assert rows.keys() == table((tmp_path / "out" / "scout.md").read_text().split("\n\n", 1)[1]).keys()


def test_scout_model_leaves_the_table_and_the_figure_of_a_study(data: Path, factory: str, tmp_path: Path) -> None:
    result = call("scout-model", factory, "--data", data, "--pairs", 1, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    frame = parquet.read(tmp_path / "prediction.parquet", "prediction")
    for curve in json.loads((tmp_path / "scout.json").read_text())["curves"]:
        own = frame[frame.p_noise == curve["p_noise"]]
        assert [*own.t] == [start["place"]["T"] for start in curve["starts"]]
        assert [*zip(own.elbo, own.elbo_se, strict=True)] == [(*start["bits"].values(),) for start in curve["starts"]]
        assert {*own.T_star} == {curve["best"]["place"]["T"]}
    assert {*frame.units} == {json.loads((tmp_path / "scout.json").read_text())["judging"]}
    assert {path.suffix for path in tmp_path.glob("prediction.*")} >= {".parquet", ".pdf", ".png"}


def test_scout_model_measures_only_the_p_noise_asked_for(data: Path, factory: str) -> None:
    result = call("scout-model", factory, "--data", data, "--pairs", 1, "--p-noise", "matched")
    assert {name for name, _ in table(result.stdout)} == {"standard", "matched"}
    assert [start for name, start in table(result.stdout) if name == "standard"] == ["the model's own T"]


def test_images_that_are_not_split_are_split_by_a_share(factory: str, tmp_path: Path) -> None:
    np.save(tmp_path / "all.npy", gaussian_images(200, 0)[:, 0])
    result = call("scout-model", factory, "--data", tmp_path / "all.npy", "--pairs", 1, "--test-share", 0.4)
    assert result.exit_code == 0, result.output


def test_check_model_prints_estimate_truth_error_and_verdict(data: Path, factory: str) -> None:
    result = call("check-model", factory, "--data", data, "--images", 32)
    assert result.exit_code == 0, result.output
    number = {line.split()[0]: float(line.split()[1]) for line in result.stdout.splitlines()[1:4]}
    assert number["error"] == pytest.approx(number["estimate"] - number["truth"], abs=2e-5)
    assert "The bits are right" in result.stdout


def test_check_model_ends_with_1_where_the_bits_are_wrong(
    data: Path, factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scale, "offset_bits", 8.0)
    result = call("check-model", factory, "--data", data, "--images", 32)
    assert result.exit_code == 1
    assert "THE BITS ARE WRONG" in result.stdout


def test_the_model_card_has_the_odes_bits_at_the_t_that_they_are_of(found: Scouting) -> None:
    content = json.loads(json.dumps({"data": "gaussian"} | dataclasses.asdict(found)))
    (p_noise, place), short = found.chosen, found.ode[1]
    lines = [*card_of(content, p_noise, place.T).values()]
    assert f"{short.bits.mean:.4f} ± {short.bits.se:.4f}" in lines
    assert f"{short.nfe:.0f}" in lines
    assert not any("ODE" in name for name in card_of(content, p_noise, place.T + 3 * found.spacing))
    with pytest.raises(BadModel, match="has no mixture p_noise"):
        card_of(content, "mixture", place.T)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    train, test = (torch.randint(256, (n, 8, 8), dtype=torch.uint8, generator=generator).numpy() for n in (200, 40))
    np.savez(tmp_path / "digits.npz", train=train, test=test)
    return tmp_path / "digits.npz"


@needs_diffusers
def test_a_folder_of_diffusers_is_scouted_and_exported_with_its_numbers(tmp_path: Path, digits: Path) -> None:
    model, out, fast = save(tmp_path / "ddpm"), tmp_path / "out", tmp_path / "fast"
    result = call("scout-model", model, "--data", digits, "--pairs", 1, "--p-noise", "full", "--output", out)
    assert result.exit_code == 0, result.output
    assert "index" in result.stdout.splitlines()[0]
    written = json.loads((out / "scout.json").read_text())
    start = written["curves"][0]["starts"][24]
    result = call(
        "export", model, "--data", digits, "--T", start["place"]["T"], "--p-noise", "full", "--to", fast, "--scout", out
    )
    assert result.exit_code == 0, result.output
    card = (fast / "README.md").read_text()
    assert f"{start['bits']['mean']:.4f} ± {start['bits']['se']:.4f}" in card
    assert f"{start['behind']['mean']:+.4f} ± {start['behind']['se']:.4f}" in card
    assert json.loads((fast / "prior" / "config.json").read_text())["full"] is True


@needs_diffusers
def test_export_refuses_what_it_cannot_write_and_writes_nothing(tmp_path: Path, digits: Path, factory: str) -> None:
    model, fast = save(tmp_path / "ddpm"), tmp_path / "fast"
    own = ("--data", digits, "--to", fast)
    assert "T cannot be 1.5" in refusal("export", model, *own, "--T", 1.5)
    assert "not a folder of diffusers" in refusal("export", factory, *own, "--T", 0.5)
    assert "cannot be read" in refusal("export", model, *own, "--T", 0.5, "--scout", tmp_path)
    (tmp_path / "scout.json").write_text('{"digest": "another"}')
    assert "is of another model" in refusal("export", model, *own, "--T", 0.5, "--scout", tmp_path)
    assert not fast.exists()
    assert "exists already" in refusal("export", model, "--data", digits, "--T", 0.5, "--to", tmp_path)


@needs_diffusers
def test_a_model_that_cannot_be_read_is_refused_in_one_message(tmp_path: Path, digits: Path, data: Path) -> None:
    def said(model: Path, images: Path = digits) -> str:
        return refusal("scout-model", model, "--data", images)

    assert "has no scheduler" in said(save(tmp_path / "bare", None))
    assert "images of 8 × 8 pixels" in said(save(tmp_path / "ddpm"), data)
    assert "is no model" in said(tmp_path / "absent")
    (tmp_path / "latent" / "vae").mkdir(parents=True)
    assert "latent-diffusion" in said(tmp_path / "latent")
    assert "conditional" in said(save(tmp_path / "classes", LINEAR, num_class_embeds=3))
    assert "sde is for a .pth" in refusal("scout-model", tmp_path / "ddpm", "--data", digits, "--sde", "vp")


@needs_diffusers
def test_a_missing_extra_is_named(tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save(tmp_path / "ddpm")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert "pip install 'difftime[models]'" in refusal("scout-model", model, "--data", digits)


def test_a_pickle_with_code_is_refused(tmp_path: Path, digits: Path) -> None:
    torch.save({"model": SimpleNamespace()}, tmp_path / "bad.pth")
    assert "holds code" in refusal("scout-model", tmp_path / "bad.pth", "--data", digits)


def test_a_factory_that_is_not_there_is_refused(data: Path) -> None:
    assert "was not found" in refusal("scout-model", "no_such_module:make", "--data", data)


def test_code_runs_only_for_a_model_of_the_form_module_and_name(data: Path, factory: str) -> None:
    assert "is no model" in refusal("scout-model", "exactly", "--data", data)
    assert "exactly" not in sys.modules
    assert "Only a MODEL of the last form runs code" in plain(call("scout-model", "--help").stdout)


def test_data_that_are_not_there_are_refused(factory: str, tmp_path: Path) -> None:
    assert "is no data" in refusal("scout-model", factory, "--data", tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refusal("scout-model", factory, "--data", tmp_path / "empty")
    assert "of 40 test images" in refusal(
        "scout-model", factory, "--data", save_npz(tmp_path / "few.npz", 40), "--images", 50
    )


def save_npz(path: Path, test: int) -> Path:
    np.savez(path, train=gaussian_images(50, 0)[:, 0], test=gaussian_images(test, 1)[:, 0])
    return path
