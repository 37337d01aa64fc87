"""How the members of a population fared, generation by generation, read from the journal."""

from __future__ import annotations

from collections.abc import Sequence

from optix_core.journal import Entry, events
from optix_core.reporting.text import number, steps


def population_rows(entries: Sequence[Entry]) -> list[tuple[str, str, str, str]]:
    """Return number, steps, best return, and the returns of all with who became whom, of each generation.

    A generation that the journal has lost is known from who became whom after it.
    """
    generations = {e.event.number: e.event for e in entries if isinstance(e.event, events.Generation)}
    replaced: dict[int, list[str]] = {}
    for entry in entries:
        match entry.event:
            case events.Exploit(generation=after, member=member, parent=parent, p_value=p_value):
                replaced.setdefault(after, []).append(f"{member} became {parent} (p = {float(p_value):.2g})")
    rows = []
    for which in sorted(generations.keys() | replaced.keys()):
        generation, told = generations.get(which), replaced.get(which, [])
        if generation is None:
            rows.append((str(which), "?", "?", "; ".join(told)))
            continue
        returns = [float(value) for value in generation.returns]
        best = number(returns[generation.best]) if generation.best < len(returns) else "?"
        members = ", ".join(number(value) for value in returns)
        rows.append((str(which), steps(generation.num_env_steps), best, "; ".join([members, *told])))
    return rows
