"""How the command line writes: consoles, errors, paths."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

VERDICT_STYLES = {
    "CONVERGED": "green",
    "IMPROVING": "cyan",
    "UNDECIDED": "yellow",
    "NO_SIGNAL": "red",
    "DEGRADING": "red",
}

MAX_WIDTH = 100
"""Prose in longer lines is hard to read."""


def make_console(*, wide_in_pipes: bool = False) -> Console:
    """Return a console on today's stdout; numbers in prose are not coloured.

    Args:
        wide_in_pipes: never wrap lines into a file or a pipe, for tables that another program reads.
    """
    from rich.console import Console

    console = Console(highlight=False)
    if wide_in_pipes and not console.is_terminal:
        console.width = 1000
    elif console.width > MAX_WIDTH:
        console.width = MAX_WIDTH
    return console


def fail(message: str) -> None:
    """Print ``optix: error: ...`` as one line on stderr, in red on a terminal."""
    line = f"optix: error: {' '.join(message.split())}"
    print(f"\033[31m{line}\033[0m" if sys.stderr.isatty() else line, file=sys.stderr)


def shown_path(path: str | Path) -> str:
    """Return a path relative to the working directory where that is shorter."""
    absolute, here = Path(path).absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)


def print_json(value: Any) -> None:
    """Print one JSON object in one line; NaN and infinities become strings as in the journal."""
    from optix_core.checkpoints.documents import dump_json, plain

    print(dump_json(plain(value)))
