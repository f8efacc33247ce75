"""The GPU ticket on the CPU, with a network of width 8 on images of 8 × 8 pixels."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_stages
from benchmarks.gpu_stages import Bench, Form, Size
from difftime.images.readers import ImageData
from difftime.study.cell import ImageProblem, build_sde
from difftime.study.cell import recipe as recipe_of
from difftime.study.commands.common import dequantised, measured_images
from difftime.study.settings import read_study

ROOT = Path(__file__).parent.parent
FORMS = (Form(), Form(tuned=True, graph=True))
MEASURED = [
    "device",
    "peak",
    "CPU and GPU",
    "training speed, eager",
    "training speed, tuned, graph",
    "ELBO speed",
    "BPD speed",
]


def images(seed: int = 0) -> ImageData:
    generator = torch.Generator().manual_seed(seed)
    train, test = (torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=generator) for n in (24, 12))
    return ImageData("noise", train, test, f"digest {seed}")


def tiny() -> Size:
    size = gpu_stages.small()
    return replace(
        size, network=size.network | {"multipliers": (1,)}, product=32, repeats=2, blocks=2, calls=(2,), images=4,
        batch=2, tolerance=0.1, forms=FORMS,
    )  # fmt: skip


def bench(**changes: Any) -> Bench:
    return Bench(replace(tiny(), **changes), images(), torch.device("cpu"))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small images in place of MNIST."""
    monkeypatch.setattr(gpu, "mnist", lambda folder, download: images())
    monkeypatch.setattr(gpu, "RESERVE", 0.5)


def run(out: Path, minutes: float = 1.0, size: Size | None = None) -> int:
    return gpu.main(["--small", "--data-dir", ".", "--out", str(out), "--minutes", str(minutes)], size or tiny())


