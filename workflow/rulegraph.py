"""Draw the workflow's rules into README.md, between its two markers, as a Mermaid graph."""

import subprocess
from pathlib import Path

BEGIN, END = "<!-- rulegraph begins -->", "<!-- rulegraph ends -->"


def main() -> None:
    graph = subprocess.run(
        ["snakemake", "--rulegraph", "mermaid-js", "--quiet", "--forceall"], capture_output=True, text=True, check=True
    ).stdout.strip()
    readme = Path(__file__).parent.parent / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n```mermaid\n{graph}\n```\n{END}{after}")


if __name__ == "__main__":
    main()
