"""The project's own files are in step with each other."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines: list[str]) -> dict[str, str]:
    return {normal(line.split("==")[0]): line.split("==")[1].strip() for line in lines if "==" in line}


def dependencies() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {normal(re.match(r"[\w.-]+", line).group()): line for line in project["dependencies"]}


def test_the_conda_environment_is_the_pinned_one() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = (part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    constraints = pins((ROOT / "constraints.txt").read_text().splitlines())
    assert pins(pip) == {name: constraints[name] for name in dependencies()}


def test_the_pins_are_within_the_declared_ranges() -> None:
    from packaging.requirements import Requirement

    constraints = pins((ROOT / "constraints.txt").read_text().splitlines())
    for name, line in dependencies().items():
        assert constraints[name] in Requirement(line).specifier, line


def test_no_package_knows_the_ones_above_it() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_the_version_is_the_same_everywhere() -> None:
    from difftime import __version__

    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_every_text_is_read_and_written_in_utf_8_whatever_the_locale() -> None:
    modules = [*(ROOT / "difftime").rglob("*.py"), *(ROOT / "workflow").rglob("*.py")]
    assert len(modules) > 20
    for module in modules:
        for call in ast.walk(ast.parse(module.read_bytes())):
            name = isinstance(call, ast.Call) and getattr(call.func, "attr", "")
            if name in ("read_text", "write_text"):
                given = len(call.args) + any(keyword.arg == "encoding" for keyword in call.keywords)
                assert given > (name == "write_text"), f"{module}:{call.lineno}"
