"""Policies act on what an environment itself shows: parts or arrays, one or many."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from optix_core import EnvError, EnvSpec, TrainConfig, load_policy, train
from optix_core.environments.acting import on_own_observations
from optix_core.environments.flattening import Flattener
from optix_protocol import SupportsActionMasks


class Echo:
    """Returns the sum of each row, and remembers what it was given."""

    def act(self, observations):
        self.seen = observations
        return observations.reshape(len(observations), -1).sum(1)

    def reset(self, done=None):
        self.done = done


class Masked(Echo):
    def act_masked(self, observations, mask):
        self.mask = mask
        return self.act(observations)


PARTS = spaces.Dict(
    {
        "word": spaces.Text(3),
        "count": spaces.Discrete(4),
        "more": spaces.Tuple([spaces.Box(-1, 9, (2, 2), np.float32), spaces.MultiBinary(2)]),
    }
)
SPACES = [
    PARTS,
    spaces.Tuple([spaces.Box(-1, 1, (3,)), spaces.Discrete(3)]),
    spaces.Dict({"inner": spaces.Dict({"place": spaces.Box(-1, 1, (1,))})}),
]


def side_by_side(space, some):
    """What a vector environment would show."""
    if space is not PARTS:
        return gym.vector.utils.concatenate(space, some, gym.vector.utils.create_empty_array(space, n=len(some)))
    return {
        "word": tuple(one["word"] for one in some),
        "count": np.array([one["count"] for one in some]),
        "more": tuple(np.stack(part) for part in zip(*(one["more"] for one in some), strict=True)),
    }


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_parts_of_one_environment_and_of_many(space):
    space.seed(3)
    some = [space.sample() for _ in range(5)]
    flat = np.stack([Flattener(space)(one) for one in some])
    policy = on_own_observations(Echo(), space)
    assert policy.act(some[0]) == pytest.approx(flat[0].sum())
    assert np.ndim(policy.act(some[0])) == 0
    envs_show = side_by_side(space, some)
    np.testing.assert_allclose(policy.act(envs_show), flat.sum(1))
    np.testing.assert_allclose(policy.act(flat), flat.sum(1))
    assert policy.act(flat[0]) == pytest.approx(flat[0].sum())
    if isinstance(space, spaces.Dict):
        np.testing.assert_allclose(policy.act(some), flat.sum(1))


def test_arrays_are_taken_alone_or_many():
    for space in (spaces.Box(-1, 1, (3,)), spaces.Box(0, 255, (2, 3), np.uint8), spaces.Discrete(5)):
        inner = Echo()
        policy = on_own_observations(inner, space)
        one = space.sample()
        assert policy.act(one) == np.sum(one)
        assert inner.seen.shape == (1, *space.shape)
        assert policy.act(np.stack([one, one])).shape == (2,)


def test_a_missing_part_is_named():
    with pytest.raises(EnvError, match="without its part 'count'"):
        on_own_observations(Echo(), PARTS).act({"more": (np.zeros((2, 2)), np.zeros(2)), "word": "a"})


def test_masks_and_resets_go_through():
    inner = Masked()
    policy = on_own_observations(inner, spaces.Box(-1, 1, (3,)))
    assert isinstance(policy, SupportsActionMasks)
    policy.act_masked(np.zeros(3), [True, False])
    assert inner.mask.shape == (1, 2)
    policy.reset(np.array([True]))
    assert inner.done.tolist() == [True]
    assert not isinstance(on_own_observations(Echo(), spaces.Discrete(2)), SupportsActionMasks)


@pytest.mark.parametrize("part", [spaces.MultiBinary(2), spaces.Box(0, 1, (2,), np.int8)], ids=["switches", "box"])
def test_an_observation_that_says_what_is_allowed_is_heeded(part):
    inner = Masked()
    policy = on_own_observations(inner, spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "action_mask": part, "z": PARTS}))
    one = {"a": np.ones(3), "action_mask": np.array([0, 1], np.int8), "z": PARTS.sample()}
    policy.act(one)
    assert inner.mask.tolist() == [[False, True]]
    policy.act([one, {**one, "action_mask": np.array([1, 1], np.int8)}])
    assert inner.mask.tolist() == [[False, True], [True, True]]


class Camera(gym.Env):
    """Shows what it is worth to press."""

    observation_space = spaces.Dict({"place": spaces.Box(-1, 1, (2,)), "which": spaces.Discrete(2)})
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.which = int(self.np_random.integers(2))
        return self.look(), {}

    def look(self):
        return {"place": np.zeros(2, np.float32), "which": self.which}

    def step(self, action):
        return self.look(), float(action == self.which), True, False, {}


def test_the_policy_of_a_run_acts_on_what_the_environment_shows(tmp_path):
    pytest.importorskip("optix_torch")
    gym.register("OptixCamera-v0", Camera)
    try:
        config = TrainConfig(env_id="OptixCamera-v0", algorithm="ppo", max_env_steps=600, overrides={"window_size": 20})
        train(config, tmp_path / "run")
        assert EnvSpec.of("OptixCamera-v0").own_observation_space == Camera.observation_space
        policy = load_policy(tmp_path / "run")
        env = gym.make("OptixCamera-v0")
        observation, _ = env.reset(seed=0)
        action = policy.act(observation)
        assert env.action_space.contains(action)
        envs = gym.make_vec("OptixCamera-v0", num_envs=3, vectorization_mode="sync")
        actions = load_policy(tmp_path / "run", num_envs=3).act(envs.reset(seed=0)[0])
        assert envs.action_space.contains(actions)
    finally:
        del gym.registry["OptixCamera-v0"]
