"""``optix settings``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from optix_core.training.settings import Setting


def settings(
    algorithm: Annotated[
        str | None, typer.Argument(help="Show the hyperparameters of this algorithm, too.", metavar="[ALGORITHM]")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="Backend of the algorithm; torch where it is installed.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List what `--set` can change, with the defaults: the loop, the monitor, and an algorithm's hyperparameters."""
    from optix_core.agents.backends import default_backend, load_backend
    from optix_core.cli.console import make_console, print_json
    from optix_core.errors import ConfigError, suggest
    from optix_core.training.settings import hyperparameters, loop_settings, monitor_settings

    groups: dict[str, Mapping[str, Setting]] = {"loop": loop_settings(), "monitor": monitor_settings()}
    groups["monitor"] = {name: s for name, s in groups["monitor"].items() if name not in groups["loop"]}
    if algorithm is not None:
        chosen = load_backend(backend or default_backend())
        known = chosen.algorithms()
        name = algorithm.lower()
        if name not in known:
            raise ConfigError(
                f"Backend '{chosen.name}' has no algorithm '{algorithm}' (it has: {', '.join(known)})."
                + suggest(name, known)
            )
        groups[f"{name} ({chosen.name})"] = hyperparameters(known[name])
    if json:
        print_json({group: {s.name: s.default for s in members.values()} for group, members in groups.items()})
        return
    console = make_console(for_table=True)
    for group, members in groups.items():
        console.print(f"[bold]{group}[/]")
        console.print(_table(members.values()))
    if algorithm is not None:
        line = (
            "Numbers that learning uses may follow a schedule over the budget: --set learning_rate='linear(3e-4, 0)'."
        )
        console.print(line, style="dim", soft_wrap=True)
    else:
        console.print("Hyperparameters: optix settings ppo (or another of `optix backends`).", style="dim")


def _table(members: Iterable[Setting]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for member in members:
        table.add_row(Text(f"  {member.name}"), Text(shown(member.default)), Text(member.meaning))
    return table


def shown(default: object) -> str:
    """Return a default as ``--set`` takes it."""
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return str(list(default)) if isinstance(default, tuple) else str(default)
