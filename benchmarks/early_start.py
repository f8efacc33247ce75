"""A foreign model from its usual start and from exported early starts, at equal numbers of network evaluations.

    python benchmarks/early_start.py bound my-ddpm --data mnist5k
    python benchmarks/early_start.py draw my-ddpm my-ddpm-fast --to drawn.npz
    python benchmarks/early_start.py show drawn.npz --data mnist5k --to early_start.png

`bound` holds the bound of one pass against a fresh Monte Carlo at four T. `draw` imports torch and diffusers alone, so
that it runs where difftime is not installed. `show` draws the figure of `docs/which-model.md` and prints the sliced
Wasserstein-1 distances to the test images, in units of x = k / 128 - 1.
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

Draw = Callable[[int, torch.Tensor], torch.Tensor]
"""(evaluations, standard normal numbers) to x."""
EVALUATIONS = (10, 20, 50)
USUAL = {
    "Usual start, pure noise at the last index: diffusers' DDIM, which clips x0": "DDIMScheduler",
    "Usual start, pure noise at the last index: diffusers' DPM-Solver++(2M)": "DPMSolverMultistepScheduler",
}
ROWS, COLUMNS = 4, 8
"""Pictures in a panel."""
TIMES = (0.25, 0.5, 0.75, 1.0)
"""Of VP(0.1, 20)."""


# draw: torch and diffusers alone


@torch.no_grad()
def usual(unet: Any, scheduler: Any, evaluations: int, z: torch.Tensor) -> torch.Tensor:
    """x at the end of a scheduler of diffusers, which starts from pure noise at the last index."""
    scheduler.set_timesteps(evaluations)
    x = z
    for index in scheduler.timesteps:
        x = scheduler.step(unet(x, index).sample, index, x).prev_sample
    return x


def early(pipe: Any, evaluations: int, z: torch.Tensor) -> torch.Tensor:
    """x at the end of an exported pipeline. Steps that would end at one index are taken once, so more are asked for."""
    exact = [steps for steps in range(evaluations, 9 * evaluations) if len(pipe.indices(steps)) == evaluations + 1]
    if not exact:
        raise SystemExit(f"No number of steps from index {pipe.prior.config.index} has {evaluations} evaluations.")
    return pipe(num_inference_steps=exact[0], z=z, output_type="latent").images


def draw(arguments: argparse.Namespace) -> None:
    """Save the pictures of every start as uint8 [starts, evaluations, n, channels, height, width]."""
    import diffusers

    unet = diffusers.UNet2DModel.from_pretrained(arguments.model / "unet", low_cpu_mem_usage=False).eval()
    starts: dict[str, Draw] = {}
    for title, kind in USUAL.items():
        scheduler = getattr(diffusers, kind).from_pretrained(arguments.model / "scheduler", timestep_spacing="trailing")
        starts[title] = partial(usual, unet, scheduler)
    for folder in arguments.folders:
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            folder, custom_pipeline=str(folder), trust_remote_code=True, low_cpu_mem_usage=False
        )
        pipe.set_progress_bar_config(disable=True)
        prior, last = pipe.prior.config, len(pipe.scheduler.betas) - 1
        p_noise = "full" if prior.full else "standard or matched"
        starts[f"Early start, {p_noise} p_noise at index {prior.index} of {last}: DPM-Solver++(2M)"] = partial(
            early, pipe
        )
    pictures = []
    for seed, (title, draw_some) in enumerate(starts.items()):
        z = torch.randn((arguments.images, *prior.shape), generator=torch.Generator().manual_seed(seed))
        for evaluations in EVALUATIONS:
            x = torch.cat([draw_some(evaluations, part) for part in z.split(arguments.batch)])
            pictures.append(((x - prior.start) / prior.width).clamp(0, 255).floor().to(torch.uint8).numpy())
            print(f"{title}, {evaluations} evaluations, {len(z)} pictures", flush=True)
    np.savez_compressed(
        arguments.to, titles=np.array([*starts]), model=np.array(arguments.model.resolve().name),
        pictures=np.stack(pictures).reshape(len(starts), len(EVALUATIONS), *pictures[0].shape),
    )  # fmt: skip


# show and bound: difftime


def show(arguments: argparse.Namespace) -> None:
    """Draw the figure, and print the distances."""
    from PIL import Image

    from difftime.figures import style
    from difftime.figures.settings import FigureSettings
    from difftime.images.sources import images_at
    from difftime.measures.quality import perfect_sliced_wasserstein1, projections, sliced_wasserstein1
    from difftime.support.files import atomic
    from difftime.tables.render import markdown_rows

    found = np.load(arguments.drawn, allow_pickle=False)
    data = images_at(arguments.data, arguments.data_dir, 0.2)
    test = projections(data.test)
    pictures, titles = found["pictures"], found["titles"].tolist()
    floor, floor_se = perfect_sliced_wasserstein1(data.train, test, pictures.shape[2])
    settings, rows = FigureSettings(), []
    with style.context(settings):
        figure, grid = style.panels(settings, len(titles), len(EVALUATIONS), 0.5 + 1.35 * len(titles))
        for line, title, of_start in zip(grid, titles, pictures, strict=True):
            for axes, drawn, count in zip(line, of_start, EVALUATIONS, strict=True):
                generator = torch.Generator().manual_seed(0)
                distance, se = sliced_wasserstein1(projections(torch.from_numpy(drawn)), test, generator)
                rows.append([title, f"{count}", f"{distance:.4f} ± {se:.4f}"])
                axes.imshow(tiled(drawn[: ROWS * COLUMNS]), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                axes.set_axis_off()
                axes.text(
                    0.5, -0.02, f"{count} evaluations, $W_1$ = {distance:.4f} ± {se:.4f}", ha="center", va="top",
                    transform=axes.transAxes, fontsize="x-small",
                )  # fmt: skip
            # longer than its panel, which stays as wide as the others
            line[0].set_title(title, loc="left", fontsize="small", fontweight="bold").set_in_layout(False)
        said = [
            f"model {found['model']}", f"data {data.name}", "pictures not selected",
            f"$W_1$: sliced Wasserstein-1 distance of {pictures.shape[2]} pictures",
            f"to {len(test)} test images [units of x]", "± a bootstrap standard error",
            f"as many training images have {floor:.4f} ± {floor_se:.4f}",
        ]  # fmt: skip
        style.footer(figure, settings, said)
        figure.savefig(drawn_as := io.BytesIO(), format="png")
    with atomic(arguments.to) as place:
        Image.open(drawn_as).convert("L").save(place, format="png", optimize=True)
    print(markdown_rows(["start", "evaluations", "sliced Wasserstein-1 [units of x]"], rows))
    print(f"As many training images: {floor:.4f} ± {floor_se:.4f}. {arguments.to}")


def tiled(pictures: np.ndarray) -> np.ndarray:
    """Grey pictures [ROWS * COLUMNS, 1, height, width] beside and below each other."""
    _, _, height, width = pictures.shape
    return pictures.reshape(ROWS, COLUMNS, height, width).transpose(0, 2, 1, 3).reshape(ROWS * height, COLUMNS * width)


def bound(arguments: argparse.Namespace) -> None:
    """Print the bits of one pass, those of a fresh Monte Carlo, and their difference, paired over images, at four T."""
    from difftime.images.sources import images_at
    from difftime.measures.curve import running_elbo
    from difftime.measures.image_elbo import image_elbo, over_images
    from difftime.models import load_model
    from difftime.models.scout import noises_of, points
    from difftime.tables.render import markdown_rows

    model, data = load_model(arguments.model), images_at(arguments.data, arguments.data_dir, 0.2)
    noises = noises_of(model, data.train, ["full"])
    index = torch.arange(arguments.images)
    x0 = points(model, data.test, index, "bound")
    times = model.clock.at_vp_time(torch.tensor(TIMES, dtype=torch.float64))
    options: dict[str, Any] = {"indices": index, "pairs": 16, "end_pairs": 2, "batch": arguments.batch}
    curve = running_elbo(
        model.score, model.sde, noises, times, x0, model.T, model.epsilon, seeds=["one pass"], **options
    )
    rows = []
    for k, T in enumerate(times.tolist()):
        fresh = image_elbo(
            model.score, model.sde, noises(T), x0, T, model.epsilon, seeds=[f"fresh {T}"], **options
        ).elbo_x0[:, 0]
        once, anew = (model.scale.bits_per_dimension(part, model.d) for part in (curve.elbo_x0[:, 0, k], fresh))
        for name, *parts in zip(("standard", "full"), once, anew, once - anew, strict=True):
            shown = [(mean.item(), se.item()) for mean, se in map(over_images, parts)]
            off = shown[-1][0] / shown[-1][1] if shown[-1][1] else math.nan
            rows.append([f"{T:.4g}", name, *(f"{mean:+.4f} ± {se:.4f}" for mean, se in shown), f"{off:+.1f}"])
    header = ["T", "p_noise", "one pass", "fresh Monte Carlo", "difference, paired", "in standard errors"]
    print(markdown_rows(header, rows))
    print(f"Bits per dimension, {arguments.images} test images of {data.name}, {2 * 18} evaluations for an image.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("bound", help="hold the bound of one pass against a fresh Monte Carlo")
    one.set_defaults(run=bound)
    one.add_argument("model", type=Path)
    one.add_argument("--images", type=int, default=128)
    two = commands.add_parser("draw", help="draw pictures from every start, with diffusers alone")
    two.set_defaults(run=draw)
    two.add_argument("model", type=Path)
    two.add_argument("folders", type=Path, nargs="+", help="exported pipelines")
    two.add_argument("--images", type=int, default=256, help=f"at least {ROWS * COLUMNS}")
    two.add_argument("--to", type=Path, required=True)
    three = commands.add_parser("show", help="draw the figure, and print the distances")
    three.set_defaults(run=show)
    three.add_argument("drawn", type=Path)
    three.add_argument("--to", type=Path, required=True)
    for command in (one, two):
        command.add_argument("--batch", type=int, default=64, help="images in the network at once")
    for command in (one, three):
        command.add_argument("--data", default="mnist5k")
        command.add_argument("--data-dir", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
