"""``optix profile``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def profile(
    run: Annotated[Path, typer.Argument(help="A run directory, or its name within ./runs.", metavar="RUN")],
) -> int:
    """Tell where the time of a run went: collecting, learning and the rest; with actors, also what each of them did."""
    from optix_core.checkpoints import RunDirectory
    from optix_core.cli.console import print_sections
    from optix_core.cli.runs import find_run
    from optix_core.errors import RunDirectoryError
    from optix_core.reporting.spending import spending

    with RunDirectory.open(find_run(run)) as directory:
        result = directory.read_result()
    if result is None:
        raise RunDirectoryError(f"{str(run)!a} has not ended yet: its profile is written with its result.")
    if not isinstance(result.get("profile"), dict):
        raise RunDirectoryError(f"{str(run)!a} keeps no profile: it was written by an earlier release.")
    try:
        print_sections(spending(result["profile"]))
    except ValueError as error:
        raise RunDirectoryError(f"The result of {str(run)!a} is damaged: {error}.") from error
    return 0
