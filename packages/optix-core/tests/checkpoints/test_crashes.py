"""Kill -9 at random instants and at every step on the file system, and a really full disk."""

import filecmp
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from unittest import mock

import numpy as np
import pytest

from optix_core.checkpoints import RunDirectory, chunks, read_events, write_arrays
from optix_core.journal.events import Event
from optix_protocol import EvalMetrics, HyperparamSet

NEEDS_FORK = pytest.mark.skipif(
    not hasattr(os, "fork"),
    reason="Windows has no fork, and these tests crash a child at every step on the file system",
)


class Step(Event, frozen=True, tag="step"):
    """An event of these tests."""

    step: int
    score: float = 0.0
    kept: int = 0
    best: int = 0


@mock.patch.object(chunks, "CHUNK_BYTES", 4096)
def train(path, *, num_steps, begun=lambda: None):
    """A run in miniature that goes on where it was: random numbers, snapshots, new scores, marks, states, a journal.

    Its state holds a ring memory, kept in chunks.
    """
    rng, weights, memory, step = np.random.default_rng(7), np.zeros(500), np.zeros((4, 512)), 0
    with RunDirectory.create(path, resume=True, max_snapshots=4) as run:
        run.write_run({"seed": 7})
        saved = run.load_state()
        run.rewind(saved)
        if saved is not None:
            rng.bit_generator.state = saved.tree["rng"]
            weights, memory, step = (saved.tree[name] for name in ("weights", "memory", "step"))
            kept = {snapshot.snapshot_id for snapshot in run.registry.list()}
            assert kept == {entry["snapshot_id"] for entry in saved.snapshots["snapshots"]}
        assert all("writer died" in str(problem) or "cut off" in str(problem) for problem in run.problems), run.problems
        begun()
        while step < num_steps:
            step += 1
            weights += rng.normal(size=weights.shape)
            memory[step // 2 % 4] = weights.mean()
            score = float(weights.mean())
            kept = run.registry.save(
                lambda file, weights=weights: write_arrays(file, {"w": weights}),
                eval_metrics=EvalMetrics(primary_score=score),
                hyperparams=HyperparamSet(params={}),
                policy_version=step,
            )
            best = run.registry.best.snapshot_id
            if step % 5 == 0:
                run.registry.update_metrics(best, EvalMetrics(primary_score=score + 0.01))
                run.registry.mark_best(run.registry.list()[0].snapshot_id)
            run.journal.append(Step(step=step, score=score, kept=kept.snapshot_id, best=best))
            if step % 3 == 0:
                run.save_state({"rng": rng.bit_generator.state, "weights": weights, "memory": memory, "step": step})
        run.flush()
        run.write_result({"final": weights[:50]})
        # What a state still lists is no longer among the snapshots, whenever that state was saved.
        assert {p.name for p in run.snapshots_path.iterdir() if p.name.isdigit()} == {
            str(snapshot.snapshot_id) for snapshot in run.registry.list()
        }


def fork(function):
    """Run a function in a child process; its exit code is 1 if it raised."""
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def exit_code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def assert_equal_runs(path, reference):
    """Every file the same, byte for byte; events but for their time."""
    roots = (path, reference)
    listings = [{str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()} for root in roots]
    assert listings[0] ^ listings[1] == set()
    events = [read_events(root / "events.jsonl") for root in roots]
    assert [problems for _, problems in events] == [[], []]
    timeless = [[{k: v for k, v in event.items() if k != "time"} for event in found] for found, _ in events]
    assert timeless[0] == timeless[1]
    for name in listings[0] - {"events.jsonl", ".optix-lock"}:
        assert filecmp.cmp(path / name, reference / name, shallow=False), name
    assert RunDirectory.open(path).verify().ok


def assert_usable_after_a_crash(path):
    """A reader may come before the run goes on, and finds nothing damaged but the line that was being written."""
    if (path / "events.jsonl").exists():
        assert all("cut off by a crash" in str(problem) for problem in RunDirectory.open(path).verify().problems)


def train_through_kills(tmp_path, *, num_kills, seed):
    reference, path, num_steps = tmp_path / "reference", tmp_path / "killed", 30
    start = time.monotonic()
    train(reference, num_steps=num_steps)
    duration_s = time.monotonic() - start
    chance = random.Random(seed)
    kills = finished = 0
    while kills < num_kills or not finished:
        read_end, write_end = os.pipe()
        child = fork(
            lambda write_end=write_end: train(path, num_steps=num_steps, begun=lambda: os.write(write_end, b"!"))
        )
        os.close(write_end)
        os.read(read_end, 1)
        os.close(read_end)
        time.sleep(chance.uniform(0, duration_s * 0.6))
        os.kill(child, signal.SIGKILL)
        code = exit_code(child)
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
        assert_usable_after_a_crash(path)
        if (path / "result.json").exists():  # it got to the end: once more from the start
            finished += 1
            assert_equal_runs(path, reference)
            shutil.rmtree(path)


@NEEDS_FORK
def test_a_run_killed_again_and_again_ends_like_one_left_alone(tmp_path):
    train_through_kills(tmp_path, num_kills=8, seed=1)


@pytest.mark.slow
@NEEDS_FORK
def test_two_hundred_kills(tmp_path):
    train_through_kills(tmp_path, num_kills=200, seed=2)


class Countdown:
    """Ends the process, as kill -9 does, at the nth time that it touches the file system."""

    def __init__(self, steps):
        self.steps = steps

    def tick(self):
        self.steps -= 1
        if self.steps < 0:
            os._exit(9)

    def install(self):
        for name in ("rename", "replace", "mkdir", "unlink", "rmdir", "write", "ftruncate", "open"):
            setattr(os, name, self.around(getattr(os, name)))
        os.fsync = lambda descriptor: self.tick()

    def around(self, function):
        def call(*args, **kwargs):
            self.tick()
            return function(*args, **kwargs)

        return call


def train_through_every_crash(tmp_path, *, first, stride):
    """Crash at the nth step on the file system for every nth n, then at the nth step of what goes on, then finish."""
    reference, num_steps = tmp_path / "reference", 8
    train(reference, num_steps=num_steps)

    def crash_at(path, steps):
        Countdown(steps).install()
        train(path, num_steps=num_steps)

    path, moment, crashed = tmp_path / "crashed", first, True
    while crashed:
        codes = [exit_code(fork(lambda steps=steps: crash_at(path, steps))) for steps in (moment, moment % 97)]
        assert set(codes) <= {0, 9}
        crashed = codes[0] == 9
        assert_usable_after_a_crash(path)
        train(path, num_steps=num_steps)
        assert_equal_runs(path, reference)
        shutil.rmtree(path)
        moment += stride
    assert moment > 150


@NEEDS_FORK
def test_a_crash_at_some_steps_on_the_file_system(tmp_path):
    train_through_every_crash(tmp_path, first=3, stride=29)


@pytest.mark.slow
@NEEDS_FORK
def test_a_crash_at_every_step_on_the_file_system(tmp_path):
    train_through_every_crash(tmp_path, first=0, stride=1)


FULL_DISK = """
import contextlib
import sys
import numpy as np
from pathlib import Path
from optix_core.journal import events
from optix_core.checkpoints import RunDirectory, chunks, write_arrays
from optix_core.journal.events import Event
from optix_core.errors import RunDirectoryError
from optix_protocol import EvalMetrics, HyperparamSet

errors, chunks.CHUNK_BYTES = 0, 2**14
with RunDirectory.create(Path(sys.argv[1]) / "run", max_snapshots=100) as run:
    run.write_run({})
    for step in range(40):
        try:
            run.registry.save(
                lambda path: write_arrays(path, {"w": np.full(10_000, float(step))}),
                eval_metrics=EvalMetrics(primary_score=-float(step)),
                hyperparams=HyperparamSet(params={}),
            )
            run.save_state({"w": np.full(10_000, float(step)), "step": step})
            run.journal.append(events.Error(message=str(step)))
            run.flush()
        except RunDirectoryError as error:
            assert "No space left" in str(error), error
            errors += 1
    with contextlib.suppress(RunDirectoryError):
        run.flush()
run = RunDirectory.open(Path(sys.argv[1]) / "run")
assert errors > 5 and run.verify().ok, (errors, run.verify())
assert run.registry.best.snapshot_id == 1
assert run.load_state().tree["step"] >= 3
assert not list(run.path.rglob(".optix-tmp-*")), list(run.path.rglob(".optix-tmp-*"))
print("survived", errors)
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="only Linux mounts a small file system for one process")
def test_a_really_full_disk_costs_no_earlier_snapshot(tmp_path):
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    mount = f'mount -t tmpfs -o size=1m tmpfs "{tmp_path}"'

    def mounted(*command):
        shell = ["unshare", "--mount", *user, "sh", "-c", " && ".join([mount, 'exec "$@"']), "sh", *command]
        return subprocess.run(shell, capture_output=True, text=True, check=False)

    if (probe := mounted("true")).returncode:
        pytest.skip(f"mounting takes rights that this machine does not give: {probe.stderr.strip()}")
    result = mounted(sys.executable, "-c", FULL_DISK, str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "survived" in result.stdout
