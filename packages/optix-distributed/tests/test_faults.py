"""Actors that are killed, hang, raise or send NaN; a learner that is killed: training goes on, and nothing is left."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from functools import partial
from pathlib import Path

import pytest

from optix_core import EnvError
from optix_core.errors import OptixWarning
from optix_distributed import ActorPipeline, AsyncActorLearner, Limits, LocalTransport
from optix_distributed.local.segments import shared_folder, sweep

TESTS = Path(__file__).parent
SOON = Limits(step_timeout_s=1.0, max_failures=3)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" not in status.read_text()


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def collecting(agent, env, transport, **options):
    pipeline = ActorPipeline(env, transport, agent, trajectory_len=20, trajectories_per_window=1, **options)
    pipeline.collect()
    return pipeline


def kills(agent, awkward, number):
    """Kill actors at random moments; return the longest time until all of them were back."""
    transport, chance, longest = LocalTransport(2), random.Random(0), 0.0
    pipeline = collecting(agent, partial(awkward, sleep_s=0.0002), transport)
    seen = set(transport.pids)
    try:
        for _ in range(number):
            pipeline.collect()
            time.sleep(chance.random() * 0.05)
            victim = chance.choice([pid for pid in transport.pids if pid is not None])
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            while (
                victim in transport.pids
                or None in transport.pids
                or not all(actor.state in ("collecting", "waiting") for actor in transport.health())
            ):
                pipeline.collect()
                assert time.monotonic() - killed < 60
            longest = max(longest, time.monotonic() - killed)
            seen |= set(transport.pids)
        health = transport.health()
    finally:
        pipeline.close()
    assert sum(actor.incarnation for actor in health) == number
    assert all("killed by signal 9" in failure for actor in health for failure in actor.failures)
    assert wait_until(lambda: not any(alive(pid) for pid in seen), 5)
    return longest


def test_killed_actors_come_back(agent, awkward):
    kills(agent, awkward, 2)


@pytest.mark.slow
def test_a_hundred_kills(agent, awkward):
    print("\nlongest time until a killed actor collected again:", round(kills(agent, awkward, 100), 2), "s")


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        ("nan", "nan"),
        pytest.param("raise", "the motor is on fire", marks=pytest.mark.slow),
        pytest.param("die", "killed by signal 9", marks=pytest.mark.slow),
    ],
)
def test_an_actor_that_fails_now_and_then(agent, awkward, deed, told):
    """Some incarnations fail after 30 steps; they are told apart from those that do not by their seeds."""
    transport = LocalTransport(2)
    pipeline = collecting(agent, partial(awkward, deed, after=30), transport)
    try:
        end = time.monotonic() + 60
        while sum(actor.incarnation for actor in transport.health()) < 2 and time.monotonic() < end:
            pipeline.collect()
        failures = [failure.lower() for actor in transport.health() for failure in actor.failures]
    finally:
        pipeline.close()
    assert len(failures) >= 2 and all(told in failure for failure in failures)


def test_an_actor_that_hangs_is_ended(agent, awkward):
    transport = LocalTransport(1, limits=SOON)
    pipeline = collecting(agent, partial(awkward, "hang", after=30), transport)
    try:
        end = time.monotonic() + 60
        while not transport.health()[0].failures and time.monotonic() < end:
            pipeline.collect()
        assert "no sign of life for 1 s in a step" in transport.health()[0].failures[0]
    finally:
        pipeline.close()


def test_it_goes_on_with_those_that_work(agent, awkward, tmp_path):
    learner, licence = os.getpid(), tmp_path / "licence"

    def env():
        if os.getpid() != learner:
            try:
                licence.open("x").write(str(os.getpid()))
            except FileExistsError:
                if licence.read_text() != str(os.getpid()):
                    raise RuntimeError("no licence left") from None
        return awkward()

    transport = LocalTransport(3, limits=Limits(max_failures=2))
    pipeline = collecting(agent, env, transport)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            end = time.monotonic() + 60
            while sum(actor.state == "given up" for actor in transport.health()) < 2 and time.monotonic() < end:
                pipeline.collect()
        told = [str(warning.message) for warning in caught if issubclass(warning.category, OptixWarning)]
        assert len(told) == 2 and all(
            "after 2 failures in a row (" in line and "no licence left" in line for line in told
        )
        assert told[0].endswith("Training goes on with 2 of 3.") and told[1].endswith("goes on with 1 of 3.")
        assert pipeline.collect().num_env_steps == 20
    finally:
        pipeline.close()


def test_no_actor_that_works(agent, awkward):
    transport = LocalTransport(2, limits=Limits(max_failures=1))
    with pytest.warns(OptixWarning), pytest.raises(EnvError, match=r"No actor is left; .* the motor is on fire"):
        AsyncActorLearner(
            agent, partial(awkward, "raise", after=5), n_actors=2, trajectory_len=10, transport=transport
        ).run(1_000)


def test_a_full_ring_makes_actors_wait(agent, awkward):
    transport = LocalTransport(1, depth=2)
    pipeline = collecting(agent, awkward, transport)
    try:
        assert wait_until(lambda: transport.health()[0].env_steps == 60, 20)  # one was taken, two are in the ring
        time.sleep(0.3)
        assert transport.health()[0].env_steps == 60 and transport.health()[0].state == "waiting"
        assert [pipeline.collect().num_env_steps for _ in range(5)] == [20] * 5
    finally:
        pipeline.close()


def test_trajectories_of_a_policy_that_is_too_old_are_dropped(agent, awkward):
    transport = LocalTransport(1, depth=2)
    pipeline = collecting(agent, awkward, transport, max_lag=2)
    try:
        assert wait_until(lambda: transport.health()[0].env_steps == 60, 20)  # one was taken, two are in the ring
        pipeline.policy_changed(policy_version=3, hyperparam_version=0)
        assert pipeline.collect().policy_version == 3
        assert pipeline.statistics.dropped == 2
    finally:
        pipeline.close()


def test_closing_takes_no_longer_than_it_may(agent, awkward):
    transport = LocalTransport(2)
    pipeline = collecting(agent, partial(awkward, "hang", after=100), transport)
    pids = transport.pids
    time.sleep(0.5)
    began = time.monotonic()
    pipeline.close()
    assert time.monotonic() - began < 5.0
    assert not any(alive(pid) for pid in pids)


LEARNER = """
    import sys
    sys.path.insert(0, {tests!r})
    from conftest import Awkward, LinearAgent
    from optix_distributed import AsyncActorLearner, LocalTransport
    if __name__ == "__main__":
        transport = LocalTransport(2)
        learner = AsyncActorLearner(
            LinearAgent(), lambda: Awkward(sleep_s=0.001), trajectory_len=20, transport=transport
        )
        import threading, time
        def tell():
            while None in (transport.pids or [None]):
                time.sleep(0.05)
            while not all(actor.env_steps for actor in transport.health()):
                time.sleep(0.05)
            print(*transport.pids, flush=True)
        threading.Thread(target=tell, daemon=True).start()
        print(learner.run(10_000_000)["stop_reason"], flush=True)
"""


@pytest.fixture
def learner_process():
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LEARNER.format(tests=str(TESTS)))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()


def blocks_of(process):
    return list(shared_folder().glob(f"optix-{process.pid}-*"))


def test_actors_end_with_a_learner_that_is_killed(learner_process):
    pids = [int(pid) for pid in learner_process.stdout.readline().split()]
    assert len(pids) == 2 and len(blocks_of(learner_process)) == 3
    learner_process.kill()
    learner_process.wait()
    assert wait_until(lambda: not any(alive(pid) for pid in pids), 5)
    assert blocks_of(learner_process)  # nobody was left to remove them
    sweep()
    assert not blocks_of(learner_process)


def test_interrupts(learner_process):
    pids = [int(pid) for pid in learner_process.stdout.readline().split()]
    learner_process.send_signal(signal.SIGINT)
    threading.Timer(0.5, learner_process.send_signal, [signal.SIGINT]).start()
    began = time.monotonic()
    learner_process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert wait_until(lambda: not any(alive(pid) for pid in pids), 5)
    assert not blocks_of(learner_process)
