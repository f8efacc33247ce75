"""Diffusion times of score-based generative models: the steps of the pipeline, each by hand.

Rules of the pipeline and people call the same commands.
"""
# heavy imports stay inside the commands, so that `--help` is quick

from __future__ import annotations

import gc
import json
import logging
import sys
from collections.abc import Callable
from enum import StrEnum, auto
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

from difftime import __version__
from difftime.support.extras import lacks

try:
    import typer

    from difftime.study.settings import (
        BadSettings,
        FittedName,
        Measure,
        NoiseSettings,
        Study,
        family,
        parse,
        read_cell,
        read_measurement,
        study_in,
    )
except ModuleNotFoundError as missing:
    sys.exit(lacks("The command difftime", missing, "study"))

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


def _cell_folder(path: Path) -> Path:
    folder = path.parent if path.name == "cell.json" else path
    if not (folder / "cell.json").is_file():
        raise typer.BadParameter(f"{folder} has no cell.json, which snakemake writes into the folder of a cell")
    return folder


CellFolder = Annotated[
    Path, typer.Argument(metavar="CELL", help="The folder of a cell, or its cell.json", callback=_cell_folder)
]
SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        help="JSON; if not given, what snakemake wrote for the cell's data set",
        dir_okay=False,
        exists=True,
    ),
]
Planned = Annotated[
    str | None, typer.Option(help="The code that the job was planned with: other code is refused", hidden=True)
]
Threads = Annotated[int, typer.Option(help="CPU threads", min=1)]
GPUS = "kept from other jobs; 0: the CPU. If not given, one if there is one"
Gpus = Annotated[int | None, typer.Option(help=f"GPUs that share the work, {GPUS}", min=0)]
OneGpu = Annotated[int | None, typer.Option(help=f"Whether on a GPU, {GPUS}", min=0, max=1)]
Minutes = Annotated[float, typer.Option(help="Minutes between saved resume states", min=0)]
DATA = Path("data")
DataDir = Annotated[Path, typer.Option(help="Where downloaded data sets are, or go", file_okay=False)]
Results = Annotated[Path, typer.Argument(help="The study's results folder", file_okay=False, exists=True)]
Output = Annotated[Path, typer.Option(help="The file to write", dir_okay=False)]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A folder of diffusers, a .pth of score_sde_pytorch, or package.module:factory. Only a MODEL of the last "
        "form runs code: your own, which is imported and called.",
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help="A folder of images, an .npz, .npy or .parquet, or a data set by its name: mnist, cifar10, mnist5k, "
        "FashionMNIST, ... The test images should be new to the model"
    ),
]
TestShare = Annotated[float, typer.Option(help="Share of test images, where DATA is not split", min=0, max=1)]
Pixels = Annotated[
    Literal["cells", "centres"],
    typer.Option(
        help="What the ends of the model's range are: those of the cells of grey levels, k/128 - 1, or levels 0 and "
        "255, as ToTensor makes them"
    ),
]
Sde = Annotated[Literal["vp", "sub-vp", "ve"] | None, typer.Option(help="Of a .pth, where it is not recognised")]
Sigma = Annotated[float | None, typer.Option(help="The model's range of sigma, of a factory; EDM's if not given")]


class PNoise(StrEnum):
    """The p_noises that need no fit beside the moments of the data."""

    standard = auto()
    matched = auto()
    full = auto()


EVERY = [*PNoise]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadSettings(f"{path} is not JSON ({error}). Delete it and run snakemake, which writes it anew.") from None


def _settings_file(cell: Path, name: str) -> Path:
    """What a study says of one measurement of a cell: results/settings/<data set>/<measurement>.json."""
    above = [*cell.resolve().parents]
    path = above[min(4, len(above) - 1)] / "settings" / read_cell(cell / "cell.json").dataset / f"{name}.json"
    if not path.exists():
        raise BadSettings(f"{path} does not exist. Snakemake writes it; or name another file by --settings.")
    return path


