"""The settings of a study and its grid of cells. No torch: Snakemake reads this at every call.

A cell is dataset × SDE × network × T; its seeds are a batch inside it. What determines a cell's weights is in `Cell`
and goes into its cell.json; what only measures them stays in the study and goes onto the command line of a measurement.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Measure = Literal["elbo", "likelihood", "samples"]
FittedName = Literal["full", "mixture", "flow"]
NoiseName = Literal["standard", "matched", "full", "mixture", "flow"]
FITTED: tuple[FittedName, ...] = get_args(FittedName)
"""The p_noises that are fitted for x_T, and lie in a file of the cell."""
Family = Literal["mixture", "images"]
"""Data whose density is known, or pixels: they are measured differently."""
FigureName = Literal[
    "fig1", "fig2", "fig3", "fig4", "quality", "cost", "sensitivity", "noises", "scout",
    "table1", "table2", "images", "learning", "tradeoff",
]  # fmt: skip
CollectedName = Literal[
    "elbo",
    "likelihood",
    "samples",
    "modes",
    "histogram",
    "cost",
    "running",
    "image_elbo",
    "bpd",
    "image_samples",
    "image_quality",
    "training",
    "history",
    "runs",
]
MEASURED_BY: dict[str, tuple[Family | None, Measure | None]] = {
    "elbo": ("mixture", "elbo"),
    "likelihood": ("mixture", "likelihood"),
    "samples": ("mixture", "samples"),
    "modes": ("mixture", "samples"),
    "histogram": ("mixture", "samples"),
    "cost": ("mixture", "samples"),
    "running": ("mixture", "elbo"),
    "image_elbo": ("images", "elbo"),
    "bpd": ("images", "likelihood"),
    "image_samples": ("images", "samples"),
    "image_quality": ("images", "samples"),
    "training": (None, None),
    "history": ("images", None),
}
"""Which measurement, of cells on which data, a table is collected from; None: the training itself, and any data."""
VERBS: dict[tuple[Family, Measure | None], str] = {
    ("mixture", None): "train",
    ("mixture", "elbo"): "elbo",
    ("mixture", "likelihood"): "likelihood",
    ("mixture", "samples"): "samples",
    ("images", None): "train",
    ("images", "elbo"): "image_elbo",
    ("images", "likelihood"): "bpd",
    ("images", "samples"): "image_samples",
}
"""The verbs that train and measure cells; each leaves a record of its run, which the table `runs` collects."""
FIGURE_TABLE: dict[FigureName, str] = {
    "fig1": "samples",
    "fig2": "summary",
    "fig3": "summary",
    "fig4": "histogram",
    "quality": "samples",
    "cost": "cost",
    "sensitivity": "optimum",
    "noises": "summary",
    "scout": "scout_curves",
    "table1": "table1",
    "table2": "table1",
    "images": "image_samples",
    "learning": "history",
    "tradeoff": "tradeoff",
}
"""The one table that each figure shows; the summary and the optimum are drawn from the elbo table."""
IMAGE_FIGURES: dict[FigureName, tuple[str, ...]] = {
    "table1": ("elbo", "likelihood"),
    "table2": ("elbo", "likelihood"),
    "images": ("samples",),
    "learning": ("training",),
}
"""What is measured of images for the figures that show them."""
KEYS = ("dataset", "sde", "net", "T")
Line = dict[str, str]
"""A cell's key columns without T."""
Stop = Literal["narrow", "seeds", "edge", "budget", "place", "diverged"]
"""Why a refinement ends; `scouting.decide` says what each means."""


Place = tuple[int | str, ...]
Fault = Any
"""What pydantic reports of one fault: its type, its place `loc`, and the `input` found there."""


Check = Callable[[Any], Any]
Info = Any
"""Pydantic's ValidationInfo: the `context` of the reading, and the `data` that are read already."""


def fault(text: str, found: Any, place: Place = ()) -> Fault:
    """A fault of our own, at a place inside what is being checked."""
    return {"type": "fault", "loc": place, "input": found, "ctx": {"text": text}}


def refuse(faults: Sequence[Fault]) -> None:
    """Raise all faults in one ValidationError; nothing if there are none."""
    if faults:
        raise ValidationError.from_exception_data(
            "settings",
            [
                f | {"type": PydanticCustomError("fault", "{text}", f["ctx"])} if f["type"] == "fault" else f
                for f in faults
            ],
        )


