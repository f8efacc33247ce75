"""A fingerprint of the code that a verb runs, for Snakemake, which does not see edits inside a package."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOT_FOLLOWED = {"study.settings", "tables.schema", "support.files", "support.progress", "study.fingerprint"}
"""What changes no result: settings reach a rule as its parameters, and `collect` checks every table's form."""


def _path(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _docstring(line: ast.stmt) -> bool:
    """Whether a statement is a text that nothing is done with: a docstring, also one below an attribute."""
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


@cache
def _parsed(module: str) -> tuple[str, frozenset[str]]:
    """The module's code without comments, docstrings and layout, and the modules of the package it imports."""
    tree = ast.parse(_path(module).read_text())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "difftime":
            package = ".".join(node.module.split(".")[1:])
            names = [f"{package}.{alias.name}" if package else alias.name for alias in node.names]
            imported |= {name if _path(name) else package for name in names} - {""}
        if isinstance(body := getattr(node, "body", None), list):
            body[:] = [line for line in body if not _docstring(line)]
    return ast.dump(tree), frozenset(imported)


@cache
def fingerprint(module: str) -> str:
    """SHA-256 (first 12 digits) of a module of this package and of all that it imports from the package.

    A change of comments, docstrings or layout leaves it alone.
    """
    seen, waiting = {}, [module]
    while waiting:
        name = waiting.pop()
        if name not in seen and name not in NOT_FOLLOWED:
            seen[name], imported = _parsed(name)
            package = name.rpartition(".")[0]
            waiting += [*imported, package] if package else imported
    return hashlib.sha256("\n".join(f"{name} {seen[name]}" for name in sorted(seen)).encode()).hexdigest()[:12]
