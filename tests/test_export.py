"""The way back: an exported folder draws the same samples with diffusers alone."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_models import LINEAR, save

from difftime.diffusion.p_noise import FullGaussian
from difftime.diffusion.sde import VP, Gaussian, matched_noise
from difftime.models import BadModel, ForeignModel, load_model
from difftime.models.export import EarlyStart, export

pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs difftime[models]")

ALONE = """
import sys
sys.modules["difftime"] = None
import torch
try:
    import torchvision
except RuntimeError:
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
folder = sys.argv[1]
pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
pipe.set_progress_bar_config(disable=True)
z = load_file(sys.argv[2])["z"]
x = {s: pipe(z=z, num_inference_steps=9, sampler=s, output_type="latent").images for s in ("ddim", "dpm_solver_2m")}
save_file(x, sys.argv[3])
print(pipe(batch_size=2, num_inference_steps=3, generator=torch.Generator().manual_seed(0)).images[1].size)
"""


def noise(model: ForeignModel, T: float, full: bool) -> Gaussian | FullGaussian:
    mean = torch.linspace(-1, 1, model.d, dtype=torch.float64)
    if not full:
        return matched_noise(model.sde, T, mean, 0.3 + 0.2 * mean)
    roots = torch.randn(model.d, model.d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return FullGaussian.of(0.5 * mean, roots @ roots.T / model.d + 0.1 * torch.eye(model.d).double())


@pytest.mark.parametrize(
    ("full", "scheduler"),
    [
        (True, LINEAR),
        (False, LINEAR | {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"}),
    ],
    ids=["full p_noise", "matched p_noise, v_prediction, cosine"],
)
def test_an_exported_folder_draws_the_same_samples_without_difftime(
    tmp_path: Path, full: bool, scheduler: dict
) -> None:
    model = load_model(save(tmp_path / "ddpm", scheduler, pipeline=True))
    start = EarlyStart.at(model, 0.45, noise(model, 0.45, full))
    export(tmp_path / "ddpm", start, tmp_path / "fast", {"T*": "0.45 ± 0.02"})

    z = torch.randn(3, model.d, generator=torch.Generator().manual_seed(1))
    save_file({"z": z.reshape(3, *model.shape)}, tmp_path / "z.safetensors")
    command = [sys.executable, "-c", ALONE, tmp_path / "fast", tmp_path / "z.safetensors", tmp_path / "x.safetensors"]
    ran = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "(8, 8)"
    for sampler, drawn in load_file(tmp_path / "x.safetensors").items():
        ours = start.sample(z, 9, sampler)
        assert torch.allclose(drawn.flatten(1), ours, rtol=1e-4, atol=1e-4 * ours.abs().max().item())


def test_the_model_card_says_where_the_start_is_and_what_was_measured(tmp_path: Path) -> None:
    model = load_model(save(tmp_path / "ddpm"))
    export(tmp_path / "ddpm", EarlyStart.at(model, 0.6, noise(model, 0.6, False)), tmp_path / "fast", {"BPD": "2.2"})
    card = (tmp_path / "fast" / "README.md").read_text()
    assert "| BPD | 2.2 |" in card
    assert "begins at index 598 of 1000" in card
    assert json.loads((tmp_path / "fast" / "prior" / "config.json").read_text())["index"] == 598


def test_steps_are_nearly_equal_in_lambda(tmp_path: Path) -> None:
    model = load_model(save(tmp_path / "ddpm"))
    start = EarlyStart.at(model, 0.6, noise(model, 0.6, False))
    indices = start.indices(10)
    assert (indices[0], indices[-1], len(indices)) == (598, 0, 11)
    levels = VP().noise_level(model.clock.at_index(torch.tensor(indices, dtype=torch.float64)))
    assert levels.diff().std() < 0.2 * levels.diff().mean().abs()


def test_a_start_the_model_does_not_know_is_refused(tmp_path: Path) -> None:
    model = load_model(save(tmp_path / "ddpm"))
    for T in (1.2, 1e-4, math.nan):
        with pytest.raises(BadModel, match="T cannot be"):
            EarlyStart.at(model, T, noise(model, 0.5, False))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    model = load_model(save(tmp_path / "ddpm"))
    start = EarlyStart.at(model, 0.6, noise(model, 0.6, False))
    with pytest.raises(BadModel, match="exists already"):
        export(tmp_path / "ddpm", start, tmp_path / "ddpm")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ddpm"]
