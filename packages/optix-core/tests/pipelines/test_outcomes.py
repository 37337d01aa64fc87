"""What environments return: arrays that they use again, numbers that no network takes, rewards that are vectors."""

import random

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from optix_core import BatchPipeline, ConfigError, EnvError, VectorBatchPipeline
from optix_core.environments import EnvSpec
from optix_core.environments.outcomes import ObservationCheck, reward_of
from optix_core.evaluation.rollouts import rollout

BOX = spaces.Box(-100, 100, (1,))


class Idle:
    """Always takes action 0, whatever is shown."""

    def act(self, observation):
        return np.zeros(len(observation) if np.ndim(observation) else (), np.int64)

    def reset(self, done=None):
        pass


class Single(Idle):
    def act(self, observation):
        return 0


class Shows(gym.Env):
    """Counts to ``length``, and shows ``last`` in the place of the last number."""

    action_space = spaces.Discrete(2)

    def __init__(self, *, space=BOX, first=0.0, later=None, last=None, reward=1.0, terminates=False, length=5):
        self.observation_space, self.first, self.later, self.last = space, first, later, last
        self.reward, self.terminates, self.length = reward, terminates, length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.seen(self.first), {}

    def step(self, action):
        self.t += 1
        over = self.t >= self.length
        shown = self.t if self.later is None else self.later
        shown = self.last if over and self.last is not None else shown
        return self.seen(shown), self.reward, over and self.terminates, over and not self.terminates, {}

    def seen(self, value):
        return np.full(self.observation_space.shape, value, self.observation_space.dtype)


class InPlace(Shows):
    """All instances write into one array."""

    array = np.zeros(1, np.float32)

    def seen(self, value):
        self.array[:] = value
        return self.array


def collect(make, *, n_envs=2, mode=AutoresetMode.SAME_STEP, rows=12):
    env = make if mode == AutoresetMode.SAME_STEP else SyncVectorEnv([make] * n_envs, autoreset_mode=mode)
    return VectorBatchPipeline(env, Idle(), n_envs=n_envs, window_size=rows).collect()


# ---- arrays that are used again -------------------------------------------------------------------------------------


