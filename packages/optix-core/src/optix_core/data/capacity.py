"""How large a replay memory may be: what a run can fill, and what the machine can hold."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optix_core.errors import ConfigError

if TYPE_CHECKING:
    import gymnasium as gym

SHARE = 0.25
"""Largest share of the free memory that is chosen for a replay memory: a saved state is a copy of it for a moment."""

_BOOKKEEPING = 40
"""Bytes per row beside observation and action: reward, steps, successor, flags, and what hindsight notes."""


def row_bytes(
    observation_space: gym.Space[Any], action_space: gym.Space[Any], *, frame_stack: int = 1, exact: bool = False
) -> int:
    """Return the bytes that a row of a replay memory takes.

    Args:
        observation_space: of a single environment; parts (Dict, Tuple) are counted flat.
        action_space: of a single environment.
        frame_stack: pictures along the first axis of which one is kept.
        exact: float64 is kept, and not as float32: where observations are normalised.
    """
    from optix_core.policies.flat_spaces import flat_space

    flat = flat_space(observation_space)
    dtype = np.dtype(np.float32 if flat.dtype is None or (flat.dtype == np.float64 and not exact) else flat.dtype)
    observation = math.prod(flat.shape or ()) * dtype.itemsize
    action = math.prod(action_space.shape or ()) * np.dtype(action_space.dtype or np.int64).itemsize
    return max(1, observation // max(1, frame_stack)) + action + _BOOKKEEPING


def free_memory() -> int | None:
    """Return the bytes of main memory that this process may still take, None where the system does not say.

    The limit of a container (cgroup) counts where it is lower than what the machine has left.
    """
    free: list[int] = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError):
        pass
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            free.append(max(0, int(Path(limit).read_text()) - int(Path(used).read_text())))
        except (OSError, ValueError):  # no such file, or no limit ("max")
            continue
    if not free and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return min(free) if free else None


def fitting_capacity(wanted: int, *, row: int, budget: int | None = None, least: int = 1) -> int:
    """Return a capacity of at most ``wanted`` rows that a run can fill and the machine can hold.

    Args:
        wanted: the usual capacity.
        row: bytes of a row.
        budget: environment steps of the run, or None.
        least: rows that are needed in any case.

    Raises:
        ConfigError: not even ``least`` rows fit.
    """
    free = free_memory()
    fits = wanted if free is None else int(SHARE * free) // row
    if least > fits:
        assert free is not None
        raise ConfigError(
            f"A replay memory needs at least {least:,} rows, {least * row / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
            "free: lower learning_starts, n_envs or window_size, or make the observations smaller."
        )
    return max(least, min(wanted, fits, wanted if budget is None else budget))


def check_capacity(capacity: int, *, row: int, budget: int | None = None) -> None:
    """Refuse a replay memory that the machine cannot hold once it is as full as the run will make it.

    Raises:
        ConfigError: in one line, with the capacity that fits.
    """
    free = free_memory()
    filled = capacity if budget is None else min(capacity, 2 * budget)
    if free is not None and filled * row > free:
        raise ConfigError(
            f"A replay memory of capacity={capacity:,} would take {filled * row / 1e9:.1f} GB, and {free / 1e9:.1f} GB "
            f"of memory are free here: --set capacity={max(1, int(SHARE * free) // row)}."
        )
