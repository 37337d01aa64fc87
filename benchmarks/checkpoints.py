"""What keeping a policy costs the training loop: latency of save and load on the caller's side.

    uv run python benchmarks/checkpoints.py [--hidden 64] [--repeats 200] [--dir DIR]

A policy of two hidden layers is saved as the loop does it, between stretches of work, with fsync in the background;
beside it the same with every save waiting for the disk.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from optix_core.checkpoints import RunDirectory, read_arrays, write_arrays
from optix_protocol import Array, EvalMetrics, HyperparamSet

OBSERVATION, ACTIONS = 8, 4


class Weights:
    """As much of an agent as saving and loading need."""

    def __init__(self, hidden: int) -> None:
        """Make an actor and a critic."""
        rng = np.random.default_rng(0)
        sizes = {"actor": (OBSERVATION, hidden, hidden, ACTIONS), "critic": (OBSERVATION, hidden, hidden, 1)}
        self.arrays: dict[str, Array] = {
            f"{name}.{layer}": rng.normal(size=shape).astype(np.float32)
            for name, widths in sizes.items()
            for layer, shape in enumerate(itertools.pairwise(widths))
        }

    def save_weights(self, path: Path) -> None:
        """Write safetensors."""
        write_arrays(path, self.arrays)

    def load_weights(self, path: Path) -> None:
        """Read safetensors."""
        self.arrays, _ = read_arrays(path)


def measure(call: Callable[[], object], *, repeats: int, work_s: float) -> tuple[list[float], float]:
    """Return wall milliseconds of each call, and CPU milliseconds per call of all threads, the work left out."""
    wall, cpu = [], 0.0
    for _ in range(repeats):
        time.sleep(work_s)
        cpu_start, start = time.process_time(), time.perf_counter()
        call()
        wall.append(1e3 * (time.perf_counter() - start))
        cpu += time.process_time() - cpu_start
    return wall, 1e3 * cpu / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=64, help="width of the two hidden layers")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--work-s", type=float, default=0.05, help="pause between saves, in place of training")
    parser.add_argument("--dir", type=Path, default=None, help="where to write; its file system is what is measured")
    options = parser.parse_args()
    weights = Weights(options.hidden)
    size = sum(array.nbytes for array in weights.arrays.values())
    print(f"policy of {size / 1024:.0f} KiB; {options.repeats} repeats")
    with tempfile.TemporaryDirectory(dir=options.dir) as folder, RunDirectory.create(Path(folder) / "run") as run:
        run.write_run({})
        registry = run.registry

        def save() -> None:
            registry.save(
                weights.save_weights,
                eval_metrics=EvalMetrics(primary_score=time.monotonic()),
                hyperparams=HyperparamSet(params={"learning_rate": 3e-4}),
            )

        def save_and_wait() -> None:
            save()
            registry.flush()

        cases: dict[str, Callable[[], object]] = {
            "save (fsync in the background)": save,
            "save and wait for the disk": save_and_wait,
            "load best": lambda: registry.load_best(weights),  # type: ignore[arg-type]
            "journal event": lambda: run.journal.append("window", score=1.0, verdict="IMPROVING", steps=2048),
            "training state (4 x the weights)": lambda: run.save_state(
                {str(copy): dict(weights.arrays) for copy in range(4)}
            ),
        }
        print(f"{'':34}{'median':>9}{'p95':>9}{'CPU':>9}  ms")
        for name, call in cases.items():
            wall, cpu = measure(call, repeats=options.repeats, work_s=options.work_s)
            registry.flush()
            p95 = sorted(wall)[int(0.95 * len(wall))]
            print(f"{name:34}{statistics.median(wall):9.2f}{p95:9.2f}{cpu:9.2f}")


if __name__ == "__main__":
    main()
