"""The tables: what they say, every column with type, unit and meaning. The joint between the mathematics and the paper.

Plain declarations, so that a job on the cluster can write a table without importing pandas. `arrow_schema` is what
goes into the Parquet file, units and descriptions in the field metadata; `tables.py` checks the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from difftime import __version__
from difftime.support.files import atomic

Row = dict[str, Any]
"""A row of a table: a value, or None, for every column."""


@dataclass(frozen=True)
class Column:
    """`unit` is "1" for a pure number and "" for a name. `low` and `high` bound the values; `nullable` allows NaN."""

    name: str
    type: str
    unit: str
    description: str
    nullable: bool = False
    low: float | None = None
    high: float | None = None


def _text(name: str, description: str, nullable: bool = False) -> Column:
    return Column(name, "string", "", description, nullable)


def _nats(name: str, description: str, nullable: bool = False, low: float | None = None) -> Column:
    return Column(name, "float64", "nats", description, nullable, low)


def _count(name: str, description: str, nullable: bool = False) -> Column:
    """A count; one that may be null is float64 in a data frame, as pandas has no null among integers."""
    return Column(name, "int64", "1", description, nullable, low=0.0)


CELL = (
    _text("dataset", "Data set, as named in the configuration"),
    _text("sde", "Forward SDE, as named in the configuration"),
    _text("net", "Network and its training, as named in the configuration"),
    Column("T", "float64", "SDE time", "Diffusion time", low=0.0),
)
SEED = _count("seed", "Index of the model within its cell")
P_NOISE = _text(
    "p_noise",
    "Where the reverse process starts: standard; matched to mean and variance of p(x,T); full: to its covariance too; "
    "mixture and flow: fitted to it",
)
CURVE = (*CELL[:3], P_NOISE)
SAMPLER = _text("sampler", "sde: reverse SDE by Euler-Maruyama; ode: reverse probability-flow ODE by RK45")
EPSILON = Column("epsilon", "float64", "SDE time", "Where every integral over time begins", low=0.0)
UNIT = _count("unit", "Index of the image in the test set")
DATA_DIGEST = _text("data_digest", "SHA-256 of the images, both splits; null for known densities", nullable=True)


def _bits(name: str, description: str, nullable: bool = True, low: float | None = None) -> Column:
    return Column(name, "float64", "bits per dimension", description, nullable, low)


def _distance(name: str, description: str, signed: bool = False) -> Column:
    return Column(name, "float64", "units of x", description, True, None if signed else 0.0)


SOLVER = (
    Column("rtol", "float64", "1", "Relative tolerance of RK45", low=0.0),
    Column("atol", "float64", "units of x", "Absolute tolerance of RK45", low=0.0),
)
FINITE = Column("finite", "float64", "1", "Share of samples that are finite numbers", low=0.0, high=1.0)
DISTANCE = (
    Column(
        "wasserstein1",
        "float64",
        "units of x",
        "Wasserstein-1 distance to p_data; sliced if d > 1; of images: of 8 bits, to the test images, 128 grey "
        "levels to a unit. Null if a sample is not finite",
        True,
        low=0.0,
    ),
    Column(
        "wasserstein1_se",
        "float64",
        "units of x",
        "Bootstrap standard error over the samples of wasserstein1; images only, null for a single one",
        True,
        low=0.0,
    ),
    Column(
        "wasserstein1_floor",
        "float64",
        "units of x",
        "What as many perfect samples are expected to have; of images: as many training images, mean over disjoint "
        "sets, null if there are fewer",
        True,
        low=0.0,
    ),
    Column(
        "wasserstein1_floor_se",
        "float64",
        "units of x",
        "Standard error of wasserstein1_floor over the sets; images only, null for one set",
        True,
        low=0.0,
    ),
)
FEW_STEPS = (
    _text("sampler", "sde: Euler-Maruyama in equal steps of time; ddim, heun, dpm_solver_2m: in equal steps of lambda"),
    _count("evaluations", "Evaluations of the score that the sampler may take"),
)

TABLES: dict[str, tuple[Column, ...]] = {
    "history": (
        *CELL,
        SEED,
        _count("step", "Steps trained"),
        Column("loss", "float64", "nats", "Mean training loss, Eq. 3, since the row before", low=0.0),
    ),
    "training": (
        *CELL,
        _count("seeds", "Models side by side"),
        _count("parameters", "Parameters of one model; null if they are not known, as of code of your own", True),
        _count("steps", "Training steps (iterations); null if it was not trained here", True),
        _count("batch", "Points, or images, per step and model; null if it was not trained here", True),
        _text("weighting", "Weight in the training loss: likelihood (Eq. 3) or noise; null: not trained here", True),
        _text(
            "precision",
            "Of the layers in training; measurements are in float32; null: not trained here",
            True,
        ),
    ),
    "elbo": (
        *CELL,
        SEED,
        P_NOISE,
        _nats(
            "elbo", "Bounds E log q(x_epsilon) of the reverse SDE: by Eq. 11 of known densities, else by Eq. 4", True
        ),
        _nats("elbo_se", "Standard error of elbo within the seed (0: by quadrature; of images: over them)", True, 0.0),
        _nats("prior", "E log p_noise(x_T)"),
        _nats(
            "prior_se", "Standard error of prior (0: in closed form or by quadrature; of images: over them)", True, 0.0
        ),
        _nats("I", "I(s, T), Eq. 6; K + G of known densities", True),
        _nats("I_se", "Standard error of I (0: by quadrature; of images: over them)", True, 0.0),
        _nats("R", "R(T), Eq. 5, in closed form"),
        _nats("kl", "KL[p(x,T) || p_noise], Eq. 8; known densities only", True),
        _nats("kl_se", "Standard error of kl (0: by quadrature)", True, 0.0),
        _nats("gap", "G(s, T) = half the integral of g2 E||s - grad log p||2; known densities only", True, 0.0),
        _nats("gap_se", "Standard error of gap (0: by quadrature)", True, 0.0),
        _nats("K", "K(T), Eq. 7: the error that even the exact score has; known densities only", True, 0.0),
        _nats("K_se", "Standard error of K (0: by quadrature)", True, 0.0),
        _nats("entropy", "Entropy of p(x, epsilon); known densities only", True),
        _nats("entropy_se", "Standard error of entropy (0: by quadrature)", True, 0.0),
        _nats("log_p_data", "E log p_data(x) at t = 0, the ceiling of every model; known densities only", True),
        _nats("log_p_data_se", "Standard error of log_p_data (0: by quadrature)", True, 0.0),
        _nats("residual", "Eq. 4, prior - I + R, less Eq. 11: the error of the decomposition", True),
        _nats("kl_low", "KL[p(x,T) || p_noise] is at least that of a Gaussian with the images' moments", True, 0.0),
        _nats("kl_high", "KL[p(x,T) || p_noise] is at most E KL[q(x_T|x_0) || p_noise]; images only", True, 0.0),
        _nats("decoder", "From x_epsilon to the image x_0: the decoder's term; images only", True),
        _nats("decoder_se", "Standard error of decoder over the images", True, 0.0),
        _nats("elbo_x0", "elbo + decoder: bounds log q(x_0) of dequantised images", True),
        _nats("elbo_x0_se", "Standard error of elbo_x0 over the images", True, 0.0),
        _bits("elbo_bpd", "Upper bound on the reverse SDE's bits per dimension of 8-bit images: from elbo_x0"),
        _bits("elbo_bpd_se", "Standard error of elbo_bpd over the images", low=0.0),
        _bits("kl_low_bpd", "kl_low per dimension", low=0.0),
        _bits("kl_high_bpd", "kl_high per dimension", low=0.0),
        _count("units", "Test images; null for known densities", True),
        EPSILON,
        _text("weighting", "Weight in the training loss: likelihood (Eq. 3) or noise; null: not trained here", True),
        _count("steps", "Training steps; null: not trained here", True),
        DATA_DIGEST,
    ),
    "elbo_units": (
        *CELL,
        SEED,
        P_NOISE,
        UNIT,
        _nats("elbo", "As in elbo, of this image", True),
        _nats("prior", "As in elbo, of this image"),
        _nats("I", "As in elbo, of this image", True),
        _nats("decoder", "As in elbo, of this image", True),
        _nats("elbo_x0", "As in elbo, of this image", True),
        _bits("elbo_bpd", "As in elbo, of this image"),
    ),
    "curve": (
        *CELL,
        SEED,
        P_NOISE,
        Column("t", "float64", "SDE time", "Diffusion time that the model of T is used for, t <= T", low=0.0),
        _nats("elbo", "Eq. 4 at t, prior(t) - I(t) + R(t): the ELBO were t the diffusion time", True),
        _nats("elbo_se", "Standard error of elbo within the seed; of images over them", True, 0.0),
        _nats("prior", "E log p_noise(x_t), p_noise being that of t"),
        _nats("I", "I(s, t), Eq. 6: a running integral", True),
        _nats("I_se", "Standard error of I within the seed; of images over them", True, 0.0),
        _nats("R", "R(t), Eq. 5, in closed form"),
        _nats("kl", "KL[p(x,t) || p_noise of t]; known densities only", True),
        _nats("gap", "G(s, t); known densities only", True, 0.0),
        _nats("log_p_data", "E log p_data(x) at t = 0; known densities only", True),
        _bits("elbo_bpd", "The ELBO at t with the decoder at epsilon, in bits per dimension; images only"),
        _bits("elbo_bpd_se", "Standard error of elbo_bpd over the images", low=0.0),
        EPSILON,
        _text("weighting", "Weight in the training loss: likelihood (Eq. 3) or noise; null: not trained here", True),
    ),
    "curve_units": (
        *CELL,
        SEED,
        P_NOISE,
        Column("t", "float64", "SDE time", "As in curve", low=0.0),
        UNIT,
        _nats("elbo", "As in curve, of this image", True),
        _bits("elbo_bpd", "As in curve, of this image"),
    ),
    "levels": (
        *CELL,
        SEED,
        Column("low", "float64", "1", "Where an interval of lambda = log(sigma2/alpha2), the level of noise, begins"),
        Column("high", "float64", "1", "Where it ends"),
        Column("error", "float64", "1", "E||sigma s + z||2 per dimension, mean over the interval; 1: s = 0", True),
        Column("error_se", "float64", "1", "Its standard error within the seed; of images over them", True, 0.0),
        Column(
            "excess", "float64", "1", "E||sigma (s - grad log p)||2 per dimension, likewise; known densities only", True
        ),
        Column("excess_se", "float64", "1", "Its standard error within the seed (0: by quadrature)", True, 0.0),
        _count("units", "Test images; null for known densities", True),
        EPSILON,
        _text("weighting", "Weight in the training loss: likelihood (Eq. 3) or noise; null: not trained here", True),
    ),
    "likelihood": (
        *CELL,
        SEED,
        P_NOISE,
        _nats("log_q_ode", "Mean log q(x_epsilon) of held-out points under the probability-flow ODE", True),
        _nats("log_q_ode_se", "Standard error of log_q_ode over the points", True, 0.0),
        _nats("log_p_points", "Mean log p(x, epsilon) of the same points; known densities only", True),
        _bits("bpd", "Of 8-bit test images under the probability-flow ODE: from log_q_ode"),
        _bits("bpd_se", "Standard error of bpd over the images", low=0.0),
        _count("units", "Held-out points, or test images"),
        _count("draws", "Dequantised versions of each image; 1 for points"),
        _count("failed", "Of units x draws, those without a finite value, which are not in the mean"),
        _count("batch", "Points solved as one system, to which the NFE belongs"),
        Column("nfe", "float64", "1", "Right-hand-side calls of RK45, mean over batches", low=0.0),
        Column("nfe_sd", "float64", "1", "Standard deviation of nfe over batches; null for one", True, low=0.0),
        Column("accepted", "float64", "1", "Accepted steps, mean over batches", low=0.0),
        Column("rejected", "float64", "1", "Rejected steps, mean over batches", low=0.0),
        *SOLVER,
        _nats("log_q_sde", "E log q under the reverse SDE itself, from its density on a grid (1-D only)", True),
        _nats("log_q_sde_error", "Numerical error of log_q_sde", True, 0.0),
        Column(
            "log_q_sde_lost",
            "float64",
            "1",
            "Probability that left the grid of log_q_sde; above 1e-4 that is a lower bound",
            nullable=True,
            low=0.0,
            high=1.0,
        ),
        EPSILON,
        DATA_DIGEST,
    ),
    "likelihood_units": (
        *CELL,
        SEED,
        P_NOISE,
        UNIT,
        _count("draw", "Dequantised version of the image"),
        _nats("log_q_ode", "Log density of the dequantised image on [-1, 1]^D under the ODE", True),
        _bits("bpd", "The same in bits per dimension of 8-bit data"),
        _count("nfe", "Right-hand-side calls for the batch that it was in"),
    ),
    "samples": (
        *CELL,
        SEED,
        P_NOISE,
        SAMPLER,
        _count("units", "Samples"),
        _count("steps", "Steps of Euler-Maruyama; for the ode, accepted and rejected ones"),
        _count("nfe", "Evaluations of the score per sample"),
        FINITE,
        *DISTANCE,
        _nats("log_p_data_median", "Median over the samples of log p_data; known densities only", True),
        _nats("log_p_data_median_p_data", "What that median is under p_data", True),
        _nats("log_p_data_q025", "2.5 % quantile of log p_data", True),
        _nats("log_p_data_q975", "97.5 % quantile of log p_data", True),
        _nats("log_p_data_mean", "Mean of log p_data", True),
        _nats("log_p_data_mean_se", "Standard error of that mean over the samples", True, 0.0),
        Column("share_first", "float64", "1", "Share of samples most probably from the first mode", True, 0.0, 1.0),
        Column("share_first_p_data", "float64", "1", "What that share is under p_data", True, 0.0, 1.0),
        DATA_DIGEST,
    ),
    "few_steps": (
        *CELL,
        SEED,
        P_NOISE,
        *FEW_STEPS,
        _count("nfe", "Evaluations of the score that it took"),
        _count("units", "Samples; they start from the same draws at every T, and with every sampler"),
        FINITE,
        *DISTANCE,
        DATA_DIGEST,
    ),
    "modes": (
        *CELL,
        SEED,
        P_NOISE,
        SAMPLER,
        _count("mode", "Component of the mixture"),
        Column("share", "float64", "1", "Share of samples most probably from this component", low=0.0, high=1.0),
        Column("share_se", "float64", "1", "Binomial standard error of share", low=0.0),
        Column("share_p_data", "float64", "1", "What the share is under p_data", low=0.0, high=1.0),
    ),
    "histogram": (
        *CELL,
        SEED,
        P_NOISE,
        SAMPLER,
        Column("left", "float64", "units of x", "Left edge of the bin"),
        Column("right", "float64", "units of x", "Right edge of the bin"),
        Column("density", "float64", "1 / units of x", "Samples in the bin over all samples and its width", low=0.0),
        Column("density_p_data", "float64", "1 / units of x", "Mean of p_data over the bin", low=0.0),
    ),
    "images": (
        *CELL,
        SEED,
        P_NOISE,
        _count("image", "Index of the sample"),
        _count("steps", "Steps of Euler-Maruyama, each one evaluation of the score"),
        _count("channels", "1: grey, 3: red, green, blue"),
        _count("size", "Pixels of a side"),
        _count("not_finite", "Values that were not finite, and are black in `pixels`"),
        Column("pixels", "binary", "grey levels", "channels × size × size bytes, row by row"),
    ),
    "runs": (
        *CELL,
        _text("command", "What was done: difftime train, elbo, ..."),
        _text("settings", "Resolved settings of the cell, of the measurement and of the job, as JSON"),
        _text("difftime", "Version"),
        _text("commit", "Git commit of the code; null if git does not know", nullable=True),
        _text("tree", "clean, or changed: tracked files differ from the commit", nullable=True),
        _text("python", "Version"),
        _text("torch", "Version"),
        _text("cuda", "Version that PyTorch was built for; null: none", nullable=True),
        _text("host", "Machine"),
        _text("device", "What it was computed on"),
        _text("slurm_job", "Slurm's id of the job; null outside Slurm", nullable=True),
        _text("start", "UTC, of the process that finished the work"),
        _text("end", "UTC"),
        Column("seconds", "float64", "s", "From start to end, without importing PyTorch", low=0.0),
        Column("work_seconds", "float64", "s", "Of the work itself, with what was done before a cut", True, low=0.0),
        Column("units_per_second", "float64", "1/s", "Points or images trained on, or measured, all seeds", True, 0.0),
        Column("peak_memory", "float64", "MB", "Largest memory of the process", low=0.0),
        Column("peak_gpu_memory", "float64", "MB", "Largest memory that PyTorch took on the GPU", True, low=0.0),
    ),
    "missing": (*CELL, _text("file", "The file in the cell's folder that is not there")),
    "optimum": (
        *CURVE,
        _text(
            "method",
            "trained: from cells of different T; curve: from the running ELBOs; of a pretrained network its own",
        ),
        _text("unit", "Of the ELBO: nats, the larger the better; bits per dimension, the smaller the better"),
        Column("T_star", "float64", "SDE time", "T of the best mean ELBO", low=0.0),
        Column("T_star_low", "float64", "SDE time", "Lower end of its interval, over seeds and images", True, low=0.0),
        Column(
            "T_star_high",
            "float64",
            "SDE time",
            "Upper end of that interval; null for one seed of a mixture",
            True,
            0.0,
        ),
        Column("confidence", "float64", "1", "Nominal coverage of that interval", low=0.0, high=1.0),
        Column("spacing", "float64", "SDE time", "Distance of the two times between which T_star is interpolated"),
        Column("interior", "bool", "", "Whether T_star lies between the smallest T and T_last"),
        Column("elbo_star", "float64", "see unit", "Mean ELBO at T_star"),
        Column(
            "elbo_star_se",
            "float64",
            "see unit",
            "Its bootstrap standard error; null for one seed of a mixture",
            True,
            0.0,
        ),
        Column("loss_at_star", "float64", "nats", "log_p_data - elbo_star: what the best T still loses", True),
        Column(
            "gain_over_1", "float64", "see unit", "What T_star gains over T = 1; null if the times do not reach 1", True
        ),
        Column(
            "gain_over_1_se",
            "float64",
            "see unit",
            "Its bootstrap standard error, paired over seeds and images",
            True,
            0.0,
        ),
        Column("gain_over_last", "float64", "see unit", "What T_star gains over T_last"),
        Column("gain_over_last_se", "float64", "see unit", "Its standard error, likewise", True, 0.0),
        Column("T_last", "float64", "SDE time", "Largest T at which every seed has a finite ELBO", low=0.0),
        Column(
            "plateau_low", "float64", "SDE time", "Smallest T with a mean ELBO within elbo_star_se of the best", True
        ),
        Column(
            "plateau_high", "float64", "SDE time", "Largest T with a mean ELBO within elbo_star_se of the best", True
        ),
        _count("times", "Diffusion times with a finite ELBO of every seed, through which the curve goes"),
        _count("times_left_out", "Diffusion times without one; T_star says nothing of them"),
        _text("trained", "T of the cells that the optimum is found from"),
        _count("seeds", "Seeds"),
        EPSILON,
        _text("weighting", "Weight in the training loss; null: not trained here", True),
    ),
    "prediction": (
        *CURVE,
        _text("method", "trained: mean of the cells; curve: predicted from the running ELBOs"),
        _text("unit", "Of the ELBO: nats, or bits per dimension"),
        Column("t", "float64", "SDE time", "Diffusion time", low=0.0),
        Column("elbo", "float64", "see unit", "Mean ELBO", nullable=True),
        Column("elbo_se", "float64", "see unit", "Its standard error over seeds and images", True, low=0.0),
        _count("units", "Test images; null for known densities", True),
        _text("trained", "T of the cells that the method knows"),
        Column("T_star", "float64", "SDE time", "Optimal T by this method, from the table optimum", True, low=0.0),
        Column("T_star_low", "float64", "SDE time", "Lower end of its interval", True, low=0.0),
        Column("T_star_high", "float64", "SDE time", "Upper end of its interval", True, low=0.0),
    ),
    "cheapest": (
        *CURVE[:3],
        _text("model", "ode: BPD or log q, cost in NFE; sde: ELBO, cost in steps, which go with T"),
        _text("unit", "nats, or bits per dimension"),
        Column("loss", "float64", "see unit", "What the choice may surely lose against the best, at most", low=0.0),
        Column("T", "float64", "SDE time", "The cheapest T ...", low=0.0),
        _text("p_noise", "... and where its reverse process starts"),
        Column("value", "float64", "see unit", "Its BPD, log q or ELBO"),
        Column("value_se", "float64", "see unit", "Its standard error", True, 0.0),
        Column("cost", "float64", "1", "Its evaluations of the score: NFE of the ODE, steps of the SDE", low=0.0),
        Column("behind", "float64", "see unit", "How far it is behind the best, paired over seeds and units", low=0.0),
        Column("behind_se", "float64", "see unit", "Paired standard error of that", True, 0.0),
        Column("best_T", "float64", "SDE time", "T of the best of all T and p_noises", low=0.0),
        _text("best_p_noise", "p_noise of the best"),
        Column("best_value", "float64", "see unit", "The best BPD, log q or ELBO"),
        Column("best_value_se", "float64", "see unit", "Its standard error", True, 0.0),
        Column("best_cost", "float64", "1", "Its evaluations", low=0.0),
        Column(
            "standard_T", "float64", "SDE time", "T that the same rule takes of the standard p_noise alone", True, 0.0
        ),
        Column("standard_value", "float64", "see unit", "Its BPD, log q or ELBO", True),
        Column("standard_cost", "float64", "1", "Its evaluations", True, 0.0),
        Column("saved", "float64", "1", "1 - cost / standard_cost", True),
        _count("choices", "Pairs of T and p_noise, with finite values of every unit, that were compared"),
    ),
    "steps": (
        *CELL,
        P_NOISE,
        *FEW_STEPS,
        _count("nfe", "Evaluations of the score that it took"),
        _distance("wasserstein1", "Wasserstein-1 distance to p_data, or to the test images; mean over finite seeds"),
        _distance("wasserstein1_se", "Its standard error: over seeds; of one seed over its images"),
        _distance("wasserstein1_floor", "What as many perfect samples are expected to have"),
        _text("many", "The sampler of many evaluations: ode, which is RK45; of images sde, Euler-Maruyama"),
        Column("many_nfe", "float64", "1", "Its evaluations of the score, mean over seeds", low=0.0),
        _distance("many_wasserstein1", "Its distance from the same T and p_noise"),
        _distance("many_wasserstein1_se", "Standard error of that"),
        _count("many_finite", "Its seeds all of whose samples are finite; the others are in no mean"),
        _distance("behind", "wasserstein1 less many_wasserstein1, from the same draws", signed=True),
        _distance("behind_se", "Standard error of that, paired over seeds; of one seed that of independent distances"),
        Column("against_T", "float64", "SDE time", "T = 1, or the largest T: what gain is against", True, 0.0),
        _distance(
            "gain",
            "Distance of the same sampler and evaluations from the standard p_noise at against_T, less wasserstein1",
            signed=True,
        ),
        _distance("gain_se", "Standard error of that, paired over seeds; of one seed that of independent distances"),
        _count("units", "Samples per seed"),
        _count("seeds", "Seeds in the cell"),
        _count("finite", "Seeds all of whose samples are finite; the others are in no mean"),
    ),
    "table1": (
        *CELL,
        P_NOISE,
        _bits("bpd", "Of 8-bit test images under the probability-flow ODE"),
        _bits("bpd_se", "Standard error over the images and the seeds", low=0.0),
        Column("against_T", "float64", "SDE time", "T = 1, or the largest T: what delta_bpd is against", True, 0.0),
        _bits("delta_bpd", "bpd less that of the standard p_noise at against_T, over the same images"),
        _bits("delta_bpd_se", "Standard error of that, paired over images and seeds", low=0.0),
        _bits("elbo_bpd", "Bound on the reverse SDE's, another model's, bpd"),
        _bits("elbo_bpd_se", "Standard error, over the images and the seeds", low=0.0),
        _bits("delta_elbo_bpd", "elbo_bpd less that of the standard p_noise at against_T, over the same images"),
        _bits("delta_elbo_bpd_se", "Standard error of that, paired over images and seeds", low=0.0),
        _bits("kl_low_bpd", "KL[p(x,T) || p_noise] is at least this", low=0.0),
        _bits("kl_high_bpd", "and at most this", low=0.0),
        Column("nfe", "float64", "1", "Right-hand-side calls of RK45, mean over batches", True, low=0.0),
        Column("nfe_sd", "float64", "1", "Standard deviation over batches", True, low=0.0),
        Column("batch", "float64", "1", "Images solved as one system, to which the NFE belongs", True, low=0.0),
        Column("units", "float64", "1", "Test images of bpd", True, low=0.0),
        Column("elbo_units", "float64", "1", "Test images of elbo_bpd", True, low=0.0),
        Column("failed", "float64", "1", "Values of bpd that are not finite and in no mean, all seeds", True, low=0.0),
        _count("parameters", "Parameters of the network; null if they are not known", True),
        _count("iterations", "Training steps; null: not trained here", True),
        _count("seeds", "Models"),
        _text("weighting", "Weight in the training loss; null: not trained here", True),
        _text("data_kind", "Kind of the data set: mnist, cifar10, folder, ..."),
        _text("sde_kind", "Kind of the SDE: vp, ve-exponential, ..."),
        _bits("paper_bpd", "The paper's Table 1, of the same kind of data and SDE, T and p_noise; null: none"),
        Column("paper_nfe", "float64", "1", "The paper's NFE, likewise", True, low=0.0),
    ),
    "tradeoff": (
        *CELL,
        P_NOISE,
        _count("seeds", "Models, trained side by side"),
        Column(
            "nfe",
            "float64",
            "1",
            "Cost of the ODE: right-hand-side calls of RK45 for the likelihood of a batch",
            True,
            0.0,
        ),
        Column("nfe_sd", "float64", "1", "Its standard deviation over batches and seeds; null for one", True, low=0.0),
        Column(
            "sde_steps", "float64", "1", "Cost of the reverse SDE: steps of Euler-Maruyama per sample", True, low=0.0
        ),
        _text(
            "unit", "Of elbo and likelihood: nats, the larger the better; bits per dimension, the smaller the better"
        ),
        Column(
            "elbo",
            "float64",
            "see unit",
            "Mean ELBO, which bounds the reverse SDE; null: not known of every unit",
            True,
        ),
        Column("elbo_se", "float64", "see unit", "Its standard error; null for one seed of a mixture", True, low=0.0),
        Column(
            "likelihood", "float64", "see unit", "Mean log-likelihood, or BPD, under the probability-flow ODE", True
        ),
        Column("likelihood_se", "float64", "see unit", "Its standard error, likewise", True, low=0.0),
        _count("elbo_units", "Test images of elbo; null for known densities", True),
        _count("likelihood_units", "Held-out points per seed, or test images, of likelihood", True),
        Column(
            "distance", "float64", "units of x", "Wasserstein-1 distance of samples of the reverse SDE", True, low=0.0
        ),
        Column("distance_se", "float64", "units of x", "Its standard error, likewise", True, low=0.0),
        Column(
            "distance_floor", "float64", "units of x", "What as many perfect samples are expected to have", True, 0.0
        ),
        _count("distance_units", "Samples per seed of distance", True),
        Column("epsilon", "float64", "SDE time", "Where every integral over time begins; null if none was taken", True),
        Column("cheapest_ode", "bool", "", "Whether the table cheapest has it for the ODE"),
        Column("cheapest_sde", "bool", "", "Whether the table cheapest has it for the SDE"),
    ),
    "bounds": (
        *CELL,
        SEED,
        P_NOISE,
        _nats("elbo", "As in the elbo table", nullable=True),
        _nats("log_q_sde", "As in the likelihood table", nullable=True),
        _nats("ceiling", "-entropy of p(x, epsilon)"),
        _nats("tolerance", "Numerical and Monte Carlo error allowed in the comparison", nullable=True, low=0.0),
        Column("log_q_sde_lost", "float64", "1", "As in the likelihood table", nullable=True, low=0.0, high=1.0),
        _text(
            "verdict", "holds or broken: elbo <= log_q_sde <= ceiling within the tolerance; untested: one is not known"
        ),
    ),
    "summary": (
        *CELL,
        P_NOISE,
        _text("quantity", "Column of the elbo, likelihood or samples table; sampler:column for the latter"),
        _text("unit", "Unit of mean and se"),
        Column("mean", "float64", "see unit", "Mean over the seeds with a finite value", nullable=True),
        Column(
            "se",
            "float64",
            "see unit",
            "Standard error of that mean: over seeds, and of the Monte Carlo points or images that the seeds share",
            nullable=True,
            low=0.0,
        ),
        Column("median", "float64", "see unit", "Median over the same seeds: one that blew up moves it little", True),
        _count("seeds", "Seeds in the cell"),
        _count("finite", "Seeds with a finite value; the others are not in the mean"),
        _count("parameters", "Parameters of one model; null if they are not known", True),
        Column(
            "T_star",
            "float64",
            "SDE time",
            "Optimal T of this curve by trained cells, from the table optimum",
            True,
            0.0,
        ),
        Column("T_star_low", "float64", "SDE time", "Lower end of its interval", nullable=True, low=0.0),
        Column("T_star_high", "float64", "SDE time", "Upper end of its interval", nullable=True, low=0.0),
    ),
}

CAPTIONS = {
    "elbo": (
        "**The ELBO of every model, term by term** (Eqs. 4 to 11), in nats: one row per seed and p_noise. Of a known "
        "density the ELBO is Eq. 11 and ``residual`` is Eq. 4 less Eq. 11, the error of the whole decomposition; a "
        "standard error of 0 means a quadrature. Of images it is Eq. 4, with a decoder of pixels from x_epsilon to the "
        "image, and ``kl_low`` and ``kl_high`` bracket the KL, which is known for no images."
    ),
    "elbo_units": "**The same image by image**; it stays in the cell's folder.",
    "curve": (
        "**What one model says of every T up to its own**, in nats: the ELBO as a running integral in the form of Eq. "
        "4, one row per seed, p_noise and t."
    ),
    "curve_units": "**The same image by image**; it stays in the cell's folder.",
    "levels": (
        "**How well the score is known at each level of noise**: the mean error of the network's estimate of the "
        "noise, per dimension, in intervals of lambda that are the same for every T and SDE. The gap G is d/2 times "
        "the integral of ``excess`` over lambda, I that of ``error``."
    ),
    "likelihood": (
        "**The likelihood of held-out points, or test images**, under the probability-flow ODE, with what its solver "
        "needed, and, for data of one dimension, under the reverse SDE itself, from its density on a grid. ``failed`` "
        "counts what has no finite value and is in no mean."
    ),
    "likelihood_units": "**The same image by image**; it stays in the cell's folder.",
    "samples": (
        "**Samples of every model**, by both samplers, compared with the density of the data or with the test images: "
        "the Wasserstein-1 distance (sliced for more than one dimension) beside what perfect samples would have. It "
        "needs no trained features, and sees little of what is fine: single pixels, sharpness, copied training "
        "images."
    ),
    "few_steps": (
        "**Samples in few steps**: the Wasserstein-1 distance of what each sampler draws in few evaluations of the "
        "score, one row per seed. All samplers and T start from the same random numbers."
    ),
    "modes": "**The share of samples in each mode**, with its binomial standard error, beside the share under p_data.",
    "histogram": "**Histograms of samples** as densities over all samples, beside the mean of p_data over each bin.",
    "images": "**Images drawn from the reverse SDE**, as bytes: channels × size × size grey levels, row by row.",
    "training": "**What was trained**: parameters, steps, batch, weighting and precision of every cell.",
    "history": (
        "**Training loss**, Eq. 3 with the weighting of the study, in nats per point or image: the mean since the row "
        "before."
    ),
    "runs": (
        "**Where the numbers come from**: for every cell and command the settings, the versions, the commit, the "
        "machine, and what it took. These differ from run to run, and stand in no other table. The settings are cut "
        "short here; the Parquet file has them whole."
    ),
    "missing": "**What an unfinished study lacks**, of what ``difftime partial`` made.",
    "optimum": (
        "**The optimal diffusion time T*** of every SDE, network and p_noise: from trained cells, and predicted from "
        "the running ELBO of the models there are; its bootstrap interval over seeds and images, its plateau, and "
        "what it gains over T = 1 and over the largest T."
    ),
    "prediction": (
        "**The ELBO against T**, as trained cells have it and as the running ELBOs predict it: means with standard "
        "errors over seeds and images."
    ),
    "cheapest": (
        "**The cheapest T and p_noise within a stated loss of the best**: of all choices that are surely not more "
        "than ``loss`` behind the best one, by a difference that is paired over seeds and images, the one with the "
        "fewest evaluations of the score; beside it what the same rule takes of the standard p_noise alone."
    ),
    "bounds": (
        "**Does the ELBO bound what it should?** One row per model: ELBO ≤ E log q of the reverse SDE ≤ minus the "
        "entropy of p(x, epsilon), up to the stated tolerance. A row is ``untested`` where the ELBO is not finite or "
        "the density not known."
    ),
    "summary": (
        "**Means, standard errors and medians over seeds** of every measured quantity, beside the optimal T of its "
        "curve. Values that are not finite are in no mean; ``finite`` counts the others."
    ),
    "steps": (
        "**Does a short T still help once the sampler is good?** The distance of samples in few evaluations of the "
        "score, mean over seeds; ``behind`` is what more evaluations would gain, ``gain`` what this T and p_noise "
        "gain over the standard p_noise at ``against_T`` with the same sampler and evaluations. Both are paired over "
        "seeds."
    ),
    "table1": (
        "**Bits per dimension and evaluations of images** (the paper's Table 1): one row per SDE, network, p_noise "
        "and T. The BPD is of the probability-flow ODE; the ELBO bounds another model, the reverse SDE. Differences "
        "against the largest T are paired over images."
    ),
    "tradeoff": (
        "**Quality against cost**: what every T and p_noise costs in evaluations of the score, and how good it is."
    ),
}
"""What a table says, in reStructuredText, for the report and the documentation."""

_ARROW = {
    "binary": pa.binary(),
    "string": pa.string(),
    "float64": pa.float64(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
}


def arrow_schema(table: str) -> pa.Schema:
    """The Parquet schema of a table, with unit and description in each field's metadata."""
    fields = [
        pa.field(c.name, _ARROW[c.type], c.nullable, {"unit": c.unit, "description": c.description})
        for c in TABLES[table]
    ]
    return pa.schema(fields, metadata={"table": table, "difftime": __version__})


