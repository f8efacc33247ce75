"""From cells to tables: collect, check, average over seeds with standard errors, find the optimal T."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow.parquet as pq
from pandera.errors import SchemaErrors
from scipy import stats
from scipy.interpolate import PchipInterpolator

from difftime.study.settings import OptimumSettings
from difftime.support.files import atomic
from difftime.tables.published import SOURCE, TABLE1
from difftime.tables.schema import TABLES, arrow_schema, write_rows

LINE = ["dataset", "sde", "net", "p_noise"]
"""The columns that name one curve over T."""


LOST = 1e-4
"""Share of the probability off the grid above which E log q_SDE is a lower bound only."""


class BadTable(Exception):
    """A table is missing, damaged or breaks its schema; the message names the file and every fault."""


def pandera_schema(table: str) -> pa.DataFrameSchema:
    """The checks on a table's values, from the same declaration as its Parquet schema."""
    columns = {}
    for c in TABLES[table]:
        checks = (
            []
            if c.type in ("string", "bool", "binary")
            else [pa.Check(np.isfinite, ignore_na=True, error="is not finite")]
        )
        if c.low is not None:
            checks.append(pa.Check.ge(c.low))
        if c.high is not None:
            checks.append(pa.Check.le(c.high))
        dtype = {"string": str, "binary": object}.get(c.type, c.type)
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


def missing(paths: Iterable[Path]) -> pd.DataFrame:
    """The table `missing` for parts of cells that are not there: .../dataset=.../sde=.../net=.../T=.../file."""
    rows = []
    for path in paths:
        keys = dict(part.split("=", 1) for part in path.parts if "=" in part)
        rows.append({key: keys[key] for key in ("dataset", "sde", "net")} | {"T": float(keys["T"]), "file": path.name})
    return pd.DataFrame(rows) if rows else empty("missing")


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
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return "" if value is None else shorten(str(value), 100, placeholder=" ...")


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a Markdown table, numbers to six digits."""
    return markdown_rows(frame.columns, [[_cell_text(v) for v in row] for row in frame.itertuples(index=False)])


def markdown_rows(header: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table from texts."""
    header = list(header)
    return "".join("| " + " | ".join(row) + " |\n" for row in [header, ["---"] * len(header), *rows])


ROWS_SHOWN = 2000
"""How much of a table its page holds; Snakemake's report embeds it, and a browser has to open that."""


def _page(title: str, frame: pd.DataFrame) -> str:
    style = (
        "body{font-family:sans-serif;font-size:13px}table{border-collapse:collapse}"
        "td,th{padding:2px 8px;border-bottom:1px solid #ddd;text-align:right}"
    )
    body = frame.head(ROWS_SHOWN).map(_cell_text).to_html(index=False, border=0)
    head = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{style}</style>"
    cut = f"<p>The first {ROWS_SHOWN} of {len(frame)} rows; {title}.parquet has all.</p>"
    return f"{head}<h1>{title}</h1>{cut if len(frame) > ROWS_SHOWN else ''}{body}"


def _over_seeds(values: pd.Series) -> pd.Series:
    """Mean, its standard error and the median over the finite values, and how many of how many these are."""
    finite = values[np.isfinite(values)]
    n = len(finite)
    se = finite.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
    return pd.Series({"mean": finite.mean(), "se": se, "median": finite.median(), "seeds": len(values), "finite": n})


def _long(frame: pd.DataFrame, table: str, quantities: Sequence[str], prefix: str = "") -> pd.DataFrame:
    """The quantities of a table over seeds, one row per curve, T and quantity."""
    units = {c.name: c.unit for c in TABLES[table]}
    parts = []
    for quantity in quantities:
        cells = frame.groupby([*LINE, "T"], sort=False)
        part = cells[quantity].apply(_over_seeds).unstack()
        if table == "elbo" and f"{quantity}_se" in frame:
            # the seeds of a cell share their Monte Carlo points: an error that their spread does not show
            part["se"] = np.hypot(part["se"], cells[f"{quantity}_se"].mean())
        parts.append(part.reset_index().assign(quantity=prefix + quantity, unit=units[quantity]))
    return pd.concat(parts, ignore_index=True)


