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
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from difftime import __version__
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
DataDir = Annotated[Path, typer.Option(help="Where mnist and cifar10 are, or are downloaded to", file_okay=False)]
Results = Annotated[Path, typer.Argument(help="The study's results folder", file_okay=False, exists=True)]
Output = Annotated[Path, typer.Option(help="The file to write", dir_okay=False)]


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

    Code that was not planned is refused first. As many GPUs as are wanted are claimed before PyTorch is imported, and
    their processes, which share the threads, are started here.
    """
    from difftime.study.devices import claim, confirm, in_group, visible
    from difftime.study.fingerprint import require

    if planned is not None:
        require(planned, f"study.commands.{command}")
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
    said = {key: value if key == "group" else str(value) for key, value in options.items()}
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

    job = {"data_dir": str(data_dir), "threads": threads, "checkpoint_minutes": checkpoint_minutes}
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
    """Take the ELBO of a trained cell apart, at every time that it knows: -> elbo.parquet, curve.parquet."""
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
    """Samples of a trained cell, compared with the data: -> samples.parquet; modes, histogram or images.parquet."""
    _use("samples", planned, threads, gpus)
    from difftime.study.commands.samples import run

    _measure(run, cell, "samples", settings, threads=threads, data_dir=data_dir)


@_command
def collect(
    table: Annotated[str, typer.Argument(help="The table's name")],
    results: Annotated[Path, typer.Option(help="The study's results folder", file_okay=False, exists=True)],
    output: Output,
    partial: Annotated[bool, typer.Option("--partial", help="Leave out what is not there yet, and list it")] = False,
) -> None:
    """The tables of single cells as one: Parquet, Markdown and HTML.

    With --partial a second table, OUTPUT-missing, has a row for each file that is missing; and OUTPUT may not lie among
    the study's own tables.
    """
    from difftime.study import collecting

    if partial and output.resolve().parent == (results / "tables").resolve():
        raise BadSettings(f"{output} is where the whole study's table belongs. Give a partial one another folder.")
    there, missing = collecting.parts(study_in(results), results, table)
    collecting.save_collected(there if partial else there + missing, table, output)
    if partial:
        collecting.save_missing(missing, output.with_name(f"{output.stem}-missing.parquet"))
        typer.echo(f"{len(missing)} of {len(there) + len(missing)} parts of {table} are missing.", err=True)


@_command
def partial(results: Results) -> None:
    """Make the tables and figures that can be made of an unfinished study, into RESULTS/partial, and say what lacks."""
    from difftime.study import collecting

    typer.echo(collecting.make_partial(results))


@_command
def show(results: Results) -> None:
    """Say where a study's tables and figures lie, and which T is best. One whose tables lack something is refused."""
    from difftime.study import collecting

    typer.echo(collecting.findings(results))


@_command
def suggest(
    results: Results,
    write: Annotated[
        Path | None, typer.Option(help="A study file, to which the suggested T are added", dir_okay=False, exists=True)
    ] = None,
) -> None:
    """Which T to train next, curve by curve, and why; or that there are enough."""
    from difftime.study import collecting

    typer.echo(collecting.suggestions(results, write))


@_command
def schema() -> None:
    """Print the JSON schema of a configuration file, for editors."""
    typer.echo(json.dumps(Study.model_json_schema(), indent=2))


if __name__ == "__main__":
    app()
