"""Render into README.md and the docs what is not typed by hand: findings, tables, the graph of the rules.

    python -m workflow.readme findings|table1|cheapest|figures|rules

A part stands between its own pair of markers in every page that shows it. All read the default study's results.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from difftime.support.files import atomic

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
PICTURES = ROOT / "docs" / "figures"
TOY = RESULTS / "tables" / "toy"
NET = "mlp-32x2"
"""The network of the paper's comparison; the others are studied for Fig. 3."""
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")


def findings() -> str:
    """T* of the toy from trained cells, and whether the bound holds."""
    from difftime.tables.bounds import verdict
    from difftime.tables.parquet import read
    from difftime.tables.published import T_STAR
    from difftime.tables.render import markdown_rows, plus_minus

    best = read(TOY / "optimum.parquet", "optimum").query("method == 'trained' and net == @NET")
    rows = [
        [
            row.sde.upper(), row.p_noise, f"{row.T_star:.2f} [{row.T_star_low:.2f}, {row.T_star_high:.2f}]",
            f"{row.spacing:.2g}", f"{T_STAR[row.sde]:g}" if row.p_noise == "standard" else "",
            f"{row.loss_at_star:.3f} ± {row.elbo_star_se:.3f}", plus_minus(row.gain_over_1, row.gain_over_1_se, 3),
        ]
        for row in best.itertuples()
    ]  # fmt: skip
    header = ["SDE", "p_noise", "T* [95 %]", "times apart", "paper", "loss at T* (nats)", "gain over T = 1"]
    return markdown_rows(header, rows) + "\n" + verdict(read(TOY / "bounds.parquet", "bounds"))


def table1(results: Path = RESULTS) -> str:
    from difftime.tables.paper import texts

    return texts(of_every_data("table1", results))[".md"]


def cheapest(results: Path = RESULTS) -> str:
    from difftime.optimum.cheapest import texts

    return texts(of_every_data("cheapest", results))[".md"]


def of_every_data(table: str, results: Path) -> pd.DataFrame:
    """The rows of all data sets that have such a table, in the order of the study."""
    import pandas as pd

    from difftime.study.settings import study_in
    from difftime.tables.parquet import read

    cells = study_in(results).cells()
    places = [results / "tables" / name for name in cells.datasets() if table in cells.tables(name)]
    return pd.concat([read(place / f"{table}.parquet", table) for place in places], ignore_index=True)


def figures() -> None:
    """Copy the default study's figures: one of each name, of the paper's network where each network has one."""
    found = sorted((RESULTS / "figures").rglob("*.png"), key=lambda path: path.parent.name == NET)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for path in found:
        shutil.copy(path, PICTURES / path.name)


def rules() -> None:
    """Draw docs/figures/rules.svg: the rules of the default study from left to right, by stages."""
    command = ["snakemake", "--rulegraph", "dot", "--quiet", "all", "--forceall"]
    dot = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    names = dict(re.findall(r'(\d+)\[label = "([^"]+)"', dot))
    arrows = [(names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", dot) if a != b]
    with atomic(PICTURES / "rules.svg") as temporary:
        temporary.write_text(graph(list(names.values()), arrows), encoding="utf-8")


def graph(names: list[str], arrows: list[tuple[str, str]]) -> str:
    """An SVG of a graph without cycles: the stage of a node is the longest way to it; arrows that shorten a way go."""
    before: dict[str, set[str]] = {name: {a for a, b in arrows if b == name} for name in names}

    def stage(name: str) -> int:
        return 1 + max(map(stage, before[name]), default=-1)

    def reaches(start: str, end: str) -> bool:
        return any(step == start or reaches(start, step) for step in before[end])

    columns: dict[int, list[str]] = {}
    for name in sorted(names):
        columns.setdefault(stage(name), []).append(name)
    tallest = max(map(len, columns.values()))
    place = {
        name: (20 + 150 * column, 20 + 40 * (row + (tallest - len(own)) / 2))
        for column, own in columns.items()
        for row, name in enumerate(own)
    }
    shown = [(a, b) for a, b in sorted(arrows) if not any(a != step and reaches(a, step) for step in before[b])]
    lines = [
        f'<path d="M{place[a][0] + 110} {place[a][1] + 13} C{place[a][0] + 130} {place[a][1] + 13} '
        f'{place[b][0] - 20} {place[b][1] + 13} {place[b][0]} {place[b][1] + 13}" fill="none" stroke="#999"/>'
        for a, b in shown
    ]
    boxes = [
        f'<rect x="{x}" y="{y}" width="110" height="26" rx="5" fill="#eef3f8" stroke="#4c72b0"/>'
        f'<text x="{x + 55}" y="{y + 17}" text-anchor="middle">{name}</text>'
        for name, (x, y) in place.items()
    ]
    size = f'width="{150 * len(columns)}" height="{40 * tallest + 40}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *lines, *boxes, "</svg>"]) + "\n"


def put(text: str, part: str, page: Path) -> bool:
    """Put a part between its markers in a page; False if the page does not show it.

    The first marker has a digest of what this program wrote. Raises ValueError where a person wrote between the
    markers, which would be lost, and where they are no pair.
    """
    pattern = rf"<!-- {part} begins(?: ([0-9a-f]{{12}}))? -->\n(.*?)\n?<!-- {part} ends -->"
    old = page.read_text(encoding="utf-8")
    marks = len(re.findall(rf"<!-- {part} (?:begins|ends)", old))
    if not marks:
        return False
    found = re.findall(pattern, old, re.DOTALL)
    if (len(found), marks) != (1, 2):
        raise ValueError(f"{page} needs one pair of markers of {part}: that it begins, and that it ends.")
    ((digest, written),) = found
    if written.strip() and digest != _digest(written):
        raise ValueError(
            f"What stands between the markers of {part} in {page} is not what this program wrote: it would be lost. "
            "Move it out from between them, empty what is left, and run this again."
        )
    new = f"<!-- {part} begins {_digest(text)} -->\n{text.strip()}\n<!-- {part} ends -->"
    with atomic(page) as temporary:
        temporary.write_text(re.sub(pattern, lambda _: new, old, flags=re.DOTALL), encoding="utf-8")
    return True


def _digest(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()[:12]


def main(part: str) -> None:
    if part in ("figures", "rules"):
        {"figures": figures, "rules": rules}[part]()
        return
    text = {"findings": findings, "table1": table1, "cheapest": cheapest}[part]()
    shown = [page for page in PAGES if put(text, part, page)]
    if not shown:
        raise ValueError(f"No page has the markers of {part}.")


if __name__ == "__main__":
    main(sys.argv[1])
