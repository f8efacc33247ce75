"""What is said where a package of one of difftime's extras is not installed."""

from __future__ import annotations


def lacks(what: str, error: ModuleNotFoundError, extra: str) -> str:
    """The message: what needs the package, and the command that installs it."""
    return f"{what} needs the package {error.name}, which is not installed: pip install 'difftime[{extra}]'"
