"""From cells to tables: collect, check, average over seeds with standard errors, find the optimal T."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow.parquet as pq
from pandera.errors import SchemaErrors
from scipy.interpolate import PchipInterpolator

from difftime.config import OptimumSettings
from difftime.files import atomic
from difftime.schemas import TABLES, arrow_schema, write_rows

LINE = ["dataset", "sde", "net", "p_noise"]
"""The columns that name one curve over T."""


class BadTable(Exception):
    """A table is missing, damaged or breaks its schema; the message names the file and every fault."""


def pandera_schema(table: str) -> pa.DataFrameSchema:
    """The checks on a table's values, from the same declaration as its Parquet schema."""
    columns = {}
    for c in TABLES[table]:
        checks = [] if c.type in ("string", "bool") else [pa.Check(np.isfinite, ignore_na=True, error="is not finite")]
        if c.low is not None:
            checks.append(pa.Check.ge(c.low))
        if c.high is not None:
            checks.append(pa.Check.le(c.high))
        dtype = {"string": str}.get(c.type, c.type)
        columns[c.name] = pa.Column(dtype, checks, nullable=c.nullable, coerce=c.name == "T")
    return pa.DataFrameSchema(columns, strict=True, ordered=True)


def read(path: Path, table: str) -> pd.DataFrame:
    """A table from its Parquet file, checked against its schema. Raises BadTable."""
    try:
        frame = pq.ParquetFile(path).read().to_pandas()
    except (OSError, ValueError) as error:
        raise BadTable(f"{path} cannot be read as a Parquet table ({error}). Delete it and run again.") from error
    return check(frame, table, str(path))


def check(frame: pd.DataFrame, table: str, source: str) -> pd.DataFrame:
    """`frame` if it keeps the schema of `table`, else BadTable with every fault."""
    try:
        return pandera_schema(table).validate(frame, lazy=True)
    except SchemaErrors as error:
        cases = error.failure_cases.groupby(["column", "check"], dropna=False).size()
        lines = [f"  - {column}: {rule} ({count} rows)" for (column, rule), count in cases.items()]
        raise BadTable(f"{source} breaks the schema of the table '{table}':\n" + "\n".join(lines)) from None


def collect(paths: Iterable[Path], table: str) -> pd.DataFrame:
    """The tables of single cells as one, in the order of the paths, checked."""
    return pd.concat([read(path, table) for path in paths], ignore_index=True)


def empty(table: str) -> pd.DataFrame:
    """A table without rows, for what a study does not measure."""
    return arrow_schema(table).empty_table().to_pandas()


def save(frame: pd.DataFrame, table: str, path: Path) -> None:
    """Write a table as Parquet, and beside it as Markdown and as HTML for the report."""
    check(frame, table, str(path))
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    write_rows(path, table, records)
    shown = frame.copy()
    units = {c.name: c.unit for c in TABLES[table]}
    shown.columns = [f"{name} [{units[name]}]" if units[name] not in ("", "1") else name for name in frame.columns]
    for suffix, text in ((".md", markdown(shown)), (".html", _page(table, shown))):
        with atomic(path.with_suffix(suffix)) as temporary:
            temporary.write_text(text)