def stages(out: Path) -> dict[str, Any]:
    return json.loads((out / gpu.RESULTS).read_text())["stages"]


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every stage begin and end, and a training take two seconds, however slow the machine is."""
    trained_for = gpu.Ticket.trained_for
    monkeypatch.setattr(gpu.Ticket, "left", 1e3)
    monkeypatch.setattr(gpu, "within", lambda seconds: nullcontext())
    monkeypatch.setattr(gpu.Ticket, "trained_for", lambda ticket, seconds, form: trained_for(ticket, 2.0, form))


@pytest.mark.usefixtures("here", "unhurried")
def test_two_pieces_measure_train_and_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 0
    first = stages(tmp_path)
    assert list(first) == [*MEASURED, "training, piece 1"]
    assert not any("failed" in row or "left out" in row for stage in first.values() for row in stage["rows"])
    printed = capsys.readouterr().out
    assert printed.strip() == (tmp_path / gpu.TABLE).read_text().strip()
    assert run(tmp_path) == 0
    second = stages(tmp_path)
    assert {name: second[name] for name in first} == first
    steps = [second[f"training, piece {k}"]["rows"][0]["steps"] for k in (1, 2)]
    assert 0 < steps[0] < steps[1]
    elbo, ode, both = second[f"after {steps[1]} steps"]["rows"]
    assert both["mean"] == pytest.approx(ode["mean"] - elbo["mean"])
    # images without structure have 8 bits a pixel, and more under another model
    assert 8 < elbo["mean"] + 4 * elbo["se"] < 100
    assert len(ode["nfe"]) == 2
    assert all(math.isfinite(row["se"]) for row in (elbo, ode, both))


@dataclass
class Made:
    """A ticket whose stages are made up, and which of them were done."""

    ticket: gpu.Ticket
    done: list[str]


def made(out: Path, monkeypatch: pytest.MonkeyPatch, work: dict[str, Callable[[], object]], left: float = 1e3) -> Made:
    """A ticket of these stages, which may take a tenth of a second each, and of no training."""
    done: list[str] = []

    def row(name: str) -> list[gpu.Row]:
        work[name]()
        done.append(name)
        return [{"what": name, "median": len(name)}]

    plan = [gpu.Stage(name, 0.1, lambda name=name: row(name)) for name in work]
    monkeypatch.setattr(gpu.Ticket, "plan", lambda ticket: plan)
    monkeypatch.setattr(gpu.Ticket, "train", lambda ticket, seconds: None)
    ticket = gpu.Ticket(bench(), out, time.monotonic() + left + gpu.RESERVE, threading.Event())
    return Made(ticket, done)


def nothing() -> None:
    pass


def hides() -> None:
    """As the compiler does with an error in it."""
    try:
        time.sleep(20)
    except gpu.TooLong as error:
        raise RuntimeError("InductorError") from error


def fails() -> None:
    raise RuntimeError("CUDA error: an illegal memory access | was encountered")


def test_a_stage_that_fails_or_takes_too_long_is_a_line_and_the_next_one_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = {"a": nothing, "b": fails, "c": lambda: time.sleep(20), "d": hides, "e": nothing}
    one = made(tmp_path, monkeypatch, work)
    assert not one.ticket.run()
    assert one.done == ["a", "e"]
    assert list(stages(tmp_path)) == ["a", "b", "c", "d", "e"]
    table = one.ticket.table()
    assert "FAILED: RuntimeError: CUDA error" in table
    assert table.count("LEFT OUT: stopped after 0 s") == 2
    assert len({line.count("|") for line in table.splitlines()}) == 1
    # what failed once is not tried again in the folder
    again = made(tmp_path, monkeypatch, work)
    assert again.ticket.run()
    assert again.done == []


def test_a_stage_for_which_no_time_is_left_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(tmp_path, monkeypatch, {"a": nothing}, left=0.05)
    assert one.ticket.run()
    assert one.done == []
    assert "it may take 0 s, but 0 s were left" in one.ticket.table()


def test_a_cut_loses_the_stage_that_it_meets_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut(BaseException):
        """Stands for a SIGKILL."""

    def cut() -> None:
        raise Cut

    one = made(tmp_path, monkeypatch, {"a": nothing, "b": cut, "c": nothing})
    with pytest.raises(Cut):
        one.ticket.run()
    assert list(stages(tmp_path)) == ["a"]
    again = made(tmp_path, monkeypatch, {"a": nothing, "b": nothing, "c": nothing})
    assert again.ticket.run()
    assert again.done == ["b", "c"]


def test_a_ticket_that_is_asked_to_stop_ends_its_stage_and_begins_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made(tmp_path, monkeypatch, {"a": lambda: one.ticket.stop.set(), "b": nothing})
    assert not one.ticket.run()
    assert list(stages(tmp_path)) == ["a"]


@pytest.mark.usefixtures("here")
def test_sigterm_ends_a_training_with_its_state_saved_and_the_table_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu.Ticket, "plan", lambda ticket: [])
    monkeypatch.setattr(gpu.Ticket, "left", 1e3)
    timer = threading.Timer(2, os.kill, [os.getpid(), signal.SIGTERM])
    timer.start()
    assert run(tmp_path) == 1
    timer.join()
    (trained,) = stages(tmp_path)["training, piece 1"]["rows"]
    assert trained["steps"] > 0
    assert f"| {trained['steps']} |" in capsys.readouterr().out
    assert (tmp_path / gpu.STATE).exists()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("what", ["settings", "images", "code", "damage"])
def test_a_folder_of_other_results_is_refused_and_left_alone(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = made(tmp_path, monkeypatch, {"a": nothing})
    one.ticket.run()
    size = tiny()
    if what == "settings":
        size = replace(size, network=size.network | {"width": 16})
    elif what == "images":
        monkeypatch.setattr(gpu, "mnist", lambda folder, download: images(1))
    elif what == "code":
        monkeypatch.setattr(gpu, "fingerprint", lambda module: "other")
    else:
        (tmp_path / gpu.RESULTS).write_text("{}")
    before = (tmp_path / gpu.RESULTS).read_bytes()
    assert run(tmp_path, size=size) == 1
    error = capsys.readouterr().err
    assert "--out" in error
    assert what == "damage" or f"other {what}" in error
    assert (tmp_path / gpu.RESULTS).read_bytes() == before


def test_without_a_gpu_the_command_says_so_and_needs_no_pydantic(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules.update(pydantic=None, snakemake=None, mlxtend=None)\n"
        "from benchmarks.gpu import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 1
    assert "There is no GPU here. --small rehearses" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_mnist_the_command_says_where_it_has_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--small", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert str(tmp_path / "MNIST" / "raw") in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "many"])
def test_minutes_are_a_number_above_0(minutes: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        gpu.main(["--data-dir", ".", "--out", str(tmp_path), "--minutes", minutes])
    assert stopped.value.code == 2


def test_the_ticket_trains_and_measures_the_studys_own_cell() -> None:
    """Settings, initial weights, and the random numbers of an evaluation."""
    size = gpu_stages.paper()
    cell = read_study([ROOT / "config" / "paper.yaml"]).cell("mnist", "vp", "ncsnpp-mnist", "0.6")
    assert asdict(size.recipe) == asdict(recipe_of(cell, 1.0))
    network = cell.network.model_dump()
    assert {name: network[name] for name in size.network} == {
        name: tuple(option) if isinstance(option, list) else option for name, option in size.network.items()
    }
    assert (network["fourier"], network["pixel_prior"], network["scale_input"]) == ((), False, None)
    assert (cell.T, cell.diffusion.epsilon) == (gpu_stages.T, gpu_stages.EPSILON)
    assert repr(build_sde(cell.diffusion)) == repr(gpu_stages.SDE)
    assert f"{cell.seed}/{cell.dataset}/0" == gpu_stages.SEED
    own = bench()
    problem = ImageProblem(
        name="", digest="", data="", sde=gpu_stages.SDE, epsilon=gpu_stages.EPSILON, T=gpu_stages.T,
        score=own.score(Form()), seeds=[gpu_stages.SEED], images=own.images, flip=False, device=own.device,
    )  # fmt: skip
    assert torch.equal(own.part, measured_images(own.images, own.size.images))
    assert torch.equal(own.held_out(own.part), dequantised(problem, f"{cell.seed}/{cell.dataset}", 0, own.part))


def test_flop_are_counted_forward_and_back() -> None:
    """A step has two products backward for one forward; the ODE's right-hand side has no weights to derive by."""
    digits = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    flops = Bench(gpu_stages.paper(), ImageData("digits", digits, digits, ""), torch.device("cpu")).flops
    # the published cost; the first layer has no gradient by its input
    assert round(flops["forward"] / 1e9, 1) == 3.6
    assert flops["step"] == pytest.approx(3 * flops["forward"], rel=0.005)
    assert flops["call"] == pytest.approx(2 * flops["forward"], rel=0.005)