@pytest.mark.parametrize("async_envs", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_final_observations_are_the_last_ones_of_an_environment_that_writes_in_place(async_envs):
    pipeline = VectorBatchPipeline(InPlace, Idle(), n_envs=2, window_size=12, async_envs=async_envs)
    window = pipeline.collect()
    pipeline.close()
    assert window.final_observations.ravel().tolist() == [5, 5, 5, 5]
    assert window.observations[:6, 0].ravel().tolist() == [0, 1, 2, 3, 4, 0]
    assert BatchPipeline(InPlace, Single(), 12).collect().final_observations.ravel().tolist() == [5, 5]


def test_environments_that_share_an_array_show_each_their_own():
    lengths = iter((3, 5))
    window = collect(lambda: InPlace(length=next(lengths)), rows=4)
    assert window.observations[:, :, 0].T.tolist() == [[0, 1, 2, 0], [0, 1, 2, 3]]


# ---- numbers that no network takes ----------------------------------------------------------------------------------

WIDE = spaces.Box(-np.inf, np.inf, (1,), np.float64)
UNUSABLE = {
    "first": ({"first": np.nan}, "observations that are NaN or infinite .environment 0, near step 0"),
    "in between": ({"later": np.inf}, "observations that are NaN or infinite .environment 0, near step 2"),
    "last": ({"last": np.nan}, "observations that are NaN or infinite .environment 0, near step (8|10)"),
    "float64": ({"space": WIDE, "later": -1e40}, "observations of up to 1e.40, more than float32 holds"),
    "last float64": ({"space": WIDE, "last": 1e40}, "observations of up to 1e.40, more than float32 holds"),
    "reward": ({"reward": np.nan}, "rewards that are NaN or infinite .environment 0, near step 0"),
    "large reward": ({"reward": -1e39}, "rewards of -1e.39, more than float32 holds"),
    "below": ({"space": spaces.Discrete(5), "later": -1}, r"the observation -1, which is not in its Discrete\(5\)"),
    "above": ({"space": spaces.Discrete(5, start=2), "first": 7}, "the observation 7, which is not in its Discrete"),
    "last of 5": ({"space": spaces.Discrete(5), "last": 5}, r"the observation 5, which is not in its Discrete\(5\)"),
    "second": (
        {"space": spaces.MultiDiscrete([5, 3]), "later": 3},
        r"the observation \[3 3\], .* MultiDiscrete\(\[5 3\]\)",
    ),
}


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("case", UNUSABLE)
def test_the_environment_is_named_for_numbers_that_no_network_takes(case, mode):
    arguments, message = UNUSABLE[case]
    with pytest.raises(EnvError, match=f"^The environment returned {message}") as caught:
        collect(lambda: Shows(**arguments), mode=mode)
    assert "\n" not in str(caught.value)


def test_it_is_named_when_the_agent_is_what_fails():
    class Divides(Idle):
        def act(self, observation):
            if np.isnan(observation).any():
                raise ZeroDivisionError
            return super().act(observation)

    with pytest.raises(EnvError, match="observations that are NaN"):
        VectorBatchPipeline(lambda: Shows(later=np.nan), Divides(), n_envs=2, window_size=8).collect()


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize(
    "arguments",
    [{"last": np.nan}, {"space": WIDE, "last": 1e300}, {"space": spaces.Discrete(5), "last": 99}, {"later": 1e9}],
)
def test_what_nobody_judges_and_rough_bounds_do_no_harm(arguments, mode):
    window = collect(lambda: Shows(**arguments, terminates=True), mode=mode)
    for shown in (window.observations, window.final_observations, window.last_observation):
        assert not ObservationCheck(arguments.get("space", BOX)).has_unusable(shown.reshape(-1, *shown.shape[2:]) if
            shown is window.observations else shown)  # fmt: skip


@pytest.mark.parametrize("ready", [False, True])
def test_evaluation_names_it_too_and_lets_terminations_be(ready):
    def played(**arguments):
        makers = [lambda: Shows(**arguments)] * 2
        envs = SyncVectorEnv(makers) if not ready else Apart(makers)
        return rollout(lambda **_: Idle(), envs, episodes=3, seed=0)

    class Apart(SyncVectorEnv):
        """Not the very class whose environments are played one by one."""

    with pytest.raises(EnvError, match="observations that are NaN"):
        played(later=np.nan)
    assert played(last=np.nan, terminates=True).returns.tolist() == [5, 5, 5]
    if not ready:
        with pytest.raises(EnvError, match="vector reward"):
            played(reward=np.array([1.0, 2.0]))


# ---- rewards --------------------------------------------------------------------------------------------------------


def test_rewards_are_numbers():
    assert [reward_of(r) for r in (1, 2.5, True, np.float32(3), np.array([4.0]), np.array([[5]]))] == [
        1,
        2.5,
        1,
        3,
        4,
        5,
    ]
    for reward, message in (
        (np.array([1.0, 2.0]), r"a vector reward, \[1. 2.\]: weigh its parts in a wrapper"),
        ([1, 2], "a vector reward"),
        (None, "the reward None: a reward is a number"),
        ("much", "the reward 'much': a reward is a number"),
        (np.zeros(0), "a vector reward"),
    ):
        with pytest.raises(EnvError, match=message):
            collect(lambda reward=reward: Shows(reward=reward))


def test_a_vector_environment_gives_one_reward_for_each():
    class Two(SyncVectorEnv):
        def step(self, actions):
            observation, rewards, *rest = super().step(actions)
            return observation, np.stack([rewards, rewards], axis=1), *rest

    with pytest.raises(EnvError, match="a vector reward"):
        VectorBatchPipeline(Two([Shows] * 3), Idle(), window_size=4).collect()


def test_the_named_remedy_works():
    weights = np.array([0.25, 0.5])
    wrapped = gym.wrappers.TransformReward(Shows(reward=np.array([2.0, 3.0])), lambda reward: reward @ weights)
    assert collect(lambda: wrapped, n_envs=1).rewards.max() == 2.0


# ---- shapes, random numbers -----------------------------------------------------------------------------------------


def test_shapes_that_contradict_the_space_are_named():
    class Longer(Shows):
        def seen(self, value):
            return np.zeros(4, np.float32)

    with pytest.raises(EnvError, match=r"an observation \[4\], and its observation_space is Box.*correct one"):
        collect(Longer)
    different = [lambda: Shows(), lambda: Shows(space=spaces.Box(-1, 1, (2,)))]
    with pytest.raises(EnvError, match="must be alike: one has the observation_space Box"):
        VectorBatchPipeline(different, Idle(), n_envs=2)


@pytest.mark.parametrize("kind", [np.random.RandomState, random.Random, None])
def test_random_numbers_of_any_kind(kind):
    class Old(Shows):
        def reset(self, *, seed=None, options=None):
            self.t = 0
            if seed is not None:
                self.np_random = None if kind is None else kind(seed)
            return self.seen(0 if kind is None else self.np_random.uniform(-1, 1)), {}

    def collected():
        pipeline = VectorBatchPipeline(Old, Idle(), n_envs=2, window_size=8, seed=3)
        return pipeline, pipeline.collect()

    (one, first), (_, again) = collected(), collected()
    np.testing.assert_array_equal(first.observations, again.observations)
    state = one.pipeline_state()
    twin = VectorBatchPipeline(Old, Idle(), n_envs=2, window_size=8, seed=3)
    lost = twin.restore_pipeline_state(state)
    assert lost is None if kind is None else "began new episodes" in lost  # said, not guessed
    assert EnvSpec.of(Old).observation_space == BOX


# ---- vector environments of others ----------------------------------------------------------------------------------


class OddVector(SyncVectorEnv):
    """Answers in a form of its own: ``change`` makes it from the usual answer of ``step``."""

    def __init__(self, change):
        super().__init__([Shows] * 2)
        self.change = change

    def step(self, actions):
        return self.change(*super().step(actions))


ODD_ANSWERS = {
    "lists": (lambda seen, *rest: (seen.tolist(), *[part.tolist() for part in rest[:3]], rest[3]), None),
    "one row": (lambda seen, *rest: (seen[0], *rest), r"observations \[1\], and their observation_space says \[2, 1\]"),
    "nothing seen": (lambda seen, *rest: (None, *rest), r"observations \[\], and their"),
    "no infos": (lambda *parts: (*parts[:4], None), "infos of type NoneType"),
    "a list of infos": (lambda *parts: (*parts[:4], [{}, {}]), "infos of type list"),
    "old": (lambda *parts: (*parts[:3], parts[4]), "not enough values to unpack"),
    "one reward": (lambda seen, reward, *rest: (seen, 1.0, *rest), r"rewards \[\] for 2 environments"),
    "flags": (lambda seen, reward, over, *rest: (seen, reward, over[:1].repeat(3), *rest), "broadcast"),
}


@pytest.mark.parametrize("case", ODD_ANSWERS)
def test_vector_environments_of_others_are_named_for_odd_answers(case):
    change, message = ODD_ANSWERS[case]

    def collect():
        return VectorBatchPipeline(OddVector(change), Idle(), window_size=12).collect()

    def play():
        return rollout(lambda **_: Idle(), OddVector(change), episodes=2, seed=0)

    if message is None:
        assert collect().episode_lengths.tolist() == [5] * 4
        assert play().lengths.tolist() == [5, 5]
        return
    for use in (collect, play):
        with pytest.raises(EnvError, match=message):
            use()


def test_arguments_that_cannot_be_are_refused_at_once():
    for wrong, message in (
        ({"env": []}, "the list of them is empty"),
        ({"mode": "greed"}, "mode must be 'greedy', 'sample' or None"),
        ({"seed": None}, "seed must be a whole number"),
        ({"seed": 1.5}, "seed must be a whole number"),
    ):
        with pytest.raises(ConfigError, match=message):
            VectorBatchPipeline(**{"env": Shows, **wrong})
