"""Environments in processes of their own that fail in every way: a line each time, in time, and no process left."""

import os
import signal
import sys
import textwrap
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv

from optix_core import EnvError, VectorBatchPipeline
from optix_core.environments.workers import WorkerVectorEnv


@pytest.fixture
def faulty(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)  # spawned processes get the path, too
    return partial(import_module("optix_faulty_envs").Faulty, parent=os.getpid())


def alive(pids):
    """Return the processes that run; one that only waits to be noticed has no command line any more."""
    commands = [Path(f"/proc/{pid}/cmdline") for pid in pids]
    return [pid for pid, command in zip(pids, commands, strict=True) if command.exists() and command.read_bytes()]


SAID = {
    "raise": "raised OddError .*7 gripper jammed",
    "exit": "raised SystemExit .*licence expired",
    "die": r"died .*\(exit code 3\)",
    "killed": r"died .*\(signal SIGKILL\).*memory",
    "hang": "has not answered for 4 s",
}


@pytest.mark.parametrize(
    ("where", "how"),
    [
        ("step", "raise"),
        ("init", "die"),
        ("step", "killed"),
        ("step", "hang"),
        pytest.param("reset", "exit", marks=pytest.mark.slow),
        pytest.param("init", "raise", marks=pytest.mark.slow),
        pytest.param("step", "die", marks=pytest.mark.slow),
        pytest.param("reset", "raise", marks=pytest.mark.slow),
        pytest.param("step", "exit", marks=pytest.mark.slow),
        pytest.param("reset", "hang", marks=pytest.mark.slow),
        pytest.param("init", "hang", marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_fails_is_named_and_none_is_left(faulty, where, how):
    started = []

    class Watched(WorkerVectorEnv):
        def _check_spaces(self):
            started.extend(process.pid for process in self.processes)
            super()._check_spaces()

    timeout = 4.0 if how == "hang" else 60.0
    factories = [faulty, partial(faulty, where, how)]

    def use():
        envs = Watched(factories, timeout_s=timeout if where == "init" else 60.0)
        envs._timeout_s = timeout  # starting Python may take longer than that
        envs.reset(seed=0)
        for _ in range(6):
            envs.step(np.zeros(2, np.int64))

    with pytest.raises(EnvError, match=SAID[how]) as caught:
        use()
    assert "\n" not in str(caught.value)
    assert len(started) == 2
    assert alive(started) == []


@pytest.mark.parametrize("how", ["raise", "hang"])
def test_closing_that_fails_is_told_and_ends_the_process(faulty, how, monkeypatch):
    monkeypatch.setattr("optix_core.environments.workers.CLOSE_TIMEOUT_S", 1.0)
    pipeline = VectorBatchPipeline([partial(faulty, "close", how)], Constant(), window_size=7, async_envs=True)
    assert pipeline.collect().episode_lengths.tolist() == [5]
    started = [process.pid for process in pipeline._envs.processes]
    said = "could not be closed: OddError: 7 gripper jammed" if how == "raise" else "did not close within 1 s"
    with pytest.raises(EnvError, match=said):
        pipeline.close()
    pipeline.close()
    assert alive(started) == []


@pytest.mark.parametrize(
    ("where", "how", "said"),
    [
        ("step", "raise", "an error that cannot leave its process"),
        ("step", "hang", "timed out after 4"),
        pytest.param("step", "die", "A process that it needs has probably died", marks=pytest.mark.slow),
    ],
)
def test_a_ready_asynchronous_vector_does_not_wait_for_ever(faulty, where, how, said, monkeypatch):
    monkeypatch.setattr("optix_core.environments.workers.TIMEOUT_S", 4.0)
    monkeypatch.setattr("optix_core.environments.workers._DEAD_S", 1.0)
    envs = AsyncVectorEnv([partial(faulty, where, how)], context="spawn")
    started = [process.pid for process in envs.processes]
    pipeline = VectorBatchPipeline(envs, Constant(), window_size=6)
    with pytest.raises(EnvError, match=said) as caught:
        pipeline.collect()
    assert "\n" not in str(caught.value)
    pipeline.close()
    assert alive(started) == []


class Constant:
    def act(self, observation):
        return np.zeros(np.shape(observation)[:-1], np.int64)


@pytest.mark.slow
def test_ctrl_c_leaves_the_workers_to_the_run_and_a_dead_parent_ends_them(tmp_path):
    import subprocess

    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time
            import gymnasium as gym
            from optix_core.environments.workers import WorkerVectorEnv

            def make():
                return gym.make("CartPole-v1")

            if __name__ == "__main__":
                envs = WorkerVectorEnv([make, make])
                envs.reset(seed=0)
                print(*[process.pid for process in envs.processes], flush=True)
                time.sleep(600)
            """
        )
    )
    child = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in child.stdout.readline().split()]
    for pid in workers:
        os.kill(pid, signal.SIGINT)
    time.sleep(1.0)
    assert alive(workers) == workers
    child.kill()
    child.wait()
    deadline = time.monotonic() + 30
    while alive(workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive(workers) == []
