"""Bring a finished study of images into the documentation: its tables, its figures, and its numbers into one page.

    python -m workflow.reproduction results/mnist docs/reproduction/mnist mnist

The page is the folder's name with `.md`. What a person wrote outside the markers of its parts stays. The last argument
is the data of the published numbers that stand beside the study's own: `mnist` or `cifar10`.
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
    """T* of every p_noise: from the trained cells, from all of them at every time, and from that of the largest T."""
    from difftime.tables.render import markdown_rows, plus_minus

    words = {"trained": "trained cells", "curve": "all cells, at every time", "one": "the cell of the largest T"}
    rows = [
        [
            row.p_noise, words[row.method],
            f"{row.T_star:.2f} [{row.T_star_low:.2f}, {row.T_star_high:.2f}]" + ("" if row.interior else " (edge)"),
            f"{row.spacing:.2g}", plus_minus(row.elbo_star, row.elbo_star_se, 3),
            plus_minus(row.gain_over_1, row.gain_over_1_se, 4),
        ]
        for row in of_every_data("optimum", results).query("method in @words").itertuples()
    ]  # fmt: skip
    header = ["p_noise", "T* from", "T* [95 %]", "times apart", "bound at T* (bpd)", "gain over T = 1 (bpd)"]
    return markdown_rows(header, rows)


def paper(results: Path, data: str) -> str:
    """The standard p_noise beside the paper's Table 1, with what a T costs of either: the difference to T = 1."""
    from difftime.tables.published import TABLE1
    from difftime.tables.render import markdown_rows, plus_minus

    published = {row.T: row for row in TABLE1 if row.dataset == data}
    own = of_every_data("table1", results).query("p_noise == 'standard'").set_index("T")
    rows = [
        [
            f"{T:g}", plus_minus(row.bpd, row.bpd_se, 3), plus_minus(row.delta_bpd, row.delta_bpd_se, 3),
            f"{row.nfe:.0f}", f"{there.bpd:.2f}", f"{there.bpd - published[1.0].bpd:.2f}", f"{there.nfe:g}",
        ]
        for T, row in own.iterrows() if (there := published.get(T)) is not None
    ]  # fmt: skip
    return markdown_rows(["T", "BPD", "minus T = 1", "NFE", "paper: BPD", "minus T = 1", "NFE"], rows)


def standing(results: Path, data: str) -> str:
    """Bits per dimension as published for normalising flows, and the best of this study among them."""
    from difftime.tables.published import FLOWS
    from difftime.tables.render import markdown_rows, plus_minus

    frame = of_every_data("table1", results)
    rows: list[tuple[float, list[str]]] = [(one.bpd, [one.name, f"{one.bpd:.2f}"]) for one in FLOWS[data]]
    for name, column in (("ODE", "bpd"), ("bound of the SDE", "elbo_bpd")):
        best = frame.loc[frame[column].idxmin()]
        model = f"**this study**, {name}, T = {best['T']:g}, {best.p_noise}"
        rows.append((best[column], [model, plus_minus(best[column], best[f"{column}_se"], 3)]))
    return markdown_rows(["model", "bits per dimension"], [row for _, row in sorted(rows)])


def parts(results: Path) -> str:
    """The change of the bound from the largest T on: of an earlier start, and of the network that T has of its own."""
    from difftime.tables.paired import difference
    from difftime.tables.parquet import collect
    from difftime.tables.render import markdown_rows, plus_minus

    index = ["p_noise", "T", "seed", "unit"]
    own = collect((results / "cells").rglob("elbo_units.parquet"), "elbo_units").set_index(index).elbo_bpd.sort_index()
    largest = own.index.unique("T").max()
    paths = [path for path in (results / "cells").rglob("curve_units.parquet") if path.parent.name == f"T={largest:g}"]
    curve = (
        collect(paths, "curve_units").assign(T=lambda frame: frame.t.round(9)).set_index(index).elbo_bpd.sort_index()
    )
    rows = []
    for p_noise in sorted(own.index.unique("p_noise")):
        for T in sorted(own.index.unique("T"), reverse=True)[1:]:
            trained, earlier, reference = own.loc[p_noise, T], curve.get((p_noise, T)), own.loc[p_noise, largest]
            changes = ((earlier, reference), (trained, earlier), (trained, reference))
            rows.append([p_noise, f"{T:g}", *(plus_minus(*difference(*pair), 4) for pair in changes)])
    whole = f"of the earlier start, with the network of T = {largest:g}"
    return markdown_rows(["p_noise", "T", whole, "of another network", "both"], rows)


def time(results: Path) -> str:
    """The seconds of every kind of job, with those before a cut, what it ran on, and with which versions."""
    from difftime.tables.render import markdown_rows

    runs = of_every_data("runs", results)
    # a run that was cut has the seconds of its last piece; a training's own count those before
    seconds = runs[["seconds", "work_seconds"]].max(axis=1).groupby(runs.command, sort=False)
    rows = [[command, str(len(jobs)), f"{jobs.median():,.0f}", f"{jobs.sum():,.0f}"] for command, jobs in seconds]

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


def main(results: Path, folder: Path, data: str) -> None:
    files(results, folder)
    page = folder.with_suffix(".md")
    texts = {
        "paper": paper(results, data),
        "table1": table1(results),
        "cheapest": cheapest(results),
        "optimum": optimum(results),
        "parts": parts(results),
        "standing": standing(results, data),
        "time": time(results),
    }
    for part, text in texts.items():
        if not put(text, part, page):
            raise ValueError(f"{page} has no markers of {part}.")


if __name__ == "__main__":
    _, of_study, of_page, published_data = sys.argv
    main(Path(of_study), Path(of_page), published_data)
