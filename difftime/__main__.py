"""The console command `difftime`, which is also `python -m difftime`."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from difftime.cli import app

    app()


if __name__ == "__main__":
    main()
