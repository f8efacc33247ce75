"""Diffusion times for score-based generative models: how long should the forward process run?

The names of this package measure a network of one's own from Python. Each name is imported when it is first used.
`difftime --help` lists the commands, and `snakemake` runs a whole study.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from difftime.diffusion.mixture import Mixture as Mixture
    from difftime.diffusion.sde import SDE as SDE
    from difftime.diffusion.sde import VE as VE
    from difftime.diffusion.sde import VP as VP
    from difftime.diffusion.sde import SubVP as SubVP
    from difftime.diffusion.tabulated import Tabulated as Tabulated
    from difftime.face.curve import BestT as BestT
    from difftime.face.curve import Curve as Curve
    from difftime.face.curve import best_T as best_T
    from difftime.face.curve import elbo_curve as elbo_curve
    from difftime.face.data import Pixels as Pixels
    from difftime.face.measures import elbo as elbo
    from difftime.face.measures import log_likelihood as log_likelihood
    from difftime.face.measures import sample as sample
    from difftime.face.model import Model as Model
    from difftime.face.model import load_model as load_model
    from difftime.face.noise import PNoise as PNoise
    from difftime.face.noise import kl_bracket as kl_bracket
    from difftime.face.noise import p_noise as p_noise
    from difftime.face.results import Elbo as Elbo
    from difftime.face.results import Estimate as Estimate
    from difftime.face.results import Likelihood as Likelihood
    from difftime.face.results import NotPixels as NotPixels
    from difftime.face.score import Score as Score

__version__ = "0.2.0"

_PLACES = {
    "difftime.diffusion.mixture": ("Mixture",),
    "difftime.diffusion.sde": ("SDE", "SubVP", "VE", "VP"),
    "difftime.diffusion.tabulated": ("Tabulated",),
    "difftime.face.curve": ("BestT", "Curve", "best_T", "elbo_curve"),
    "difftime.face.data": ("Pixels",),
    "difftime.face.measures": ("elbo", "log_likelihood", "sample"),
    "difftime.face.model": ("Model", "load_model"),
    "difftime.face.noise": ("PNoise", "kl_bracket", "p_noise"),
    "difftime.face.results": ("Elbo", "Estimate", "Likelihood", "NotPixels"),
    "difftime.face.score": ("Score",),
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}
__all__ = ["__version__", *_PLACE_OF]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: PyTorch takes seconds, and `difftime --help` needs none."""
    if name not in _PLACE_OF:
        raise AttributeError(f"module 'difftime' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PLACE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
