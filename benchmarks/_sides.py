"""Sides of a comparison that need processes of their own: peers from their packages, and commits of this repository.

Both run on the same core in turns, and each turn gives a ratio: a shared machine changes its pace, a ratio much less.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Timed = dict[str, float]
"""``steps`` and ``cpu_s``, among others, of one turn."""


class Side:
    """One side in a process of its own, which calls :func:`answer`.

    Args:
        command: what to run.
        env: its environment variables; None takes those of this process.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self._expect("ready")

    def take_turn(self, argument: int) -> Timed:
        """Let it work once and return what that took."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{argument}\n")
        self._process.stdin.flush()
        return json.loads(self._expect())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _expect(self, wanted: str | None = None) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line or (wanted is not None and line != wanted):
            raise SystemExit(f"the other process said {line!r} and ended; its message is above")
        return line


def pin() -> None:
    """Keep this process on one core, the same for all sides."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def answer(timed: Callable[[int], Timed]) -> None:
    """Work once for every line on standard input, and answer with a line of JSON."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(timed(int(line))), flush=True)


def python_with(*requirements: str) -> str:
    """Make an environment with these packages, once, and return its Python."""
    folder = Path(tempfile.gettempdir()) / f"optix-benchmark-{'-'.join(requirements).replace('==', '-')}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, folder], check=True)
        subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, *requirements], check=True)
    return str(python)


def compare(sides: Mapping[str, Side], reference: str, arguments: Sequence[int]) -> None:
    """Let sides take turns and print their rates, and the ratio to one of them turn by turn."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for argument in arguments:
        for name, side in sides.items():
            found = side.take_turn(argument)
            speeds[name].append(found["steps"] / found["cpu_s"])
    for side in sides.values():
        side.close()
    for name, values in speeds.items():
        spread = f"{min(values):,.0f} to {max(values):,.0f}"
        line = f"  {name:<58}{statistics.median(values):>10,.0f} steps/CPU-s ({spread})"
        if name != reference:
            ratios = [ours / theirs for ours, theirs in zip(values, speeds[reference], strict=True)]
            turns = " ".join(f"{ratio:.2f}" for ratio in ratios)
            line += f"\n{'':<6}ratio {statistics.median(ratios):.2f}, turn by turn {turns}"
        print(line, flush=True)
