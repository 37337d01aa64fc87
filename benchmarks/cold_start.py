"""Seconds from a bare clone to the end of a first training run, downloads included, for each framework.

    python benchmarks/cold_start.py [jax torch tf] [--repeats 3]

Every turn has a clone of HEAD, a home, caches and a virtual environment of its own, all of them new.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

COMMAND = "pip install --quiet uv && uv run --quiet --package optix-{} optix train CartPole-v1"


def cold_start(backend: str) -> float:
    """Return the seconds that the first command of the README takes, with this backend."""
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        clone, home, bare = (Path(folder) / name for name in ("clone", "home", "venv"))
        subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)
        home.mkdir()
        venv.create(bare, with_pip=True)
        ours = ("UV_CACHE", "XDG", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment = {**kept, "HOME": str(home), "PATH": f"{bare / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        started = time.monotonic()
        subprocess.run(COMMAND.format(backend), shell=True, cwd=clone, env=environment, check=True, capture_output=True)
        return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backends", nargs="*", default=["jax", "torch"])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {backend: [] for backend in arguments.backends}
    for _ in range(arguments.repeats):
        for backend, found in seconds.items():
            found.append(cold_start(backend))
            print(f"{backend} {found[-1]:.0f} s", file=sys.stderr, flush=True)
    print(f"{COMMAND.format('...')}, nothing cached, wall-clock seconds")
    for backend, found in seconds.items():
        print(f"  {backend:<8} median {statistics.median(found):.0f}  ({min(found):.0f} to {max(found):.0f})")


if __name__ == "__main__":
    main()
