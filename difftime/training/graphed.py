"""Steps of training as a CUDA graph: the GPU is told once what a step consists of, and then only to do it again.

A network of small layers keeps a GPU waiting for Python, which starts its thousands of kernels one by one. A captured
step is started as a whole. What is captured may not look at a number from Python nor ask the GPU for one, so all that
changes from step to step lies in buffers that stay: the batches of a block, the learning rates, the shares that the
average keeps, and which step it is. Dropout draws from PyTorch's generator, which every replay leads on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from difftime.training.parallel import Group
from difftime.training.train import _Batches, _Run

WARM = 3
"""Steps before the capture, as cuDNN and cuBLAS set themselves up when first met. They are steps like the others."""


class Graphed:
    """The steps of a block out of buffers, without a word between the GPU and Python but the start of each step.

    On the CPU a step is the same function, without its capture. It rounds otherwise than `stepwise` in the last digits:
    learning rates and averages are in float32.
    """

    def __init__(self, run: _Run, group: Group) -> None:
        if run.recipe.optimiser != "adam" or group.size > 1:
            raise ValueError(
                "A CUDA graph is made of Adam's steps in one process; found the optimiser "
                f"{run.recipe.optimiser} in {group.size}. Train step by step."
            )
        device = run.count.device
        self.run = run
        self.captures = device.type == "cuda"
        self.place = torch.zeros(1, dtype=torch.int64, device=device)
        self.buffers: list[Tensor] = []
        self.losses = torch.zeros(0)
        self.warm = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, numbers: range, batches: _Batches) -> Tensor:
        """As `train.Steps`."""
        self.fill(numbers, batches)
        for _ in numbers:
            self.start()
        return self.losses[: len(numbers)].clone()

    def fill(self, numbers: range, batches: _Batches) -> None:
        """Put a block into the buffers: the only time that anything is moved to the GPU."""
        recipe, device = self.run.recipe, self.place.device
        # a whole block of them also where fewer are left: buffers keep their shapes
        all_numbers = range(numbers.start, numbers.start + recipe.block)
        schedule = torch.tensor([[recipe.rate(n), 1 - recipe.kept(n)] for n in all_numbers], device=device)
        block = [batches.inputs, batches.t, batches.target, batches.factor, schedule]
        if not self.buffers:
            self.buffers = [part.clone() for part in block]
            self.losses = batches.t.new_zeros(batches.t.shape[:2])
        torch._foreach_copy_(self.buffers, block)
        self.place.zero_()

    def start(self) -> None:
        """Take a step: as a replay, once there is a graph."""
        if not self.captures:
            self.step()
        elif self.graph is not None:
            self.graph.replay()
        elif self.warm < WARM:
            self.warm += 1
            aside, now = torch.cuda.Stream(), torch.cuda.current_stream()
            aside.wait_stream(now)
            with torch.cuda.stream(aside):
                self.step()
            now.wait_stream(aside)
        else:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.step()
            graph.replay()
            self.graph = graph

    def step(self) -> None:
        """A step of `stepwise` whose every number is on the device."""
        x, t, target, factor, schedule = (buffer.index_select(0, self.place).squeeze(0) for buffer in self.buffers)
        rate, new = schedule.unbind()
        output, gradients = self.run.net.pullback(x, t)
        error = output - target
        slope = factor * error
        self.losses.index_copy_(0, self.place, (slope * error).sum((1, 2)).unsqueeze(0))
        self.run.descend(gradients(slope), rate)
        self.follow(new)
        self.place += 1

    @torch.no_grad()
    def follow(self, new: Tensor) -> None:
        """Move the average towards the weights; a foreach lerp would ask for the share as a number."""
        way = torch._foreach_sub(self.run.parameters, self.run.average)
        torch._foreach_mul_(way, new)
        torch._foreach_add_(self.run.average, way)
