"""Training by a plan, as a command: progress, the last word, the exit code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optix_core.loop import RunResult
    from optix_core.training import TrainPlan

ENDED = frozenset({"converged", "no_signal", "budget_env_steps", "budget_episodes", "budget_seconds", "diverged"})
"""Reasons to stop after which a run with the same budget has nothing more to do."""


def run_plan(plan: TrainPlan, directory: Path, *, quiet: bool, resume: bool, **options: Any) -> int:
    """Train by a plan, with progress and a last word, and return the exit code; ``options`` go to ``plan.build``."""
    from optix_core.cli.console import fail, make_console, next_command, shown_path
    from optix_core.cli.progress import TrainProgress
    from optix_core.cli.summary import result_panel
    from optix_core.errors import OptixError
    from optix_core.loop import StopReason

    console = make_console()
    done = finished_result(plan, directory) if resume else None
    if done is not None:
        if not quiet:
            console.print(result_panel(done, plan, shown_path(directory), console))
        return 0
    optimizer = plan.build(directory, resume=resume, **options)
    progress = TrainProgress(console, plan, optimizer, shown_path(directory))
    if not quiet:
        optimizer.add_callback(progress)
    try:
        with progress:
            result = optimizer.run()
    except OptixError as error:
        raise type(error)(_joined(str(error), _what_was_saved(optimizer.result, shown_path(directory)))) from error
    if not quiet:
        console.print(result_panel(result, plan, shown_path(directory), console))
    if result.stop_reason == StopReason.INTERRUPTED:
        where = shown_path(directory)
        fail(f"interrupted. {_what_was_saved(result, where)} Go on with: {next_command('resume', where, plan)}")
        return 2
    return 0


def finished_result(plan: TrainPlan, directory: Path) -> RunResult | None:
    """Return the result of this very run if it has ended and its budget has not changed, so that nothing is to do."""
    from optix_core.checkpoints import RunDirectory, is_run_directory
    from optix_core.loop import RunResult

    if not is_run_directory(directory):
        return None
    with RunDirectory.open(directory) as run:
        result = run.read_result()
        if result is None or result.get("stop_reason") not in ENDED or stored_plan(run.read_run(), plan) != plan:
            return None
    return RunResult.from_dict(result)


def stored_plan(run: dict[str, Any], plan: TrainPlan) -> TrainPlan:
    """Return the plan that ``run.json`` keeps, read as far as ``plan`` is trusted."""
    return type(plan).from_dict(run, allow_import=plan.foreign_modules)


def _joined(message: str, more: str) -> str:
    stop = "" if not more or message.endswith((".", "!", "?")) else "."
    return f"{message}{stop} {more}".strip()


def _what_was_saved(result: Any, directory: str) -> str:
    if result is None:
        return ""
    best = result.best_snapshot
    policy = f", best policy in {directory}/{best['path']}" if best else "; no policy was kept yet"
    return f"The run is saved in {directory}{policy}."
