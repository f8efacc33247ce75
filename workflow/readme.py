"""Render into README.md what is not typed by hand: the rules' graph, the findings, the measured speed.

    python -m workflow.readme rulegraph|findings|table1|speed

Each part stands between its own pair of markers. `findings` reads the default study's tables and copies its figures to
docs/figures; `speed` runs the benchmarks.
"""

from __future__ import annotations

import hashlib
import platform
import re
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
    return "\n".join((RESULTS / "tables" / f"{name}.md").read_text(encoding="utf-8") for name in ("table1", "table2"))


def speed() -> str:
    from benchmarks import images, study, training, workflow

    cpu = next(
        line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if line.startswith("model name")
    )
    machine = f"{cpu.split(':')[1].strip()}, 2 cores, {platform.system()}, Python {platform.python_version()}"
    return f"Measured on {machine}.\n\n" + "\n".join(part.main() for part in (study, training, images, workflow))


def replaced(page: str, part: str, text: str) -> str:
    """The page with `text` between the markers of a part. Raises SystemExit where a person wrote between them.

    The first marker has a digest of what this program wrote, so that prose that was added or altered is not deleted.
    """
    pattern = rf"<!-- {part} begins(?: ([0-9a-f]{{12}}))? -->\n(.*?)\n?<!-- {part} ends -->"
    found = re.findall(pattern, page, re.DOTALL)
    if len(found) != 1:
        raise SystemExit(f"README.md has {len(found)} pairs of markers of {part}; it must have one.")
    ((digest, old),) = found
    if old.strip() and digest != _digest(old):
        raise SystemExit(
            f"What stands between the markers of {part} in README.md is not what this program wrote: it would be lost. "
            "Move it out from between them, empty what is left, and run this again."
        )
    new = f"<!-- {part} begins {_digest(text)} -->\n{text.strip()}\n<!-- {part} ends -->"
    return re.sub(pattern, lambda _: new, page, flags=re.DOTALL)


def _digest(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()[:12]


def main(part: str) -> None:
    readme = ROOT / "README.md"
    replaced(readme.read_text(encoding="utf-8"), part, "")  # refused, if it is, before twenty minutes of measuring
    text = {"rulegraph": rulegraph, "findings": findings, "table1": table1, "speed": speed}[part]()
    readme.write_text(replaced(readme.read_text(encoding="utf-8"), part, text), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
