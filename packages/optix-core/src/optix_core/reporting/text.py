"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def number(value: float | None, digits: int = 4) -> str:
    """Format a score: four significant digits, thousands separated, ``-`` for what is unknown."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "unbounded" if value > 0 else "-unbounded"
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    if decimals > 6:
        return f"{value:.{digits - 1}g}"
    text = f"{value:,.{max(0, decimals)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def certainty(summary: Mapping[str, Any], noun: str = "episode") -> str:
    """Say how well a mean is known: its 95 % interval, or where nothing varied what share could still differ.

    Args:
        summary: ``ci_low``, ``ci_high`` and ``episodes``, as :func:`~optix_core.evaluation.summarise` returns them.
        noun: what the values are.
    """
    from optix_core.evaluation.intervals import could_differ

    low, high, values = summary["ci_low"], summary["ci_high"], int(summary["episodes"] or 0)
    if values < 2 or low is None or high is None:
        return f"no interval from one {noun}"
    if low == high:
        share = summary.get("could_differ") or could_differ(values)
        return f"all equal, so no 95 % interval; up to {100 * share:.2g} % of {noun}s could still differ"
    return f"95 % interval {number(low)} to {number(high)}"


def at_the_ends(means: Mapping[str, float], most: int = 6) -> str:
    """Say what an environment reported as episodes ended: the success rate first, then other means by name.

    Args:
        means: over the episodes, by name; ``is_success`` or ``success`` (0 to 1) is the success rate.
        most: of many numbers, as physics engines report them, the first so many; how many more there are is said.
    """
    rates = [name for name in ("is_success", "success") if 0 <= means.get(name, -1) <= 1][:1]
    parts = [f"success rate {100 * means[name]:.3g} %" for name in rates]
    parts += [f"mean {name} {number(mean)}" for name, mean in means.items() if name not in rates]
    if len(parts) > most:
        parts = [*parts[:most], f"and {len(parts) - most} more"]
    return ", ".join(parts)


def steps(value: float) -> str:
    """Format a number of steps: ``163,840``."""
    return f"{value:,.0f}"


def short_steps(value: float) -> str:
    """Format a number of steps in few characters: ``512``, ``163.8k``, ``1.5M``."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{number(value / size)}{unit}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """Format a duration: ``8.4 s``, ``2:05 min``, ``1:02:05 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"


def count(amount: int, noun: str) -> str:
    """Return ``1 look``, ``3 looks``, ``no looks``; nouns in ``-y`` after a consonant become ``-ies``."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{f'{amount:,}' if amount else 'no'} {noun if amount == 1 else plural}"
