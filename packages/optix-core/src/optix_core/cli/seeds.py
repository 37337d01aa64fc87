"""``optix train --num-seeds N``: many seeds at once, and their table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from optix_core.training import TrainPlan
    from optix_core.training.seeds import SeedResult, SeedsResult

TABLE_ROWS = 16
"""Seeds shown one by one; more are only counted by verdict, and are all in seeds.json."""


def run_seeds(plan: TrainPlan, num_seeds: int, directory: Path, *, quiet: bool) -> int:
    """Train many seeds of a plan and return the exit code."""
    from optix_core.cli.console import fail, make_console, shown_path
    from optix_core.loop import StopReason
    from optix_core.training.seeds import train_seeds

    console = make_console()
    if not quiet:
        seeds = f"seeds {plan.seed} to {plan.seed + num_seeds - 1}"
        console.print(f"{plan.env_id}, {plan.algorithm} ({plan.backend}), {seeds}  ->  {shown_path(directory)}")
    result = train_seeds(plan, num_seeds, directory, report=None if quiet else _Reporter(console))
    if not quiet:
        console.print(seeds_table(result))
        console.print(f"policies and results of all seeds: {shown_path(directory / 'seeds.json')}", style="dim")
    if any(seed.stop_reason == StopReason.INTERRUPTED for seed in result.seeds):
        fail(f"interrupted. What every seed had reached is saved in {shown_path(directory)}.")
        return 2
    return 0


def seeds_table(result: SeedsResult) -> Table:
    """Return the seeds, or for many of them the number of each verdict, above the intervals over all."""
    from rich.table import Table
    from rich.text import Text

    from optix_core.cli.console import VERDICT_STYLES
    from optix_core.reporting.text import number, steps

    table = Table(title=f"{result.plan.env_id}, {result.plan.algorithm} ({result.plan.backend})", title_justify="left")
    for name in ("seed", "verdict"):
        table.add_column(name)
    for name in ("return", "95 % interval", "training steps"):
        table.add_column(name, justify="right")
    if len(result.seeds) <= TABLE_ROWS:
        for seed in result.seeds:
            confirmed = seed.confirmed_return
            mean = "-" if confirmed is None else number(confirmed["mean"])
            bounds = "-" if confirmed is None else _bounds(confirmed["ci_low"], confirmed["ci_high"], number)
            verdict = Text(seed.verdict, style=VERDICT_STYLES.get(seed.verdict, ""))
            table.add_row(str(seed.seed), verdict, mean, bounds, steps(seed.train_env_steps))
    else:
        for verdict_name, count in Counter(seed.verdict for seed in result.seeds).most_common():
            verdict = Text(verdict_name, style=VERDICT_STYLES.get(verdict_name, ""))
            table.add_row(f"{count} seeds", verdict, "", "", "")
    intervals = result.intervals()
    table.add_section()
    for name, label in (("iqm", "IQM over seeds"), ("mean", "mean over seeds")):
        if name in intervals:
            found = intervals[name]
            table.add_row(label, "", number(found.estimate), _bounds(found.low, found.high, number), "")
    if "steps" in intervals:
        found = intervals["steps"]
        table.add_row("steps over seeds", "", "", _bounds(found.low, found.high, steps), steps(found.estimate))
    return table


def _bounds(low: float | None, high: float | None, text: Callable[[float], str]) -> str:
    """Show an interval; one value has none, and equal values have no spread to make one from."""
    if low is None or high is None:
        return "one value: none"
    return "all the same" if low == high else f"{text(low)} to {text(high)}"


class _Reporter:
    """Prints a line whenever another tenth of the seeds, or the last, has ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = 0

    def __call__(self, ended: Sequence[SeedResult], num_live: int) -> None:
        total = len(ended) + num_live
        if len(ended) - self._shown >= max(1, total // 10) or (num_live == 0 and len(ended) > self._shown):
            self._shown = len(ended)
            self._console.print(f"{len(ended)} of {total} seeds have ended")
