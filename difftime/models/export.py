"""Export of a model as a folder of diffusers that starts at T from a fitted p_noise, and needs diffusers alone.

The folder holds unet/ and scheduler/ as the model had them, prior/ with p_noise in safetensors, `pipeline.py`, which
draws the samples, and a model card. T becomes the nearest index of the model's table. The folder of a cell has the
source of NCSN++ in unet/, and a table of its own that ends at T: `export_cell`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from difftime import __version__
from difftime.diffusion.p_noise import FullGaussian
from difftime.diffusion.sde import Gaussian, Noise
from difftime.measures.few_steps import ddim, dpm_solver_2m
from difftime.models.diffusers_folder import IndexedNoise
from difftime.models.foreign import BadModel, ForeignModel, NoiseScore, Scale

CODE = Path(__file__).parent / "early_start"
SAMPLERS = {"dpm_solver_2m": dpm_solver_2m, "ddim": ddim}


@dataclass(frozen=True)
class EarlyStart:
    """A model that starts at an index of its own table from a Gaussian p_noise."""

    model: ForeignModel
    noise: Gaussian | FullGaussian
    index: int

    @classmethod
    def at(cls, model: ForeignModel, T: float, noise: Noise) -> EarlyStart:
        """`noise` is p_noise at the time `T`. Raises BadModel if the model or p_noise cannot be exported."""
        if not isinstance(model.score, NoiseScore) or not isinstance(model.score.noise, IndexedNoise):
            raise BadModel(
                f"{model.name} is not a DDPM of diffusers: only such a model can be exported, or a cell of a study."
            )
        if not isinstance(noise, Gaussian | FullGaussian):
            raise BadModel(f"A p_noise that is a {type(noise).__name__} cannot be exported: take a Gaussian one.")
        if not model.epsilon < T <= model.T * (1 + 1e-9):
            raise BadModel(f"{model.name} was trained from {model.epsilon:g} to {model.T:g}, so T cannot be {T:g}.")
        return cls(model, noise, max(1, round(model.clock.index(torch.tensor(T, dtype=torch.float64)).item())))

    def indices(self, steps: int) -> list[int]:
        """The ends of the steps: from T to 0, as equal in lambda as whole indices allow."""
        every = torch.arange(self.model.clock.indices, dtype=torch.float64)
        level = self.model.sde.noise_level(self.model.clock.at_index(every))
        wanted = torch.linspace(level[self.index], level[0], steps + 1, dtype=torch.float64)
        return sorted(set((level - wanted[:, None]).abs().argmin(1).tolist()), reverse=True)

    def start(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """x_T from standard normal numbers."""
        mean = self.noise.mean.flatten().to(z)
        if isinstance(self.noise, FullGaussian):
            return mean + z @ self.noise.factor.to(z).T
        return mean + self.noise.variance.flatten().sqrt().to(z) * z

    def sample(self, z: Float[Tensor, "n d"], steps: int, sampler: str = "dpm_solver_2m") -> Float[Tensor, "n d"]:
        """x at index 0, in at most `steps` steps."""
        times = self.model.clock.at_index(torch.tensor(self.indices(steps), dtype=torch.float64))
        return SAMPLERS[sampler](self.model.score, self.model.sde, self.start(z), times)


def export(source: Path, start: EarlyStart, folder: Path, card: Mapping[str, str] | None = None) -> None:
    """Write the folder, whole or not at all; `source` is the folder that the model was read from.

    `card` are lines of the model card: what was measured, and its value. Raises BadModel if `folder` exists.
    """
    from diffusers.models.modeling_utils import ModelMixin

    if not isinstance(start.model.net, ModelMixin):
        raise BadModel(f"{start.model.name} is no model of diffusers, and only such models are exported.")
    with new_folder(folder) as whole:
        start.model.net.save_pretrained(whole / "unet")
        scheduler = source / "scheduler" if (source / "scheduler").is_dir() else source
        (whole / "scheduler").mkdir()
        shutil.copy(scheduler / "scheduler_config.json", whole / "scheduler")
        kind = json.loads((scheduler / "scheduler_config.json").read_text(encoding="utf-8"))["_class_name"]
        save_prior(whole / "prior", start.noise, start.model.shape, start.model.scale, start.index)
        save_index(whole, ["diffusers", kind], ["diffusers", "UNet2DModel"])
        clock = start.model.clock
        T = clock.at_index(torch.tensor(float(start.index), dtype=torch.float64)).item()
        rows = {"start": clock.words(T), "end": clock.words(start.model.epsilon), "p_noise": in_words(start.noise)}
        begins = (
            f"The reverse diffusion begins at index {start.index} of {clock.indices} from a Gaussian p_noise.\n"
            "It does not begin at the last index from pure noise. The network is the original one."
        )
        card_text = model_card(start.model.name, begins, rows | dict(card or {}))
        (whole / "README.md").write_text(card_text, encoding="utf-8")


def in_words(noise: Gaussian | FullGaussian) -> str:
    """What a p_noise is, for a model card."""
    return f"Gaussian with {'a full covariance' if isinstance(noise, FullGaussian) else 'independent pixels'}"


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder with the pipeline in it, to be filled; it appears whole or not at all. Raises BadModel if it exists."""
    if folder.exists():
        raise BadModel(f"{folder} exists already. Give another place, or delete it.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
        whole = Path(place) / folder.name
        shutil.copytree(CODE, whole, ignore=shutil.ignore_patterns("__*", "prior.py", "cell_unet.py"))
        yield whole
        whole.rename(folder)


def save_index(whole: Path, scheduler: list[str], unet: list[str]) -> None:
    """model_index.json: the library, or the file beside it, and the class of each part."""
    index = {
        "_class_name": ["pipeline", "EarlyStartPipeline"], "_diffusers_version": version("diffusers"),
        "prior": ["prior", "Prior"], "scheduler": scheduler, "unet": unet,
    }  # fmt: skip
    write_json(whole / "model_index.json", index)


def write_json(path: Path, content: Any) -> None:
    """As diffusers writes its settings."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def save_prior(
    place: Path,
    noise: Gaussian | FullGaussian,
    shape: tuple[int, int, int],
    scale: Scale,
    index: int,
    unit: float = 1.0,
) -> None:
    """p_noise and the code that draws from it; the pipeline's x is the x of `noise` over `unit`."""
    place.mkdir()
    full = isinstance(noise, FullGaussian)
    factor = noise.factor if isinstance(noise, FullGaussian) else noise.variance.flatten().sqrt()
    parts = {"mean": noise.mean.flatten(), "factor": factor}
    save_file(
        {name: (part / unit).float().contiguous() for name, part in parts.items()},
        place / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    config = {
        "_class_name": "Prior", "shape": list(shape), "full": full, "index": index,
        "start": scale.start, "width": scale.width,
    }  # fmt: skip
    write_json(place / "config.json", config)
    shutil.copy(CODE / "prior.py", place)


def model_card(name: str, begins: str, rows: dict[str, str]) -> str:
    """The README.md of the folder: its use, and what was measured."""
    rows = rows | {"difftime": __version__} | {package: version(package) for package in ("diffusers", "torch")}
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""# {name}, from an early start

{begins}

```python
from diffusers import DiffusionPipeline

folder = "."  # this folder
pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
images = pipe(batch_size=16, num_inference_steps=20).images
```

| | |
|---|---|
{table}
"""
