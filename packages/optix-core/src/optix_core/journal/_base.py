"""What every event of a journal is made of."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import msgspec

Number: TypeAlias = float | Literal["NaN", "Infinity", "-Infinity"]
"""A float that may be NaN or infinite; ``float(value)`` gives it back."""

Json: TypeAlias = Any
"""What :func:`~optix_core.storage.documents.plain` returns: JSON values of no fixed form."""


def number(value: float) -> Number:
    """Return a float as JSON can hold it: non-finite ones by their names."""
    if math.isfinite(value):
        return float(value)
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", gc=False):
    """Something that happened. Subclasses name their ``kind`` by ``tag``."""
