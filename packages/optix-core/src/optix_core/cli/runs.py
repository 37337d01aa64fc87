"""``optix runs``, and finding a run by what the user typed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.text import Text

    from optix_core.checkpoints import Problem, RunSummary

RUNS = Path("runs")
NARROW = 110
"""Below this many columns the table says more with fewer."""
_STATUS_STYLES = {"running": "cyan", "finished": "green", "interrupted": "yellow", "damaged": "red"}


def runs(
    directory: Annotated[Path, typer.Argument(help="Where to look, three levels deep.", metavar="DIR")] = RUNS,
) -> None:
    """List the runs in a directory."""
    from rich.table import Table

    from optix_core.checkpoints import list_runs
    from optix_core.cli.console import make_console

    console = make_console(for_table=True)
    found = [] if directory == RUNS and not RUNS.exists() else list_runs(directory)
    if not found:
        console.print(f"There are no runs in {directory}. Start one: optix train CartPole-v1", markup=False)
        return
    narrow = console.width < NARROW
    table = Table(box=None, pad_edge=False, padding=(0, 1 if narrow else 2, 0, 0), header_style="dim")
    for heading in ["run", *([] if narrow else ["env", "algorithm", "seed"]), "status", "verdict"]:
        table.add_column(heading, overflow="fold", no_wrap=heading != "run")
    for heading in ("return", "steps", "when"):
        table.add_column(heading, justify="right", no_wrap=True)
    for summary in found:
        table.add_row(*_row(summary, directory, narrow=narrow))
    console.print(table)
    for summary in found:
        for problem in _problems(summary):
            console.print(f"{summary.path}: {problem.path} is damaged: {problem.reason}", style="red", markup=False)


def find_run(given: Path) -> Path:
    """Return the run directory that was meant: the path itself, or a name within ``runs``.

    Raises:
        RunDirectoryError: there is none, with close matches.
    """
    from optix_core.checkpoints import is_run_directory, list_runs
    from optix_core.errors import RunDirectoryError, suggest

    for candidate in (given, RUNS / given):
        if is_run_directory(candidate):
            return candidate
    known = [str(run.path) for run in list_runs(RUNS)] if RUNS.is_dir() else []
    hint = suggest(str(given), known) or suggest(str(RUNS / given), known) or " See `optix runs`."
    what = "holds no run" if given.exists() else "does not exist"
    raise RunDirectoryError(f"{str(given)!a} {what}.{hint}")


def _problems(summary: RunSummary) -> Iterator[Problem]:
    """Yield what is damaged in a run; what is being written just now may look so."""
    from optix_core.checkpoints import Problem, RunDirectory
    from optix_core.errors import RunDirectoryError

    yield from summary.problems
    if summary.status == "running":
        return
    try:
        with RunDirectory.open(summary.path) as directory:
            yield from directory.problems
    except RunDirectoryError as error:
        yield Problem(path=summary.path.name, reason=str(error))


def _row(summary: RunSummary, root: Path, *, narrow: bool) -> list[Text]:
    from rich.text import Text

    from optix_core.cli.console import VERDICT_STYLES
    from optix_core.reporting.text import number, short_steps, steps

    run, result = summary.run, summary.result
    name = str(summary.path.relative_to(root)) if summary.path != root else str(root)
    env_id = str(run.get("env_id", "-")).rpartition(":")[2]
    algorithm, seed = str(run.get("algorithm", "-")), str(run.get("seed", "-"))
    first = [Text(name)]
    if not narrow:
        first += [Text(env_id), Text(algorithm), Text(seed)]
    elif run and not name.startswith(f"{env_id.replace('/', '-')}-{algorithm}-seed{seed}"):
        first[0].append(f"\n  {env_id} {algorithm} seed {seed}", style="dim")
    confirmed, trained = result.get("confirmed_return"), result.get("train_env_steps")
    verdict = str(result.get("verdict", "-"))
    return [
        *first,
        Text(_status_word(summary), style=_STATUS_STYLES[summary.status.value]),
        Text(verdict, style=VERDICT_STYLES.get(verdict, "")),
        Text(number(confirmed["mean"]) if confirmed else "-"),
        Text("-" if trained is None else short_steps(trained) if narrow else steps(trained)),
        Text(_when(summary.path)[5 if narrow else 0 :]),
    ]


def _status_word(summary: RunSummary) -> str:
    """``finished`` is what a run with a result is; how it ended matters more where that was not by itself."""
    reason = summary.result.get("stop_reason")
    if summary.status == "finished" and reason in ("interrupted", "error", "diverged"):
        return str(reason)
    return "crashed" if summary.status == "interrupted" else summary.status.value


def _when(path: Path) -> str:
    """Return when something was last written into the run."""
    times = []
    for name in ("result.json", "events.jsonl", "run.json"):
        try:
            times.append((path / name).stat().st_mtime)
        except OSError:
            continue
    return f"{datetime.fromtimestamp(max(times)):%Y-%m-%d %H:%M}" if times else "-"