def summarise(elbo: pd.DataFrame, likelihood: pd.DataFrame, samples: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard error and median over seeds of every measured quantity, beside the optimal T of its curve."""
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
    """ELBO <= E log q <= -entropy for the reverse SDE, row by row.

    `tolerance` is the numerical error of log_q_sde plus that of the decomposition, and four standard errors of the
    ELBO where it is a Monte Carlo estimate. A row is untested where the ELBO or the density is not known.
    """
    keys = [*LINE, "T", "seed"]
    both = elbo.merge(
        likelihood[[*keys, "log_q_sde", "log_q_sde_error", "log_q_sde_lost"]], on=keys, validate="one_to_one"
    )
    tolerance = both.log_q_sde_error + both.residual.abs() + 4 * both.elbo_se
    known = np.isfinite(both.log_q_sde) & np.isfinite(both.elbo) & np.isfinite(tolerance)
    holds = (both.elbo <= both.log_q_sde + tolerance) & (both.log_q_sde <= -both.entropy + tolerance)
    table = both.assign(
        ceiling=-both.entropy, tolerance=tolerance,
        verdict=np.where(known, np.where(holds, "holds", "broken"), "untested"),
    )  # fmt: skip
    return table[[c.name for c in TABLES["bounds"]]].astype({"verdict": "str"})


def verdict(checked: pd.DataFrame) -> str:
    """What the bounds table says, in a sentence or two."""
    count = checked.verdict.value_counts()
    tested = len(checked) - count.get("untested", 0)
    lines = [f"ELBO <= E log q_SDE <= E log p holds in {count.get('holds', 0)} of {tested} rows."]
    if tested < len(checked):
        lines.append(f"{len(checked) - tested} more were not tested: no finite ELBO, or no density of the reverse SDE.")
    lost = (checked.log_q_sde_lost > LOST).sum()
    if lost:
        lines.append(
            f"In {lost} rows more than {LOST:g} of the probability left the grid: there E log q_SDE is a lower bound."
        )
    return "\n".join(lines)


def _elbo_curves(T: np.ndarray, kl: np.ndarray, gap: np.ndarray, entropy: float, fine: np.ndarray) -> np.ndarray:
    """The ELBO = -entropy - KL - G of Eq. 11 at the times `fine`, from KL and G [..., T] at the times `T`.

    log KL and log G are interpolated (monotone cubic), so the maximum of their sum may lie between the times.
    """
    # a KL below rounding error says nothing of where the optimum lies, but its logarithm must exist
    logs = [np.log(np.maximum(kl, 1e-15)), np.log(gap)]
    kl_fine, gap_fine = (np.exp(PchipInterpolator(T, values, axis=-1)(fine)) for values in logs)
    return -entropy - kl_fine - gap_fine


@dataclass(frozen=True)
class Curve:
    """What the optimum of one line is found from: KL [T] and G [seeds, T] at the times where every G is finite."""

    T: np.ndarray
    kl: np.ndarray
    gaps: np.ndarray
    entropy: float
    entropy_se: float
    shared_se: np.ndarray
    """Standard errors [2, T] of KL and of G from the Monte Carlo points, which all seeds share."""

    @classmethod
    def of(cls, line: pd.DataFrame) -> Curve:
        wide = line.pivot(index="seed", columns="T", values="gap")
        gaps = wide.to_numpy()
        usable = np.isfinite(gaps).all(0) & (gaps > 0).all(0)
        means = line.groupby("T")[["kl", "kl_se", "gap_se"]].mean().to_numpy()[usable].T
        entropy, entropy_se = line.entropy.mean(), line.entropy_se.mean()
        return cls(wide.columns.to_numpy(float)[usable], means[0], gaps[:, usable], entropy, entropy_se, means[1:])

    def elbo(self, fine: np.ndarray) -> np.ndarray:
        """The ELBO of the mean over seeds."""
        return _elbo_curves(self.T, self.kl, self.gaps.mean(0), self.entropy, fine)

    def resampled(self, resamples: int, fine: np.ndarray, seed: int) -> np.ndarray:
        """The ELBO of resampled seeds [resamples, fine]: whole curves, as seeds share random numbers across T."""
        rng = np.random.default_rng(seed)
        n = len(self.gaps)
        gap = self.gaps[rng.integers(n, size=(resamples, n))].mean(1)
        noise = self.shared_se[:, None] * rng.standard_normal((2, *gap.shape))
        kl, gap = (np.maximum(v + e, 1e-3 * v) for v, e in zip((self.kl, gap), noise, strict=True))
        return _elbo_curves(self.T, kl, gap, self.entropy, fine)


def uncertainty(curve: Curve, fine: np.ndarray, settings: OptimumSettings, seed: int) -> dict[str, float]:
    """How well seeds determine T* and the ELBO there; all null for a single seed.

    The bootstrap of Efron & Tibshirani (1993), its percentiles widened about T* for the few seeds there are: by
    sqrt(n / (n - 1)), as a resample spreads less than a sample, and by Student's quantile over the normal one.
    """
    n, elbo = len(curve.gaps), curve.elbo(fine)
    if n == 1:
        return dict.fromkeys(("T_star_low", "T_star_high", "elbo_star_se", "plateau_low", "plateau_high"), math.nan)
    best, curves = int(elbo.argmax()), curve.resampled(settings.resamples, fine, seed)
    quantile = 0.5 + 0.5 * settings.confidence
    few = math.sqrt(n / (n - 1))
    ends = np.percentile(fine[curves.argmax(1)], [100 * (1 - quantile), 100 * quantile])
    wider = few * stats.t.ppf(quantile, n - 1) / stats.norm.ppf(quantile)
    low, high = np.clip(fine[best] + wider * (ends - fine[best]), fine[0], fine[-1])
    se = math.hypot(few * curves[:, best].std(ddof=1), curve.entropy_se)
    plateau = fine[elbo >= elbo[best] - se]
    return {
        "T_star_low": min(low, fine[best]), "T_star_high": max(high, fine[best]), "elbo_star_se": se,
        "plateau_low": plateau[0], "plateau_high": plateau[-1],
    }  # fmt: skip


def _optimum_of(line: pd.DataFrame, settings: OptimumSettings, seed: int) -> dict[str, object] | None:
    curve = Curve.of(line)
    T, first = curve.T, line.iloc[0]
    if len(T) < 3:
        return None
    fine = np.union1d(np.linspace(T[0], T[-1], 2001), T)
    elbo = curve.elbo(fine)
    best = int(elbo.argmax())
    above = max(int(np.searchsorted(T, fine[best])), 1)
    return {
        "T_star": fine[best], "confidence": settings.confidence, "spacing": T[above] - T[above - 1],
        "elbo_star": elbo[best], "loss_at_star": first.log_p_data - elbo[best],
        "gain_over_1": elbo[best] - np.interp(1.0, fine, elbo) if T[0] <= 1 <= T[-1] else math.nan,
        "gain_over_last": elbo[best] - elbo[-1], "T_last": T[-1], "interior": bool(0 < best < len(fine) - 1),
        "times": len(T), "times_left_out": line["T"].nunique() - len(T), "seeds": len(curve.gaps),
        "epsilon": first.epsilon, "weighting": first.weighting,
    } | uncertainty(curve, fine, settings, seed)  # fmt: skip


def optimum(elbo: pd.DataFrame, settings: OptimumSettings, seed: int) -> pd.DataFrame:
    """The optimal T of every line with at least three times at which all seeds have a finite gap."""
    rows = []
    for keys, line in elbo.groupby(LINE, sort=False):
        found = _optimum_of(line, settings, seed)
        if found is not None:
            rows.append(dict(zip(LINE, keys, strict=True)) | found)
    return pd.DataFrame(rows)[[c.name for c in TABLES["optimum"]]] if rows else empty("optimum")


def _said_of(row: Any) -> str:
    """One line of the optimum table, in words."""
    interval, se = f"[{row.T_star_low:.2f}, {row.T_star_high:.2f}]", f" ± {row.elbo_star_se:.3f}"
    remarks = []
    if row.seeds == 1:
        interval, se = "(one seed: no interval)", ""
    elif row.T_star_high - row.T_star_low < row.spacing:
        remarks.append(f"interpolated between times {row.spacing:.2g} apart")
    if not row.interior:
        remarks = ["at the edge of the times studied"]
    if row.times_left_out:
        remarks.append(f"{row.times_left_out} T left out, where not every seed is finite")
    name = f"{row.dataset} {row.sde} {row.net}, {row.p_noise} p_noise"
    remark = f" ({'; '.join(remarks)})" if remarks else ""
    return f"{name}: T* = {row.T_star:.2f} {interval}, ELBO {row.elbo_star:.3f}{se} nats{remark}"


def _refined(row: Any) -> str:
    """One line of the table of refined ones, in words."""
    loud = "" if row.stopped == "narrow" else "WARNING: "
    hours = f" {row.hours:.2g} {row.hours_of}-hours of training, a grid would take {row.grid_hours:.2g}."
    known = hours if math.isfinite(row.hours) else ""
    return f"{loud}refined with {row.cells} of {row.budget} cells: {row.why}.{known}"


def across_seeds(rows: pd.DataFrame, value: str, error: str) -> tuple[float, float]:
    """Mean over seeds and its standard error: over the images, which all seeds share, and over the seeds."""
    mean, n = rows[value].mean(), rows[value].notna().sum()
    between = rows[value].std(ddof=1) / math.sqrt(n) if n > 1 else 0.0
    return mean, math.hypot(rows[error].mean(), between)


def one_set_of_images(*measured: pd.DataFrame) -> None:
    """Raise BadTable if cells of one data set were measured on different images."""
    digests = (
        pd.concat([frame[["dataset", "data_digest"]] for frame in measured]).groupby("dataset").data_digest.nunique()
    )
    if (digests > 1).any():
        names = ", ".join(digests.index[digests > 1])
        raise BadTable(
            f"The images of {names} changed between the measurements: their tables hold several data_digest. Delete "
            "the cells of that data set and run again."
        )


def table1(bpd: pd.DataFrame, elbo: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1 for every image cell and p_noise; null where a cell is not measured so.

    Raises BadTable if cells of one data set were measured on different images.
    """
    one_set_of_images(bpd, elbo)
    rows = []
    cells = pd.concat([bpd[[*LINE, "T"]], elbo[[*LINE, "T"]]]).drop_duplicates()
    trained = training.set_index(["dataset", "sde", "net", "T"])
    for keys in cells.itertuples(index=False):
        here = dict(zip(cells.columns, keys, strict=True))
        cost = trained.loc[(here["dataset"], here["sde"], here["net"], here["T"])]
        row: dict[str, object] = here | {
            "parameters": cost.parameters, "iterations": cost.steps, "seeds": cost.seeds, "weighting": cost.weighting,
            "device": cost.device, "images_per_second": cost.points_per_second,
        }  # fmt: skip
        own_bpd, own_elbo = (t[(t[list(here)] == pd.Series(here)).all(axis=1)] for t in (bpd, elbo))
        if len(own_bpd):
            row["bpd"], row["bpd_se"] = across_seeds(own_bpd, "bpd", "bpd_se")
            row |= own_bpd[["nfe", "nfe_sd", "batch", "images"]].mean().to_dict() | {"failed": own_bpd.failed.sum()}
        if len(own_elbo):
            row["elbo_bpd"], row["elbo_bpd_se"] = across_seeds(own_elbo, "elbo_bpd", "elbo_bpd_se")
            row |= own_elbo[["kl_low_bpd", "kl_high_bpd"]].mean().to_dict() | {"elbo_images": own_elbo.images.mean()}
        rows.append(row)
    columns = {c.name: c.type for c in TABLES["table1"]}
    frame = pd.DataFrame(rows, columns=list(columns))
    return frame.astype({name: kind for name, kind in columns.items() if kind in ("float64", "int64")})


def _plus_minus(value: float, error: float, digits: int) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.{digits}f}" + ("" if math.isnan(error) else f" ± {error:.{digits}f}")