def filled(table: str, row: Row) -> Row:
    """A row with null in the columns that it does not have, all of which may be null. Raises ValueError otherwise."""
    lacking = [column for column in TABLES[table] if column.name not in row]
    if faulty := [column.name for column in lacking if not column.nullable]:
        raise ValueError(f"A row of the table '{table}' lacks {', '.join(faulty)}.")
    return dict.fromkeys((column.name for column in lacking), None) | row


def write_rows(path: Path, table: str, rows: Sequence[Row]) -> None:
    """Write rows as a Parquet file with the table's schema, whole or not at all.

    Raises ValueError on a missing or unknown column.
    """
    names = {column.name for column in TABLES[table]}
    for row in rows:
        if row.keys() != names:
            raise ValueError(f"A row of the table '{table}' lacks or adds the columns {sorted(row.keys() ^ names)}.")
    columns = [_array([row[column.name] for row in rows], column) for column in TABLES[table]]
    with atomic(path) as temporary:
        pq.write_table(pa.Table.from_arrays(columns, schema=arrow_schema(table)), temporary)


def _array(values: Sequence[Any], column: Column) -> pa.Array:
    """From its buffers, because pa.array imports pandas, which takes a quarter of a second.

    Raises TypeError or ValueError on a value that is not of the column's type.
    """
    present = [value is not None for value in values]
    bitmap = None if all(present) else pa.py_buffer(np.packbits(present, bitorder="little"))
    if column.type in ("string", "binary"):
        parts = [b"" if v is None else str.encode(v) if column.type == "string" else bytes(v) for v in values]
        ends = np.cumsum([0, *map(len, parts)], dtype=np.int32)
        buffers = [pa.py_buffer(ends), pa.py_buffer(b"".join(parts))]
    else:
        blank = np.zeros((), column.type)[()]
        given = np.array([blank, *(blank if value is None else value for value in values)])
        data = given.astype(column.type, casting="safe")[1:]
        buffers = [pa.py_buffer(np.packbits(data, bitorder="little") if column.type == "bool" else data)]
    return pa.Array.from_buffers(_ARROW[column.type], len(values), [bitmap, *buffers])
