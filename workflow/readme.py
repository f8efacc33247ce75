"""Render into README.md what is not typed by hand: the rules' graph, the findings, the measured speed.

    python -m workflow.readme rulegraph|findings|table1|speed

Each part stands between its own pair of markers. `findings` reads the default study's tables and copies its figures to
docs/figures; `speed` runs the benchmarks.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
NET = "mlp-32x2"
"""The network of the paper's comparison; the others are studied for Fig. 3."""
SHOWN = (
    "fig1", "fig2", "fig3", "fig4", "quality", "cost", "noises", "scout", "table1", "table2", "images", "learning",
    "tradeoff",
)  # fmt: skip


def rulegraph() -> str:
    command = ["snakemake", "--rulegraph", "mermaid-js", "--quiet", "all", "--forceall"]
    graph = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
    return f"```mermaid\n{graph}\n```"


def _interval(row: pd.Series) -> str:
    return f"{row.T_star:.2f} [{row.T_star_low:.2f}, {row.T_star_high:.2f}]"


def findings() -> str:
    from difftime.tables.derived import markdown_rows, read, verdict

    from difftime.tables.published import T_STAR

    best = read(RESULTS / "tables" / "optimum.parquet", "optimum")
    (ROOT / "docs" / "figures").mkdir(parents=True, exist_ok=True)
    for figure in SHOWN:
        shutil.copy(RESULTS / "figures" / f"{figure}.png", ROOT / "docs" / "figures")
    sensitivity = RESULTS / "sensitivity" / "figures" / "sensitivity.png"
    if sensitivity.exists():
        shutil.copy(sensitivity, ROOT / "docs" / "figures")
    rows = []
    for _, row in best[best.net == NET].iterrows():
        paper = f"{T_STAR[row.sde]:g}" if row.p_noise == "standard" else ""
        loss = f"{row.loss_at_star:.3f} ± {row.elbo_star_se:.3f}"
        gains = [f"{row.gain_over_1:.3f}", f"{row.gain_over_last:.3f} (T = {row.T_last:g})"]
        rows.append([row.sde.upper(), row.p_noise, _interval(row), f"{row.spacing:.2g}", paper, loss, *gains])
    header = [
        "SDE",
        "p_noise",
        "T* [95 %]",
        "times apart",
        "paper",
        "loss at T* (nats)",
        "gain over T = 1",
        "over the last T",
    ]
    bound = verdict(read(RESULTS / "tables" / "bounds.parquet", "bounds"))
    return markdown_rows(header, rows) + "\n" + bound


def table1() -> str:
    return "\n".join((RESULTS / "tables" / f"{name}.md").read_text() for name in ("table1", "table2"))


def speed() -> str:
    from benchmarks import images, study, training, workflow

    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    machine = f"{cpu.split(':')[1].strip()}, 2 cores, {platform.system()}, Python {platform.python_version()}"
    return f"Measured on {machine}.\n\n" + "\n".join(part.main() for part in (study, training, images, workflow))


def main(part: str) -> None:
    text = {"rulegraph": rulegraph, "findings": findings, "table1": table1, "speed": speed}[part]()
    readme = ROOT / "README.md"
    begin, end = f"<!-- {part} begins -->", f"<!-- {part} ends -->"
    before, rest = readme.read_text().split(begin)
    readme.write_text(f"{before}{begin}\n{text.strip()}\n{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    main(sys.argv[1])
