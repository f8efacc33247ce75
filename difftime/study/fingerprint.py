"""A fingerprint of the code that a command runs, for Snakemake, which does not see edits inside a package.

The fingerprint is a function of the source alone: equal on every Python and in every locale. `ast.dump` is not, as its
form changes from one Python to the next, so the syntax tree is written down here.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterable
from functools import cache
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOT_FOLLOWED = (
    "study.fingerprint", "study.registry", "study.settings", "support.files", "support.memory", "support.progress",
    "support.signals", "tables.schema",
)  # fmt: skip
"""What changes no result: settings reach a rule as its parameters, and `collect` checks every table's form."""

BESIDE = (".css", ".html", ".js")
"""What a page is made of lies beside its module, under its name."""


HANDED_ON = "DIFFTIME_FINGERPRINTS"
"""The environment variable in which jobs find the fingerprints of the process that planned them."""


class OtherCode(Exception):
    """The installed code is not the code that a job was planned with; the message says what to do."""


def _path(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _left_out(module: str) -> bool:
    """Whether a module, or a package around it, is not followed."""
    return any(module == one or module.startswith(f"{one}.") for one in NOT_FOLLOWED)


def _text(node: object) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _docstring(line: ast.stmt) -> bool:
    """Whether a statement is a text that nothing is done with: a docstring, also one below an attribute."""
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def _merged(parts: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string. Pythons differ in where they cut its plain text, and whether they keep empty texts."""
    merged: list[ast.expr] = []
    for plain, group in groupby(parts, _text):
        if plain:
            text = "".join(str(part.value) for part in group if isinstance(part, ast.Constant))
            merged += [ast.Constant(text)] if text else []
        else:
            merged += group
    return merged


def written(node: object) -> str:
    """A syntax tree as text, without docstrings and without empty fields, of which newer Pythons have more."""
    if isinstance(node, ast.JoinedStr):
        return f"JoinedStr({written(_merged(node.values))})"
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
        if isinstance(body := getattr(node, "body", None), list):
            body = [line for line in body if not _docstring(line)]
            fields = [(name, body if name == "body" else value) for name, value in fields]
        return f"{type(node).__name__}({', '.join(f'{name}={written(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(written, node))}]"
    return ascii(node)  # `repr` shows the characters that this Python's Unicode calls printable


@cache
def _parsed(module: str) -> tuple[str, frozenset[str]]:
    """The module's code without comments, docstrings and layout, with the files beside it under its name; and the
    modules of the package it imports.
    """
    if (path := _path(module)) is None:
        raise FileNotFoundError(f"difftime has no module {module}.")
    tree = ast.parse(path.read_bytes())  # bytes: UTF-8 in every locale
    beside = [path.with_suffix(suffix) for suffix in BESIDE]
    assets = [file.read_text(encoding="utf-8") for file in beside if file.is_file()]  # any line ends as \n
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (source := node.module or "").split(".")[0] == "difftime":
            package = ".".join(source.split(".")[1:])
            names = [f"{package}.{alias.name}" if package else alias.name for alias in node.names]
            imported |= {name if _path(name) else package for name in names} - {""}
    return "\n".join([written(tree), *assets]), frozenset(imported)


@cache
def _source() -> str:
    """SHA-256 of every file of code as it is, comments and all: a hundredth of the time of its fingerprints."""
    files = sorted(path for path in ROOT.rglob("*") if path.suffix in (".py", *BESIDE))
    digests = (f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


@cache
def _known() -> dict[str, str]:
    """The fingerprints that were handed on to this process; none if they are of other files than it has."""
    if HANDED_ON not in os.environ:
        return {}
    known: dict[str, str] = json.loads(os.environ[HANDED_ON]).get(_source(), {})
    return known


def handed_on(modules: Iterable[str]) -> dict[str, str]:
    """The environment in which a job need not compute the fingerprints of these modules again."""
    # before any file is parsed: a file that is edited in between is then seen to be another
    source = _source()
    return {HANDED_ON: json.dumps({source: {module: fingerprint(module) for module in modules}})}


@cache
def fingerprint(module: str) -> str:
    """SHA-256 (first 12 digits) of a module of this package and of all that it imports from the package.

    A change of comments, docstrings or layout leaves it alone.
    """
    if module in _known():
        return _known()[module]
    seen, waiting = {}, [module]
    while waiting:
        name = waiting.pop()
        if name not in seen and not _left_out(name):
            seen[name], imported = _parsed(name)
            package = name.rpartition(".")[0]
            waiting += [*imported, package] if package else imported
    return hashlib.sha256("\n".join(f"{name} {seen[name]}" for name in sorted(seen)).encode()).hexdigest()[:12]


def require(planned: str, module: str) -> None:
    """Raise OtherCode unless a job's own code is the code that it was planned with, as `fingerprint` names both.

    They differ after an edit while a study runs, and where a clone plans what another clone, the installed one, runs.
    """
    if (own := fingerprint(module)) != planned:
        raise OtherCode(
            f"{module} was planned with the code {planned}, but the installed code, in {ROOT}, is {own}. If the code "
            "was edited since, run snakemake again; if that is another clone, run `pip install --no-deps --editable .` "
            "in the clone that plans."
        )
