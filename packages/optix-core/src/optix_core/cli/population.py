"""``optix train --population N`` and ``optix replay-schedule RUN``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optix_core.cli.console import AllowImport

if TYPE_CHECKING:
    from rich.console import Console

    from optix_core.training import TrainPlan
    from optix_core.training.population import Population


def run_population(plan: TrainPlan, size: int, directory: Path, *, quiet: bool, resume: bool) -> int:
    """Train a population and return the exit code."""
    from optix_core.cli.console import fail, make_console, next_command, shown_path
    from optix_core.cli.running import finished_result
    from optix_core.cli.summary import result_panel
    from optix_core.loop import StopReason
    from optix_core.training.population import train_population

    console, where = make_console(), shown_path(directory)
    result = finished_result(plan, directory) if resume else None
    if result is None:
        if not quiet:
            console.print(f"{plan.env_id}, {plan.algorithm} ({plan.backend}), {size} members  ->  {where}")
        report = None if quiet else _Reporter(console)
        result = train_population(plan, size, directory, resume=resume, report=report)
    if not quiet:
        console.print(result_panel(result, plan, where, console))
    if result.stop_reason == StopReason.INTERRUPTED:
        fail(f"interrupted. Go on with: {next_command('resume', where, plan)}")
        return 2
    return 0


def replay_schedule(
    run: Annotated[Path, typer.Argument(help="The directory of a population.", metavar="RUN")],
    out: Annotated[Path | None, typer.Option(help="Run directory, new or empty; by default <RUN>-replayed.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed than that of the population.")] = None,
    allow_import: AllowImport = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> int:
    """Train one agent from scratch by the hyperparameters that led to a population's winner.

    A population's result is a schedule, not a setting: this shows what the schedule is worth without the selection.
    """
    from dataclasses import replace

    from optix_core.checkpoints import RunDirectory
    from optix_core.cli.running import run_plan
    from optix_core.cli.runs import find_run
    from optix_core.journal import read_journal
    from optix_core.training import TrainPlan
    from optix_core.training.lineage import ReplayedSchedule, winners_schedule

    with RunDirectory.open(find_run(run)) as directory:
        path, described = directory.path, directory.read_run()
        entries, _ = read_journal(directory.events_path)
    stretches = winners_schedule(entries)
    plan = TrainPlan.from_dict(described, allow_import=allow_import)
    assert plan.max_env_steps is not None
    members = int(described["population"])
    known = {**plan.hyperparams, **{k: v for k, v in stretches[0].hyperparams.items() if k in plan_names(plan)}}
    plan = replace(
        plan,
        hyperparams=known,
        seed=plan.seed if seed is None else seed,
        max_env_steps=plan.max_env_steps // members,
    )
    replayed = ReplayedSchedule(stretches)
    directory_out = out or path.with_name(f"{path.name}-replayed")
    return run_plan(plan, directory_out, quiet=quiet, resume=False, optimizer=replayed, callbacks=[replayed])


def plan_names(plan: TrainPlan) -> frozenset[str]:
    """Return the hyperparameters that the plan's algorithm takes."""
    from optix_core.agents.backends import load_backend

    return frozenset(load_backend(plan.backend).algorithms()[plan.algorithm].default_hyperparams)


class _Reporter:
    """Prints a line for each generation."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, population: Population) -> None:
        from optix_core.reporting.text import number, steps
        from optix_core.training.population import NUM_GENERATIONS

        best = population.run_dir.registry.best
        level = "no episode has ended" if best is None else f"best return {number(best.eval_metrics.primary_score)}"
        self._console.print(
            f"generation {population.generation - 1:>2} of {NUM_GENERATIONS}: {level}, "
            f"{steps(population.num_env_steps)} steps of all members"
        )
