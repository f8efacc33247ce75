"""The GPU ticket: what a short loan of a GPU has to answer, in one command that may be cut at any time.

    python -m benchmarks.gpu --data-dir data --out results/gpu --minutes 9

The first piece checks the GPU against the CPU and measures speeds (`gpu_stages.py`), then trains the paper's MNIST
network at T = 0.6 in the fastest form for the time that is left. The same command again, a second piece, finds the
speeds measured: it goes on with the training, and measures ELBO and BPD at its end. So does every further one.

Every stage is written to `gpu.json` and `gpu.md` in the folder when it is done, the training's state every minute, the
averaged weights at the end of a training. A stage that fails, or takes too long, is a line in the table, and the next
one begins; it is not tried again in this folder. The last thing printed is the table.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from benchmarks import gpu_stages as stages
from benchmarks.gpu_stages import EPSILON, SDE, SEED, Bench, Form, Row, Size, T
from difftime.images.readers import BadImages
from difftime.images.readers.mnist import read as mnist
from difftime.study.fingerprint import fingerprint
from difftime.support.files import atomic
from difftime.support.signals import Interrupted, asked_to_stop
from difftime.tables.render import markdown_rows
from difftime.training.checkpoint import load_resume, load_weights, save_weights
from difftime.training.graphed import Graphed
from difftime.training.train import stepwise, train

log = logging.getLogger("difftime")

RESULTS, TABLE, STATE, WEIGHTS = "gpu.json", "gpu.md", "resume.pt", "weights.safetensors"
RESERVE = 15.0
"""Seconds at the end of a piece, for the weights and the table."""
CALLS = 400
"""Of the right-hand side, that a batch of images is expected to take where none has been solved."""


class BadTicket(Exception):
    """The command cannot begin; the message says why, and what to do."""


class TooLong(Exception):
    """A stage takes more seconds than it may."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TooLong in the block where it takes longer."""

    said, end = f"stopped after {seconds:.0f} s", time.monotonic() + seconds

    def late(number: int, frame: FrameType | None) -> None:
        raise TooLong(said)

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except Exception as error:  # PyTorch's compiler makes an error of its own of whatever is raised in it
        if time.monotonic() < end:
            raise
        raise TooLong(said) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Stage:
    """What is measured, and the seconds that it may take."""

    name: str
    seconds: float
    work: Callable[[], list[Row]]


