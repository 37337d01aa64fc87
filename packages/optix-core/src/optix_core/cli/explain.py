"""``optix explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def explain(
    run: Annotated[Path, typer.Argument(help="A run directory, or its name within ./runs.", metavar="RUN")],
) -> int:
    """Tell the story of a run in plain words, and replay its decisions; exit code 1 if one comes out differently."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from optix_core.checkpoints import RunDirectory
    from optix_core.cli.console import make_console
    from optix_core.cli.runs import find_run
    from optix_core.errors import RunDirectoryError
    from optix_core.journal import read_journal
    from optix_core.reporting import render_story, replay_decisions

    with RunDirectory.open(find_run(run)) as directory:
        entries, problems = read_journal(directory.events_path)
        problems += map(str, directory.problems)
    try:
        replay = replay_decisions(entries)
        story = render_story(entries, problems, replay=replay)
    except ValueError as error:
        raise RunDirectoryError(f"The journal of {str(run)!a} was written by another version of optix.") from error
    console = make_console()
    for section in story:
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
    return 1 if replay.mismatches else 0
