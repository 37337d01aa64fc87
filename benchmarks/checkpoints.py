"""What keeping everything costs the training loop.

    uv run python benchmarks/checkpoints.py [latency] [replay] [run] [--hidden 64] [--repeats 200] [--dir DIR]

``latency``: a policy of two hidden layers is saved as the loop does it, between stretches of work, with fsync in the
background; beside it the same with every save waiting for the disk.

``replay``: a training state with a replay memory of 200 MB, saved again after 1 % of new rows: while the memory grows,
and when the ring has come round.

``run``: a whole ``optix train`` run, with the CPU and wall time inside every call that keeps something.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from optix_core import TrainConfig, TrainPlan
from optix_core.checkpoints import BackgroundWriter, Journal, RunDirectory, read_arrays, write_arrays
from optix_core.journal import events
from optix_core.loop.run import Run
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


def latency(folder: Path, *, hidden: int, repeats: int, work_s: float) -> None:
    """Print what one save and one load of a small policy cost."""
    weights = Weights(hidden)
    size = sum(array.nbytes for array in weights.arrays.values())
    print(f"policy of {size / 1024:.0f} KiB; {repeats} repeats")
    with RunDirectory.create(folder / "latency") as run:
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
            "journal event": lambda: run.journal.append(events.Snapshot(snapshot=1, score=1.0, best=True)),
            "training state (4 x the weights)": lambda: run.save_state(
                {str(copy): dict(weights.arrays) for copy in range(4)}
            ),
        }
        print(f"{'':34}{'median':>9}{'p95':>9}{'CPU':>9}  ms")
        for name, call in cases.items():
            wall, cpu = measure(call, repeats=repeats, work_s=work_s)
            registry.flush()
            p95 = sorted(wall)[int(0.95 * len(wall))]
            print(f"{name:34}{statistics.median(wall):9.2f}{p95:9.2f}{cpu:9.2f}")


def replay(folder: Path, *, megabytes: int = 200) -> None:
    """Print what saving a replay memory costs, the first time and after 1 % of new rows."""
    rng = np.random.default_rng(0)
    rows = megabytes * 10**6 // 400
    memory = {"observations": rng.normal(size=(rows, 98)).astype(np.float32), "rewards": rng.normal(size=rows)}
    size = sum(array.nbytes for array in memory.values())
    new = rows // 100
    print(f"replay memory of {size / 1e6:.0f} MB, {new} new rows of {rows}")
    print(f"{'':34}{'written':>9} MB{'caller':>9}{'CPU':>9}  ms")

    def overwrite(first: int) -> None:
        memory["observations"][first : first + new] = rng.normal(size=(new, 98))
        memory["rewards"][first : first + new] = rng.normal(size=new)

    with RunDirectory.create(folder / "replay") as run:
        run.write_run({})
        half = rows // 2
        for name, used, change in (
            ("half full, first save", half, None),
            ("half full, 1 % later", half + new, None),
            ("full", rows, None),
            ("come round, 1 % later", rows, 3 * new),
            ("come round, at the seam", rows, rows - new // 2),
            ("nothing new", rows, None),
        ):
            if change is not None:
                overwrite(min(change, rows - new))
            tree = {column: array[:used] for column, array in memory.items()}
            before = chunks_in(run)
            cpu_start, start = time.process_time(), time.perf_counter()
            run.save_state(tree)
            caller = time.perf_counter() - start
            run.flush()
            cpu = time.process_time() - cpu_start
            written = sum(num_bytes for file, num_bytes in chunks_in(run).items() if file not in before)
            print(f"{name:34}{written / 1e6:9.1f}   {1e3 * caller:9.1f}{1e3 * cpu:9.1f}")
        start = time.perf_counter()
        loaded = run.load_state()
        assert loaded is not None
        assert np.array_equal(loaded.tree["observations"], memory["observations"])
        print(f"{'load and check':34}{'':12}{1e3 * (time.perf_counter() - start):9.1f}")


def chunks_in(run: RunDirectory) -> dict[str, int]:
    """Return the sizes of the files in the chunk store by name."""
    store = run.state_path / "chunks"
    return {file.name: file.stat().st_size for file in store.iterdir()} if store.exists() else {}


class Meter:
    """Adds up the time inside calls: CPU of the thread that makes them, and wall time."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self.calls: Counter[str] = Counter()
        self.cpu_s: defaultdict[str, float] = defaultdict(float)
        self.wall_s: defaultdict[str, float] = defaultdict(float)

    def around(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, measured."""

        def call(*args: Any, **kwargs: Any) -> Any:
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.calls[label] += 1
                self.cpu_s[label] += time.thread_time() - cpu
                self.wall_s[label] += time.perf_counter() - wall

        return call


def shares(folder: Path, *, env_id: str) -> None:
    """Print what part of a training run goes into keeping policies, states and the journal."""
    meter = Meter()
    Run._keep_policy = meter.around("snapshots", Run._keep_policy)  # type: ignore[method-assign]
    Run.save_state = meter.around("states", Run.save_state)  # type: ignore[method-assign]
    Journal.append = meter.around("journal", Journal.append)  # type: ignore[method-assign]
    submit = BackgroundWriter.submit

    def measured(self: BackgroundWriter, action: str, work: Callable[[], None], **options: Any) -> None:
        submit(self, action, meter.around("writer", work), **options)

    BackgroundWriter.submit = measured  # type: ignore[method-assign, assignment]
    optimizer = TrainPlan.of(TrainConfig(env_id=env_id)).build(folder / "run")
    cpu, wall = time.process_time(), time.perf_counter()
    result = optimizer.run()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"optix train {env_id}: {result.train_env_steps:,} steps, {wall:.1f} s, {cpu:.1f} s of CPU, {result.verdict}")
    print(f"{'':34}{'calls':>7}{'wall ms':>10}{'CPU ms':>9}{'wall %':>9}{'CPU %':>8}")
    labels = {
        "snapshots": "snapshots, caller",
        "states": "states, caller",
        "writer": "both, background writer",
        "journal": "journal (written at once)",
    }
    for label, name in labels.items():
        spent, busy = meter.wall_s[label], meter.cpu_s[label]
        print(
            f"{name:34}{meter.calls[label]:7}{1e3 * spent:10.1f}{1e3 * busy:9.1f}"
            f"{100 * spent / wall:9.2f}{100 * busy / cpu:8.2f}"
        )
    busy = sum(meter.cpu_s[label] for label in ("snapshots", "states", "writer"))
    spent = meter.wall_s["snapshots"] + meter.wall_s["states"]
    print(f"{'snapshots and states in all':34}{'':7}{'':10}{'':9}{100 * spent / wall:9.2f}{100 * busy / cpu:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["latency", "replay", "run"], help="latency, replay, run")
    parser.add_argument("--hidden", type=int, default=64, help="width of the two hidden layers")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--work-s", type=float, default=0.05, help="pause between saves, in place of training")
    parser.add_argument("--env", default="CartPole-v1", help="what is trained for `run`")
    parser.add_argument("--dir", type=Path, default=None, help="where to write; its file system is what is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        folder = Path(name)
        if "latency" in options.what:
            latency(folder, hidden=options.hidden, repeats=options.repeats, work_s=options.work_s)
        if "replay" in options.what:
            replay(folder)
        if "run" in options.what:
            shares(folder, env_id=options.env)


if __name__ == "__main__":
    main()
