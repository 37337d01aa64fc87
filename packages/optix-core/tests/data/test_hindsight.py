import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation

from optix_core.data import GoalLayout, HERBuffer, is_goal_env
from optix_core.data.goal_functions import Vectorised, joined_infos
from optix_core.errors import EnvError
from optix_core.pipelines import VectorBatchPipeline

LENGTH = 6


class Walk(gym.Env):
    """A goal environment whose achieved goal is a number that only grows, so that every moment can be recognised."""

    def __init__(self, truncate=True):
        goal = spaces.Box(-np.inf, np.inf, (1,))
        own = spaces.Box(-np.inf, np.inf, (2,))
        self.observation_space = spaces.Dict({"observation": own, "achieved_goal": goal, "desired_goal": goal})
        self.action_space = spaces.Box(-1, 1, (1,))
        self.episode = self.t = 0
        self.truncate = truncate

    def see(self):
        place = np.float32(100 * self.episode + self.t)
        parts = {"observation": [place, self.t], "achieved_goal": [place], "desired_goal": [-1.0]}
        return {name: np.array(values, np.float32) for name, values in parts.items()}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self.see(), {}

    def step(self, action):
        self.t += 1
        over = self.t == LENGTH
        return self.see(), -1.0, over and not self.truncate, over and self.truncate, {}

    def compute_reward(self, achieved, desired, info):
        return -(np.abs(achieved - desired).max(axis=-1) > 0.5).astype(np.float32)

    def compute_terminated(self, achieved, desired, info):
        return self.compute_reward(achieved, desired, info) == 0


class Agent:
    def act(self, observation):
        return np.zeros((len(observation), 1), np.float32)


def filled(*, num_windows=10, n_envs=2, capacity=1000, **options):
    buffer = HERBuffer.from_env(Walk(), capacity=capacity, gamma=0.9, **options)
    pipeline = VectorBatchPipeline(lambda: FlattenObservation(Walk()), Agent(), n_envs=n_envs, window_size=4, seed=0)
    for _ in range(num_windows):
        buffer.add(pipeline.collect())
    return buffer


def test_the_layout_is_that_of_the_flattened_observation():
    env = FlattenObservation(Walk())
    layout = GoalLayout.of(Walk().observation_space)
    flat, _ = env.reset()
    assert layout.size == len(flat) == 4
    assert flat[layout.achieved] == [100.0]
    assert flat[layout.desired] == [-1.0]


