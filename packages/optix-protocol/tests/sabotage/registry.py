"""Which agent breaks which rule."""

from __future__ import annotations

from collections.abc import Callable

SABOTAGE: dict[str, list[tuple[type, str]]] = {}
"""Check name to (broken agent, kind of actions on which it shows)."""


def breaks(name: str, kind: str = "discrete") -> Callable[[type], type]:
    def note(agent: type) -> type:
        SABOTAGE.setdefault(name, []).append((agent, kind))
        return agent

    return note
