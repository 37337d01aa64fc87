"""``optix backends`` and ``optix check-backend``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from optix_protocol.conformance import CheckResult


def backends() -> None:
    """List the installed backends and their algorithms."""
    from rich.table import Table

    from optix_core.agents.backends import list_backends, load_backend
    from optix_core.cli.console import make_console
    from optix_core.errors import AgentError

    console = make_console()
    listings = list_backends()
    if not listings:
        console.print("No backend is installed: pip install optix-torch")
        return
    for listing in listings:
        console.print(f"[bold]{listing.name}[/]  {listing.package} {listing.version}")
        try:
            algorithms = load_backend(listing.name).algorithms()
        except AgentError as error:
            console.print(f"  broken: {error}", style="red", markup=False)
            continue
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column()
        table.add_column(style="dim", no_wrap=True)
        for name, info in algorithms.items():
            table.add_row(f"  {name}", info.description, ", ".join(sorted(info.action_kinds)))
        console.print(table)


def check_backend(
    name: Annotated[str, typer.Argument(help="A name that `optix backends` lists.", metavar="NAME")],
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List every check, not only their numbers.")] = False,
) -> int:
    """Check that a backend keeps the contract of optix-protocol; exit code 1 if it does not."""
    from collections import Counter

    from rich.table import Table

    from optix_core.agents.backends import load_backend
    from optix_core.cli.console import make_console
    from optix_core.errors import AgentError
    from optix_protocol.conformance import check_backend as check

    console = make_console()
    backend = load_backend(name)
    try:
        report = check(backend)
    except ValueError as error:  # an exemption for what does not exist
        raise AgentError(f"Backend '{name}': {error}") from error
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("checks of", "passed", "failed", "skipped"):
        table.add_column(heading, justify="left" if heading == "checks of" else "right")
    for group in dict.fromkeys(result.group for result in report.results):
        counts = Counter(result.outcome for result in report.results if result.group == group)
        failed = f"[red]{counts['failed']}[/]" if counts["failed"] else "0"
        table.add_row(group, str(counts["passed"]), failed, str(counts["skipped"]))
    _print_failures(console, report.failures)
    console.print(table)
    console.print()
    _print_list(console, "skipped, and why", report.skipped_by_reason)
    if verbose:
        console.print("[dim]all checks[/]")
        for result in report.results:
            console.print(f"  {result.outcome:<8}{result.check} ({result.subject})", markup=False)
        console.print()
    if report.num_passed < report.floor:
        console.print(f"[red]Too few checks passed: at least {report.floor} are needed.[/]\n")
    verdict = "[green]keeps the contract[/]" if report.ok else "[red]does not keep the contract[/]"
    console.print(
        f"Backend {report.subject} {verdict}: {report.num_run} checks ran, {report.num_passed} passed, "
        f"{report.num_failed} failed, {report.num_skipped} were skipped."
    )
    return 0 if report.ok else 1


def _print_failures(console: Console, failures: Sequence[CheckResult]) -> None:
    """Print what failed and how to mend it, equal messages of the same check once."""
    subjects: dict[tuple[str, str], list[str]] = {}
    for result in failures:
        subjects.setdefault((result.check, result.message), []).append(result.subject)
    _print_list(
        console,
        "failed, and how to mend it",
        {f"{check} ({', '.join(where)})": [message] for (check, message), where in subjects.items()},
    )


def _print_list(console: Console, heading: str, entries: Mapping[str, Sequence[str]]) -> None:
    """Print a heading, and each entry with the lines that belong to it; nothing if there is no entry."""
    from rich.padding import Padding
    from rich.text import Text

    if not entries:
        return
    console.print(heading, style="dim")
    for entry, lines in entries.items():
        console.print(Padding(Text(entry), (0, 0, 0, 2)))
        for line in lines:
            console.print(Padding(Text(line, style="dim"), (0, 0, 0, 6)))
    console.print()
