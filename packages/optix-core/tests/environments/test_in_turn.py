"""Environments that step in turn give what Gymnasium's own vector gives."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from optix_core.environments.in_turn import EnvsInTurn
from optix_core.environments.infos import WideInfos
from optix_core.errors import EnvError


class Counting(gym.Wrapper):
    """Tells of every step how many there were."""

    def reset(self, **options):
        self.steps = 0
        return self.env.reset(**options)[0], {"steps": 0, "is": {"new": True}}

    def step(self, action):
        self.steps += 1
        return *self.env.step(action)[:4], {"steps": self.steps}


class Wide(WideInfos, SyncVectorEnv):
    """Gymnasium's own, but for the fractions that it cuts (FrozenLake's probabilities beside a 1)."""


def both(factory, num_envs=3, *, copy):
    options = {"copy": copy, "autoreset_mode": AutoresetMode.SAME_STEP}
    return EnvsInTurn([factory] * num_envs, **options), Wide([factory] * num_envs, **options)


def assert_same(found, wanted):
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert_same(found[name], value)
    elif isinstance(wanted, np.ndarray) and wanted.dtype == object:
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    else:
        np.testing.assert_array_equal(found, wanted)
        assert getattr(found, "dtype", None) == getattr(wanted, "dtype", None)


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize(
    "factory",
    [
        lambda: gym.make("CartPole-v1", max_episode_steps=15),
        lambda: gym.make("Pendulum-v1", max_episode_steps=15),
        lambda: gym.make(
            "FrozenLake-v1", max_episode_steps=15
        ),  # numbers as observations, information about every step
    ],
)
def test_steps_resets_and_information_are_gymnasium_s(factory, copy):
    ours, theirs = both(factory, copy=copy)
    for found, wanted in zip(ours.reset(seed=3), theirs.reset(seed=3), strict=True):
        assert_same(found, wanted)
    ours.action_space.seed(5)
    for _ in range(40):
        actions = ours.action_space.sample()
        for found, wanted in zip(ours.step(actions), theirs.step(actions), strict=True):
            assert_same(found, wanted)


def test_observations_that_were_given_out_stay_as_they_were():
    envs = EnvsInTurn([lambda: gym.make("CartPole-v1")], copy=True, autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    first = envs.step(np.array([0]))[0]
    before = first.copy()
    envs.step(np.array([1]))
    np.testing.assert_array_equal(first, before)


def test_an_observation_of_another_shape_is_told():
    class Wrong(gym.Env):
        observation_space = gym.spaces.Box(-1.0, 1.0, (3,))
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return np.zeros(3, np.float32), {}

        def step(self, action):
            return np.zeros(1, np.float32), 0.0, False, False, {}

    envs = EnvsInTurn([Wrong], autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    with pytest.raises(EnvError, match=r"shape \(1,\), not \(3,\)"):
        envs.step(np.array([0]))


class Profit(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)

    def __init__(self, profit):
        self.profit = profit

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {"profit": self.profit, "deep": {"profit": self.profit}}


@pytest.mark.parametrize("profits", [(0, 0.7), (0.7, 0), (True, 0.25), (1, 2)])
def test_a_fraction_beside_a_whole_number_is_not_cut(profits):
    envs = EnvsInTurn([lambda p=p: Profit(p) for p in profits], autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset()
    infos = envs.step(np.zeros(2, np.int64))[4]
    assert tuple(infos["profit"]) == tuple(infos["deep"]["profit"]) == profits