TABLE1_HEADER = [
    "data", "net", "p_noise", "T", "BPD (ODE)", "ELBO (bpd, SDE)", "KL (bpd)", "NFE", "batch", "training images/s",
    "parameters", "iterations", "paper BPD", "paper NFE",
]  # fmt: skip


def table1_rows(frame: pd.DataFrame) -> list[list[str]]:
    """Table 1 as texts, with the paper's values beside the VP cells of the same data and T."""
    published = {(row.dataset, row.T): row for row in TABLE1}
    lines = []
    for row in frame.sort_values(
        ["dataset", "sde", "net", "p_noise", "T"], ascending=[True] * 4 + [False]
    ).itertuples():
        paper = published.get((row.dataset, row.T)) if row.sde == "vp" and row.p_noise == "standard" else None
        lines.append([
            f"{row.dataset} {row.sde}", row.net, row.p_noise, f"{row.T:g}",
            _plus_minus(row.bpd, row.bpd_se, 3) + (f" ({row.failed:.0f} failed)" if row.failed > 0 else ""),
            _plus_minus(row.elbo_bpd, row.elbo_bpd_se, 3),
            "–" if math.isnan(row.kl_low_bpd) else f"{row.kl_low_bpd:.4f} to {row.kl_high_bpd:.4f}",
            _plus_minus(row.nfe, row.nfe_sd, 0), "–" if math.isnan(row.batch) else f"{row.batch:.0f}",
            f"{row.images_per_second:.3g}", f"{row.parameters:,}", f"{row.iterations:,}",
            f"{paper.bpd:.2f}" if paper else "", f"{paper.nfe:g}" if paper else "",
        ])  # fmt: skip
    return lines


