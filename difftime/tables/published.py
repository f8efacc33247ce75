"""Numbers of Franzese et al., "A New Look on Diffusion Times for Score-based Generative Models", ICML 2022 workshop.

And bits per dimension of normalising flows. All stand beside ours in tables and figures. Nothing is computed from them.
"""

from __future__ import annotations

from typing import NamedTuple

SOURCE = "Franzese et al. (2022)"

TOY = {"weights": (0.3, 0.7), "means": ((1.0,), (3.0,)), "stds": ((0.1,), (0.5,))}
"""p_data of the toy, section 3."""
T_STAR = {"vp": 0.6, "ve": 0.85}
"""Optimal T of the toy by family of SDE, section 3. (It spells out the two acronyms the wrong way round.)"""


class Row(NamedTuple):
    """A row of Table 1: bits per dimension and number of function evaluations, VP, without errors."""

    dataset: str
    T: float
    bpd: float
    nfe: float


TABLE1 = (
    Row("mnist", 1.0, 1.16, 300),
    Row("mnist", 0.6, 1.16, 258),
    Row("mnist", 0.4, 1.25, 235),
    Row("mnist", 0.2, 1.75, 191),
    Row("cifar10", 1.0, 3.09, 221),
    Row("cifar10", 0.6, 3.07, 200),
    Row("cifar10", 0.4, 3.09, 187),
    Row("cifar10", 0.2, 3.38, 176),
)


class Flow(NamedTuple):
    """A normalising flow, trained and measured with uniform dequantisation."""

    name: str
    bpd: float


FLOWS = {
    "mnist": (
        Flow("RealNVP (Dinh et al., 2017)", 1.06),
        Flow("Glow (Kingma and Dhariwal, 2018)", 1.05),
        Flow("FFJORD (Grathwohl et al., 2019)", 0.99),
        Flow("Residual Flow (Chen et al., 2019)", 0.97),
    ),
    "cifar10": (
        Flow("RealNVP (Dinh et al., 2017)", 3.49),
        Flow("FFJORD (Grathwohl et al., 2019)", 3.40),
        Flow("Glow (Kingma and Dhariwal, 2018)", 3.35),
        Flow("Residual Flow (Chen et al., 2019)", 3.28),
    ),
}
"""As collected by R. T. Q. Chen et al. (2019), "Residual Flows for Invertible Generative Modeling"."""
