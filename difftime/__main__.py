"""The console command `difftime`, which is also `python -m difftime`."""

from __future__ import annotations

import sys

from difftime.support.extras import lacks


def main() -> None:
    """Run the command line. Without the packages of the extra `study`, exit with one line that names it."""
    try:
        from difftime.cli import app
    except ModuleNotFoundError as error:
        sys.exit(lacks("The command difftime", error, "study"))
    app()


if __name__ == "__main__":
    main()
