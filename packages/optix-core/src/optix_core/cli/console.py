"""How the command line writes: consoles, errors, paths."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from optix_core.errors import OptixWarning

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from optix_core.reporting.story import Section
    from optix_core.training import TrainPlan

AllowImport: TypeAlias = Annotated[
    list[str] | None, typer.Option(help="A module that the run's environment needs and that you trust; repeatable.")
]

VERDICT_STYLES = {
    "CONVERGED": "green",
    "IMPROVING": "cyan",
    "UNDECIDED": "yellow",
    "NO_SIGNAL": "red",
    "DEGRADING": "red",
}

MAX_WIDTH = 100
"""Prose in longer lines is hard to read."""


def make_console(*, for_table: bool = False) -> Console:
    """Return a console on today's stdout; numbers in prose are not coloured.

    Args:
        for_table: use the whole width of the terminal, and never wrap into a file or a pipe; prose is kept narrow.
    """
    from rich.console import Console

    console = Console(highlight=False)
    if not for_table:
        console.width = min(console.width, MAX_WIDTH)
    elif not console.is_terminal:
        console.width = 1000
    return console


def facts(lines: Mapping[str, str | Text]) -> Table:
    """Return labelled lines as a table without a frame; plain strings are shown as they are, without markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, line in lines.items():
        table.add_row(label.strip(), Text(line) if isinstance(line, str) else line)
    return table


def print_sections(sections: Iterable[Section]) -> None:
    """Print titles, sentences and tables."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = make_console()
    for section in sections:
        console.print(Text(section.title, style="bold"))
        for sentence in section.sentences:
            console.print(Padding(Text(sentence), (0, 0, 0, 2)))
        if section.table is not None:
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
            for heading in section.table.headings:
                right = heading.startswith(">")
                table.add_column(heading.lstrip(">"), justify="right" if right else "left")
            for row in section.table.rows:
                table.add_row(*map(Text, row))
            console.print(Padding(table, (0, 0, 0, 2)))
        console.print()


def fail(message: str) -> None:
    """Print ``optix: error: ...`` as one line on stderr, in red on a terminal."""
    line = f"optix: error: {' '.join(message.split())}"
    print(f"\033[31m{line}\033[0m" if sys.stderr.isatty() else line, file=sys.stderr)


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Print each of our own warnings once, as one line on stderr without a place in the code."""
    told: set[str] = set()
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        if not issubclass(category, OptixWarning):
            usual(message, category, *place, **options)
        elif str(message) not in told:
            told.add(str(message))
            print(f"optix: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", OptixWarning)
        warnings.showwarning = show
        yield


def tell_stray_errors_in_one_line() -> None:
    """From now on, tell in one line each what nobody can catch: what threads and ``__del__`` of environments raise.

    With ``OPTIX_DEBUG`` set in the environment they keep their traceback.
    """
    from optix_core.environments.making import told

    if os.environ.get("OPTIX_DEBUG"):
        return

    def tell(error: BaseException | None, where: str) -> None:
        if error is not None and not isinstance(error, SystemExit | KeyboardInterrupt):
            print(f"optix: warning: {told(error)} was raised in {where}.", file=sys.stderr)

    sys.unraisablehook = lambda stray: tell(stray.exc_value, "an object that was being cleared away")
    threading.excepthook = lambda stray: tell(stray.exc_value, "a thread, which has ended")


def shown_path(path: str | Path) -> str:
    """Return a path relative to the working directory where that is shorter."""
    absolute, here = Path(path).absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)


def next_command(command: str, directory: str, plan: TrainPlan) -> str:
    """Return a command on a run as it can be typed: quoted, and with the imports that the user has allowed already."""
    modules = "".join(f" --allow-import {shlex.quote(module)}" for module in plan.foreign_modules)
    return f"optix {command} {shlex.quote(directory)}{modules if command != 'explain' else ''}"


def print_json(value: Any) -> None:
    """Print one JSON object in one line; NaN and infinities become strings as in the journal."""
    from optix_core.storage.documents import dump_json, plain

    print(dump_json(plain(value)))
