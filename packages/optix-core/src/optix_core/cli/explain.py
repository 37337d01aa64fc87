"""``optix explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def explain(
    run: Annotated[Path, typer.Argument(help="A run directory, or its name within ./runs.", metavar="RUN")],
) -> int:
    """Tell the story of a run in plain words, and replay its decisions; exit code 1 if one comes out differently."""
    from optix_core.checkpoints import RunDirectory
    from optix_core.cli.console import print_sections
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
    print_sections(story)
    return 1 if replay.mismatches else 0
