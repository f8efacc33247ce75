"""The tables: every column with its type, unit and meaning. The joint between the mathematics and the paper.

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
LINE = (*CELL[:3], P_NOISE)
SAMPLER = _text("sampler", "sde: reverse SDE by Euler-Maruyama; ode: reverse probability-flow ODE by RK45")
EPSILON = Column("epsilon", "float64", "SDE time", "Where every integral over time begins", low=0.0)
DEVICE_HOURS = _text("hours_of", "GPU or CPU: whose hours these are; mixed: cells on both; unknown: no run of a cell")


def _hours(name: str, description: str) -> Column:
    return Column(name, "float64", "h", description, nullable=True, low=0.0)


SOLVER = (
    Column("rtol", "float64", "1", "Relative tolerance of RK45", low=0.0),
    Column("atol", "float64", "units of x", "Absolute tolerance of RK45", low=0.0),
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
        _count("seeds", "Models trained side by side"),
        _count("parameters", "Parameters of one model"),
        _count("steps", "Training steps (iterations)"),
        _count("batch", "Points, or images, per step and model"),
        _text("weighting", "Weight in the training loss: likelihood (Eq. 3) or noise"),
        _text("precision", "Of the network's layers in training; measurements are in float32"),
        _text("device", "What it was trained on"),
        Column("seconds", "float64", "s", "Wall-clock time of all steps; differs from run to run", low=0.0),
        Column("points_per_second", "float64", "1/s", "Points, or images, trained on per second, all seeds", low=0.0),
        Column("peak_memory", "float64", "MB", "Largest memory of the process, or on the GPU", low=0.0),
    ),
    "runs": (
        *CELL,
        _text("verb", "What was done: difftime train, elbo, ..."),
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
        Column("peak_memory", "float64", "MB", "Largest memory of the process", low=0.0),
        Column("peak_gpu_memory", "float64", "MB", "Largest memory that PyTorch took on the GPU", True, low=0.0),
    ),
    "missing": (*CELL, _text("file", "The file in the cell's folder that is not there")),
    "elbo": (
        *CELL,
        SEED,
        P_NOISE,
        _nats("elbo", "Eq. 11: -entropy - kl - gap; bounds E log q of the reverse SDE at epsilon", nullable=True),
        _nats("elbo_se", "Standard error of elbo within the seed (0: by quadrature)", nullable=True, low=0.0),
        _nats("kl", "KL[p(x,T) || p_noise], Eq. 8"),
        _nats("kl_se", "Standard error of kl (0: by quadrature)", low=0.0),
        _nats("gap", "G(s, T) = half the integral of g2 E||s - grad log p||2", nullable=True, low=0.0),
        _nats("gap_se", "Standard error of gap (0: by quadrature)", nullable=True, low=0.0),
        _nats("K", "K(T), Eq. 7: the error that even the exact score has", low=0.0),
        _nats("K_se", "Standard error of K (0: by quadrature)", low=0.0),
        _nats("R", "R(T), Eq. 5, in closed form"),
        _nats("I", "I(s, T) = K + G, Eq. 6", nullable=True),
        _nats("I_se", "Standard error of I (0: by quadrature)", nullable=True, low=0.0),
        _nats("prior", "E log p_noise(x_T): in closed form for independent coordinates, else estimated as kl is"),
        _nats("prior_se", "Standard error of prior (0: in closed form or by quadrature)", low=0.0),
        _nats("entropy", "Entropy of p(x, epsilon)"),
        _nats("entropy_se", "Standard error of entropy (0: by quadrature)", low=0.0),
        _nats("log_p_data", "E log p_data(x) at t = 0, the ceiling of every model"),
        _nats("log_p_data_se", "Standard error of log_p_data (0: by quadrature)", low=0.0),
        _nats(
            "residual",
            "Eq. 4, prior - I + R, less elbo: the error, numerical or Monte Carlo, of the decomposition",
            True,
        ),
        EPSILON,
        _text("weighting", "Weight in the training loss: likelihood (Eq. 3) or noise"),
        _count("steps", "Training steps"),
    ),
    "running": (
        *CELL,
        SEED,
        P_NOISE,
        Column("t", "float64", "SDE time", "Diffusion time that the model of T is used for, t <= T", low=0.0),
        _nats("elbo", "-entropy - kl - gap, were t the diffusion time", nullable=True),
        _nats("elbo_se", "Standard error of elbo within the seed (0: by quadrature)", nullable=True, low=0.0),
        _nats("kl", "KL[p(x,t) || p_noise of t]"),
        _nats("kl_se", "Standard error of kl (0: by quadrature)", low=0.0),
        _nats("gap", "Half the integral of g2 E||s - grad log p||2 from epsilon to t", nullable=True, low=0.0),
        _nats("gap_se", "Standard error of gap (0: by quadrature)", nullable=True, low=0.0),
        _nats("entropy", "Entropy of p(x, epsilon)"),
        _nats("entropy_se", "Standard error of entropy (0: by quadrature)", low=0.0),
        _nats("log_p_data", "E log p_data(x) at t = 0"),
        _nats("log_p_data_se", "Standard error of log_p_data (0: by quadrature)", low=0.0),
        EPSILON,
        _text("weighting", "Weight in the training loss: likelihood (Eq. 3) or noise"),
    ),
    "scout": (
        *LINE,
        Column("T_star", "float64", "SDE time", "T* predicted by all scouting models together", low=0.0),
        Column("T_star_low", "float64", "SDE time", "Lower end of its bootstrap interval over seeds", True, low=0.0),
        Column("T_star_high", "float64", "SDE time", "Upper end; null for a single seed", True, low=0.0),
        Column("interior", "bool", "", "Whether it lies inside the times scouted"),
        _nats("elbo_star", "Predicted mean ELBO there"),
        _nats("elbo_star_se", "Its bootstrap standard error", nullable=True, low=0.0),
        Column("one_T_star", "float64", "SDE time", "T* by the model of the largest T alone"),
        Column("one_T_star_low", "float64", "SDE time", "Lower end of its interval", True, low=0.0),
        Column("one_T_star_high", "float64", "SDE time", "Upper end of its interval", True, low=0.0),
        Column("one_interior", "bool", "", "Whether that lies inside the times scouted"),
        Column(
            "trained_T_star", "float64", "SDE time", "T* of all trained cells, from the table optimum", True, low=0.0
        ),
        Column("trained_T_star_low", "float64", "SDE time", "Lower end of its interval", True, low=0.0),
        Column("trained_T_star_high", "float64", "SDE time", "Upper end of its interval", True, low=0.0),
        _text("within", "Whether T_star lies within the trained cells' interval: yes, no or unknown"),
        _text("scouts", "T of the cells that the prediction is made from"),
        _count("cells", "Cells of this line in the study"),
        Column("trained_share", "float64", "1", "Share of the line's cells that the prediction needs", low=0.0),
        _text("worth", "T of the study's cells within the predicted interval, and next to T_star"),
        _count("worth_cells", "How many these are"),
        _hours(
            "hours", "Training of the scouting cells: seconds of each one's last process, times GPUs or CPU threads"
        ),
        _hours("line_hours", "Training of all the line's cells, likewise; measured once, so without standard errors"),
        _hours("saved_hours", "line_hours - hours: what training no others saves"),
        DEVICE_HOURS,
    ),
    "scout_curves": (
        *LINE,
        _text("method", "one model, all models (predicted), or trained (measured)"),
        Column("t", "float64", "SDE time", "Diffusion time", low=0.0),
        _nats("elbo", "Mean ELBO over seeds", nullable=True),
        _nats("elbo_se", "Its standard error over seeds", nullable=True, low=0.0),
        _count("seeds", "Seeds"),
        Column("T_star", "float64", "SDE time", "Optimal T by this method", True, low=0.0),
        Column("T_star_low", "float64", "SDE time", "Lower end of its interval", True, low=0.0),
        Column("T_star_high", "float64", "SDE time", "Upper end of its interval", True, low=0.0),
        _hours("hours", "Training of the cells that this method needs, as in scout"),
        _hours("grid_hours", "What they stand against: all the line's cells; of a refined line, grid_hours of refined"),
        DEVICE_HOURS,
    ),
    "refined": (
        *LINE,
        _count("rounds", "Decisions; each but the last added a cell"),
        _count("cells", "Cells trained"),
        _count("budget", "Cells allowed"),
        _text("start", "T that the study begins with"),
        _text("added", "T added, in their order"),
        _text("T_stars", "T* predicted in every round; none: by fewer than two finite cells"),
        Column("T_star", "float64", "SDE time", "T* predicted by all these cells together", True, low=0.0),
        Column("T_star_low", "float64", "SDE time", "Lower end of its bootstrap interval over seeds", True, low=0.0),
        Column("T_star_high", "float64", "SDE time", "Upper end of it", True, low=0.0),
        Column("width", "float64", "SDE time", "T_star_high - T_star_low", True, low=0.0),
        Column("below", "float64", "SDE time", "The next trained T below T_star, or T_star at an edge", True, low=0.0),
        Column("above", "float64", "SDE time", "The next trained T above T_star, or T_star at an edge", True, low=0.0),
        Column("tolerance", "float64", "SDE time", "At most this are to be width, and above - below", low=0.0),
        Column("interior", "bool", "", "Whether T_star lies inside the T trained"),
        _count("left_out", "Cells without a finite gap of every seed, which predict nothing"),
        _text(
            "stopped",
            "narrow: width and above - below are within the tolerance; seeds: the latter alone; edge: T* is none "
            "inside; budget: cells are spent; place: no T is left; diverged: fewer than two cells are finite",
        ),
        _text("why", "The same in a sentence"),
        Column("trained_T_star", "float64", "SDE time", "T* of the same cells in the table optimum", True, low=0.0),
        Column("trained_T_star_low", "float64", "SDE time", "Lower end of its interval", True, low=0.0),
        Column("trained_T_star_high", "float64", "SDE time", "Upper end of its interval", True, low=0.0),
        _hours("hours", "Training of the cells: seconds of each one's last process, times GPUs or CPU threads"),
        _count("grid_cells", "Cells of a grid from the smallest to the largest T, spaced by the tolerance"),
        _hours("grid_hours", "Computed, not measured: grid_cells times the mean of the trained cells"),
        _hours("grid_hours_se", "Standard error of that over the trained cells"),
        Column("saved_hours", "float64", "h", "grid_hours - hours; below 0 if refining took more", True),
        DEVICE_HOURS,
    ),
    "likelihood": (
        *CELL,
        SEED,
        P_NOISE,
        _nats("log_q_ode", "Mean log-likelihood of held-out points under the probability-flow ODE", nullable=True),
        _nats("log_q_ode_se", "Standard error of log_q_ode over the points", nullable=True, low=0.0),
        _nats("log_p_points", "Mean log p(x, epsilon) of the same points"),
        _count("points", "Held-out points, solved as one system"),
        _count("nfe", "Right-hand-side calls of RK45, a property of the batch of points"),
        _count("accepted", "Accepted steps"),
        _count("rejected", "Rejected steps"),
        *SOLVER,
        _nats(
            "log_q_sde", "E log q under the reverse SDE itself, from its density on a grid (1-D only)", nullable=True
        ),
        _nats("log_q_sde_error", "Numerical error of log_q_sde", nullable=True, low=0.0),
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
    ),
    "samples": (
        *CELL,
        SEED,
        P_NOISE,
        SAMPLER,
        _count("points", "Samples"),
        _count("steps", "Steps of Euler-Maruyama; for the ode, accepted and rejected ones"),
        _count("nfe", "Evaluations of the score per sample"),
        _nats("log_p_data_median", "Median over the samples of log p_data", nullable=True),
        _nats("log_p_data_median_p_data", "What that median is under p_data"),
        _nats("log_p_data_q025", "2.5 % quantile of log p_data", nullable=True),
        _nats("log_p_data_q975", "97.5 % quantile of log p_data", nullable=True),
        _nats("log_p_data_mean", "Mean of log p_data", nullable=True),
        _nats("log_p_data_mean_se", "Standard error of that mean over the samples", nullable=True, low=0.0),
        Column("finite", "float64", "1", "Share of samples that are finite numbers", low=0.0, high=1.0),
        Column(
            "wasserstein1", "float64", "units of x", "Wasserstein-1 distance to p_data; sliced if d > 1", True, low=0.0
        ),
        Column(
            "wasserstein1_floor", "float64", "units of x", "What as many perfect samples are expected to have", low=0.0
        ),
        Column("share_first", "float64", "1", "Share of samples most probably from the first mode", low=0.0, high=1.0),
        Column("share_first_p_data", "float64", "1", "What that share is under p_data", low=0.0, high=1.0),
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
    "cost": (
        *CELL,
        P_NOISE,
        SAMPLER,
        _count("points", "Samples per seed"),
        _count("seeds", "Seeds sampled together"),
        Column("nfe", "float64", "1", "Evaluations of the score per sample, mean over seeds", low=0.0),
        Column("nfe_se", "float64", "1", "Standard error of nfe over seeds", True, low=0.0),
        Column("seconds", "float64", "s", "Wall-clock time for all seeds; differs from run to run", low=0.0),
    ),
    "bpd": (
        *CELL,
        SEED,
        P_NOISE,
        Column("bpd", "float64", "bits per dimension", "Of 8-bit test images under the probability-flow ODE", True),
        Column("bpd_se", "float64", "bits per dimension", "Standard error of bpd over the images", True, low=0.0),
        _nats("log_q_ode", "Mean log density of the dequantised images on [-1, 1]^D", nullable=True),
        _count("images", "Test images"),
        _count("draws", "Dequantised versions of each image"),
        _count("failed", "Of images × draws, those without a finite value, which are not in the mean"),
        _count("batch", "Images solved as one system, to which the NFE belongs"),
        Column("nfe", "float64", "1", "Right-hand-side calls of RK45, mean over batches", low=0.0),
        Column("nfe_sd", "float64", "1", "Standard deviation of nfe over batches; null for one", True, low=0.0),
        Column("accepted", "float64", "1", "Accepted steps, mean over batches", low=0.0),
        Column("rejected", "float64", "1", "Rejected steps, mean over batches", low=0.0),
        *SOLVER,
        EPSILON,
        _text("data_digest", "SHA-256 of the images, both splits"),
        Column("images_per_second", "float64", "1/s", "Evaluated images; differs from run to run", True, low=0.0),
    ),
    "bpd_images": (
        *CELL,
        SEED,
        P_NOISE,
        _count("image", "Index in the test set"),
        _count("draw", "Dequantised version of it"),
        _nats("log_q_ode", "Log density of the dequantised image on [-1, 1]^D under the ODE", nullable=True),
        Column("bpd", "float64", "bits per dimension", "The same in bits per dimension of 8-bit data", nullable=True),
        _count("nfe", "Right-hand-side calls for the batch that it was in"),
    ),
    "image_elbo": (
        *CELL,
        SEED,
        P_NOISE,
        Column("elbo_bpd", "float64", "bits per dimension", "Upper bound on the reverse SDE's: from elbo", True),
        Column("elbo_bpd_se", "float64", "bits per dimension", "Standard error over the images", True, low=0.0),
        _nats("elbo", "Bounds log q(x_0) of the reverse SDE and a Gaussian decoder at epsilon", nullable=True),
        _nats("elbo_se", "Standard error over the images", nullable=True, low=0.0),
        _nats("elbo_epsilon", "Eq. 4: prior - I + R; bounds E log q(x_epsilon) of the reverse SDE", nullable=True),
        _nats("elbo_epsilon_se", "Standard error of elbo_epsilon over the images", nullable=True, low=0.0),
        _nats("prior", "E log p_noise(x_T): in closed form for a Gaussian, else with a few draws of x_T per image"),
        _nats("prior_se", "Standard error of prior over the images", nullable=True, low=0.0),
        _nats("I", "I(s, T), Eq. 6", nullable=True),
        _nats("I_se", "Standard error of I over the images", nullable=True, low=0.0),
        _nats("R", "R(T), Eq. 5, in closed form"),
        _nats("residual", "elbo less elbo_epsilon: the decoder's term", nullable=True),
        _nats("residual_se", "Standard error of residual over the images", nullable=True, low=0.0),
        _nats(
            "kl_low",
            "Lower bound of KL[p(x,T) || p_noise]: that of a Gaussian with the data's moments; null: no closed form",
            nullable=True,
            low=0.0,
        ),
        _nats("kl_high", "Upper bound of it: E KL[q(x_T|x_0) || p_noise]; null likewise", nullable=True, low=0.0),
        Column("kl_low_bpd", "float64", "bits per dimension", "kl_low per dimension", True, low=0.0),
        Column("kl_high_bpd", "float64", "bits per dimension", "kl_high per dimension", True, low=0.0),
        _count("images", "Test images"),
        _count("pairs", "Antithetic pairs of noise per image"),
        EPSILON,
        _text("data_digest", "SHA-256 of the images, both splits"),
    ),
    "image_elbo_images": (
        *CELL,
        SEED,
        P_NOISE,
        _count("image", "Index in the test set"),
        _nats("elbo", "As in image_elbo, of this image", nullable=True),
        _nats("elbo_epsilon", "As in image_elbo, of this image", nullable=True),
        _nats("I", "As in image_elbo, of this image", nullable=True),
        _nats("prior", "As in image_elbo, of this image"),
        _nats("residual", "As in image_elbo, of this image", nullable=True),
    ),
    "image_samples": (
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
    "image_quality": (
        *CELL,
        SEED,
        P_NOISE,
        Column(
            "wasserstein1",
            "float64",
            "units of x",
            "Sliced Wasserstein-1 distance of the samples to the test images, both of 8 bits, 128 grey levels to a "
            "unit: the mean over directions; null if a sample is not finite",
            nullable=True,
            low=0.0,
        ),
        Column(
            "wasserstein1_se",
            "float64",
            "units of x",
            "Its bootstrap standard error over the samples; all cells share test images and directions. Null for a "
            "single sample",
            nullable=True,
            low=0.0,
        ),
        Column(
            "wasserstein1_floor",
            "float64",
            "units of x",
            "What as many perfect samples are expected to have: as many training images, mean over disjoint sets; null "
            "if there are fewer",
            nullable=True,
            low=0.0,
        ),
        Column(
            "wasserstein1_floor_se",
            "float64",
            "units of x",
            "Its standard error over the sets; null for one",
            True,
            0.0,
        ),
        _count("images", "Samples"),
        _count("test_images", "Test images, all there are"),
        _count("directions", "Random directions, the same for all cells"),
        _count("steps", "Steps of Euler-Maruyama, each one evaluation of the score"),
        _count("not_finite", "Samples with a value that is not finite"),
        _text("data_digest", "SHA-256 of the images, both splits"),
    ),
    "table1": (
        *CELL,
        P_NOISE,
        Column("bpd", "float64", "bits per dimension", "Of 8-bit test images under the probability-flow ODE", True),
        Column(
            "bpd_se", "float64", "bits per dimension", "Standard error over the images and the seeds", True, low=0.0
        ),
        Column("elbo_bpd", "float64", "bits per dimension", "Bound on the reverse SDE's, another model's, bpd", True),
        Column("elbo_bpd_se", "float64", "bits per dimension", "Standard error, likewise", True, low=0.0),
        Column("kl_low_bpd", "float64", "bits per dimension", "KL[p(x,T) || p_noise] is at least this", True, low=0.0),
        Column("kl_high_bpd", "float64", "bits per dimension", "and at most this", True, low=0.0),
        Column("nfe", "float64", "1", "Right-hand-side calls of RK45, mean over batches", True, low=0.0),
        Column("nfe_sd", "float64", "1", "Standard deviation over batches", True, low=0.0),
        Column("batch", "float64", "1", "Images solved as one system, to which the NFE belongs", True, low=0.0),
        Column("images", "float64", "1", "Test images of bpd", True, low=0.0),
        Column("elbo_images", "float64", "1", "Test images of elbo_bpd", True, low=0.0),
        Column("failed", "float64", "1", "Values of bpd that are not finite and in no mean, all seeds", True, low=0.0),
        Column("images_per_second", "float64", "1/s", "Trained on; differs from run to run", low=0.0),
        _count("parameters", "Parameters of the network"),
        _count("iterations", "Training steps"),
        _count("seeds", "Models"),
        _text("weighting", "Weight in the training loss"),
        _text("device", "What it was trained on"),
    ),
    "table2": (
        *CELL,
        P_NOISE,
        Column("bpd", "float64", "bits per dimension", "Of the cheapest choice: at most best_bpd + best_bpd_se"),
        Column("bpd_se", "float64", "bits per dimension", "Its standard error over images and seeds", low=0.0),
        Column("nfe", "float64", "1", "Its right-hand-side calls of RK45, mean over batches", low=0.0),
        Column("best_T", "float64", "SDE time", "T of the best BPD of all T and p_noises", low=0.0),
        _text("best_p_noise", "p_noise of the best BPD"),
        Column("best_bpd", "float64", "bits per dimension", "The best BPD"),
        Column("best_bpd_se", "float64", "bits per dimension", "Its standard error", low=0.0),
        Column(
            "standard_T",
            "float64",
            "SDE time",
            "T that the same rule takes of standard alone",
            True,
            low=0.0,
        ),
        Column("standard_bpd", "float64", "bits per dimension", "Its BPD", True),
        Column("standard_bpd_se", "float64", "bits per dimension", "Its standard error", True, low=0.0),
        Column("standard_nfe", "float64", "1", "Its right-hand-side calls", True, low=0.0),
        Column("nfe_saved", "float64", "1", "1 - nfe / standard_nfe", True),
        Column("steps_saved", "float64", "1", "1 - T / standard_T: of the reverse SDE's steps, which go with T", True),
        _count("choices", "Pairs of T and p_noise, with a finite BPD of every image, that were compared"),
    ),
    "tradeoff": (
        *CELL,
        P_NOISE,
        Column(
            "training_seconds",
            "float64",
            "s",
            "Wall-clock time of training all seeds; differs from run to run",
            low=0.0,
        ),
        _text("training_device", "What it was trained on"),
        _count("seeds", "Models, trained side by side"),
        Column(
            "nfe",
            "float64",
            "1",
            "Cost of the probability-flow ODE: right-hand-side calls of RK45 for the likelihood of a batch",
            True,
            low=0.0,
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
            "Mean ELBO, which bounds the reverse SDE; null: not measured, or not finite for some seed or image",
            True,
        ),
        Column("elbo_se", "float64", "see unit", "Its standard error; null for one seed of a mixture", True, low=0.0),
        Column(
            "likelihood", "float64", "see unit", "Mean log-likelihood, or BPD, under the probability-flow ODE", True
        ),
        Column("likelihood_se", "float64", "see unit", "Its standard error, likewise", True, low=0.0),
        Column(
            "distance",
            "float64",
            "units of x",
            "Wasserstein-1 distance of samples of the reverse SDE to p_data, or of images to the test images; sliced "
            "if d > 1",
            True,
            low=0.0,
        ),
        Column("distance_se", "float64", "units of x", "Its standard error, likewise", True, low=0.0),
        Column(
            "distance_floor",
            "float64",
            "units of x",
            "What as many perfect samples are expected to have",
            True,
            low=0.0,
        ),
        Column("epsilon", "float64", "SDE time", "Where every integral over time begins; null if none was taken", True),
        _text(
            "efficient_ode",
            "no: another row of this dataset and epsilon has no more nfe, and a likelihood that is at least as good "
            "even less two standard errors of the difference, one of the two strictly; yes: no other row has so even "
            "with these two standard errors added; undecided: else. Null: nfe or likelihood is not known, so the row "
            "is not compared. Differences are of paired seeds and images, their errors widened by Student's quantile",
            nullable=True,
        ),
        _text(
            "efficient_sde",
            "The same with sde_steps, elbo and distance, all three at least as good and one strictly; a quality that "
            "no row of the dataset and epsilon has is left out",
            nullable=True,
        ),
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
            "Standard error of that mean: over seeds, and of the Monte Carlo points that the seeds share",
            nullable=True,
            low=0.0,
        ),
        Column("median", "float64", "see unit", "Median over the same seeds: one that blew up moves it little", True),
        _count("seeds", "Seeds in the cell"),
        _count("finite", "Seeds with a finite value; the others are not in the mean"),
        Column("T_star", "float64", "SDE time", "Optimal T of this line, from the optimum table", True, low=0.0),
        Column("T_star_low", "float64", "SDE time", "Lower end of its interval", nullable=True, low=0.0),
        Column("T_star_high", "float64", "SDE time", "Upper end of its interval", nullable=True, low=0.0),
    ),
    "optimum": (
        *LINE,
        Column("T_star", "float64", "SDE time", "T that maximises the mean ELBO over seeds", low=0.0),
        Column(
            "T_star_low", "float64", "SDE time", "Lower end of its interval, from the spread of seeds", True, low=0.0
        ),
        Column(
            "T_star_high", "float64", "SDE time", "Upper end of that interval; null for a single seed", True, low=0.0
        ),
        Column("confidence", "float64", "1", "Nominal coverage of that interval", low=0.0, high=1.0),
        Column("spacing", "float64", "SDE time", "Distance of the two times between which T_star is interpolated"),
        _nats("elbo_star", "Mean ELBO at T_star"),
        _nats("elbo_star_se", "Its bootstrap standard error; null for a single seed", nullable=True, low=0.0),
        _nats("loss_at_star", "log_p_data - elbo_star: what the best T still loses"),
        _nats("gain_over_1", "elbo at T_star less elbo at T = 1 (null if the times do not reach 1)", nullable=True),
        _nats("gain_over_last", "elbo at T_star less elbo at T_last"),
        Column("T_last", "float64", "SDE time", "Largest T at which every seed has a finite gap", low=0.0),
        Column(
            "plateau_low", "float64", "SDE time", "Smallest T with a mean ELBO within elbo_star_se of the best", True
        ),
        Column(
            "plateau_high", "float64", "SDE time", "Largest T with a mean ELBO within elbo_star_se of the best", True
        ),
        Column("interior", "bool", "", "Whether T_star lies between the smallest T and T_last"),
        _count("times", "Diffusion times with a finite gap of every seed, through which the curve goes"),
        _count("times_left_out", "Diffusion times without one; T_star says nothing of them"),
        _count("seeds", "Seeds"),
        EPSILON,
        _text("weighting", "Weight in the training loss"),
    ),
}

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
