"""``optix compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from optix_core.evaluation.intervals import Interval


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Runs, or folders of runs: a folder is one contender with many seeds.", metavar="RUN..."),
    ],
    baseline: Annotated[str | None, typer.Option(help="Contender to compare with; by default the first.")] = None,
    out: Annotated[Path | None, typer.Option(help="PNG picture; by default comparison.png, here.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object; no picture without --out.")] = False,
) -> None:
    """Compare runs or algorithms by their confirmed returns: intervals, odds of being better, whole distributions."""
    from rich.table import Table
    from rich.text import Text

    from optix_core.cli.console import make_console, print_json, shown_path
    from optix_core.cli.runs import RUNS
    from optix_core.errors import MissingExtraError
    from optix_core.evaluation.compare import compare_runs
    from optix_core.evaluation.intervals import could_differ
    from optix_core.reporting.contenders import gather
    from optix_core.reporting.pictures import write_error
    from optix_core.reporting.text import number

    contenders = gather(RUNS / run if not run.exists() and (RUNS / run).is_dir() else run for run in runs)
    comparison = compare_runs(contenders.scores, baseline=baseline)
    picture = out or (None if json else Path("comparison.png"))
    missing = ""
    if picture is not None:
        try:
            comparison.plot(picture, unit=contenders.unit)
        except MissingExtraError as error:
            if out is not None:
                raise
            picture, missing = None, str(error)
        except OSError as error:
            raise write_error(picture, error) from error
    if json:
        about = {"tasks": contenders.tasks, "unit": contenders.unit, "left_out": contenders.left_out}
        print_json({**about, **comparison.to_dict()})
        return

    def interval(value: Interval | None) -> str:
        if value is None:
            return "-"
        if value.low is None:
            return f"{number(value.estimate)} [none]"
        if value.low == value.high:
            return f"{number(value.estimate)} [all the same]"
        return f"{number(value.estimate)} [{number(value.low, 3)}, {number(value.high, 3)}]"

    console = make_console()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("contender")
    table.add_column("episodes" if contenders.by_episode else "runs", justify="right")
    for heading in ("IQM", "mean", "P(better)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in comparison.rows:
        name = Text(row.name, style="bold" if row.name == comparison.baseline else "")
        table.add_row(name, str(row.scores), *map(Text, map(interval, (row.iqm, row.mean, row.improvement))))
    console.print(table)
    what = "returns of confirming episodes" if contenders.by_episode else "confirmed returns of runs"
    console.print(f"\nOn {', '.join(contenders.tasks)}; scores: {what}, with 95 % intervals.", markup=False)
    if len(contenders.tasks) > 1:
        console.print("Each environment counts from 0 (lowest run of all contenders) to 1 (highest).")
    if any(row.iqm.low is not None and row.iqm.low == row.iqm.high for row in comparison.rows):
        fewest = min(row.scores for row in comparison.rows)
        share = f"{100 * could_differ(fewest):.2g} %"
        console.print(f"All the same: among as few as {fewest} scores, up to {share} of further ones could differ.")
    if len(comparison.rows) > 1:
        console.print(f"P(better): that a score beats one of {comparison.baseline}, ties count half.", markup=False)
    if contenders.by_episode:
        console.print("Each contender is one run: what another seed would have given is not in these intervals.")
    for run in contenders.left_out:
        console.print(f"Left out: {run}", style="yellow", markup=False)
    console.print(f"Picture: {shown_path(picture)}" if picture else f"No picture. {missing}", markup=False)
