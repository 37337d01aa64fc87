"""``optix backends`` and ``optix check-backend``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
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
    console.print(table)
    _print_results(console, "skipped, and why", [r for r in report.results if r.outcome == "skipped"])
    _print_results(console, "failed, and how to mend it", list(report.failures))
    if verbose:
        console.print("\n[dim]all checks[/]")
        for result in report.results:
            console.print(f"  {result.outcome:<8}{result.check} ({result.subject})", markup=False)
    if report.num_passed < report.floor:
        console.print(f"\n[red]Too few checks passed: at least {report.floor} are needed.[/]")
    verdict = "[green]keeps the contract[/]" if report.ok else "[red]does not keep the contract[/]"
    console.print(
        f"\nBackend {report.subject} {verdict}: {report.num_run} checks ran, {report.num_passed} passed, "
        f"{report.num_failed} failed, {report.num_skipped} were skipped."
    )
    return 0 if report.ok else 1


def _print_results(console: Console, heading: str, results: list[CheckResult]) -> None:
    """Print the messages of some checks, equal ones of the same check once."""
    from rich.table import Table
    from rich.text import Text

    if not results:
        return
    console.print(f"\n{heading}", style="dim")
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for check, message in dict.fromkeys((result.check, result.message) for result in results):
        subjects = [r.subject for r in results if (r.check, r.message) == (check, message)]
        table.add_row(Text(f"  {check}"), Text(f"{message}\n({', '.join(subjects)})"))
    console.print(table)
