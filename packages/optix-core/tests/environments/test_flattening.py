"""Observations of several parts reach agents as vectors, whoever made the environments."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from optix_core import EnvSpec, VectorBatchPipeline
from optix_core.environments.flattening import Flattener
from optix_core.errors import ConfigError, EnvError


class Parts(gym.Env):
    """Shows its step in three ways; the parts are declared in another order than the alphabet's."""

    observation_space = spaces.Dict(
        {
            "picture": spaces.Box(0, 9, (2, 2), np.int16),
            "count": spaces.Discrete(4),
            "more": spaces.Tuple([spaces.Box(-1, 9, (1,), np.float32), spaces.MultiBinary(2)]),
        }
    )
    action_space = spaces.Discrete(2)

    def look(self):
        more = (np.array([self.t], np.float32), np.array([1, 0], np.int8))
        return {"picture": np.full((2, 2), self.t, np.int16), "count": self.t, "more": more}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.look(), {}

    def step(self, action):
        self.t += 1
        return self.look(), 0.0, self.t == 3, False, {}


class Agent:
    def act(self, observations):
        return np.zeros(len(observations), np.int64)


def expected(t):
    one_hot = [float(t == i) for i in range(4)]
    parts = {"picture": [t] * 4, "count": one_hot, "more": [t, 1.0, 0.0]}
    return np.concatenate([parts[name] for name in Parts.observation_space])


@pytest.mark.parametrize("mode", ["SAME_STEP", "NEXT_STEP", "made by us"])
def test_windows_hold_the_parts_in_the_order_of_the_space(mode):
    source = Parts if mode == "made by us" else SyncVectorEnv([Parts] * 2, autoreset_mode=AutoresetMode[mode])
    window = VectorBatchPipeline(source, Agent(), n_envs=2, window_size=4, seed=0).collect()
    window.check()
    np.testing.assert_array_equal(window.observations[:3, 1], [expected(t) for t in range(3)])
    np.testing.assert_array_equal(window.final_observations, [expected(3)] * 2)
    assert window.observations.dtype.kind == "f"


def test_the_space_is_that_of_the_vectors():
    assert EnvSpec.of(Parts).observation_space.shape == (len(expected(0)),)


# ---- parts without an array form, whole numbers of very many values, what is not in its space ---------------------


class Mission(spaces.Space):
    """A space of a package's own, as minigrid's."""

    def sample(self, mask=None, probability=None):
        return "go to the door"

    def contains(self, x):
        return True


def shows(space, value, **how):
    class Env(gym.Env):
        observation_space, action_space = space, spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.t = 0
            return value, {}

        def step(self, action):
            self.t += 1
            over = self.t == 3
            return how.get("last", value) if over else value, 0.0, over, False, {}

    return Env


def test_a_part_without_an_array_form_is_left_out_with_a_line():
    inner = spaces.Dict(graph=spaces.Graph(spaces.Discrete(3), None), place=spaces.Box(0, 9, (2,)))
    space = spaces.Dict(direction=spaces.Discrete(4), mission=Mission(), more=inner)
    value = {"direction": 2, "mission": "x", "more": {"graph": None, "place": np.array([3, 4], np.float32)}}
    with pytest.warns(UserWarning, match="^The parts mission, more.graph of the observations have no array"):
        window = VectorBatchPipeline(shows(space, value), Agent(), n_envs=2, window_size=3).collect()
    np.testing.assert_array_equal(window.observations[0, 0], [0, 0, 1, 0, 3, 4])
    assert Flattener(space).space.parts == (("direction", 4), ("more.place", 2))
    with pytest.raises(ConfigError, match="Observation space Dict is not supported"):
        Flattener(spaces.Dict(mission=Mission()))


def test_the_vectors_are_gymnasiums_where_gymnasium_has_them():
    for space in (
        Parts.observation_space,
        spaces.Tuple([spaces.MultiDiscrete([[2, 3], [2, 2]]), spaces.Text(5), spaces.Box(0, 255, (2, 2), np.uint8)]),
        spaces.Dict(a=spaces.Discrete(3, start=-1), b=spaces.Dict(c=spaces.MultiBinary((2, 2)))),
    ):
        space.seed(0)
        ours = Flattener(space)
        assert ours.space == spaces.flatten_space(space)
        for _ in range(20):
            value = space.sample()
            vector, expected = ours(value), spaces.flatten(space, value)
            np.testing.assert_array_equal(vector, expected)
            assert ours.space.contains(vector.astype(ours.space.dtype))


def test_very_many_values_are_given_in_the_binary_system():
    space = spaces.Dict(key=spaces.Discrete(2**40, start=5), near=spaces.MultiDiscrete([10**6, 3]))
    flatten = Flattener(space)
    assert flatten.space.shape == (40 + 20 + 2,)
    vector = flatten({"key": 5 + 0b1011, "near": np.array([6, 2])})
    found = dict(zip(("key", "near"), np.split(vector, [40]), strict=True))
    assert found["key"].nonzero()[0].tolist() == [0, 1, 3]
    assert found["near"].nonzero()[0].tolist() == [1, 2, 21]


def test_a_part_outside_of_its_space_is_named_unless_nobody_judges_it():
    space = spaces.Dict(cell=spaces.Discrete(4), more=spaces.Box(0, 1, (2,)))
    fine = {"cell": 1, "more": np.zeros(2, np.float32)}
    for wrong, message in (
        ({**fine, "cell": 4}, r"the part 'cell' of an observation as 4, which is not in its Discrete\(4\)"),
        ({**fine, "cell": -1}, "the part 'cell' of an observation as -1"),
        ({**fine, "more": np.zeros(3)}, r"the part 'more' of an observation as \[3\], and its space is Box"),
        ({"cell": 1}, "an observation without its part 'more'"),
    ):
        with pytest.raises(EnvError, match=message):
            VectorBatchPipeline(shows(space, wrong), Agent(), n_envs=2, window_size=4).collect()
    ends = shows(space, fine, last={**fine, "cell": 4})
    window = VectorBatchPipeline(ends, Agent(), n_envs=1, window_size=4).collect()
    np.testing.assert_array_equal(window.final_observations, [[0, 0, 0, 0, 0, 0]])


def test_environments_whose_parts_come_in_another_order_do_not_stand_side_by_side():
    boxes = {name: spaces.Box(-1, 1, (1,)) for name in "ab"}
    value = {name: np.zeros(1, np.float32) for name in "ab"}
    orders = [shows(spaces.Dict([(name, boxes[name]) for name in names]), value) for names in ("ab", "ba")]
    with pytest.raises(EnvError, match="must be alike"):
        VectorBatchPipeline(orders, Agent(), n_envs=2)


def test_vectors_know_their_parts_through_copies():
    space = Flattener(Parts.observation_space).space
    for twin in (copy.deepcopy(space), pickle.loads(pickle.dumps(space))):
        assert twin.parts == space.parts
    assert EnvSpec.of(Parts).observation_space.parts == space.parts
