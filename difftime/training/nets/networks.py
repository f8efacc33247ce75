"""What training asks of the networks of a cell, one per seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

Pullback = Callable[[Tensor], list[Tensor]]
"""The gradient of a loss with respect to a network's output, to its gradients with respect to the parameters."""


class Networks(nn.Module, ABC):
    """One model per seed, (seeds, batch, d) in, the same out."""

    @abstractmethod
    def pullback(
        self, x: Float[Tensor, "seeds batch d"], t: Float[Tensor, "seeds batch"]
    ) -> tuple[Float[Tensor, "seeds batch d"], Pullback]:
        """The output, and the function from a loss's gradient with respect to it to those of the parameters."""

    @abstractmethod
    def by_model(self, of_parameters: Sequence[Tensor]) -> list[list[Tensor]]:
        """Tensors shaped like the parameters, e.g. their gradients: one list per model."""
