"""CPU seconds of `optix train CartPole-v1 --backend jax` with a warm compilation cache, beside an earlier commit.

    python benchmarks/jax_start.py --beside 7f34d7b [--repeats 3]

Both sides run in turn, in this environment: the earlier one from a checkout of its own that comes first on the path.
Each has a compilation cache of its own, which a run that is not counted fills.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from _beside import ROOT, checkout, environment_of

PROGRAM = "from optix_core.cli import main; main()"


def train(source: Path, cache: Path, out: Path, more: list[str]) -> tuple[float, int]:
    """Return the CPU seconds of a run, all of its threads and processes included, and the steps that it trained."""
    environment = {**environment_of(source), "OPTIX_JAX_CACHE": str(cache), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROGRAM, "train", "CartPole-v1", "--backend", "jax", "--quiet", "--out", str(out)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, *more], env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, json.loads((out / "result.json").read_text())["train_env_steps"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beside", metavar="COMMIT", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-env-steps", type=int, help="by default the run ends by itself")
    arguments = parser.parse_args()
    more = ["--max-env-steps", str(arguments.max_env_steps)] if arguments.max_env_steps else []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sides = {arguments.beside: checkout(arguments.beside, work / "earlier"), "now": ROOT}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(arguments.repeats + 1):
            for name, source in sides.items():
                used, steps = train(source, work / f"cache-{name}", work / f"run-{name}-{turn}", more)
                print(f"{name:<10} {used:6.2f} CPU s, {steps} steps{'' if turn else ', not counted'}", flush=True)
                if turn:
                    seconds[name].append(used)
    before, now = (statistics.median(seconds[name]) for name in sides)
    print(f"optix train CartPole-v1 --backend jax: {before:.2f} CPU s -> {now:.2f}, ratio {now / before:.2f}")


if __name__ == "__main__":
    main()
