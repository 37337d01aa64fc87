"""``optix resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optix_core.cli.console import AllowImport


def resume(
    run: Annotated[Path, typer.Argument(help="A run directory, or its name within ./runs.", metavar="RUN")],
    max_env_steps: Annotated[int | None, typer.Option(min=1, help="New budget of training steps, in all.")] = None,
    max_seconds: Annotated[float | None, typer.Option(min=0, help="New budget of seconds, in all.")] = None,
    allow_import: AllowImport = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> int:
    """Go on with a run that was killed or interrupted, exactly where it was, or give a finished one more.

    A run that was killed ends with the same policy, bit for bit, as if it had not been. A new budget is recorded in the
    journal; anything else stays as it was.
    """
    from dataclasses import replace

    from optix_core.checkpoints import RunDirectory
    from optix_core.cli.console import shown_path
    from optix_core.cli.running import ENDED, run_plan
    from optix_core.cli.runs import find_run
    from optix_core.errors import RunDirectoryError
    from optix_core.training import TrainPlan

    with RunDirectory.open(find_run(run)) as directory:
        path, result = directory.path, directory.read_result()
        described = directory.read_run()
        plan = TrainPlan.from_dict(described, allow_import=allow_import)
    if max_env_steps is not None:
        plan = replace(plan, max_env_steps=max_env_steps)
    if max_seconds is not None:
        plan = replace(plan, max_seconds=max_seconds)
    more = max_env_steps is not None or max_seconds is not None
    if "population" in described:
        from optix_core.cli.population import run_population

        return run_population(plan, int(described["population"]), path, quiet=quiet, resume=True)
    ended = result["stop_reason"] if result else None
    if ended in ENDED and not more:
        raise RunDirectoryError(
            f"The run in {shown_path(path)} has ended ({ended}). Give it a larger budget: --max-env-steps N, beyond "
            f"{plan.max_env_steps:,}."
        )
    return run_plan(plan, path, quiet=quiet, resume=True)