@dataclass
class Ticket:
    """A piece of the work: what is known, when the piece has to end, and whether it was asked to stop."""

    bench: Bench
    out: Path
    end: float
    stop: threading.Event
    known: dict[str, Any] = field(init=False)
    """By stage: its rows, the seconds that they took and the device."""
    fine: bool = True
    """Whether nothing failed in this piece, and CPU and GPU agree."""

    def __post_init__(self) -> None:
        """Read what lies in the folder. Raises BadTicket if that is of other settings, images or code."""
        self.identity, self.known = identity(self.bench), {}
        path = self.out / RESULTS
        if not path.exists():
            return
        try:
            found = json.loads(path.read_text("utf-8"))
            others = [name for name, digest in self.identity.items() if found["identity"][name] != digest]
            self.known = dict(found["stages"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadTicket(
                f"{path} is not what this command writes ({error}). Give another folder by --out."
            ) from None
        if others:
            raise BadTicket(f"{self.out} has results with other {' and other '.join(others)}. Give another by --out.")

    @property
    def left(self) -> float:
        """Seconds until the piece has to end."""
        return self.end - time.monotonic() - RESERVE

    def rows(self, stage: str) -> list[Row]:
        """Those of the stages whose name begins so."""
        return [row for name, found in self.known.items() if name.startswith(stage) for row in found["rows"]]

    @contextmanager
    def stage(self, name: str) -> Iterator[list[Row]]:
        """A list for the rows of a stage, which are written at the end of the block, or what went wrong in it."""
        log.info("%s (%.0f s left)", name, self.left)
        rows: list[Row] = []
        start = time.monotonic()
        try:
            yield rows
        except TooLong as error:
            rows.append({"what": name, "left out": str(error)})
        except Exception as error:  # a GPU can fail in any way, and other stages are still to come
            log.warning("%s", name, exc_info=True)
            rows.append({"what": name, "failed": f"{type(error).__name__}: {error}"[:300]})
        self.record(name, rows, time.monotonic() - start)
        self.fine &= not any("failed" in row or row.get("within") is False for row in rows)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def record(self, name: str, rows: Sequence[Row], seconds: float) -> None:
        """Keep the rows of a stage, and write all there are."""
        self.known[name] = {"rows": list(rows), "seconds": seconds, "device": device_name(self.bench.device)}
        for file, text in ((RESULTS, self.as_json()), (TABLE, self.table())):
            with atomic(self.out / file) as temporary:
                temporary.write_text(text, "utf-8")

    def as_json(self) -> str:
        return json.dumps({"identity": self.identity, "stages": self.known}, indent=1) + "\n"

    def table(self) -> str:
        """All stages, as a Markdown table."""
        peak = next((row["flops"] for row in self.rows("peak") if "bfloat16" in row["what"]), None)
        header = ["stage", "what", "median (quartiles) or mean ± s.e.", "unit", "of the bf16 peak", "settings", "on"]
        rows = [
            [name, *texts(row, peak), found["device"]] for name, found in self.known.items() for row in found["rows"]
        ]
        return markdown_rows(header, rows)

    def run(self) -> bool:
        """The whole piece. Returns whether nothing failed and nobody asked to stop."""
        plan = self.plan()
        again = all(stage.name in self.known for stage in plan)
        for stage in plan:
            if stage.name not in self.known and not self.stop.is_set():
                with self.stage(stage.name) as rows:
                    if self.left < stage.seconds:
                        raise TooLong(f"it may take {stage.seconds:.0f} s, but {max(0, self.left):.0f} s were left")
                    with within(stage.seconds):
                        rows += stage.work()
        self.train(self.left - (self.evaluation_seconds() if again else 0))
        if again:
            self.evaluate()
        return self.fine and not self.stop.is_set()

    def plan(self) -> list[Stage]:
        """What is measured, in this order: what is most likely to take too long comes last."""
        bench = self.bench

        def of_form(form: Form) -> Stage:
            def work() -> list[Row]:
                first = next((row["loss"] for row in self.rows("training speed") if "loss" in row), None)
                return stages.training(bench, form, first)

            # a captured one finds the network compiled
            seconds = 180 if form.compiled and not form.graph else 40
            return Stage(f"training speed, {form.name}", seconds, work)

        return [
            Stage("device", 10, lambda: stages.device(bench)),
            Stage("peak", 20, lambda: stages.peak(bench)),
            Stage("CPU and GPU", 60, lambda: stages.agreement(bench)),
            *(of_form(form) for form in bench.size.forms if not form.compiled),
            Stage("ELBO speed", 40, lambda: stages.elbo(bench)),
            Stage("BPD speed", 60, lambda: stages.bpd(bench)),
            *(of_form(form) for form in bench.size.forms if form.compiled),
        ]

    def best(self, seconds: float) -> Form:
        """The form that trains on most images in this time, its start included; the plainest where none is known."""
        known = [row for row in self.rows("training speed") if row.get("within")]
        compiling = max((row["start"] for row in known if row["form"]["compiled"]), default=0)

        def images(row: Row) -> float:
            anew = row["form"]["compiled"] and not self.bench.compiled
            return float(row["median"] * (seconds - (compiling if anew else row["start"])))

        return Form(**max(known, key=images, default={"form": {}})["form"])

    def train(self, seconds: float) -> None:
        """Go on with the training for this time, from the state that lies in the folder."""
        if self.stop.is_set():
            return
        recipe = self.bench.size.recipe
        piece = 1 + sum(name.startswith("training, piece") for name in self.known)
        with self.stage(f"training, piece {piece}") as rows:
            if seconds <= 0:
                raise TooLong("no time was left")
            form, start, before = self.best(seconds), time.monotonic(), self.trained()[0]
            steps, losses = self.trained_for(seconds, form)
            speed, last = (steps - before) * recipe.batch / (time.monotonic() - start), losses[-100:]
            rows.append({
                "what": form.name, "steps": steps, "median": steps, "unit": f"steps of {recipe.steps}",
                "settings": f"T = {T:g}, batch {recipe.batch}, {speed:.0f} images/s, start included; loss of the last "
                f"{len(last) * recipe.block} steps {last.mean():.2f}, {recipe.weighting} weighting",
            })  # fmt: skip

    def trained_for(self, seconds: float, form: Form) -> tuple[int, torch.Tensor]:
        """Train for this time and save the averaged weights. Returns the steps and the mean loss of every block."""
        # the training is asked to stop as `timeout` would ask, and saves its state between two blocks
        timer = threading.Timer(seconds, os.kill, [os.getpid(), signal.SIGTERM])
        timer.start()
        try:
            done = train(
                self.bench.score(form), self.bench.data(), T=T, epsilon=EPSILON, recipe=self.bench.size.recipe,
                seeds=[SEED], name="the paper's MNIST network", identity=self.identity, resume=self.out / STATE,
                form=Graphed if form.graph else stepwise,
            )  # fmt: skip
            steps, weights, losses = self.bench.size.recipe.steps, done.weights, done.loss
        except Interrupted:
            if timer.is_alive():
                self.stop.set()
            steps, state = self.trained()
            names = [name for name, _ in self.bench.score(Form()).net.named_parameters()]
            weights, losses = dict(zip(names, state["average"], strict=True)), state["losses"]
        finally:
            timer.cancel()
        save_weights(self.out / WEIGHTS, weights, self.owner(steps))
        return steps, losses

    def trained(self) -> tuple[int, dict[str, Any]]:
        """The steps behind the state that a training left, and the state. Raises BadFile if it is damaged."""
        state = load_resume(self.out / STATE, self.identity) or {"block": 0}
        return min(state["block"] * self.bench.size.recipe.block, self.bench.size.recipe.steps), state

    def owner(self, steps: int) -> str:
        """Whose the weights are."""
        return f"{json.dumps(self.identity, sort_keys=True)} after {steps} steps"

    def evaluation_seconds(self) -> float:
        """What ELBO and BPD are expected to take at the measured speeds; 0 where these are not known."""
        size, bpd = self.bench.size, self.fastest_call()
        elbo = next((row["median"] for row in self.rows("ELBO speed") if row["what"] == "ELBO"), None)
        return size.images / elbo + CALLS * size.images / bpd["median"] if elbo and bpd else 0.0

    def fastest_call(self) -> Row | None:
        """The fastest right-hand side of as many images as are solved together."""
        known = [row for row in self.rows("BPD speed") if row.get("batch") == self.bench.size.batch]
        return max(known, key=lambda row: row["median"], default=None)

    def evaluate(self) -> None:
        """ELBO and BPD of the newest weights, batch by batch, for as many test images as there is time."""
        steps = next((row["steps"] for row in reversed(self.rows("training, piece")) if "steps" in row), None)
        call = self.fastest_call()
        if steps is None or call is None or self.stop.is_set():
            return
        name, bench, start = f"after {steps} steps", self.bench, time.monotonic()
        with self.stage(name) as rows:
            score = bench.frozen(Form(**call["form"]))
            score.net.load_state_dict(load_weights(self.out / WEIGHTS, self.owner(steps)))
            elbo = stages.elbo_bits(bench, score, bench.part, bench.size.pairs)
            bpd, nfe, longest = elbo[:0], [], 0.0
            rows += stages.bits(elbo, bpd, nfe, bench)
            for part in bench.part.split(bench.size.batch):
                self.record(name, rows, time.monotonic() - start)
                if self.stop.is_set() or longest > self.left:
                    break
                begin = time.monotonic()
                of_part, calls = stages.bpd_bits(bench, score, part)
                longest = max(longest, time.monotonic() - begin)
                bpd, nfe = torch.cat([bpd, of_part]), [*nfe, calls]
                rows[:] = stages.bits(elbo, bpd, nfe, bench)


def identity(bench: Bench) -> dict[str, str]:
    """A digest of each thing that determines what the training ends with."""
    settings = f"{bench.size.network} {bench.size.recipe} {T} {EPSILON} {SDE}"
    return {
        "settings": hashlib.sha256(settings.encode()).hexdigest(), "images": bench.images.digest,
        "code": fingerprint("training.graphed"),
    }  # fmt: skip


def device_name(device: torch.device) -> str:
    """The device and what computes on it."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{card}, torch {torch.__version__}"


def texts(row: Row, peak: float | None) -> list[str]:
    """A row of the table, but for its stage and device; shares are of `peak`, in FLOP/s."""
    share = f"{100 * row['flops'] / peak:.1f} %" if peak and "flops" in row else ""
    return [row["what"], value(row), row.get("unit", ""), share, row.get("settings", "")]


def value(row: Row) -> str:
    """What was found, with its spread, error or bound."""
    for fault in ("failed", "left out"):
        if fault in row:
            return f"{fault.upper()}: {row[fault]}".replace("|", "/").replace("\n", " ")
    if "low" in row:
        text = f"{row['median']:.4g} ({row['low']:.4g} to {row['high']:.4g})"
        return text if row.get("within", True) else f"{text}; loss is NOT the first form's"
    if "bound" in row:
        return f"{row['median']:.2g}, {'within' if row['within'] else 'NOT within'} {row['bound']:g}"
    if "se" in row:
        return f"{row['mean']:.4f} ± {row['se']:.4f}"
    return str(row.get("median", ""))


def minutes(text: str) -> float:
    """A number of minutes, above 0."""
    if not 0 < float(text) < 24 * 60:
        raise ValueError
    return float(text)


def main(arguments: Sequence[str] | None = None, size: Size | None = None) -> int:
    """Do a piece and print the table. Returns 0, or 1 where something failed, or the piece was asked to stop."""
    begin = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="MNIST's files lie in its MNIST/raw")
    parser.add_argument("--out", type=Path, required=True, help="where results and the training's state are kept")
    parser.add_argument("--minutes", type=minutes, default=9.0, help="of this piece, in all")
    parser.add_argument("--small", action="store_true", help="a rehearsal: a tiny network, on the CPU if need be")
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    log.setLevel(logging.INFO)
    # near epsilon, sigma is smaller than what TF32 keeps of x
    torch.backends.cudnn.allow_tf32 = False
    try:
        if not (torch.cuda.is_available() or given.small):
            raise BadTicket("There is no GPU here. --small rehearses the same on the CPU.")
        bench = Bench(
            size or (stages.small() if given.small else stages.paper()), mnist(given.data_dir, download=False),
            torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        )  # fmt: skip
        with asked_to_stop() as stop:
            ticket = Ticket(bench, given.out, begin + 60 * given.minutes, stop)
            fine = ticket.run()
    except (BadTicket, BadImages, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(ticket.table(), flush=True)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
