"""Environments as users give them: objects, functions, functions that keep what they made, lonely simulators."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from optix_core import BatchPipeline, ConfigError, EnvError, VectorBatchPipeline
from optix_core.environments import EnvSpec


class Idle:
    """Does nothing in any environment with discrete actions."""

    def act(self, observation):
        return np.zeros(np.shape(observation)[:-1], np.int64)


class Clock(gym.Env):
    """Shows how many steps its episode has had; counts how many of its class are open."""

    observation_space, action_space = gym.spaces.Box(0, 100, (1,)), gym.spaces.Discrete(2)
    made = live = peak = 0
    most = 1000

    def __init__(self):
        kind = type(self)
        if kind.live >= kind.most:
            raise RuntimeError("port 5005 is in use")
        kind.made, kind.live = kind.made + 1, kind.live + 1
        kind.peak = max(kind.peak, kind.live)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.full(1, self.t, np.float32), 1.0, False, self.t >= 7, {}

    def close(self):
        type(self).live -= 1


class Bonus(gym.RewardWrapper):
    def reward(self, reward):
        return reward + 10


@pytest.fixture
def clock():
    """A class of its own for every test, so that the counts begin at 0."""
    return type("Clock", (Clock,), {"made": 0, "live": 0, "peak": 0})


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_object_is_trained_in_as_it_is(wrapped):
    env = gym.make("CartPole-v1")
    env.unwrapped.gravity = 50.0
    pipeline = BatchPipeline(Bonus(env) if wrapped else env, Idle(), 8)
    assert pipeline.environments() == [env.unwrapped]
    assert set(pipeline.collect().rewards.ravel().tolist()) == ({11.0} if wrapped else {1.0})
    assert env.unwrapped.gravity == 50.0
    assert pipeline.make_eval_env(4) is None


def test_copies_of_an_object_are_made_only_if_they_are_the_same():
    env = gym.make("CartPole-v1")
    pipeline = VectorBatchPipeline(env, Idle(), n_envs=3, window_size=4)
    first, *others = pipeline.environments()
    assert first is env.unwrapped
    assert len({id(other) for other in others} | {id(first)}) == 3
    pipeline.close()
    normalizing = gym.wrappers.NormalizeObservation(gym.make("CartPole-v1"))
    for _ in range(3):
        normalizing.reset()
    changed = gym.make("CartPole-v1")
    changed.unwrapped.gravity = 50.0
    for odd, why in (
        (changed, "its gravity"),
        (Bonus(gym.make("CartPole-v1")), "making another one fails"),
        (normalizing, "it begins other episodes"),
        (Clock(), "it is not registered"),
    ):
        with pytest.raises(ConfigError, match=f"There is only one .*{why}.*: pass a function"):
            VectorBatchPipeline(odd, Idle(), n_envs=2)


@pytest.mark.parametrize("kind", ["function", "sequence", "wrapped"])
def test_one_object_returned_again_and_again_is_refused(kind):
    env = Clock()
    source = {
        "function": lambda: env,
        "sequence": [lambda: env] * 4,
        "wrapped": lambda: gym.wrappers.TimeLimit(env, 5),
    }[kind]
    with pytest.raises(EnvError, match="The same environment object was returned for several of 4 environments"):
        VectorBatchPipeline(source, Idle(), n_envs=4)


def test_a_function_named_four_times_is_four_environments(clock):
    pipeline = VectorBatchPipeline([clock] * 4, Idle(), window_size=6)
    observations = pipeline.collect().observations[:, :, 0]
    np.testing.assert_array_equal(observations, np.arange(6)[:, None].repeat(4, axis=1))
    pipeline.close()
    assert clock.live == 0


def test_a_function_is_called_no_more_often_than_environments_are_used(clock):
    assert EnvSpec.of(clock).action_space.n == 2
    assert (clock.made, clock.live) == (1, 0)
    pipeline = VectorBatchPipeline(clock, Idle(), n_envs=3)
    assert (clock.made, clock.live) == (4, 3)
    evaluation = pipeline.make_eval_env(100)
    assert evaluation.num_envs == 3
    evaluation.close()
    pipeline.close()
    assert clock.live == 0
    allowed = VectorBatchPipeline(clock, Idle(), n_envs=3, max_eval_envs=5)
    assert allowed.make_eval_env(100).num_envs == 5


@pytest.mark.parametrize("keeps", ["nothing", "all it made", "one for ever"])
def test_looking_at_an_environment_leaves_no_second_one_open(clock, keeps):
    """Where it can be closed it is, and otherwise the next one asked for is the one that was looked at."""
    kept = []

    def make():
        if keeps == "one for ever" and kept:
            return kept[0]
        env = clock()
        if keeps != "nothing":
            kept.append(env)
        return env

    clock.most = 1
    assert EnvSpec.of(make).observation_space.shape == (1,)
    pipeline = BatchPipeline(make, Idle(), 4)
    pipeline.collect()
    assert (clock.peak, clock.live) == (1, 1)
    pipeline.close()
    assert clock.live == 0


def test_what_was_left_open_is_closed_when_it_is_in_the_way(clock):
    kept, clock.most = [], 1

    def registered():
        kept.append(clock())
        return kept[-1]

    assert EnvSpec.of(lambda: registered()).observation_space.shape == (1,)
    assert EnvSpec.of(registered).observation_space.shape == (1,)
    BatchPipeline(registered, Idle(), 4).collect()
    assert clock.live == 1


def test_what_was_made_is_closed_when_the_next_one_fails(clock):
    clock.most = 2
    with pytest.raises(EnvError, match=r"Only 2 of 3 environments can be made\. .*RuntimeError: port 5005 is in use"):
        VectorBatchPipeline(clock, Idle(), n_envs=3)
    assert clock.live == 0


@pytest.mark.parametrize("error", [SystemExit("licence expired"), RuntimeError("two\nlines"), AssertionError()])
@pytest.mark.parametrize("where", ["__init__", "reset", "step", "spaces"])
def test_whatever_an_environment_raises_becomes_one_line(clock, error, where):
    def fail(*_, **__):
        raise error

    broken = type("Broken", (clock,), {"action_space": property(fail)} if where == "spaces" else {where: fail})
    with pytest.raises(EnvError, match=type(error).__name__) as caught:
        BatchPipeline(broken, Idle(), 4).collect()
    assert "\n" not in str(caught.value)


def test_an_exception_that_cannot_describe_itself_is_named(clock):
    class MuteError(Exception):
        def __str__(self):
            raise ValueError

    def fail(self, **_):
        raise MuteError

    with pytest.raises(EnvError, match=r"raised MuteError in reset\(\)"):
        BatchPipeline(type("Broken", (clock,), {"reset": fail}), Idle(), 4).collect()


def test_ctrl_c_stays_ctrl_c(clock):
    def press(self, action):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        BatchPipeline(type("Slow", (clock,), {"step": press}), Idle(), 4).collect()


@pytest.mark.parametrize("ready", [False, True])
def test_after_lending_new_episodes_begin_and_nothing_of_the_evaluation_is_in_the_window(clock, ready):
    source = SyncVectorEnv([clock] * 2) if ready else clock
    pipeline = VectorBatchPipeline(source, Idle(), n_envs=2, window_size=5)
    assert pipeline.collect().observations[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    with pipeline.lend() as envs:
        envs.reset(seed=1)
        for _ in range(3):
            envs.step(np.zeros(2, np.int64))
    window = pipeline.collect()
    assert window.observations[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    window = pipeline.collect()
    assert window.episode_lengths.tolist() == [7, 7]
    assert window.episode_returns.tolist() == [7.0, 7.0]


def test_a_closed_pipeline_lends_nothing(clock):
    pipeline = BatchPipeline(clock, Idle(), 4)
    pipeline.close()
    with pytest.raises(EnvError, match="This pipeline is closed"), pipeline.lend():
        pass