def test_a_speed_has_its_median_and_quartiles() -> None:
    row = gpu_stages.rate("what", "images/s", 8.0, [1.0, 2.0, 4.0, 8.0, 0.5], "settings", flops=10.0)
    assert [row[name] for name in ("low", "median", "high", "repeats", "flops")] == [2.0, 4.0, 8.0, 5, 40.0]
    assert gpu.texts(row, peak=80.0)[1:4] == ["4 (2 to 8)", "images/s", "50.0 %"]


def test_a_form_is_chosen_for_the_time_that_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has to be compiled is worth it in a long training only; one that trains wrongly never is."""
    ticket = made(tmp_path, monkeypatch, {}).ticket
    assert ticket.best(100) == Form()
    plain, compiled, captured = Form(tuned=True), Form(compiled=True), Form(compiled=True, graph=True)
    wrong = Form(graph=True)
    rows = ((plain, 1.0, 0, True), (compiled, 1.5, 60, True), (captured, 2.0, 1, True), (wrong, 9.0, 0, False))
    for form, speed, start, within in rows:
        row = {"what": form.name, "median": speed, "start": start, "form": asdict(form), "within": within}
        ticket.record(f"training speed, {form.name}", [row], 1.0)
    assert ticket.best(100) == plain
    assert ticket.best(130) == captured
    # in the process that has compiled it
    ticket.bench.score(compiled)
    assert ticket.best(100) == captured


def test_a_network_is_compiled_once_in_a_process_and_has_fresh_weights_each_time() -> None:
    own, form = bench(), Form(compiled=True)
    first = own.score(form).net
    with torch.no_grad():
        next(first.parameters()).zero_()
    again, fresh = own.score(form).net, own.score(Form()).net
    assert again is first
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), fresh.parameters(), strict=True))


@pytest.mark.parametrize(("precision", "fault", "agrees"), [
    ("float32", 0.0, True), ("float32", 1e-3, False), ("bfloat16", 1e-3, True), ("bfloat16", math.nan, False)
])  # fmt: skip
def test_a_device_that_computes_something_else_is_told(
    precision: str, fault: float, agrees: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousandth is what TF32 would make of it."""
    reference = {"score": torch.ones(3), "gradient": torch.ones(3), "elbo": torch.ones(3)}
    seen = iter([reference, *[
        {name: value * (1 + (fault if name_of == precision else 0)) for name, value in reference.items()}
        for name_of in gpu_stages.BOUNDS
    ]])  # fmt: skip
    monkeypatch.setattr(gpu_stages, "findings", lambda *arguments: next(seen))
    fine = {"what": "captured", "within": True}
    monkeypatch.setattr(gpu_stages, "captured", lambda own: fine)
    monkeypatch.setattr(gpu_stages, "fresh_dropout", lambda own: fine)
    assert all(row["within"] for row in gpu_stages.agreement(bench())) == agrees


def test_replays_that_repeat_their_dropout_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_stages.fresh_dropout(bench())["within"]
    start = gpu_stages.Graphed.start
    monkeypatch.setattr(gpu_stages.Graphed, "start", lambda steps: [torch.manual_seed(0), start(steps)])
    assert not gpu_stages.fresh_dropout(bench())["within"]


def test_captured_steps_that_lead_elsewhere_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_stages.captured(bench())["within"]
    monkeypatch.setattr(gpu_stages.Graphed, "follow", lambda steps, new: None)
    assert not gpu_stages.captured(bench())["within"]
