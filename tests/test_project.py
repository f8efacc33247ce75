"""The project's own files are in step with each other."""

import ast
import contextlib
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines: list[str]) -> dict[str, str]:
    return {normal(line.split("==")[0]): line.split("==")[1].strip() for line in lines if "==" in line}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def dependencies(*extras: str) -> dict[str, Requirement]:
    """What the project asks for with these extras, by name."""
    lines = [
        *project()["dependencies"],
        *(line for extra in extras for line in project()["optional-dependencies"][extra]),
    ]
    asked = {normal(line.name): line for line in map(Requirement, lines)}
    own = asked.pop("difftime", None)
    return asked | (dependencies(*own.extras) if own else {})


def brought_by(*extras: str) -> set[str]:
    """The names of all packages that these extras bring here; of what is not installed, the name alone."""
    found: set[tuple[str, str]] = set()
    ahead = [(name, extra) for name, line in dependencies(*extras).items() for extra in ("", *line.extras)]
    while ahead:
        name, extra = ahead.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        with contextlib.suppress(PackageNotFoundError):
            needed = [Requirement(line) for line in distribution(name).requires or []]
            ahead += [
                (normal(line.name), more)
                for line in needed
                if line.marker is None or line.marker.evaluate({"extra": extra})
                for more in ("", *line.extras)
            ]
    return {name for name, _ in found}


def constraints() -> dict[str, str]:
    return pins((ROOT / "constraints.txt").read_text().splitlines())


def test_the_conda_environment_is_that_of_make_run() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = (part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    assert pins(pip) == {name: constraints()[name] for name in dependencies("study", "flow")}
    assert "--editable '.[study,flow]'" in (ROOT / "Makefile").read_text()


def test_the_pins_are_within_the_declared_ranges() -> None:
    for name, line in dependencies(*project()["optional-dependencies"]).items():
        assert constraints()[name] in line.specifier, line


def test_every_package_that_is_brought_is_pinned() -> None:
    brought = brought_by(*project()["optional-dependencies"])
    assert {"torch", "setuptools", "jinja2"} < brought, "the walk has gone no further than the project itself"
    assert brought <= set(constraints())


LIBRARY = ["diffusion", "face", "images", "measures", "models", "support", "training"]


def test_the_library_needs_no_extra() -> None:
    """Imported where whatever only an extra brings is absent."""
    here = brought_by()
    absent = [name for name, owners in packages_distributions().items() if not here & {normal(o) for o in owners}]
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in LIBRARY
        for path in sorted((ROOT / "difftime" / package).rglob("*.py"))
        if "early_start" not in path.parts  # goes into folders that diffusers reads
    ]
    code = f"""import importlib, sys
sys.modules |= dict.fromkeys({sorted({*absent} - {"difftime"})!r})
for module in {modules!r}:
    importlib.import_module(module)
import difftime as dt
dt.VP, dt.best_T, dt.elbo, dt.elbo_curve, dt.log_likelihood, dt.sample"""
    assert {"pandas", "pydantic", "zuko", "sklearn"} < set(absent)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


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