@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
@pytest.mark.parametrize("capacity", [1000, 37])
def test_new_goals_are_what_the_same_episode_reached(strategy, capacity):
    buffer = filled(strategy=strategy, k=4, capacity=capacity, seed=1)
    batch = buffer.sample(5000)
    achieved, desired, _, t = batch.observations.T
    after = batch.next_observations[:, 0]
    relabelled = desired != -1.0
    assert relabelled.mean() == pytest.approx(0.8, abs=0.02)
    np.testing.assert_array_equal(batch.next_observations[:, 1], desired)
    np.testing.assert_array_equal(after, achieved + 1)
    offsets = (desired - achieved)[relabelled]
    np.testing.assert_array_equal(desired[relabelled] // 100, achieved[relabelled] // 100)
    left, done = LENGTH - t[relabelled], t[relabelled]
    if strategy == "final":
        np.testing.assert_array_equal(offsets, left)
    else:
        assert (offsets <= left).all()
        assert set(offsets[done == 0]) == set(range(1, LENGTH + 1))
        assert (offsets >= (1 if strategy == "future" else 1 - done)).all()
        assert (offsets < 0).any() == (strategy == "episode")
    # Reward and termination are those of the new goal; the time limit itself still bootstraps.
    reached = relabelled & (after == desired)
    np.testing.assert_array_equal(batch.rewards, np.where(reached, 0.0, -1.0))
    np.testing.assert_allclose(batch.discounts, np.where(reached, 0.0, 0.9))
    assert reached.any()


def test_an_episode_enters_when_it_ends_even_across_windows():
    buffer = filled(num_windows=1)
    assert len(buffer) == 0
    buffer = filled(num_windows=2)
    assert len(buffer) == 2 * LENGTH


def test_a_window_that_was_left_out_ends_the_episode():
    pipeline = VectorBatchPipeline(lambda: FlattenObservation(Walk()), Agent(), n_envs=1, window_size=2, seed=0)
    windows = [pipeline.collect() for _ in range(4)]
    buffer = HERBuffer.from_env(Walk(), capacity=100, k=0, gamma=0.9)
    for window in (windows[0], windows[2], windows[3]):
        buffer.add(window)
    assert len(buffer) == 2 + 2
    batch = buffer.sample(100)
    np.testing.assert_array_equal(batch.next_observations[:, 0], batch.observations[:, 0] + 1)
    np.testing.assert_allclose(batch.discounts, 0.9)


def test_a_state_resumes_bit_for_bit_in_the_middle_of_an_episode():
    buffer = filled(num_windows=4)
    twin = HERBuffer.from_env(Walk(), capacity=1000, gamma=0.9, seed=7)
    twin.restore(buffer.state())
    pipeline = VectorBatchPipeline(lambda: FlattenObservation(Walk()), Agent(), n_envs=2, window_size=5, seed=0)
    for _ in range(4):
        window = pipeline.collect()
        for each in (buffer, twin):
            each.add(window)
        ours, theirs = buffer.sample(64), twin.sample(64)
        for name in ours._fields:
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_what_is_no_goal_environment_is_refused():
    with pytest.raises(ValueError, match=r"compute_reward\(\)"):
        HERBuffer.from_env(gym.make("CartPole-v1"), capacity=10)
    with pytest.raises(ValueError, match="'desired_goal'"):
        GoalLayout.of(spaces.Dict({"achieved_goal": spaces.Box(0, 1, (2,))}))
    with pytest.raises(ValueError, match="strategy future, final or episode"):
        HERBuffer.from_env(Walk(), capacity=10, strategy="past")
    with pytest.raises(ValueError, match="n_step 1"):
        HERBuffer.from_env(Walk(), capacity=10, n_step=3)


class OneByOne(Walk):
    """Goal functions that were written for single goals, as some of Gymnasium-Robotics' are."""

    def compute_reward(self, achieved, desired, info):
        return 0.0 if np.linalg.norm(achieved - desired) < 0.5 else -1.0

    def compute_terminated(self, achieved, desired, info):
        return bool(achieved == desired)


class Never(Walk):
    def compute_terminated(self, achieved, desired, info):
        return False


def test_goal_functions_may_take_single_goals_only():
    def sampled(env):
        buffer = HERBuffer.from_env(env, capacity=1000, gamma=0.9, seed=1)
        pipeline = VectorBatchPipeline(lambda: env, Agent(), n_envs=1, window_size=4, seed=0)
        for _ in range(20):
            buffer.add(pipeline.collect())
        return buffer.sample(500)

    ours, theirs, never = sampled(OneByOne()), sampled(Walk()), sampled(Never())
    for name in ("rewards", "discounts", "observations"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_allclose(never.discounts, 0.9)
    np.testing.assert_array_equal(never.rewards, theirs.rewards)


def test_a_wrapper_may_change_the_reward():
    class Doubled(gym.Wrapper):
        def compute_reward(self, achieved, desired, info):
            return 2 * self.env.compute_reward(achieved, desired, info)

    buffer = HERBuffer.from_env(Doubled(Walk()), capacity=1000, gamma=0.9)
    pipeline = VectorBatchPipeline(Walk, Agent(), n_envs=1, window_size=12, seed=0)
    buffer.add(pipeline.collect())
    assert set(buffer.sample(500).rewards) == {-2.0, -1.0, 0.0}


def test_goal_environments_are_recognised_inside_their_wrappers():
    assert is_goal_env(FlattenObservation(Walk()))
    assert not is_goal_env(gym.make("CartPole-v1"))


# ---- the environment's own compute_reward -------------------------------------------------------------------------


class Said(Walk):
    """Says with each step which one it was, and judges goals by what it said."""

    def step(self, action):
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation, reward, terminated, truncated, {"t": self.t, "two": np.array([self.t, 7.0]), "text": "x"}

    def reset(self, *, seed=None, options=None):
        observation, _ = super().reset(seed=seed)
        return observation, {"t": -1000}

    def compute_reward(self, achieved, desired, info):
        return float(info["t"]) + 100.0 * ("text" in info) + 10.0 * (info["two"][1] != 7)


class Hindsighted(Agent):
    def __init__(self, buffer):
        self.buffer = buffer

    @property
    def wants_infos(self):
        return self.buffer.wants_infos


@pytest.mark.parametrize("capacity", [1000, 40])
def test_compute_reward_gets_the_info_of_the_very_transition(capacity):
    buffer = HERBuffer.from_env(Said(), capacity=capacity, gamma=0.9, k=100)
    agent = Hindsighted(buffer)
    pipeline = VectorBatchPipeline(lambda: FlattenObservation(Said()), agent, n_envs=2, window_size=4, seed=0)
    for _ in range(10):
        buffer.add(pipeline.collect())
    twin = HERBuffer.from_env(Said(), capacity=capacity, gamma=0.9, k=100)
    twin.restore(buffer.state())
    for memory in (buffer, twin):
        batch = memory.sample(500)
        new = batch.observations[:, 1] != -1.0
        np.testing.assert_array_equal(batch.rewards[new], batch.observations[new, 3] + 1)
        assert memory.wants_infos
    memory.add(pipeline.collect())
    np.testing.assert_array_equal(*(each.sample(50).rewards for each in (twin, _restored(twin, capacity))))


def _restored(buffer, capacity):
    state = buffer.state()
    state["rng"] = {**state["rng"]}
    twin = HERBuffer.from_env(Said(), capacity=capacity, gamma=0.9, k=100)
    twin.restore(state)
    return twin


def test_infos_are_kept_only_as_long_as_somebody_may_read_them():
    buffer = HERBuffer.from_env(Walk(), capacity=1000, gamma=0.9)
    pipeline = VectorBatchPipeline(
        lambda: FlattenObservation(Walk()), Hindsighted(buffer), n_envs=2, window_size=7, seed=0
    )
    assert pipeline.collect().infos == {}
    for _ in range(3):
        buffer.add(pipeline.collect())
    buffer.sample(64)
    assert not buffer.wants_infos
    assert pipeline.collect().infos is None
    assert VectorBatchPipeline(lambda: FlattenObservation(Said()), Agent(), n_envs=2).collect().infos is None


def test_infos_of_a_window_are_those_of_its_transitions():
    buffer = HERBuffer.from_env(Said(), capacity=1000, gamma=0.9)
    pipeline = VectorBatchPipeline(
        lambda: FlattenObservation(Said()), Hindsighted(buffer), n_envs=1, window_size=2 * LENGTH, seed=0
    )
    window = pipeline.collect()
    window.check()
    assert window.infos["t"][:, 0].tolist() == [1, 2, 3, 4, 5, 6] * 2
    assert window.infos["_t"].all()
    assert set(window.infos) == {"t", "_t", "two", "_two"}


def test_what_fails_in_compute_reward_is_said_of_compute_reward():
    for answer, message in (
        (lambda a, d, i: np.full(a.shape[:-1], np.nan), r"compute_reward\(\) returned nan: it must be a finite number"),
        (lambda a, d, i: None, r"compute_reward\(\) returned None: it must be a number for each pair"),
        (lambda a, d, i: i["missing"], r"raised KeyError in compute_reward\(\): 'missing'"),
        (lambda a, d, i: [1.0, 2.0], r"compute_reward\(\) returned \[1. 2.\]: it must be a number for each pair"),
    ):
        answer.__name__ = "compute_reward"
        for rows in (1, 5):
            with pytest.raises(EnvError, match=message):
                Vectorised(answer)(np.zeros((rows, 2)), np.ones((rows, 2)))


def test_single_goals_that_are_checked_are_given_one_by_one():
    def single(achieved, desired, info):
        assert achieved.shape == desired.shape == (2,), "one goal please"
        return -np.abs(achieved - desired).sum()

    goals = np.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(Vectorised(single)(goals, goals + 1), [-2.0] * 4)


def test_infos_of_consecutive_windows_are_joined_and_silence_is_zero():
    one = np.ones((2, 1))
    parts = [{"a": one}, {}, {"a": np.full((1, 1, 3), 2.0), "b": np.ones((1, 1), bool)}, {"a": one}]
    joined = joined_infos(parts, [2, 3, 1, 2])
    assert joined["a"].tolist() == [[1.0]] * 2 + [[0.0]] * 4 + [[1.0]] * 2  # another shape is not the same thing
    assert joined["b"].ravel().tolist() == [False] * 5 + [True] + [False] * 2 and joined["b"].dtype == bool