def _cell_text(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a Markdown table, numbers to six digits."""
    return markdown_rows(frame.columns, [[_cell_text(v) for v in row] for row in frame.itertuples(index=False)])


def markdown_rows(header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table from texts."""
    header = list(header)
    return "".join("| " + " | ".join(row) + " |\n" for row in [header, ["---"] * len(header), *rows])


def _page(title: str, frame: pd.DataFrame) -> str:
    style = (
        "body{font-family:sans-serif;font-size:13px}table{border-collapse:collapse}"
        "td,th{padding:2px 8px;border-bottom:1px solid #ddd;text-align:right}"
    )
    body = frame.map(_cell_text).to_html(index=False, border=0)
    head = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{style}</style>"
    return f"{head}<h1>{title}</h1>{body}"


def _mean_and_se(values: pd.Series) -> pd.Series:
    finite = values[np.isfinite(values)]
    n = len(finite)
    mean = finite.mean() if n else math.nan
    se = finite.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
    return pd.Series({"mean": mean, "se": se, "seeds": len(values), "finite": n})


def _long(frame: pd.DataFrame, table: str, quantities: Sequence[str], prefix: str = "") -> pd.DataFrame:
    units = {c.name: c.unit for c in TABLES[table]}
    parts = []
    for quantity in quantities:
        part = frame.groupby([*LINE, "T"], sort=False)[quantity].apply(_mean_and_se).unstack().reset_index()
        parts.append(part.assign(quantity=prefix + quantity, unit=units[quantity]))
    return pd.concat(parts, ignore_index=True)


def summarise(elbo: pd.DataFrame, likelihood: pd.DataFrame, samples: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard error over seeds of every measured quantity, beside the optimal T of its curve."""
    parts = [_long(elbo, "elbo", ["elbo", "kl", "gap", "K", "R", "I", "prior", "entropy", "log_p_data"])]
    if len(likelihood):
        parts.append(_long(likelihood, "likelihood", ["log_q_ode", "log_q_sde", "nfe"]))
    for sampler, group in samples.groupby("sampler", sort=False):
        parts.append(_long(group, "samples", ["wasserstein1", "log_p_data_median", "nfe"], f"{sampler}:"))
    columns = [c.name for c in TABLES["summary"]]
    merged = pd.concat(parts, ignore_index=True).merge(
        best[[*LINE, "T_star", "T_star_low", "T_star_high"]], on=LINE, how="left"
    )
    return merged[columns].astype({"seeds": "int64", "finite": "int64"})


def bounds(elbo: pd.DataFrame, likelihood: pd.DataFrame) -> pd.DataFrame:
    """ELBO <= E log q <= -entropy for the reverse SDE, row by row, where its density is known.

    `tolerance` is the numerical error of log_q_sde plus that of the decomposition, and four standard errors of the
    ELBO where it is a Monte Carlo estimate.
    """
    keys = [*LINE, "T", "seed"]
    both = elbo.merge(likelihood[[*keys, "log_q_sde", "log_q_sde_error"]], on=keys, validate="one_to_one")
    both = both[np.isfinite(both.log_q_sde) & np.isfinite(both.elbo)]
    tolerance = both.log_q_sde_error + both.residual.abs() + 4 * both.elbo_se
    table = both[keys].assign(
        elbo=both.elbo, log_q_sde=both.log_q_sde, ceiling=-both.entropy, tolerance=tolerance,
        holds=(both.elbo <= both.log_q_sde + tolerance) & (both.log_q_sde <= -both.entropy + tolerance),
    )  # fmt: skip
    return table[[c.name for c in TABLES["bounds"]]].reset_index(drop=True)


def _elbo_curves(T: np.ndarray, kl: np.ndarray, gap: np.ndarray, entropy: float, fine: np.ndarray) -> np.ndarray:
    """The ELBO = -entropy - KL - G of Eq. 11 at the times `fine`, from KL [T] and G [..., T] at the times `T`.

    log KL and log G are interpolated (monotone cubic), so the maximum of their sum may lie between the times.
    """
    # a KL below rounding error says nothing of where the optimum lies, but its logarithm must exist
    logs = [np.log(np.maximum(kl, 1e-15)), np.log(gap)]
    kl_fine, gap_fine = (np.exp(PchipInterpolator(T, values, axis=-1)(fine)) for values in logs)
    return -entropy - kl_fine - gap_fine


def _optimum_of(line: pd.DataFrame, settings: OptimumSettings, rng: np.random.Generator) -> dict[str, object] | None:
    gaps = line.pivot(index="seed", columns="T", values="gap").to_numpy()
    kl = line.groupby("T").kl.mean()
    T, entropy = kl.index.to_numpy(), line.entropy.mean()
    usable = np.isfinite(gaps).all(0) & (gaps > 0).all(0)
    if usable.sum() < 3:
        return None
    T, gaps, kl = T[usable], gaps[:, usable], kl.to_numpy()[usable]
    fine = np.linspace(T[0], T[-1], 2001)
    mean = _elbo_curves(T, kl, gaps.mean(0), entropy, fine)
    best = int(mean.argmax())
    resampled = gaps[rng.integers(len(gaps), size=(settings.resamples, len(gaps)))].mean(1)
    curves = _elbo_curves(T, kl, resampled, entropy, fine)
    low, high = np.percentile(fine[curves.argmax(1)], [50 * (1 - settings.confidence), 50 * (1 + settings.confidence)])
    se = curves[:, best].std(ddof=1)
    plateau = fine[mean >= mean[best] - se]
    above = max(int(np.searchsorted(T, fine[best])), 1)
    first = line.iloc[0]
    return {
        "T_star": fine[best], "T_star_low": low, "T_star_high": high, "confidence": settings.confidence,
        "spacing": T[min(above, len(T) - 1)] - T[above - 1],
        "elbo_star": mean[best], "elbo_star_se": se, "loss_at_star": first.log_p_data - mean[best],
        "gain_over_1": mean[best] - np.interp(1.0, fine, mean) if T[0] <= 1 <= T[-1] else math.nan,
        "gain_over_last": mean[best] - mean[-1],
        "plateau_low": plateau[0], "plateau_high": plateau[-1], "interior": bool(0 < best < len(fine) - 1),
        "times": len(T), "seeds": len(gaps), "epsilon": first.epsilon, "weighting": first.weighting,
    }  # fmt: skip


def optimum(elbo: pd.DataFrame, settings: OptimumSettings, seed: int) -> pd.DataFrame:
    """The optimal T of every line with at least three times at which all seeds have a finite gap.

    The interval is the percentile bootstrap over seeds (Efron & Tibshirani, 1993): whole curves are resampled, as
    seeds share their random numbers across T.
    """
    rows = []
    for keys, line in elbo.groupby(LINE, sort=False):
        found = _optimum_of(line, settings, np.random.default_rng(seed))
        if found is not None:
            rows.append(dict(zip(LINE, keys, strict=True)) | found)
    return pd.DataFrame(rows, columns=[c.name for c in TABLES["optimum"]])


def findings(results: Path) -> str:
    """What a study found, in a few lines: the optimal T of every line, whether the bounds hold, where to look."""
    lines = []
    for row in read(results / "tables" / "optimum.parquet", "optimum").itertuples():
        place = "" if row.interior else " (at the edge of the times studied)"
        if row.interior and row.T_star_high - row.T_star_low < row.spacing:
            place = f" (interpolated between times {row.spacing:.2g} apart)"
        lines.append(
            f"{row.dataset} {row.sde} {row.net}, {row.p_noise} p_noise: T* = {row.T_star:.2f} "
            f"[{row.T_star_low:.2f}, {row.T_star_high:.2f}], "
            f"ELBO {row.elbo_star:.3f} ± {row.elbo_star_se:.3f} nats{place}"
        )
    checked = results / "tables" / "bounds.parquet"
    if checked.exists():
        holds = read(checked, "bounds").holds
        lines.append(f"ELBO <= E log q_SDE <= E log p holds in {holds.sum()} of {len(holds)} rows.")
    lines.append(f"Tables: {results / 'tables'}   Figures: {results / 'figures'}")
    return "\n".join(lines)
