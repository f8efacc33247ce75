"""Diffusion times of score-based generative models: the steps of the pipeline, each by hand.

Rules of the pipeline and people call the same verbs.
"""
# heavy imports stay inside the verbs, so that `--help` is quick and redrawing a figure needs no torch

from __future__ import annotations

import gc
import json
import logging
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from difftime import __version__
from difftime.study.settings import (
    BadSettings,
    BpdSettings,
    CollectedName,
    Decision,
    ElboSettings,
    FigureName,
    FigureSettings,
    FittedName,
    Grid,
    ImageElboSettings,
    ImageNeeds,
    ImageSampleSettings,
    ImageSettings,
    LikelihoodSettings,
    Line,
    NoiseName,
    NoiseSettings,
    OptimumSettings,
    RefineSettings,
    RunningSettings,
    SampleSettings,
    Settings,
    Study,
    added_times,
    decisions,
    parse,
    round_name,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


def _cell_file(path: Path) -> Path:
    if path.name != "cell.json":
        raise typer.BadParameter(f"{path} is not called cell.json, as the settings of a cell are")
    return path


CellFile = Annotated[
    Path,
    typer.Argument(help="The cell's cell.json; its folder holds the rest", dir_okay=False, callback=_cell_file),
]
JsonText = Annotated[str, typer.Option(help="Settings as JSON; what is left out keeps its default")]
Noise = StrEnum("Noise", get_args(NoiseName))
"""NoiseName, as typer takes no list of literals."""
Noises = Annotated[list[Noise], typer.Option(help="Where the reverse process starts; may be given more than once")]
Threads = Annotated[int, typer.Option(help="CPU threads", min=1)]
GPUS = "kept from other jobs; 0: the CPU. If not given, one if there is one"
Gpus = Annotated[int | None, typer.Option(help=f"GPUs that share the work, {GPUS}", min=0)]
OneGpu = Annotated[int | None, typer.Option(help=f"Whether on a GPU, {GPUS}", min=0, max=1)]
Minutes = Annotated[float, typer.Option(help="Minutes between saved resume states", min=0)]
DATA = Path("data")
DataDir = Annotated[Path, typer.Option(help="Where mnist and cifar10 are, or are downloaded to", file_okay=False)]
Table = Annotated[Path, typer.Option(help="The Parquet table of this name")]
Measured = Annotated[Path | None, typer.Option(help="The Parquet table of this name; left out if not measured")]
Output = Annotated[Path, typer.Option(help="The file to write")]


def _json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadSettings(f"{source} is not JSON: {error}") from None


def _settings(kind: Any, text: str) -> Any:
    return parse(kind, _json(text, "--settings"), "--settings")


def _expected_errors() -> tuple[type[Exception], ...]:
    """Errors whose message is meant for the person at the keyboard; the others keep their traceback."""
    expected: list[type[Exception]] = [BadSettings, OSError]
    for module, names in {
        "difftime.training.checkpoint": ["BadFile"],
        "difftime.study.devices": ["NoGpu"],
        "difftime.images.readers": ["BadImages"],
        "difftime.diffusion.p_noise": ["BadNoise"],
        "difftime.training.parallel": ["BadGroup"],
        "difftime.study.fingerprint": ["OtherCode"],
        "difftime.support.signals": ["Interrupted"],
        "difftime.training.train": ["Diverged"],
        "difftime.tables.derived": ["BadTable"],
    }.items():
        if module in sys.modules:
            expected += [getattr(sys.modules[module], name) for name in names]
    return tuple(expected)


def _verb(function: Callable[..., None]) -> Callable[..., None]:
    """Make `function` a verb: logging on, and expected errors as one message and exit code 1."""

    @wraps(function)
    def verb(*args: Any, **kwargs: Any) -> None:
        logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
        logging.getLogger("difftime").setLevel(logging.INFO)  # ours alone: other packages are only to warn
        try:
            function(*args, **kwargs)
        except Exception as error:
            if not isinstance(error, _expected_errors()):
                raise
            typer.echo(f"difftime: {error}", err=True)
            raise typer.Exit(1) from None

    return app.command()(verb)


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version and stop")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _use(threads: int, gpus: int | None = 0) -> None:
    """Import PyTorch, with Python's garbage collector told that all of it stays: a third of a second per job.

    As many GPUs as are wanted are claimed before, and their processes, which share the threads, are started here.
    """
    from difftime.study.devices import claim, confirm, in_group, visible

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


def _measure(
    run: Callable[..., None],
    cell: Path,
    verb: str,
    settings: Settings,
    p_noise: list[str],
    threads: int,
    **options: Any,
) -> None:
    """Run a verb that measures a trained cell, and leave a record of the run."""
    from difftime.study.runs import recorded

    if len({*p_noise}) < len(p_noise):
        raise BadSettings(f"--p-noise is given twice with the same name: {', '.join(p_noise)}.")
    said = {name: value if name == "group" else str(value) for name, value in options.items()}
    with recorded(cell.parent, verb, settings, p_noise=p_noise, threads=threads, **said):
        run(cell.parent, settings, p_noise, **options)


@_verb
def fetch(
    settings: JsonText,
    output: Output,
    needs: Annotated[str, typer.Option(help="As JSON: networks, batches and numbers of test images to fit")] = "{}",
    data_dir: DataDir = DATA,
) -> None:
    """Read the images of a data set, downloading them if they are absent: -> a file that says what they are."""
    from difftime.study.commands.fetch import run

    wanted = parse(ImageNeeds, _json(needs, "--needs"), "--needs")
    run(_settings(ImageSettings, settings), wanted, output, data_dir=data_dir)


@_verb
def train(
    cell: CellFile,
    checkpoint_minutes: Minutes = 10.0,
    data_dir: DataDir = DATA,
    threads: Threads = 1,
    gpus: Gpus = None,
) -> None:
    """Train the networks of a cell: cell.json -> weights.safetensors, history.parquet, training.parquet."""
    _use(threads, gpus)
    from difftime.study.commands.train import run
    from difftime.study.runs import recorded
    from difftime.training.parallel import joined

    job = {"data_dir": str(data_dir), "threads": threads, "checkpoint_minutes": checkpoint_minutes}
    with joined() as group, recorded(cell.parent, "train", group=group, **job):
        run(cell.parent, checkpoint_minutes=checkpoint_minutes, data_dir=data_dir, group=group)


@_verb
def fit_noise(
    cell: CellFile,
    p_noise: Annotated[FittedName, typer.Option(help="What to fit")],
    settings: JsonText = "{}",
    data_dir: DataDir = DATA,
    threads: Threads = 1,
) -> None:
    """Fit a p_noise for a cell's x_T, of training images or of a mixture: cell.json -> noise_NAME.safetensors."""
    _use(threads)
    from difftime.study.commands.fit_noise import run
    from difftime.study.runs import recorded

    own = getattr(parse(NoiseSettings, {p_noise: _json(settings, "--settings")}, "--settings"), p_noise)
    with recorded(cell.parent, f"noise_{p_noise}", own, data_dir=str(data_dir), threads=threads):
        run(cell.parent, own, p_noise, data_dir=data_dir)


@_verb
def elbo(cell: CellFile, p_noise: Noises, settings: JsonText = "{}", threads: Threads = 1) -> None:
    """Take the ELBO of a trained cell apart: -> elbo.parquet."""
    _use(threads)
    from difftime.study.commands.elbo import run

    _measure(run, cell, "elbo", _settings(ElboSettings, settings), p_noise, threads=threads)


@_verb
def running(cell: CellFile, p_noise: Noises, settings: JsonText = "{}", threads: Threads = 1) -> None:
    """What a trained cell says of every diffusion time up to its own: -> running.parquet."""
    _use(threads)
    from difftime.study.commands.running import run

    _measure(run, cell, "running", _settings(RunningSettings, settings), p_noise, threads=threads)


@_verb
def likelihood(cell: CellFile, p_noise: Noises, settings: JsonText = "{}", threads: Threads = 1) -> None:
    """Likelihood of held-out points under a trained cell's ODE and SDE: -> likelihood.parquet."""
    _use(threads)
    from difftime.study.commands.likelihood import run

    _measure(run, cell, "likelihood", _settings(LikelihoodSettings, settings), p_noise, threads=threads)


@_verb
def samples(cell: CellFile, p_noise: Noises, settings: JsonText = "{}", threads: Threads = 1) -> None:
    """Samples of a trained cell, compared with the data: -> samples, modes, histogram and cost.parquet."""
    _use(threads)
    from difftime.study.commands.samples import run

    _measure(run, cell, "samples", _settings(SampleSettings, settings), p_noise, threads=threads)


@_verb
def collect(
    table: Annotated[CollectedName, typer.Argument(help="The table's name")],
    cells: Annotated[Path, typer.Option(help="The study's grid, as the pipeline writes it, beside the folder cells")],
    output: Output,
    partial: Annotated[bool, typer.Option("--partial", help="Leave out what is not there yet, and list it")] = False,
) -> None:
    """The tables of single cells as one: Parquet, Markdown and HTML.

    With --partial a second table, OUTPUT-missing, has a row for each file that is missing; and OUTPUT may not lie among
    the study's own tables.
    """
    from difftime.tables import derived as tables

    there, missing = _parts(cells, table, partial)
    if not partial:
        there += missing
    elif output.resolve().parent == (cells.parent / "tables").resolve():
        raise BadSettings(f"{output} is where the whole study's table belongs. Give a partial one another folder.")
    elif not there:
        raise BadSettings(f"No cell has its part of the table {table} yet.")
    tables.save(tables.collect(there, table), table, output)
    if partial:
        tables.save(tables.missing(missing), "missing", output.with_name(f"{output.stem}-missing.parquet"))
        typer.echo(f"{len(missing)} of {len(there) + len(missing)} parts of {table} are missing.", err=True)


def _grid(cells: Path) -> Grid:
    return parse(Grid, _json(cells.read_text(), str(cells)), str(cells))


def _made(cells: Path, line: Line) -> Callable[[int], Path]:
    """Where the decision of a round on a line is."""
    return lambda round: cells.parent / round_name(line, round)


def _added(cells: Path, line: Line, partial: bool) -> list[float]:
    """The times added to a line: of a refinement that goes on those so far, if that is asked for."""
    times = []
    try:
        for T in added_times(_made(cells, line)):
            times.append(T)
    except FileNotFoundError as error:
        if not partial:
            raise
        typer.echo(f"WARNING: cells may be to come: {error}", err=True)
    return times


def _parts(cells: Path, table: CollectedName, partial: bool = False) -> tuple[list[Path], list[Path]]:
    """The files that a table is collected from: those that are there, and those that are not."""
    grid = _grid(cells).extended(lambda line: _added(cells, line, partial))
    paths = [cells.parent / "cells" / part for part in grid.parts(table)]
    return [path for path in paths if path.exists()], [path for path in paths if not path.exists()]


@_verb
def optimum(elbo: Table, output: Output, seed: int = 0, settings: JsonText = "{}") -> None:
    """The optimal T of every line of the elbo table, with its bootstrap interval."""
    from difftime.tables import derived as tables

    found = tables.optimum(tables.read(elbo, "elbo"), _settings(OptimumSettings, settings), seed)
    tables.save(found, "optimum", output)


@_verb
def scout(
    running: Table,
    elbo: Table,
    optimum: Table,
    runs: Table,
    output: Output,
    curves: Annotated[Path, typer.Option(help="Where to write the predicted curves")],
    refined: Annotated[Path | None, typer.Option(help="Left out if the study refines no line")] = None,
    seed: int = 0,
    settings: JsonText = "{}",
) -> None:
    """Predict T* from the running integrals of a few cells, and hold it against all trained ones."""
    from difftime.optimum.scouting import scout
    from difftime.tables import derived as tables

    paths = {"running": running, "elbo": elbo, "optimum": optimum, "runs": runs}
    frames = [tables.read(path, name) for name, path in paths.items()]
    whole = tables.read(refined, "refined") if refined else tables.empty("refined")
    found, lines = scout(*frames, whole, _settings(OptimumSettings, settings), seed)
    tables.save(lines, "scout_curves", curves)
    tables.save(found, "scout", output)


@_verb
def refine(
    running: Annotated[list[Path], typer.Argument(help="running.parquet of all the line's cells so far")],
    p_noise: Annotated[NoiseName, typer.Option(help="The one whose optimum is looked for")],
    settings: Annotated[str, typer.Option(help="tolerance and cells, as JSON")],
    output: Output,
    optimum: JsonText = "{}",
    seed: int = 0,
) -> None:
    """Decide which T of a line to train next, or why none: -> a file with the decision."""
    from difftime.optimum.scouting import decide
    from difftime.support.files import atomic
    from difftime.tables import derived as tables

    of_line = _settings(RefineSettings, settings)
    of_optimum = parse(OptimumSettings, _json(optimum, "--optimum"), "--optimum")
    frame = tables.collect(running, "running")
    found = decide(frame[frame.p_noise == p_noise], of_line, of_optimum, seed)
    with atomic(output) as temporary:
        temporary.write_text(found.canonical() + "\n")
    typer.echo(f"{'WARNING: ' if found.stopped not in (None, 'narrow') else ''}{found.why}")


@_verb
def refined(
    cells: Annotated[Path, typer.Option(help="The study's grid, beside the folder refine")],
    runs: Table,
    optimum: Table,
    output: Output,
) -> None:
    """How the refinement of every line went and ended, and what its training took."""
    from difftime.optimum.scouting import refined
    from difftime.tables import derived as tables

    def decided(line: Line) -> list[Decision]:
        return [*decisions(_made(cells, line))]

    frames = tables.read(runs, "runs"), tables.read(optimum, "optimum")
    tables.save(refined(_grid(cells).study, decided, *frames), "refined", output)


@_verb
def bounds(elbo: Table, likelihood: Table, output: Output) -> None:
    """Check ELBO <= E log q <= -entropy for the reverse SDE in every row, and say so loudly where it fails."""
    from difftime.tables import derived as tables

    found = tables.bounds(tables.read(elbo, "elbo"), tables.read(likelihood, "likelihood"))
    tables.save(found, "bounds", output)
    broken = found[found.verdict == "broken"]
    if len(broken):
        typer.echo(f"WARNING: {len(broken)} of {len(found)} rows break ELBO <= E log q_SDE <= E log p:", err=True)
        typer.echo(tables.markdown(broken), err=True)
    typer.echo(tables.verdict(found))


@_verb
def summarise(
    elbo: Table,
    optimum: Table,
    output: Output,
    likelihood: Measured = None,
    samples: Measured = None,
) -> None:
    """Means and standard errors over seeds, beside the optimal T."""
    from difftime.tables import derived as tables

    frames = {
        name: tables.read(path, name) if path else tables.empty(name)
        for name, path in {"elbo": elbo, "likelihood": likelihood, "samples": samples}.items()
    }
    tables.save(tables.summarise(**frames, best=tables.read(optimum, "optimum")), "summary", output)


@_verb
def table1(bpd: Table, image_elbo: Table, training: Table, output: Output) -> None:
    """The paper's Table 1 from the tables of image cells: Parquet, Markdown, LaTeX and HTML."""
    from difftime.tables import derived as tables

    frames = [
        tables.read(path, name) for name, path in {"bpd": bpd, "image_elbo": image_elbo, "training": training}.items()
    ]
    tables.save_table1(tables.table1(*frames), output)


@_verb
def table2(
    table1: Table,
    output: Output,
) -> None:
    """The cheapest T and p_noise within a standard error of the best BPD, from Table 1: Parquet, .md, .tex, HTML."""
    from difftime.tables import derived as tables

    tables.save_table2(tables.table2(tables.read(table1, "table1")), output)


@_verb
def tradeoff(
    training: Table,
    cells: Annotated[
        Path, typer.Option(help="The study's grid, beside the folder cells: for the values of each image")
    ],
    output: Output,
    elbo: Measured = None,
    likelihood: Measured = None,
    samples: Measured = None,
    bpd: Measured = None,
    image_elbo: Measured = None,
    image_quality: Measured = None,
) -> None:
    """What every choice of SDE, network, T and p_noise costs, how good it is, and which of them are efficient."""
    from difftime.optimum.tradeoff import tradeoff
    from difftime.tables import derived as tables

    given = {
        "training": training, "elbo": elbo, "likelihood": likelihood, "samples": samples, "bpd": bpd,
        "image_elbo": image_elbo, "image_quality": image_quality,
    }  # fmt: skip
    frames = {name: tables.read(path, name) for name, path in given.items() if path}
    for name in ("bpd", "image_elbo"):
        if name in frames:
            of_images = f"{name}_images"
            paths = [path.with_name(f"{of_images}.parquet") for path in _parts(cells, name)[0]]
            frames[of_images] = tables.collect(paths, of_images)
    tables.save(tradeoff(frames), "tradeoff", output)


@_verb
def bpd(
    cell: CellFile,
    p_noise: Noises,
    settings: JsonText = "{}",
    data_dir: DataDir = DATA,
    threads: Threads = 1,
    gpus: Gpus = None,
) -> None:
    """Bits per dimension and NFE of the test images under a trained cell's ODE: -> bpd.parquet, bpd_images.parquet."""
    _use(threads, gpus)
    from difftime.study.commands.bpd import run
    from difftime.training.parallel import joined

    of_verb = _settings(BpdSettings, settings)
    with joined() as group:
        _measure(run, cell, "bpd", of_verb, p_noise, threads=threads, group=group, data_dir=data_dir)


@_verb
def image_elbo(
    cell: CellFile,
    p_noise: Noises,
    settings: JsonText = "{}",
    data_dir: DataDir = DATA,
    threads: Threads = 1,
    gpus: Gpus = None,
) -> None:
    """The ELBO of the test images, term by term: -> image_elbo.parquet, image_elbo_images.parquet."""
    _use(threads, gpus)
    from difftime.study.commands.image_elbo import run
    from difftime.training.parallel import joined

    of_verb = _settings(ImageElboSettings, settings)
    with joined() as group:
        _measure(run, cell, "image_elbo", of_verb, p_noise, threads=threads, group=group, data_dir=data_dir)


@_verb
def image_samples(
    cell: CellFile,
    p_noise: Noises,
    settings: JsonText = "{}",
    data_dir: DataDir = DATA,
    threads: Threads = 1,
    gpus: OneGpu = None,
) -> None:
    """Images drawn from a trained cell's reverse SDE: -> image_samples.parquet, image_quality.parquet."""
    _use(threads, gpus)
    from difftime.study.commands.image_samples import run

    of_verb = _settings(ImageSampleSettings, settings)
    _measure(run, cell, "image_samples", of_verb, p_noise, threads=threads, data_dir=data_dir)


@_verb
def figure(
    name: Annotated[FigureName, typer.Argument(help="The figure's name")],
    table: Annotated[Path, typer.Option(help="The Parquet table that the figure shows")],
    output: Annotated[Path, typer.Option(help="The PDF to write; a PNG is written beside it")],
    settings: JsonText = "{}",
) -> None:
    """Draw a figure from its table."""
    from difftime import figures

    figures.draw(name, table, output, _settings(FigureSettings, settings))


@_verb
def show(
    results: Annotated[Path, typer.Argument(help="The study's results folder", file_okay=False, exists=True)],
) -> None:
    """Say where a study's tables and figures lie, and which T is best. One whose tables lack something is refused."""
    from difftime.tables import derived as tables

    cells = results / "cells.json"
    if cells.exists():
        made = [results / "tables" / f"{table}.parquet" for table in _grid(cells).tables()]
        missing = [path for table in get_args(CollectedName) for path in _parts(cells, table)[1]]
        missing += [path for path in made if not path.exists()]
        if missing:
            listed = "\n".join(f"  {path.relative_to(results)}" for path in missing)
            raise BadSettings(
                f"The study in {results} is not complete; these are missing:\n{listed}\nRun snakemake again, or make "
                "tables of what is there by difftime collect --partial."
            )
    typer.echo(tables.findings(results))


@_verb
def schema() -> None:
    """Print the JSON schema of a configuration file, for editors."""
    typer.echo(json.dumps(Study.model_json_schema(), indent=2))


if __name__ == "__main__":
    app()
