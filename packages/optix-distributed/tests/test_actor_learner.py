"""Training with actors: the same run by every transport, learning that works, and mistakes that are told in a line."""

import socket

import numpy as np
import pytest

from optix_core import ConfigError, EnvError
from optix_core.errors import AgentError
from optix_distributed import ActorPipeline, AsyncActorLearner, InProcessTransport, LocalTransport

QUICK = {"confirm_episodes": 2}


def trained(make, transport, *, steps=1_000, **options):
    agent = make()
    learner = AsyncActorLearner(agent, "CartPole-v1", n_actors=2, trajectory_len=25, transport=transport, **options)
    return agent, learner.run(steps, **QUICK)


def test_the_same_run_in_one_process_and_in_several(agent):
    kind = type(agent)
    alone, in_one = trained(kind, InProcessTransport(2))
    beside, in_several = trained(kind, LocalTransport(2, in_step=True))
    np.testing.assert_array_equal(alone.policy, beside.policy)
    np.testing.assert_array_equal(alone.value, beside.value)
    assert in_one["env_steps"] == in_several["env_steps"] > 900
    assert in_one["confirmed_return"] == in_several["confirmed_return"]
    assert in_one["lag_max"] == in_several["lag_max"] == 0


def test_one_update_behind(agent):
    kind = type(agent)
    first, counted = trained(kind, InProcessTransport(2, lag=1))
    second, _ = trained(kind, InProcessTransport(2, lag=1))
    np.testing.assert_array_equal(first.policy, second.policy)
    assert counted["lag_max"] == 1 and counted["lag_mean"] > 0.9


def test_actors_run_ahead_and_the_agent_learns(agent):
    learner = AsyncActorLearner(
        agent, "CartPole-v1", n_actors=2, trajectory_len=64, envs_per_actor=4, transport="process"
    )
    stats = learner.run(20_000, confirm_episodes=5)
    assert stats["steps_per_second"] > 0 and stats["restarts"] == 0
    assert sum(actor["env_steps"] for actor in stats["actors"]) >= stats["env_steps"]
    assert stats["lag_max"] <= 20
    assert stats["confirmed_return"]["mean"] > 40  # by chance it is 20


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"n_actors": 0}, "n_actors must be at least 1, got 0"),
        ({"transport": "lokal"}, "There is no transport 'lokal' .* Did you mean 'local'"),
        ({"address": "10.0.0.1:6379"}, "is for the transport 'ray'"),
        ({"trajectory_len": 0}, "trajectory_len must be at least 1"),
        ({"env_factory": None}, "Which environment"),
        ({"actor": object()}, "either agent=, or actor="),
    ],
)
def test_mistakes_are_told_in_a_line(agent, arguments, told):
    with pytest.raises(ConfigError, match=told) as caught:
        AsyncActorLearner(agent, **{"env_factory": "CartPole-v1", **arguments}).run(1_000)
    assert "\n" not in str(caught.value)


def test_a_function_that_cannot_be_sent_to_a_process(agent, awkward):
    connection = socket.socket()
    with pytest.raises(ConfigError, match=r"cannot be sent to a process .* opens what it needs itself"):
        AsyncActorLearner(agent, lambda: awkward(str(connection)[:0])).run(1_000)
    connection.close()


def test_networks_that_nobody_takes():
    with pytest.raises(AgentError, match="No installed backend takes networks of these classes: object"):
        AsyncActorLearner(actor=object(), env_factory="CartPole-v1")


def test_agents_that_cannot_learn_from_actors():
    class Plain:
        is_on_policy = True

        def host_policy(self):
            return {}

    with pytest.raises(AgentError, match=r"Plain cannot learn from actors .* lacks correct_lag"):
        ActorPipeline("CartPole-v1", InProcessTransport(1), Plain())


def test_shared_memory_that_is_too_small(agent, monkeypatch):
    from optix_distributed.local import segments

    class Full:
        f_bavail, f_frsize = 1, 4096

    monkeypatch.setattr(segments.os, "statvfs", lambda folder: Full)
    with pytest.raises(ConfigError, match=r"need .* MB of shared memory .* 0 MB are free.*--shm-size"):
        AsyncActorLearner(agent, "CartPole-v1").run(1_000)


def test_an_environment_that_never_starts(agent):
    def broken():
        raise RuntimeError("no display")

    with pytest.raises(EnvError, match="no display"):
        AsyncActorLearner(agent, broken).run(1_000)