def latex(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A LaTeX tabular from texts, with booktabs' rules."""
    special = {"±": "$\\pm$", "–": "--", "_": "\\_", "%": "\\%"}
    escape = str.maketrans(special)
    lines = [" & ".join(text.translate(escape) for text in row) + r" \\" for row in [header, *rows]]
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    return f"\\begin{{tabular}}{{{'l' * 3}{'r' * (len(header) - 3)}}}\n{body}\n\\end{{tabular}}\n"


def save_table1(frame: pd.DataFrame, path: Path) -> None:
    """Write Table 1 as `save` does, but for people in .md and .tex as the paper prints it, its values cited beside."""
    save(frame, "table1", path)
    rows = table1_rows(frame)
    note = f"Paper: Table 1 of {SOURCE}. ± is a standard error; for the NFE the standard deviation over batches."
    _save_texts(path, markdown_rows(TABLE1_HEADER, rows) + f"\n{note}\n", latex(TABLE1_HEADER, rows))


def _save_texts(path: Path, in_markdown: str, in_latex: str) -> None:
    for suffix, text in ((".md", in_markdown), (".tex", in_latex)):
        with atomic(path.with_suffix(suffix)) as temporary:
            temporary.write_text(text)


def _cheapest(line: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """The choice with the fewest evaluations whose BPD is within a standard error of the best, and the best."""
    best = line.loc[line.bpd.idxmin()]
    good = line[line.bpd <= best.bpd + best.bpd_se]
    return good.sort_values(["nfe", "bpd"]).iloc[0], best


def _choice(line: pd.DataFrame) -> dict[str, object]:
    """A row of Table 2; the standard p_noise alone has its choice by the same rule."""
    chosen, best = _cheapest(line)
    row = chosen[[*LINE, "T", "bpd", "bpd_se", "nfe"]].to_dict()
    row |= {f"best_{name}": best[name] for name in ("T", "p_noise", "bpd", "bpd_se")}
    usual = line[line.p_noise == "standard"]
    if len(usual):
        usual, _ = _cheapest(usual)
        row |= {f"standard_{name}": usual[name] for name in ("T", "bpd", "bpd_se", "nfe")}
        row |= {"nfe_saved": 1 - chosen.nfe / usual.nfe, "steps_saved": 1 - chosen["T"] / usual["T"]}
    return row | {"choices": len(line)}


def table2(table1: pd.DataFrame) -> pd.DataFrame:
    """For every data set, SDE and network the cheapest (T, p_noise) whose BPD is within a standard error of the best.

    Cells in which an image has no finite value, or of a single image, are no choice; a line without one has no row.
    """
    usable = table1[(table1.failed == 0) & table1.bpd.notna() & table1.bpd_se.notna()]
    rows = [_choice(line) for _, line in usable.groupby(["dataset", "sde", "net"], sort=False)]
    return pd.DataFrame(rows, columns=[c.name for c in TABLES["table2"]]) if rows else empty("table2")


TABLE2_HEADER = [
    "data", "net", "choice", "BPD (ODE)", "NFE", "best choice", "its BPD", "standard alone", "its BPD", "its NFE",
    "NFE saved", "SDE steps saved",
]  # fmt: skip


def table2_rows(frame: pd.DataFrame) -> list[list[str]]:
    """Table 2 as texts."""
    return [
        [
            f"{row.dataset} {row.sde}", row.net, f"T = {row.T:g}, {row.p_noise}",
            _plus_minus(row.bpd, row.bpd_se, 3), f"{row.nfe:.0f}",
            f"T = {row.best_T:g}, {row.best_p_noise}", _plus_minus(row.best_bpd, row.best_bpd_se, 3),
            "–" if math.isnan(row.standard_T) else f"T = {row.standard_T:g}",
            _plus_minus(row.standard_bpd, row.standard_bpd_se, 3), _plus_minus(row.standard_nfe, math.nan, 0),
            "–" if math.isnan(row.nfe_saved) else f"{row.nfe_saved:.0%}",
            "–" if math.isnan(row.steps_saved) else f"{row.steps_saved:.0%}",
        ]
        for row in frame.itertuples()
    ]  # fmt: skip


def save_table2(frame: pd.DataFrame, path: Path) -> None:
    """Write Table 2 as `save` does, but for people in .md and .tex."""
    save(frame, "table2", path)
    note = (
        "The choice has the fewest evaluations of those whose BPD is at most the best one plus its standard error; "
        "*standard alone* is what the same rule takes among the standard p_noise."
    )
    rows = table2_rows(frame)
    _save_texts(path, markdown_rows(TABLE2_HEADER, rows) + f"\n{note}\n", latex(TABLE2_HEADER, rows))


def findings(results: Path) -> str:
    """What a study found, in a few lines: the optimal T of every line, whether the bounds hold, where to look.

    Raises BadTable if the folder holds no tables, or damaged ones.
    """
    folder = results / "tables"
    if not list(folder.glob("*.parquet")):
        raise BadTable(f"{folder} holds no tables: no study has been finished there.")
    lines = []
    if (folder / "optimum.parquet").exists():
        best = read(folder / "optimum.parquet", "optimum")
        lines += [_said_of(row) for row in best.itertuples()]
        if best.empty:
            lines.append("No T*: no line has three times at which every seed is finite.")
    if (folder / "refined.parquet").exists():
        lines += [_refined(row) for row in read(folder / "refined.parquet", "refined").itertuples()]
    if (folder / "bounds.parquet").exists():
        lines.append(verdict(read(folder / "bounds.parquet", "bounds")))
    return "\n".join([*lines, f"Tables: {folder}   Figures: {results / 'figures'}"])
