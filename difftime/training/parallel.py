"""One cell on several devices: processes under torchrun that share its work, each with a GPU of its own.

Without GPUs they are processes on the CPU. A process that torchrun did not start is a group of one, which this costs
nothing.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from difftime.support.signals import Interrupted, asked_to_stop
from difftime.training.nets.networks import Networks

log = logging.getLogger("difftime")

Item = TypeVar("Item")
Result = TypeVar("Result")


class BadGroup(Exception):
    """Processes that cannot share the work; the message says why, and what to do."""


@dataclass(frozen=True)
class Group:
    """The processes that share the work, and which of them this one is. Only the first writes files."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This process's part of a batch of n, all parts being of one size. Raises BadGroup if they cannot be."""
        if n % self.size:
            raise BadGroup(f"A batch of {n} does not divide among {self.size} processes. Make it a multiple of them.")
        part = n // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def gather(self, value: Result) -> list[Result]:
        """What every process has to say, in their order, on all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor on the CPU over the processes, the same bits on all of them."""
        return values if self.size == 1 else torch.stack(self.gather(values)).mean(0)

    def agree(self, state: object, folder: object) -> None:
        """Raise BadGroup if the processes have not all read the same state from a folder."""
        if any(other != state for other in self.gather(state)):
            raise BadGroup(f"The processes see different states in {folder}. It must be one folder for all of them.")

    def each(self, todo: Sequence[Item], work: Callable[[Item], Result]) -> Iterator[list[Result]]:
        """The results of `work` in the order of `todo`, by rounds in which every process does one, on all of them.

        The caller saves the results of a round before it asks for the next. Raises Interrupted there if a signal asked
        to stop.
        """
        with asked_to_stop() as stop:
            for start in range(0, len(todo), self.size):
                if any(self.gather(stop.is_set())):
                    raise Interrupted(
                        f"The evaluation was asked to stop; {start} of the {len(todo)} batches that it had to do are "
                        "saved. The same command does the others."
                    )
                mine = todo[start : start + self.size][self.rank : self.rank + 1]
                yield [result for results in self.gather([work(item) for item in mine]) for result in results]

    def wrapped(self, net: Networks) -> nn.Module:
        """The network as `pullback` takes it."""
        return net if self.size == 1 else DistributedDataParallel(net)

    def pullback(self, net: nn.Module, x: Tensor, t: Tensor) -> tuple[Tensor, Callable[[Tensor], list[Tensor]]]:
        """The output of a network that `wrapped` returned, and what this makes of a gradient with respect to it.

        That is the parameters' gradients of the processes' mean loss, each process giving its own loss's.
        """
        if isinstance(net, Networks):
            return net.pullback(x, t)
        output, parameters = net(x, t), list(net.parameters())

        def gradients(slope: Tensor) -> list[Tensor]:
            output.backward(slope)
            # the wrapper refuses a parameter that the loss does not reach
            found = [cast(Tensor, parameter.grad) for parameter in parameters]
            for parameter in parameters:
                parameter.grad = None
            return found

        return output.detach(), gradients


ALONE = Group()


def launch(processes: int) -> None:
    """Start this very command anew as a group of processes, unless it is one of them."""
    if torch.distributed.is_torchelastic_launched():
        return
    # torchrun, by the name of its module: a virtual environment need not be active
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    # its own default, but without the warning
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.execv(sys.executable, [sys.executable, *torchrun, "-m", "difftime.cli", *sys.argv[1:]])


@contextmanager
def joined() -> Iterator[Group]:
    """The group that torchrun started this process in, on the GPU that is its own; of one without torchrun."""
    if not torch.distributed.is_torchelastic_launched():
        yield ALONE
        return
    rank, size, device = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if torch.cuda.is_available():
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    if rank:
        log.setLevel(logging.ERROR)
    yield Group(rank, size)
    torch.distributed.destroy_process_group()