def _expected_errors() -> tuple[type[Exception], ...]:
    """Errors whose message is meant for the person at the keyboard; the others keep their traceback."""
    expected: list[type[Exception]] = [BadSettings, OSError]
    for module, names in {
        "difftime.diffusion.p_noise": ["BadNoise"],
        "difftime.images.readers": ["BadImages"],
        "difftime.models.foreign": ["BadModel"],
        "difftime.study.devices": ["NoGpu"],
        "difftime.study.fingerprint": ["OtherCode"],
        "difftime.tables.parquet": ["BadTable"],
        "difftime.training.checkpoint": ["BadFile"],
        "difftime.training.parallel": ["BadGroup"],
        "difftime.support.signals": ["Interrupted"],
        "difftime.training.train": ["Diverged"],
    }.items():
        if module in sys.modules:
            expected += [getattr(sys.modules[module], name) for name in names]
    return tuple(expected)


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Make `function` a command: logging on, and expected errors as one message and exit code 1."""

    @wraps(function)
    def command(*args: Any, **kwargs: Any) -> None:
        logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
        logging.getLogger("difftime").setLevel(logging.INFO)  # ours alone: other packages are only to warn
        try:
            function(*args, **kwargs)
        except Exception as error:
            if not isinstance(error, _expected_errors()):
                raise
            typer.echo(f"difftime: {error}", err=True)
            raise typer.Exit(1) from None

    return app.command()(command)


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version and stop")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _use(command: str, planned: str | None, threads: int, gpus: int | None = 0) -> None:
    """Import PyTorch, with Python's garbage collector told that all of it stays: a third of a second per job.

    Code that was not planned is refused first. The memory of tensors stays with the process. As many GPUs as are wanted
    are claimed before PyTorch is imported, and their processes, which share the threads, are started here.
    """
    from difftime.study.devices import claim, confirm, in_group, visible
    from difftime.study.fingerprint import require
    from difftime.support import memory

    if planned is not None:
        require(planned, f"study.commands.{command}")
    memory.keep()
    claimed = 0
    if not in_group():
        claimed = claim(min(1, len(visible())) if gpus is None else gpus)
    gc.disable()
    import torch

    gc.freeze()
    gc.enable()
    torch.set_num_threads(max(1, threads // (gpus or 1)))
    confirm(claimed, torch.cuda.device_count)
    if gpus and gpus > 1:
        from difftime.training.parallel import launch

        launch(gpus)


def _measure(run: Callable[..., Any], cell: Path, name: Measure, given: Path | None, **options: Any) -> None:
    """Run a command that measures a trained cell, and leave a record of the run."""
    from difftime.study.runs import recorded

    kind = family(read_cell(cell / "cell.json").data.kind)
    how = read_measurement(given or _settings_file(cell, name), kind, name)
    threads = options.pop("threads")
    said: dict[str, Any] = {key: value if key == "group" else str(value) for key, value in options.items()}
    with recorded(cell, name, how.settings, p_noise=how.p_noise, threads=threads, **said) as did:
        did(run(cell, how.settings, how.p_noise, **options))


@_command
def train(
    cell: CellFolder,
    checkpoint_minutes: Minutes = 10.0,
    data_dir: DataDir = DATA,
    threads: Threads = 1,
    gpus: Gpus = None,
    planned: Planned = None,
) -> None:
    """Train the networks of a cell: cell.json -> weights.safetensors, history.parquet, training.parquet."""
    _use("train", planned, threads, gpus)
    from difftime.study.commands.train import run
    from difftime.study.runs import recorded
    from difftime.training.parallel import joined

    job: dict[str, Any] = {"data_dir": str(data_dir), "threads": threads, "checkpoint_minutes": checkpoint_minutes}
    with joined() as group, recorded(cell, "train", group=group, **job) as did:
        did(run(cell, checkpoint_minutes=checkpoint_minutes, data_dir=data_dir, group=group))


@_command
def fit_noise(
    cell: CellFolder,
    p_noise: Annotated[FittedName, typer.Option(help="What to fit")],
    settings: SettingsFile = None,
    data_dir: DataDir = DATA,
    threads: Threads = 1,
    planned: Planned = None,
) -> None:
    """Fit a p_noise for a cell's x_T, of training images or of a mixture: cell.json -> noise_NAME.safetensors."""
    _use("fit_noise", planned, threads)
    from difftime.study.commands.fit_noise import run
    from difftime.study.runs import recorded

    name = f"noise_{p_noise}"
    own = getattr(parse(NoiseSettings, {p_noise: _read_json(settings or _settings_file(cell, name))}, name), p_noise)
    with recorded(cell, name, own, data_dir=str(data_dir), threads=threads):
        run(cell, own, p_noise, data_dir=data_dir)


