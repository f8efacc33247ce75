"""Bring a finished study of images into the documentation: its tables, its figures, and its numbers into one page.

    python -m workflow.reproduction results/mnist docs/reproduction/mnist

The page is the folder's name with `.md`. What a person wrote outside the markers of its parts stays.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from workflow.readme import cheapest, of_every_data, put, table1

TABLES = (
    "table1", "cheapest", "optimum", "prediction", "elbo", "curve", "levels", "likelihood", "samples", "few_steps",
    "steps", "training", "history",
)  # fmt: skip
"""Not `runs`, which knows paths of the machine."""


def optimum(results: Path) -> str:
    """T* of every p_noise: from all trained cells, and from the one cell of the largest T."""
    from difftime.tables.render import markdown_rows, plus_minus

    words = {"trained": "one network per T", "one": "one network for all T"}
    rows = [
        [
            row.p_noise, words[row.method], f"{row.T_star:.2f} [{row.T_star_low:.2f}, {row.T_star_high:.2f}]",
            f"{row.spacing:.2g}", plus_minus(row.elbo_star, row.elbo_star_se, 3),
            plus_minus(row.gain_over_1, row.gain_over_1_se, 4),
        ]
        for row in of_every_data("optimum", results).query("method in @words").itertuples()
    ]  # fmt: skip
    header = ["p_noise", "networks", "T* [95 %]", "times apart", "bound at T* (bpd)", "gain over T = 1 (bpd)"]
    return markdown_rows(header, rows)


def standing(results: Path) -> str:
    """Bits per dimension of MNIST as published for normalising flows, and the best of this study among them."""
    from difftime.tables.published import MNIST_FLOWS
    from difftime.tables.render import markdown_rows, plus_minus

    frame = of_every_data("table1", results)
    rows: list[tuple[float, list[str]]] = [(one.bpd, [one.name, f"{one.bpd:.2f}", ""]) for one in MNIST_FLOWS]
    for name, column in (("ODE", "bpd"), ("bound of the SDE", "elbo_bpd")):
        best = frame.loc[frame[column].idxmin()]
        model = f"**this study**, {name}, T = {best['T']:g}, {best.p_noise}"
        rows.append((best[column], [model, plus_minus(best[column], best[f"{column}_se"], 3), f"{best.parameters:,}"]))
    return markdown_rows(["model", "bits per dimension", "parameters"], [row for _, row in sorted(rows)])


def time(results: Path) -> str:
    """The seconds of every kind of job, what it ran on, and with which versions."""
    from difftime.tables.render import markdown_rows

    runs = of_every_data("runs", results)
    rows = [
        [command, str(len(jobs)), f"{jobs.seconds.median():,.0f}", f"{jobs.seconds.sum():,.0f}"]
        for command, jobs in runs.groupby("command", sort=False)
    ]

    def all_of(column: str) -> str:
        return ", ".join(map(str, runs[column].dropna().unique()))

    note = (
        f"Device: {all_of('device')}. Python {all_of('python')}, torch {all_of('torch')}, difftime {all_of('difftime')}"
    )
    return markdown_rows(["job", "jobs", "median seconds", "sum of seconds"], rows) + f"\n{note}.\n"


def files(results: Path, folder: Path) -> None:
    """Copy the tables and the figures, in place of those that were there. Raises ValueError for two of one name."""
    for name, kind in (("tables", "*.parquet"), ("figures", "*.png")):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
        for path in sorted((results / name).rglob(kind)):
            if name == "figures" or path.stem in TABLES:
                if (folder / name / path.name).exists():
                    raise ValueError(
                        f"{results} has two of {path.name}: give the study of one data set and one network."
                    )
                shutil.copy(path, folder / name / path.name)


def main(results: Path, folder: Path) -> None:
    files(results, folder)
    page = folder.with_suffix(".md")
    parts = {"table1": table1, "cheapest": cheapest, "optimum": optimum, "standing": standing, "time": time}
    for part, text in parts.items():
        if not put(text(results), part, page):
            raise ValueError(f"{page} has no markers of {part}.")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