def _number(value: Any) -> Any:
    """Refuse booleans, which YAML makes of yes and no, and which Python would take for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not yes or no")
    return value


NotBool = BeforeValidator(_number)
Number = Annotated[float, Field(allow_inf_nan=False), NotBool]
Positive = Annotated[float, Field(allow_inf_nan=False, gt=0), NotBool]
Tolerance = Annotated[float, Field(allow_inf_nan=False, ge=1e-13), NotBool]
"""RK45 refuses a relative tolerance near the spacing of float64 numbers."""
Count = Annotated[int, Field(ge=1), NotBool]
AtLeast2 = Annotated[int, Field(ge=2), NotBool]
"""How many are needed for a standard error."""
Evaluations = Annotated[int, Field(ge=8), NotBool]
"""RK45 takes 2 to start and 6 per step."""
Seed = Annotated[int, Field(ge=0), NotBool]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]


class Settings(BaseModel):
    """Immutable, and closed: a key that is not declared is an error, not a comment."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @model_validator(mode="wrap")
    @classmethod
    def _closed(cls, values: Any, check: Check) -> Any:
        """Name the nearest key beside one that is unknown."""
        try:
            return check(values)
        except ValidationError as error:
            ours = ("extra_forbidden", 1)
            refuse([cls._unknown(f) if (f["type"], len(f["loc"])) == ours else f for f in error.errors()])

    @classmethod
    def _unknown(cls, extra: Fault) -> Fault:
        near = get_close_matches(str(extra["loc"][0]), cls.model_fields, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known here are {', '.join(cls.model_fields)}"
        return fault(f"no such key; {hint}", extra["input"], extra["loc"])

    def canonical(self, exclude: set[str] | None = None) -> str:
        """One JSON text per meaning: `1` and `1.0`, or another order of the keys, give the same."""
        return json.dumps(self.model_dump(mode="json", exclude=exclude), sort_keys=True)


S = TypeVar("S", bound=Settings)


def one_or_many(value: Any) -> Any:
    """Let a list of one be written without brackets."""
    return value if isinstance(value, list | tuple) else [value]


class OneOrMany:
    """Marks a list whose only item may stand without brackets, also for the editors that read the JSON schema."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(one_or_many, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


def _distinct(values: Any, check: Check) -> Any:
    """Refuse an item that is listed twice, beside what is wrong with single items."""
    faults: list[Fault] = []
    try:
        values = check(values)
    except ValidationError as error:
        faults = list(error.errors())
    broken = {f["loc"][0] for f in faults if f["loc"]}
    sound = {i: item for i, item in enumerate(one_or_many(values)) if i not in broken}
    again = [i for i in sound if any(sound[i] == sound[j] for j in sound if j < i)]
    refuse(faults + [fault("is listed twice", sound[i], (i,)) for i in again])
    return values


def _filled(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse an empty list. (Pydantic's own min_length also finds a list empty whose items all have faults.)"""
    if not items:
        raise ValueError("must not be empty")
    return items


Item = TypeVar("Item")
Filled = Annotated[tuple[Item, ...], AfterValidator(_filled)]
Vector = Annotated[tuple[Item, ...], OneOrMany(), AfterValidator(_filled)]
Distinct = Annotated[tuple[Item, ...], OneOrMany(), WrapValidator(_distinct)]
Listed = Annotated[tuple[Item, ...], OneOrMany(), WrapValidator(_distinct), AfterValidator(_filled)]


def _covariance(matrix: Sequence[Sequence[float]]) -> Any:
    """Refuse a matrix that is not a covariance; a symmetric one is if it has a Cholesky factor."""
    n = len(matrix)
    if any(len(row) != n for row in matrix):
        raise ValueError("a covariance must be a square matrix")
    if any(matrix[i][j] != matrix[j][i] for i in range(n) for j in range(i)):
        raise ValueError("a covariance must be symmetric")
    factor = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            rest = matrix[i][j] - sum(factor[i][k] * factor[j][k] for k in range(j))
            if i == j and rest <= 0:
                raise ValueError("a covariance must be positive definite")
            factor[i][j] = rest**0.5 if i == j else rest / factor[j][j]
    return matrix


Matrix = Annotated[Filled[Filled[Number]], AfterValidator(_covariance)]


class MixtureSettings(Settings):
    """Data from a Gaussian mixture in any dimension d."""

    kind: Literal["mixture"] = "mixture"
    weights: Filled[Positive] = Field(description="One per component, summing to 1")
    means: Filled[Vector[Number]] = Field(description="One per component: a number, or a list of d numbers")
    stds: Filled[Vector[Positive]] | None = Field(
        default=None, description="One per component: a number for all coordinates, or a list of d numbers"
    )
    covariances: Filled[Matrix] | None = Field(
        default=None, description="Instead of stds: one d × d matrix per component"
    )
    samples: Count = Field(default=8192, description="Training points that each seed draws for itself")

    @field_validator("weights")
    @classmethod
    def _sum_to_1(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        if abs(sum(weights) - 1) > 1e-9:
            raise ValueError(f"the weights must sum to 1, but sum to {sum(weights):.10g}")
        return weights

    @field_validator("means", "stds", "covariances")
    @classmethod
    def _one_per_component(cls, values: Any, info: Info) -> Any:
        weights = info.data.get("weights")
        if None not in (values, weights) and len(values) != len(weights):
            raise ValueError(f"must be one for each of the {len(weights)} weights, but are {len(values)}")
        return values

    @field_validator("means")
    @classmethod
    def _of_one_length(cls, means: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        if len({len(mean) for mean in means}) > 1:
            raise ValueError("the means must all be numbers, or all be lists of the same length")
        return means

    @field_validator("stds", "covariances")
    @classmethod
    def _as_long_as_means(cls, spreads: Any, info: Info) -> Any:
        d = len(info.data["means"][0]) if "means" in info.data else None
        allowed = (1, d) if info.field_name == "stds" else (d,)
        if None not in (spreads, d) and any(len(spread) not in allowed for spread in spreads):
            size = f"one number or {d} numbers" if info.field_name == "stds" else f"a {d} × {d} matrix"
            raise ValueError(f"each must be {size}, as the means have {d} coordinates")
        return spreads

    @field_validator("covariances")
    @classmethod
    def _instead_of_stds(cls, covariances: Any, info: Info) -> Any:
        if (info.data.get("stds", "faulty") is None) == (covariances is None):
            raise ValueError("give either stds or covariances, and only one of the two")
        return covariances

    def covariance_matrices(self) -> list[list[list[float]]]:
        """The covariances, also where they were given as standard deviations; [components][d][d]."""
        if self.covariances is not None:
            return [[list(row) for row in matrix] for matrix in self.covariances]
        d = len(self.means[0])
        wide = [std * d if len(std) == 1 else std for std in self.stds]
        return [[[std[i] ** 2 if i == j else 0.0 for j in range(d)] for i in range(d)] for std in wide]


ImageKind = Literal["mnist", "cifar10", "mnist5k", "folder", "npz"]
IMAGE_KINDS = get_args(ImageKind)


class ImageSettings(Settings):
    """Images of 8 bits per channel, dequantised and scaled to [-1, 1]."""

    kind: ImageKind
    path: str | None = Field(default=None, description="The folder or the .npz file; for these two kinds only")
    channels: Literal[1, 3] | None = Field(default=None, description="What the files must have; null: whatever it is")
    test_share: Annotated[float, Field(gt=0, lt=1), NotBool] | None = Field(
        default=None, description="Share of the images held out, for a folder or a file without a split of its own"
    )
    flip: bool = Field(default=False, description="Mirror half of the training images left to right")

    @model_validator(mode="after")
    def _of_its_kind(self) -> ImageSettings:
        own = self.kind in ("folder", "npz")
        if own and self.path is None:
            raise ValueError(f"images of kind {self.kind} need a path")
        given = [key for key in ("path", "channels", "test_share") if getattr(self, key) is not None]
        if not own and given:
            raise ValueError(f"images of kind {self.kind} have no {' and no '.join(given)}")
        return self


class _Diffusion(Settings):
    epsilon: Positive = Field(default=1e-5, description="Where every integral over time begins")


class _LinearBeta(Settings):
    """beta(t) = beta_min + (beta_max - beta_min) t."""

    beta_min: Positive = 0.1
    beta_max: Positive = 20.0

    @field_validator("beta_max")
    @classmethod
    def _rising(cls, beta_max: float, info: Info) -> float:
        if beta_max < info.data.get("beta_min", 0):
            raise ValueError(f"must not be below beta_min = {info.data['beta_min']:g}")
        return beta_max


class VPSettings(_LinearBeta, _Diffusion):
    """Variance preserving."""

    kind: Literal["vp"] = "vp"


class SubVPSettings(_LinearBeta, _Diffusion):
    """Sub-variance preserving: alpha_t as for VP, sigma_t the square of VP's."""

    kind: Literal["sub-vp"] = "sub-vp"


class VEExponentialSettings(_Diffusion):
    """Variance exploding with g(t) = base^t, hence sigma_t² = (base^{2t} - 1) / (2 ln base)."""

    kind: Literal["ve-exponential"] = "ve-exponential"
    base: Annotated[float, Field(allow_inf_nan=False, gt=1), NotBool] = 25.0


class VEGeometricSettings(_Diffusion):
    """Variance exploding with sigma_t = sigma_min (sigma_max / sigma_min)^t, or that variance less its value at 0."""

    kind: Literal["ve-geometric"] = "ve-geometric"
    sigma_min: Positive = 0.01
    sigma_max: Positive = 50.0
    from_zero: bool = Field(default=True, description="Whether sigma_0 = 0 instead of sigma_min")

    @field_validator("sigma_max")
    @classmethod
    def _rising(cls, sigma_max: float, info: Info) -> float:
        if sigma_max <= info.data.get("sigma_min", 0):
            raise ValueError(f"must be above sigma_min = {info.data['sigma_min']:g}")
        return sigma_max


def _without_tag(values: Any, check: Check) -> Any:
    """Leave out of a fault's place what pydantic adds: the member of the union it was found in."""
    try:
        return check(values)
    except ValidationError as error:
        refuse([f | {"loc": f["loc"][1:]} for f in error.errors()])


def _of_kind(default: str) -> BeforeValidator:
    """Let `kind` be left out where it is the usual one."""

    def fill(values: Any) -> Any:
        return {"kind": default} | values if isinstance(values, dict) else values

    return BeforeValidator(fill)


SDESettings = Annotated[
    VPSettings | SubVPSettings | VEExponentialSettings | VEGeometricSettings,
    Field(discriminator="kind"),
    WrapValidator(_without_tag),
]


class TrainingSettings(Settings):
    """The optimiser and the loss of Eq. 3."""

    weighting: Literal["likelihood", "noise"] = Field(
        default="likelihood",
        description="likelihood: g², Eq. 3 itself; noise: the unweighted error of the predicted noise",
    )
    time_sampling: Literal["uniform", "lambda"] = Field(
        default="uniform", description="How t is drawn: uniformly, or uniformly in log(sigma²/alpha²)"
    )
    steps: Count = 3000
    batch: Count = 256
    learning_rate: Positive = 5e-3
    warmup: Annotated[int, Field(ge=0), NotBool] = Field(
        default=0, description="Steps over which the learning rate rises linearly"
    )
    clip: Positive | None = Field(default=None, description="Norm that the gradient is cut to; null: not at all")
    ema: Annotated[float, Field(ge=0, lt=1), NotBool] = Field(
        default=0.999, description="Decay of the weights' moving average, warmed up as min(ema, (1+n)/(10+n))"
    )


class ImageTrainingSettings(TrainingSettings):
    """The same, with the defaults of the paper's MNIST model (Song et al., 2021c, with a shorter warm-up)."""

    weighting: Literal["likelihood", "noise"] = "noise"
    steps: Count = 65_000
    batch: Count = 128
    learning_rate: Positive = 2e-4
    warmup: Annotated[int, Field(ge=0), NotBool] = 1000
    clip: Positive | None = 1.0
    ema: Annotated[float, Field(ge=0, lt=1), NotBool] = 0.9999


class MLPSettings(Settings):
    """A multilayer perceptron on [x, t], and how it is used."""

    kind: Literal["mlp"] = "mlp"
    width: Count = 32
    depth: Count = Field(default=2, description="Hidden layers")
    activation: Literal["silu", "tanh", "relu", "gelu"] = "silu"
    time_features: Literal["raw", "fourier"] = "raw"
    scale_input: bool = Field(default=False, description="Divide x by the standard deviation of x_t")
    predicts: Literal["noise", "score"] = "score"


class NCSNppSettings(Settings):
    """The U-Net NCSN++ for images (Song et al., 2021c). It predicts the noise."""

    kind: Literal["ncsnpp"]
    width: Count = Field(default=64, description="Channels of the finest level")
    multipliers: Filled[Count] = Field(default=(1, 2), description="Channels of every level, in widths")
    blocks: Count = Field(default=4, description="Residual blocks per level")
    attention: tuple[Count, ...] = Field(default=(), description="Resolutions at which attention applies")
    dropout: Annotated[float, Field(ge=0, lt=1), NotBool] = 0.1
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="In training; bfloat16: mixed, weights and sums stay in float32. Measurements are in float32, and "
        "so is, with a warning, training on a CPU without instructions for bfloat16",
    )
    channels_last: bool = Field(
        default=True, description="Memory layout of the images inside; float32 on the CPU is never channels_last"
    )
    compile: bool = Field(default=False, description="Whether torch.compile generates the network's code")
    scale_input: bool | None = Field(
        default=None,
        description="Divide x by the standard deviation of x_t; null: for VE, where it grows, and not for VP",
    )


class _Trained(Settings):
    training: TrainingSettings = Field(default=TrainingSettings(), description="Only what differs is to be given")


class NetMLPSettings(MLPSettings, _Trained):
    """A network on vectors, and how its training differs from that of the data set it meets."""


class NetNCSNppSettings(NCSNppSettings, _Trained):
    """A network on images, and how its training and its jobs differ from what the data set it meets says."""

    memory: Count | None = Field(default=None, description="As of a data set, in place of that; null: what that says")
    minutes: Count | None = Field(default=None, description="As of a data set, in place of that; null: what that says")


NetSettings = Annotated[
    NetMLPSettings | NetNCSNppSettings, Field(discriminator="kind"), WrapValidator(_without_tag), _of_kind("mlp")
]


class MixtureDatasetSettings(MixtureSettings):
    """Data of known density, and what every cell on them shares."""

    seeds: Count = Field(default=8, description="Models per cell, trained as one batch")
    training: TrainingSettings = TrainingSettings()
    p_noise: Listed[NoiseName] | None = Field(
        default=None, description="Where the reverse process starts; null: as the study says"
    )


class ImageDatasetSettings(ImageSettings):
    """Images, and what every cell on them shares."""

    seeds: Count = Field(default=1, description="Models per cell, trained side by side")
    training: ImageTrainingSettings = ImageTrainingSettings()
    p_noise: Listed[NoiseName] | None = Field(
        default=None, description="Where the reverse process starts; null: as the study says"
    )
    gpu: Annotated[int, Field(ge=0), NotBool] = Field(
        default=0, description="GPUs that a job asks for; several share every batch of training, and the test images"
    )
    threads: Count = Field(default=1, description="CPU threads of a job")
    memory: Count = Field(default=4000, description="MB that a job asks for at its first attempt")
    minutes: Count = Field(default=60, description="Minutes that a job asks for at its first attempt")


DatasetSettings = Annotated[
    MixtureDatasetSettings | ImageDatasetSettings,
    Field(discriminator="kind"), WrapValidator(_without_tag), _of_kind("mixture"),
]  # fmt: skip


def training_of(data: MixtureDatasetSettings | ImageDatasetSettings, network: _Trained) -> TrainingSettings:
    """How a cell's networks are trained: what its network says of it wins over what its data set says."""
    own = network.training.model_dump(exclude_unset=True)
    return TrainingSettings.model_validate(data.training.model_dump() | own)


def _defined(name: str, info: Info) -> str:
    """Refuse a name that the study around a block, which is the context, does not define."""
    defined = (info.context or {}).get(f"{info.field_name}s")
    if isinstance(defined, dict) and name not in defined:
        raise ValueError(f"no {info.field_name} has this name; defined are {', '.join(map(str, defined))}")
    return name


def _epsilon(sde: Any) -> float:
    """Where the integrals of an SDE begin, from its plain settings, which may have faults; 0 if they leave it open."""
    try:
        return _Diffusion.model_validate({key: sde[key] for key in sde if key == "epsilon"}).epsilon
    except (TypeError, ValidationError):
        return 0.0


def _past_epsilon(T: float, info: Info) -> float:
    """Refuse a diffusion time at which the integrals of a block's SDE would end before they begin."""
    sdes = (info.context or {}).get("sdes")
    for name in info.data.get("sde", ()):
        epsilon = _epsilon(sdes[name]) if isinstance(sdes, dict) else 0.0
        if epsilon >= T:
            raise ValueError(f"must be above the epsilon = {epsilon:g} of sde {name}")
    return T


def _short(T: float) -> float:
    """Refuse a time that the name of its folder would round."""
    if float(f"{T:g}") != T:
        raise ValueError(f"must have six digits at most, as folders are named by it; write {T:g}")
    return T


Known = Annotated[str, AfterValidator(_defined)]
Time = Annotated[Positive, AfterValidator(_short), AfterValidator(_past_epsilon)]


def _kind(info: Info, group: str, name: str, usual: str) -> Any:
    """The kind of what a name stands for, from its plain settings, which may have faults; None if it has none."""
    named = (info.context or {}).get(group)
    plain = named.get(name) if isinstance(named, dict) else None
    return plain.get("kind", usual) if isinstance(plain, dict) else None


def _fitting(net: str, info: Info) -> str:
    """Refuse a network for vectors on images, and one for images on vectors."""
    own = _kind(info, "nets", net, "mlp")
    kinds = [_kind(info, "datasets", name, "mixture") for name in info.data.get("dataset", ())]
    misfits = IMAGE_KINDS if own == "mlp" else ("mixture",) if own == "ncsnpp" else ()
    if any(kind in misfits for kind in kinds):
        raise ValueError("a net of kind mlp is for mixtures, one of kind ncsnpp for images; use a block for each")
    return net


class RefineSettings(Settings):
    """Cells that a study adds by itself where it predicts the optimal T."""

    tolerance: Positive = Field(
        description="SDE time: enough is the interval of T*, and the distance of the trained T around it, of this width"
    )
    cells: AtLeast2 = Field(description="Cells that each dataset × sde × net may have at most, with the block's own T")


class Block(Settings):
    """A part of the grid: every combination of its data sets, SDEs, networks and times becomes a cell."""

    dataset: Listed[Known]
    sde: Listed[Known]
    net: Listed[Annotated[Known, AfterValidator(_fitting)]]
    T: Listed[Time] = Field(description="Diffusion times")
    measure: Listed[Measure] = ("elbo", "likelihood", "samples")
    refine: RefineSettings | None = Field(
        default=None,
        description="Add T between the smallest and the largest, around the optimum predicted for the first p_noise "
        "that needs no fitting; null: none",
    )

    @field_validator("refine")
    @classmethod
    def _refinable(cls, refine: RefineSettings | None, info: Info) -> RefineSettings | None:
        T, faults = info.data.get("T"), []
        if refine is None:
            return refine
        if "elbo" not in info.data.get("measure", ("elbo",)):
            faults.append(fault("needs 'elbo' among what the block measures", info.data["measure"]))
        if T and len(T) < 2:
            faults.append(fault("needs two T at least, between which it adds others", T))
        elif T and refine.tolerance >= max(T) - min(T):
            text = f"must be less than {max(T) - min(T):g}, the distance of the block's smallest and largest T"
            faults.append(fault(text, refine.tolerance, ("tolerance",)))
        if T and refine.cells < len(T):
            faults.append(fault(f"must be at least {len(T)}, the block's own T", refine.cells, ("cells",)))
        refuse(faults)
        return refine

    def lines(self) -> list[Line]:
        """The key columns, without T, of the curves over T that the block is made of."""
        columns = itertools.product(self.dataset, self.sde, self.net)
        return [dict(zip(KEYS, one, strict=False)) for one in columns]


def refined_lines(blocks: Iterable[Block]) -> list[tuple[Line, Block]]:
    """The lines that get further cells, and the block each is from."""
    return [(line, block) for block in blocks if block.refine is not None for line in block.lines()]


class Decision(Settings):
    """What the refinement of a line found in one round: a T to train next, or why there is none."""

    p_noise: NoiseName = Field(description="The one whose optimum is looked for")
    trained: Filled[Positive] = Field(description="T of the line's cells so far")
    left_out: tuple[Positive, ...] = Field(description="Of these, those without a finite gap of every seed")
    T_star: Positive | None = Field(description="Predicted from the others; null with fewer than two")
    T_star_low: Positive | None = Field(description="Lower end of its interval over seeds")
    T_star_high: Positive | None = Field(description="Upper end of it")
    below: Positive | None = Field(description="The next trained T below T_star; T_star itself at the lower edge")
    above: Positive | None = Field(description="The next trained T above T_star; T_star itself at the upper edge")
    interior: bool = Field(description="Whether T_star lies between the smallest and the largest T")
    add: Positive | None = Field(description="T to train next")
    stopped: Stop | None = Field(description="Why no T is added")
    why: str = Field(description="The same for a person")


def round_name(line: Line, round: int | str) -> str:
    """The file below a study's results that holds a Decision."""
    return f"refine/dataset={line['dataset']}/sde={line['sde']}/net={line['net']}/round={round}.json"


def decisions(made: Callable[[int], Path]) -> Iterator[Decision]:
    """The decisions on a line, round after round to the last; `made` is told a round and has its file.

    Raises FileNotFoundError where a refinement has not come to its end, BadSettings if a file is damaged.
    """
    for round in itertools.count(1):
        path = made(round)
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{path} does not exist: the refinement of this line has not come to its end. Run snakemake again."
            ) from None
        except ValueError as error:
            raise BadSettings(f"{path} is damaged ({error}). Delete it and run snakemake again.") from None
        decision = parse(Decision, content, str(path))
        yield decision
        if decision.add is None:
            return


def added_times(made: Callable[[int], Path]) -> Iterator[float]:
    """The times that refinement added to a line, in their order; raises as `decisions` does."""
    return (decision.add for decision in decisions(made) if decision.add is not None)


def grid(blocks: Iterable[Block]) -> list[tuple[dict[str, str], Block]]:
    """The key columns of every cell as they stand in paths, in the order of the blocks, and the block it is from."""
    return [
        ({"dataset": dataset, "sde": sde, "net": net, "T": f"{T:g}"}, block)
        for block in blocks
        for dataset, sde, net, T in itertools.product(block.dataset, block.sde, block.net, block.T)
    ]


def cell_name(keys: dict[str, str]) -> str:
    """A cell's folder below `cells/`, e.g. dataset=toy/sde=vp/net=mlp-32x2/T=0.6."""
    return "/".join(f"{key}={keys[key]}" for key in KEYS)


def family(data: MixtureSettings | ImageSettings) -> Family:
    """How data of these settings are measured."""
    return "mixture" if isinstance(data, MixtureSettings) else "images"


def what_it_is(data: MixtureSettings | ImageSettings) -> dict[str, Any]:
    """The settings that say what the data are, without what a study does with them."""
    kind = MixtureSettings if isinstance(data, MixtureSettings) else ImageSettings
    return data.model_dump(mode="json", include=kind.model_fields.keys())


SCOUTED = 3
"""A line is scouted if it has this many times as many cells as are needed for that."""


class Grid(Settings):
    """The cells of a study and how they are measured, as the pipeline hands them to `collect`."""

    study: Filled[Block]
    families: dict[str, Family]
    scouts: Count | None = Field(default=None, description="Cells of a line that T* is predicted from")
    fitted: dict[str, tuple[FittedName, ...]] = Field(default={}, description="p_noises of a data set's cells")

    def extended(self, added: Callable[[Line], Iterable[float]]) -> Grid:
        """The grid with the times that were `added` to its refined lines, each of which becomes a block."""
        blocks: list[Block] = []
        for block in self.study:
            for line in block.lines() if block.refine else ():
                T = tuple(sorted({*block.T, *added(line)}))
                blocks.append(block.model_copy(update={key: (name,) for key, name in line.items()} | {"T": T}))
            if block.refine is None:
                blocks.append(block)
        return self.model_copy(update={"study": tuple(blocks)})

    def measured(self, table: str) -> list[str]:
        """The names of the cells whose rows one of the tables in MEASURED_BY collects."""
        of_family, measure = MEASURED_BY[table]
        cells = [
            (keys, block)
            for keys, block in grid(self.study)
            if of_family in (None, self.families[keys["dataset"]]) and measure in (None, *block.measure)
        ]
        return [
            cell_name(keys) for keys in (self._scouts(cells) if table == "running" else [keys for keys, _ in cells])
        ]

    def _scouts(self, cells: list[tuple[dict[str, str], Block]]) -> list[dict[str, str]]:
        """Of every line of at least three times `scouts` cells that many, evenly spread; refined lines whole."""
        lines: dict[Place, list[tuple[dict[str, str], Block]]] = {}
        for keys, block in cells:
            lines.setdefault((keys["dataset"], keys["sde"], keys["net"]), []).append((keys, block))
        chosen = []
        for whole in lines.values():
            line = sorted((keys for keys, _ in whole), key=lambda keys: float(keys["T"]))
            if whole[0][1].refine:
                chosen += line
            elif self.scouts and len(line) >= SCOUTED * self.scouts:
                chosen += [line[round(k * (len(line) - 1) / (self.scouts - 1))] for k in range(self.scouts)]
        return chosen

    def tables(self) -> list[str]:
        """The tables of the whole study: those collected from its cells, and what is made of these."""
        there = [table for table in MEASURED_BY if self.measured(table)]
        made = {
            ("elbo",): ["optimum", "summary"],
            ("running",): ["scout", "scout_curves"],
            ("elbo", "likelihood"): ["bounds"],
            ("bpd", "image_elbo"): ["table1", "table2"],
        }
        derived = [table for needed, tables in made.items() if {*needed} <= {*there} for table in tables]
        return [*there, *derived, *(["refined"] if refined_lines(self.study) else []), "tradeoff", "runs"]

    def parts(self, table: CollectedName) -> list[str]:
        """The files below `cells/` that a table is collected from."""
        if table != "runs":
            return [f"{cell}/{table}.parquet" for cell in self.measured(table)]
        return (
            [
                f"{cell_name(keys)}/run_{VERBS[self.families[keys['dataset']], measure]}.parquet"
                for keys, block in grid(self.study)
                for measure in (None, *block.measure)
            ]
            + [f"{cell}/run_running.parquet" for cell in self.measured("running")]
            + [
                f"{cell_name(keys)}/run_noise_{name}.parquet"
                for keys, _ in grid(self.study)
                for name in self.fitted.get(keys["dataset"], ())
            ]
        )


class ElboSettings(Settings):
    time_steps: Count = Field(default=160, description="Gauss–Legendre nodes in lambda on [epsilon, T]")
    points: AtLeast2 = Field(default=1024, description="Random points per node, for data of more than one dimension")


class RunningSettings(ElboSettings):
    """The ELBO of one model at all times up to its own."""

    times: AtLeast2 = Field(default=40, description="Times, equally far apart, up to the cell's T")


class ScoutSettings(RunningSettings):
    """A prediction of T* from a few cells of every line, held against all of them."""

    cells: Annotated[int, Field(ge=2), NotBool] | None = Field(
        default=None,
        description="How many, of lines with at least three times as many; the smallest and the largest T are among "
        "them. null: no prediction",
    )


class LikelihoodSettings(Settings):
    points: Count = Field(default=2048, description="Held-out points per seed")
    rtol: Tolerance = 1e-5
    atol: Positive = 1e-5
    max_evaluations: Evaluations = Field(
        default=20_000, description="Function evaluations after which a solve has failed"
    )
    grid_cells: Annotated[int, Field(ge=16), NotBool] = Field(
        default=256, description="Cells of the coarsest grid for the reverse SDE's density (1-D)"
    )
    grid_steps: AtLeast2 = Field(default=32, description="Time steps of that grid")


class SampleSettings(Settings):
    points: Count = Field(default=2048, description="Samples per seed, sampler and p_noise")
    steps_per_unit_time: Count = Field(default=500, description="Euler–Maruyama steps per unit of T")
    rtol: Tolerance = 1e-5
    atol: Positive = 1e-5
    max_evaluations: Evaluations = Field(
        default=20_000, description="Function evaluations after which a solve has failed"
    )
    bins: Count = Field(default=120, description="Bins of the histogram (1-D)")


class BpdSettings(Settings):
    images: Count | None = Field(default=None, description="How many test images, drawn once for all; null: all")
    draws: Count = Field(default=1, description="Dequantised versions of each image")
    batch: Count = Field(default=100, description="Images solved as one system; the NFE belongs to it")
    rtol: Tolerance = 1e-5
    atol: Positive = 1e-5
    max_evaluations: Evaluations = Field(
        default=20_000, description="Function evaluations after which a solve has failed"
    )


class ImageElboSettings(Settings):
    images: Count | None = Field(default=None, description="How many test images, drawn once for all; null: all")
    pairs: Count = Field(default=16, description="Antithetic pairs of noise, each at a time of its own, per image")
    batch: Count = Field(default=256, description="Noisy images in the network at once")


class ImageSampleSettings(Settings):
    images: Count = Field(default=64, description="Samples per seed and p_noise; all are compared with the test images")
    steps_per_unit_time: Count = Field(default=500, description="Euler–Maruyama steps per unit of T")


class ImageNeeds(Settings):
    """What a study is going to do with some images, for a look whether they allow it before jobs start."""

    networks: dict[str, NCSNppSettings] = Field(default={}, description="By the names in the study")
    batches: tuple[Count, ...] = Field(default=(), description="Training images in a batch")
    test_images: tuple[Count, ...] = Field(default=(), description="Test images that are measured")
    p_noise: tuple[NoiseName, ...] = Field(default=(), description="Where the reverse process starts")
    components: Count = Field(default=1, description="Gaussians of the p_noise mixture")
    memory: Count = Field(default=1, description="MB that a job asks for")


class FullNoiseSettings(Settings):
    """The Gaussian with the mean and the covariance of x_T."""

    kind: Literal["full"] = "full"


class MixtureNoiseSettings(Settings):
    """Gaussians with full covariances, by expectation maximisation."""

    kind: Literal["mixture"] = "mixture"
    components: Count = 4
    iterations: Count = Field(default=500, description="At most")


class FlowNoiseSettings(Settings):
    """A neural spline flow, by maximum likelihood."""

    kind: Literal["flow"] = "flow"
    transforms: Count = 3
    width: Count = Field(default=64, description="Of the two hidden layers of each transform")
    steps: Count = 1000
    batch: Count = 256
    learning_rate: Positive = 1e-3
    held_out: Annotated[float, Field(gt=0, lt=1), NotBool] = Field(
        default=0.1, description="Share of the training points by which the best step is chosen"
    )


class NoiseSettings(Settings):
    """How each p_noise that is fitted is fitted."""

    full: FullNoiseSettings = FullNoiseSettings()
    mixture: MixtureNoiseSettings = MixtureNoiseSettings()
    flow: FlowNoiseSettings = FlowNoiseSettings()


class OptimumSettings(Settings):
    resamples: AtLeast2 = Field(default=1000, description="Bootstrap resamples of the seeds")
    confidence: Annotated[float, Field(gt=0, lt=1), NotBool] = 0.95


class FigureSettings(Settings):
    """What the figures show; the tables hold more."""

    draw: Distinct[FigureName] = ("fig1", "fig2", "fig3", "fig4", "quality", "cost")
    dataset: str = "toy"
    net: str = Field(default="mlp-32x2", description="The network of Figs. 1, 2, 4 and of the cost")
    capacities: Listed[str] = Field(default=("mlp-16x1", "mlp-32x2", "mlp-64x3"), description="The networks of Fig. 3")
    histogram_T: Listed[Positive] = Field(default=(0.5, 0.8, 1.0, 2.0), description="The times of Fig. 4")
    images: Count = Field(default=8, description="Samples per row of the figure of images")
    p_noise: NoiseName = Field(default="standard", description="The p_noise of Figs. 1, 2, 4 and of the cost")
    width: Positive = Field(default=6.75, description="Inches: the two columns of an ICML page")
    font_size: Positive = Field(default=8.0, description="Points")

    def of(self, figure: FigureName) -> str:
        """The settings that one figure depends on, as JSON: what only another one uses is left out."""
        own = {"fig3": "capacities", "fig4": "histogram_T", "images": "images"}
        of_all = {"dataset", "net"} if figure in (*IMAGE_FIGURES, "tradeoff") else set()
        return self.canonical(exclude={"draw", *of_all, *(key for name, key in own.items() if name != figure)})


class Cell(Settings):
    """Everything that determines the weights of one cell, resolved. This is what cell.json holds."""

    dataset: str
    sde: str
    net: str
    T: Positive
    seed: Seed
    seeds: Count
    data: Annotated[
        MixtureSettings | ImageSettings,
        Field(discriminator="kind"), WrapValidator(_without_tag), _of_kind("mixture"),
    ]  # fmt: skip
    diffusion: SDESettings
    network: Annotated[
        MLPSettings | NCSNppSettings, Field(discriminator="kind"), WrapValidator(_without_tag), _of_kind("mlp")
    ]
    training: TrainingSettings

    @property
    def keys(self) -> dict[str, str]:
        """The cell's key columns as they stand in paths."""
        return {"dataset": self.dataset, "sde": self.sde, "net": self.net, "T": f"{self.T:g}"}

    @property
    def name(self) -> str:
        return cell_name(self.keys)

    def digest(self) -> str:
        """Names the settings in the files made with them."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()


def _not_measured(figures: FigureSettings, blocks: Iterable[Block], families: dict[str, Family]) -> list[Fault]:
    """What a figure shows, and no cell of the blocks is measured for."""
    times: dict[tuple[str, str, str], set[str]] = {}
    of_images: set[str] = set()
    for keys, block in grid(blocks):
        if families.get(keys["dataset"]) == "images":
            of_images |= {*block.measure, "training"}
            continue
        for measure in block.measure:
            times.setdefault((keys["dataset"], keys["net"], measure), set()).add(keys["T"])
    faults: dict[Place, Fault] = {}
    for i, name in enumerate(figures.draw):
        measures = IMAGE_FIGURES.get(name)
        if measures is not None:
            missing = [m for m in measures if m not in of_images]
            if missing:
                text = f"{name} shows '{missing[0]}' of images, which no cell measures"
                faults["draw", i] = fault(text, name, ("draw", i))
            continue
        if name == "tradeoff":
            if not any({"likelihood", "samples"} & {*block.measure} for block in blocks):
                text = "tradeoff shows quality against cost, for which some cell must measure likelihood or samples"
                faults["draw", i] = fault(text, name, ("draw", i))
            continue
        measure = MEASURED_BY.get(FIGURE_TABLE[name], ("mixture", "elbo"))[1]
        if name == "sensitivity" and (figures.dataset, measure) not in {(data, what) for data, _, what in times}:
            text = f"{name} shows '{measure}' of this dataset, which no cell measures"
            faults["dataset",] = fault(text, figures.dataset, ("dataset",))
        nets: dict[Place, str] = {("net",): figures.net} if name != "sensitivity" else {}
        if name == "fig3":
            nets = {("capacities", i): net for i, net in enumerate(figures.capacities)}
        for place, net in nets.items():
            if (figures.dataset, net, measure) not in times:
                text = f"{name} shows '{measure}' of dataset {figures.dataset} with this net, which no cell measures"
                faults.setdefault(place, fault(text, net, place))
    sampled = times.get((figures.dataset, figures.net, "samples"))
    if "fig4" in figures.draw and sampled:
        for i, T in enumerate(figures.histogram_T):
            if f"{T:g}" not in sampled:
                text = f"fig4 shows 'samples' at this T, but they are taken at {', '.join(sorted(sampled, key=float))}"
                faults["histogram_T", i] = fault(text, T, ("histogram_T", i))
    return list(faults.values())


def _not_started_from(
    figures: FigureSettings,
    datasets: dict[str, DatasetSettings],
    blocks: Iterable[Block],
    usual: Sequence[NoiseName],
) -> list[Fault]:
    """What figures of images show of one p_noise that the images have not."""
    used = {name for block in blocks for name in block.dataset if name in datasets}
    noises = [datasets[name].p_noise or usual for name in sorted(used) if family(datasets[name]) == "images"]
    shown = [name for name in ("table1", "images") if name in figures.draw]
    if not shown or not noises or any(figures.p_noise in own for own in noises):
        return []
    there = ", ".join(dict.fromkeys(one for own in noises for one in own))
    return [fault(f"{shown[0]} shows images from it, which start from {there}", figures.p_noise, ("p_noise",))]


def _writable(path: str) -> str:
    """Refuse a folder that can neither be written nor made, or whose name Snakemake would take for a pattern."""
    if not path.strip() or set(path) & set("{}"):
        raise ValueError("must be the path of a folder, without { and }")
    place = Path(path)
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"cannot be made, as {place} is not a folder; name another one")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"cannot be written, as {place} is read-only for you; name another folder")
    return path


class Study(Settings):
    """A whole configuration file."""

    results: Annotated[str, AfterValidator(_writable)] = "results"
    seed: Seed = Field(
        default=0,
        description="Every random number derives from it, but for what all studies share so that they compare: which "
        "test images are measured, directions and floors of Wasserstein distances, reference points of mode shares",
    )
    datasets: dict[Name, DatasetSettings] = Field(min_length=1)
    sdes: dict[Name, SDESettings] = Field(min_length=1)
    nets: dict[Name, NetSettings] = Field(min_length=1)
    p_noise: Listed[NoiseName] = Field(
        default=("standard", "matched"), description="Where the reverse process starts; a data set may have its own"
    )
    noise: NoiseSettings = NoiseSettings()
    study: Filled[Block] = Field(description="The grid")
    elbo: ElboSettings = ElboSettings()
    scout: ScoutSettings = ScoutSettings()
    likelihood: LikelihoodSettings = LikelihoodSettings()
    samples: SampleSettings = SampleSettings()
    bpd: BpdSettings = BpdSettings()
    image_elbo: ImageElboSettings = ImageElboSettings()
    image_samples: ImageSampleSettings = ImageSampleSettings()
    optimum: OptimumSettings = OptimumSettings()
    figures: FigureSettings = FigureSettings()
    data_dir: str = Field(default="data", description="Where mnist and cifar10 are, or are downloaded to")
    checkpoint_minutes: Positive = Field(default=10.0, description="Minutes of training between saved resume states")

    @model_validator(mode="wrap")
    @classmethod
    def _together(cls, values: Any, check: Check, info: Info) -> Any:
        """Let the blocks see what the study defines, also where that has faults of its own."""
        if info.context is None:
            return cls.model_validate(values, context=values if isinstance(values, dict) else {})
        return check(values)

    @field_validator("study")
    @classmethod
    def _each_cell_once(cls, blocks: tuple[Block, ...]) -> tuple[Block, ...]:
        names = [[cell_name(keys) for keys, _ in grid([block])] for block in blocks]
        again = [[name for name in names[i] if name in itertools.chain(*names[:i])] for i in range(len(names))]
        refuse([fault("has cells of an earlier block", cells, (i,)) for i, cells in enumerate(again) if cells])
        return blocks

    @field_validator("study")
    @classmethod
    def _batches_divide(cls, blocks: tuple[Block, ...], info: Info) -> tuple[Block, ...]:
        datasets, nets = info.data.get("datasets", {}), info.data.get("nets", {})
        faults = []
        for i, block in enumerate(blocks):
            for dataset, net in itertools.product(block.dataset, block.net):
                gpus = getattr(datasets.get(dataset), "gpu", 0)
                if gpus > 1 and net in nets and (batch := training_of(datasets[dataset], nets[net]).batch) % gpus:
                    text = f"{dataset} and {net} train with batches of {batch}, which its gpu = {gpus} do not divide"
                    faults.append(fault(f"{text}; change one of the two", [dataset, net], (i,)))
        refuse(faults)
        return blocks

    @field_validator("figures")
    @classmethod
    def _only_what_is_measured(cls, figures: FigureSettings, info: Info) -> FigureSettings:
        families = {name: family(data) for name, data in info.data.get("datasets", {}).items()}
        known = "study" in info.data and "datasets" in info.data
        faults = _not_measured(figures, info.data["study"], families) if known else []
        noises = info.data.get("p_noise", [figures.p_noise])
        faults += _not_started_from(figures, info.data.get("datasets", {}), info.data["study"], noises) if known else []
        own = getattr(info.data.get("datasets", {}).get(figures.dataset), "p_noise", None) or noises
        if known and "scout" in figures.draw and "scout" in info.data and not faults:
            scouts = info.data["scout"].cells
            cells = Grid(study=info.data["study"], families=families, scouts=scouts).measured("running")
            if not any(f"dataset={figures.dataset}/" in cell and f"/net={figures.net}/" in cell for cell in cells):
                text = f"scout shows dataset {figures.dataset} and net {figures.net}, which are not refined, and not "
                text += f"scouted: that takes scout.cells, and {SCOUTED} times as many T in a line"
                faults.append(fault(text, "scout", ("draw", figures.draw.index("scout"))))
        if figures.draw and figures.p_noise not in own:
            faults.append(fault(f"must be one of the study's p_noise, {', '.join(own)}", figures.p_noise, ("p_noise",)))
        refuse(faults)
        return figures

    @field_validator("study")
    @classmethod
    def _refined_lines(cls, blocks: tuple[Block, ...], info: Info) -> tuple[Block, ...]:
        datasets, usual = info.data.get("datasets", {}), info.data.get("p_noise", ("standard",))
        faults = []
        for i, block in enumerate(blocks):
            others = [line for other in (*blocks[:i], *blocks[i + 1 :]) for line in other.lines()]
            for line in block.lines() if block.refine else ():
                data = datasets.get(line["dataset"])
                noises = getattr(data, "p_noise", None) or usual
                wrong = {
                    "is a line of another block too; a line that is refined has one": line in others,
                    "is of images, of which no running ELBO is known": isinstance(data, ImageDatasetSettings),
                    "has one seed, which tells no interval of T*": getattr(data, "seeds", 2) < 2,
                    "needs a p_noise that is not fitted (standard or matched)": all(one in FITTED for one in noises),
                }
                name = " ".join(line.values())
                faults += [fault(f"{name} {text}", name, (i, "refine")) for text, is_so in wrong.items() if is_so]
        refuse(faults)
        return blocks

    @field_validator("scout")
    @classmethod
    def _scoutable(cls, scout: ScoutSettings, info: Info) -> ScoutSettings:
        """A line is predicted between its smallest and its largest T, under a p_noise that is known at all of them."""
        if not {"study", "datasets", "p_noise"} <= info.data.keys():
            return scout
        datasets, blocks = info.data["datasets"], info.data["study"]
        families = {name: family(data) for name, data in datasets.items()}
        lines: dict[Place, list[float]] = {}
        for cell in Grid(study=blocks, families=families, scouts=scout.cells).measured("running"):
            *line, own = (part.split("=", 1)[1] for part in cell.split("/"))
            lines.setdefault(tuple(line), []).append(float(own))
        faults = []
        for (dataset, *rest), T in lines.items():
            name = " ".join(map(str, [dataset, *rest]))
            if (least := math.ceil(max(T) / min(T) - 1e-9)) > scout.times:
                text = f"must be at least {least} for {name}: the largest T over the smallest"
                faults.append(fault(text, scout.times, ("times",)))
            sde = info.data.get("sdes", {}).get(rest[0])
            if sde and (first := min(T) / scout.times) <= sde.epsilon:
                text = f"asks {name} for the ELBO at {first:g}, which is not above its epsilon, {sde.epsilon:g}"
                faults.append(fault(text, scout.times, ("times",)))
            if all(one in FITTED for one in datasets[dataset].p_noise or info.data["p_noise"]):
                text = f"predicts nothing of {name} without a p_noise that is not fitted (standard or matched)"
                faults.append(fault(text, scout.cells, ("cells",)))
        refuse(faults)
        return scout

    def grid(self) -> list[tuple[dict[str, str], Block]]:
        """Every cell's key columns and the block it is from."""
        return grid(self.study)

    def cells(self) -> Grid:
        """What `collect` has to know of this study."""
        return Grid(
            study=self.study,
            families={name: family(data) for name, data in self.datasets.items()},
            scouts=self.scout.cells,
            fitted={name: [one for one in self.noises(name) if one in FITTED] for name in self.datasets},
        )

    def noises(self, dataset: str) -> tuple[NoiseName, ...]:
        """Where the reverse process of the cells on some data starts."""
        return self.datasets[dataset].p_noise or self.p_noise

    def known_noises(self, dataset: str) -> tuple[NoiseName, ...]:
        """The same without those that are fitted, each of which is of one T."""
        return tuple(name for name in self.noises(dataset) if name not in FITTED)

    def needs(self, dataset: str) -> ImageNeeds:
        """What the cells on some images are going to need of them."""
        blocks = [(self.cell(**keys), block) for keys, block in self.grid() if keys["dataset"] == dataset]
        measured = {measure for _, block in blocks for measure in block.measure}
        wanted = {"likelihood": self.bpd.images, "elbo": self.image_elbo.images}
        return ImageNeeds(
            networks={cell.net: cell.network for cell, _ in blocks},
            batches=sorted({cell.training.batch for cell, _ in blocks}),
            test_images=sorted({n for measure, n in wanted.items() if measure in measured and n is not None}),
            p_noise=self.noises(dataset),
            components=self.noise.mixture.components,
            memory=max((self.nets[cell.net].memory or self.datasets[dataset].memory for cell, _ in blocks), default=1),
        )

    def cell(self, dataset: str, sde: str, net: str, T: str) -> Cell:
        """The resolved settings of one cell."""
        data, network = self.datasets[dataset], self.nets[net]
        return Cell(
            dataset=dataset, sde=sde, net=net, T=float(T), seed=self.seed, seeds=data.seeds,
            data=what_it_is(data),
            diffusion=self.sdes[sde],
            network=network.model_dump(exclude={"training", "memory", "minutes"}),
            training=training_of(data, network).model_dump(),
        )  # fmt: skip


class BadSettings(Exception):
    """Settings with faults; the message lists every one."""


SDE_KINDS = [str(sde.model_fields["kind"].default) for sde in _Diffusion.__subclasses__()]
IN_PLAIN_WORDS = {
    "missing": "is missing, and has no default",
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
    "dict_type": "must be keys and their values",
    "model_type": "must be keys and their values",
    "model_attributes_type": "must be keys and their values",
    "string_type": "must be text",
    "string_pattern_mismatch": "a name begins with a letter or a digit, and is made of these and . _ + -",
    "literal_error": "must be {expected}",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "bool_type": "must be yes or no",
    "bool_parsing": "must be yes or no",
    "union_tag_not_found": f"has no kind; it must be {', '.join(SDE_KINDS)}",
    "union_tag_invalid": "kind must be {expected_tags} (found: '{tag}')",
}
"""What pydantic finds, for a person who does not know it."""


def _line(found: Fault) -> str:
    """A fault as a person can mend it: where it is, what should be there, what is there."""
    parts = [part for part in found["loc"] if part != "[key]"]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
    text = found["msg"].removeprefix("Value error, ")
    if found["type"] in IN_PLAIN_WORDS:
        text = IN_PLAIN_WORDS[found["type"]].format(**found.get("ctx", {}))
    value = "nothing" if found["input"] is None else shorten(repr(found["input"]), 80, placeholder=" ...")
    shown = "" if isinstance(found["input"], dict) or found["type"] == "missing" else f" (found: {value})"
    return f"{place}: {text}{shown}" if place else f"{text}{shown}"


def refuse_repeated_keys(path: Path) -> None:
    """Raise BadSettings if a key stands twice in a YAML file, where a parser would silently take the last."""
    lines, nodes = [], [yaml.compose(path.read_text(), yaml.SafeLoader)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            nodes += [value for _, value in node.value]
            keys = [key.value for key, _ in node.value]
            again = [key for i, (key, _) in enumerate(node.value) if key.value in keys[:i]]
            lines += [f"\n  - line {key.start_mark.line + 1}: {key.value} is given again" for key in again]
    if lines:
        raise BadSettings(f"{path} gives the same key twice:{''.join(lines)}")


def read_study(settings: Any, source: str) -> Study:
    """The study in a parsed configuration file. Raises BadSettings with every fault, naming `source`."""
    return parse(Study, settings, source)


def parse(kind: type[S], settings: Any, source: str) -> S:
    """Settings of a kind from plain values. Raises BadSettings with every fault, naming `source`."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        lines = [f"\n  - {_line(found)}" for found in error.errors()]
        count = "a fault" if len(lines) == 1 else f"{len(lines)} faults"
        raise BadSettings(f"{source} has {count}:{''.join(lines)}") from None


def read_cell(path: Path) -> Cell:
    """The settings in a cell.json. Raises BadSettings if it cannot be read."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise BadSettings(
            f"{path} does not exist. Snakemake writes it; name the cell.json in a cell's folder."
        ) from None
    except (OSError, ValueError) as error:
        raise BadSettings(
            f"{path} cannot be read as a cell's settings ({error}). Delete it and run Snakemake, which writes it anew."
        ) from None
    return parse(Cell, content, str(path))