@_command
def elbo(
    cell: CellFolder,
    settings: SettingsFile = None,
    data_dir: DataDir = DATA,
    threads: Threads = 1,
    gpus: Gpus = None,
    planned: Planned = None,
) -> None:
    """The ELBO of a trained cell, term by term, and its curve up to T: -> elbo.parquet, curve.parquet."""
    _use("elbo", planned, threads, gpus)
    from difftime.study.commands.elbo import run
    from difftime.training.parallel import joined

    with joined() as group:
        _measure(run, cell, "elbo", settings, threads=threads, data_dir=data_dir, group=group)


@_command
def likelihood(
    cell: CellFolder,
    settings: SettingsFile = None,
    data_dir: DataDir = DATA,
    threads: Threads = 1,
    gpus: Gpus = None,
    planned: Planned = None,
) -> None:
    """Likelihood of held-out points, or bits per dimension of test images, and its NFE: -> likelihood.parquet."""
    _use("likelihood", planned, threads, gpus)
    from difftime.study.commands.likelihood import run
    from difftime.training.parallel import joined

    with joined() as group:
        _measure(run, cell, "likelihood", settings, threads=threads, data_dir=data_dir, group=group)


@_command
def samples(
    cell: CellFolder,
    settings: SettingsFile = None,
    data_dir: DataDir = DATA,
    threads: Threads = 1,
    gpus: OneGpu = None,
    planned: Planned = None,
) -> None:
    """Samples of a trained cell, compared with the data: -> samples, few_steps; modes, histogram or images.parquet."""
    _use("samples", planned, threads, gpus)
    from difftime.study.commands.samples import run

    _measure(run, cell, "samples", settings, threads=threads, data_dir=data_dir)


@_command
def collect(
    dataset: Annotated[str, typer.Argument(help="The name of the data")],
    table: Annotated[str, typer.Argument(help="The table's name")],
    results: Annotated[Path, typer.Option(help="The study's results folder", file_okay=False, exists=True)],
    output: Output,
    partial: Annotated[bool, typer.Option("--partial", help="Leave out what is not there yet, and list it")] = False,
) -> None:
    """The tables of all cells on some data as one: Parquet, Markdown and HTML.

    With --partial a second table, OUTPUT-missing, lists the files that are missing. OUTPUT must then lie outside the
    tables of the study.
    """
    from difftime.study import collecting, saving

    if partial and output.resolve().is_relative_to((results / "tables").resolve()):
        raise BadSettings(f"{output} is where a whole study's tables belong. Give a partial one another folder.")
    there, missing = collecting.parts(study_in(results), results, dataset, table)
    saving.save_collected(there if partial else there + missing, table, output)
    if partial:
        saving.save_missing(missing, output.with_name(f"{output.stem}-missing.parquet"))
        typer.echo(f"{len(missing)} of {len(there) + len(missing)} parts of {table} are missing.", err=True)


@_command
def partial(results: Results) -> None:
    """Make the possible tables and figures of an unfinished study, in RESULTS/partial, and list what is missing."""
    from difftime.study import collecting

    typer.echo(collecting.make_partial(results))


@_command
def show(results: Results) -> None:
    """Show the best T of a finished study, and where its tables and figures lie."""
    from difftime.study import collecting

    typer.echo(collecting.findings(results))


@_command
def suggest(
    results: Results,
    write: Annotated[
        Path | None, typer.Option(help="A study file, to which the suggested T are added", dir_okay=False, exists=True)
    ] = None,
) -> None:
    """Say for each curve which T to train next, and why; or that no further T is needed."""
    from difftime.study import collecting

    typer.echo(collecting.suggestions(results, write))


