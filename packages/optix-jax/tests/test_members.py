"""Members of a population side by side are so many single runs, which can be changed and copied."""

import numpy as np
import pytest

from optix_core.errors import ConfigError
from optix_jax import FlaxPPOAgent
from optix_jax.environments import GymnaxEnvironment
from optix_jax.members import FusedMembers
from optix_jax.pipeline import FusedPipeline, collect_window, learn
from optix_jax.seeds import collect_all, learn_all
from optix_protocol import HyperparamSet, SupportsPopulation

pytest.importorskip("gymnax")

ENV = GymnaxEnvironment("CartPole-v1")
SETTINGS = {"hidden_sizes": [8], "minibatch_size": 16}
OWN = [
    {"learning_rate": 1e-3, "num_epochs": 2},
    {"learning_rate": 3e-3, "num_epochs": 4, "gamma": 0.9},
    {"learning_rate": 1e-4, "num_epochs": 1, "clip_range": 0.1, "entropy_coef": 0.0},
]


def make_agent(seed, own):
    values = {**SETTINGS, **own}
    return FlaxPPOAgent.from_spaces(ENV.observation_space, ENV.action_space, seed=seed, hyperparams=values)


def make_members(lanes):
    agents = [make_agent(seed, own) for seed, own in enumerate(OWN)]
    return FusedMembers(ENV, agents, range(100, 103), num_envs=4, num_steps=16, updates_per_window=1, lanes=lanes)


def train(group, windows):
    told = []
    for _ in range(windows):
        told = group.learn(group.collect())
    return told


@pytest.mark.parametrize(("lanes", "tolerance"), [(1, 0.0), (4, 1e-4)])
def test_side_by_side_as_alone(lanes, tolerance):
    group = make_members(lanes)
    told = train(group, 10)
    for position, own in enumerate(OWN):
        agent = make_agent(position, own)
        pipeline = FusedPipeline(ENV, agent, n_envs=4, window_size=16, updates_per_window=1, seed=100 + position)
        for _ in range(10):
            diagnostics = agent.learn(pipeline.collect())
        for name, array in agent.networks.weights().items():
            np.testing.assert_allclose(group.weights(position)[name], array, atol=tolerance, rtol=0)
        assert told[position] == pytest.approx(diagnostics, abs=max(10 * tolerance, 1e-12))


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_copy_is_its_parent_until_it_is_changed_and_nobody_else_is_touched(lanes):
    group, untouched = make_members(lanes), make_members(lanes)
    train(group, 2), train(untouched, 2)
    group.copy(0, 2)
    assert group.hyperparams(2) == group.hyperparams(0)
    for _ in range(2):
        windows = group.collect()
        for name in ("rewards", "terminated", "episode_returns"):
            np.testing.assert_array_equal(getattr(windows[2], name), getattr(windows[0], name))
        told = group.learn(windows)
        assert told[2] == told[0]
        for name, array in group.weights(0).items():
            np.testing.assert_array_equal(group.weights(2)[name], array)
    group.set_hyperparams(2, HyperparamSet(params={"learning_rate": 2e-3, "num_epochs": 3}))
    told = train(group, 2)
    assert told[2]["learning_rate"] == pytest.approx(2e-3) and told[0]["learning_rate"] == pytest.approx(1e-3)
    assert any((group.weights(2)[name] != array).any() for name, array in group.weights(0).items())
    train(untouched, 4)
    for position in (0, 1):
        for name, array in untouched.weights(position).items():
            np.testing.assert_array_equal(group.weights(position)[name], array)


@pytest.mark.parametrize(("lanes", "programs"), [(1, (collect_window, learn)), (4, (collect_all, learn_all))])
def test_changes_compile_nothing(lanes, programs):
    group = make_members(lanes)
    train(group, 2)
    before = [program.num_traces for program in programs]
    group.copy(1, 0)
    group.set_hyperparams(0, HyperparamSet(params={"gamma": 0.95, "num_epochs": 5, "learning_rate": 5e-4}))
    train(group, 1)
    assert [program.num_traces for program in programs] == before


def test_members_that_stay_keep_what_is_theirs():
    group = make_members(4)
    group.keep([2, 1])
    assert group.hyperparams(0)["learning_rate"] == 1e-4 and group.hyperparams(1)["gamma"] == 0.9
    assert len(train(group, 1)) == 2


def test_the_capability_makes_members_and_says_what_they_must_share():
    agent = make_agent(0, {})
    assert isinstance(agent, SupportsPopulation)

    def members(*own, env_id="CartPole-v1"):
        seeds = range(len(own))
        return agent.member_group(
            env_id, agent_seeds=seeds, pipeline_seeds=seeds, num_envs=4, num_steps=16, hyperparams=own
        )

    assert members({}, env_id="LunarLander-v3") is None
    group = members({}, {"learning_rate": 2e-3})
    assert group.hyperparams(1)["learning_rate"] == 2e-3
    with pytest.raises(ConfigError, match="minibatch_size is a shape"):
        members({}, {"minibatch_size": 32})
    with pytest.raises(ConfigError, match="target_kl must be on in all members"):
        group.set_hyperparams(0, HyperparamSet(params={"target_kl": 0.01}))
    with pytest.raises(ConfigError, match="learning_rate"):
        group.set_hyperparams(0, HyperparamSet(params={"learning_rate": -1.0}))
    assert group.hyperparams(0)["target_kl"] is None