@_command
def scout_model(
    model: Model,
    data: Data,
    images: Annotated[
        int | None, typer.Option(help="Test images: half choose T, half judge it. If not given, 256 or all", min=1)
    ] = None,
    pairs: Annotated[int, typer.Option(help="Pairs of evaluations of the network for an image", min=1)] = 16,
    p_noise: Annotated[list[PNoise], typer.Option(help="Where to start from; may be given several times")] = EVERY,
    bpd: Annotated[int, typer.Option(help="Images to solve the probability-flow ODE for", min=0)] = 0,
    batch: Annotated[int, typer.Option(help="Images in the network at once", min=1)] = 64,
    output: Annotated[
        Path | None, typer.Option(help="A folder for the same as files, and as a table and a figure", file_okay=False)
    ] = None,
    test_share: TestShare = 0.2,
    pixels: Pixels = "cells",
    sde: Sde = None,
    sigma_min: Sigma = None,
    sigma_max: Sigma = None,
    data_dir: DataDir = DATA,
    threads: Threads = 1,
    gpus: OneGpu = None,
) -> None:
    """Find the best T of a model that somebody else trained: its ELBO at every T up to its own, in one pass."""
    _use("foreign", None, threads, gpus)
    from difftime.study.commands.foreign import Named, run_scout

    named = Named(model, data, data_dir, test_share, pixels, sde, sigma_min, sigma_max)
    typer.echo(run_scout(named, images=images, pairs=pairs, p_noise=p_noise, bpd=bpd, batch=batch, output=output))


@_command
def check_model(
    model: Model,
    data: Data,
    images: Annotated[int, typer.Option(help="Gaussian images to measure", min=2)] = 256,
    test_share: TestShare = 0.2,
    pixels: Pixels = "cells",
    sde: Sde = None,
    sigma_min: Sigma = None,
    sigma_max: Sigma = None,
    data_dir: DataDir = DATA,
    threads: Threads = 1,
) -> None:
    """Whether the bits of a model would be right: Gaussian images, whose bits are known, on its clock and scale.

    The network takes no part. DATA say the shape of the images. Ends with exit code 1 if the bits are wrong by more
    than 3 standard errors.
    """
    _use("foreign", None, threads)
    from difftime.study.commands.foreign import Named, run_check

    text, passed = run_check(Named(model, data, data_dir, test_share, pixels, sde, sigma_min, sigma_max), images)
    typer.echo(text)
    if not passed:
        raise typer.Exit(1)


@_command
def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A folder of diffusers with a DDPM's scheduler, or of a trained cell of images"
        ),
    ],
    to: Annotated[Path, typer.Option(help="The folder to write; it must not exist")],
    data: Annotated[
        str | None,
        typer.Option(
            help="The training images, a folder, an .npz or .npy, or mnist, cifar10 or mnist5k; a cell has its own"
        ),
    ] = None,
    T: Annotated[
        float | None,
        typer.Option("--T", help="Where to start, in the model's own time: T of scout-model; a cell has its own"),
    ] = None,
    p_noise: Annotated[
        PNoise, typer.Option(help="Where to start from, with the moments of the training images")
    ] = PNoise.full,
    scout: Annotated[
        Path | None, typer.Option(help="What scout-model wrote by --output, for the model card", file_okay=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Which of the models of a cell", min=0)] = 0,
    test_share: TestShare = 0.2,
    pixels: Pixels = "cells",
    data_dir: DataDir = DATA,
    threads: Threads = 1,
) -> None:
    """Write a model, or a cell of images, as a pipeline of diffusers that starts at T from a fitted p_noise.

    The pipeline needs diffusers alone. The model card of a cell is written from the tables of its study.
    """
    if (Path(model) / "cell.json").exists():
        if data is not None or scout is not None:
            raise BadSettings(f"{model} is a cell, which has data and tables of its own. Leave out --data and --scout.")
        _use("export_cell", None, threads)
        from difftime.study.commands import export_cell

        typer.echo(export_cell.run(Path(model), T, p_noise, to, seed, data_dir))
        return
    if data is None or T is None:
        raise BadSettings(f"Give --data and --T: {model} is no cell, which would have its own.")
    _use("foreign", None, threads)
    from difftime.study.commands.foreign import Named, run_export

    typer.echo(run_export(Named(model, data, data_dir, test_share, pixels), T, p_noise, to, scout))


@_command
def schema() -> None:
    """Print the JSON schema of a configuration file, for editors."""
    typer.echo(json.dumps(Study.model_json_schema(), indent=2))


if __name__ == "__main__":
    app()
