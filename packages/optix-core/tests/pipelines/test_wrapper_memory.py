"""Evaluation plays with what the wrappers of training have learned, and leaves it as it was."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from optix_core import RLOptimizer, VectorBatchPipeline
from optix_core.evaluation import rollout


class Bandit(gym.Env):
    """Shows a number around 100; an episode of four steps is worth what the policy makes of it."""

    observation_space, action_space = gym.spaces.Box(-1e6, 1e6, (1,)), gym.spaces.Box(-1e6, 1e6, (1,))

    def _look(self):
        return (100 + self.np_random.standard_normal(1)).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._look(), {}

    def step(self, action):
        self.t += 1
        return self._look(), float(np.asarray(action).item()), False, self.t >= 4, {}


class MeanSoFar(gym.ObservationWrapper):
    """A user's own: shows what differs from the mean of everything seen so far."""

    def __init__(self, env):
        super().__init__(env)
        self.total, self.count = np.zeros(1), 0

    def observation(self, observation):
        self.total, self.count = self.total + observation, self.count + 1
        return (observation - self.total / self.count).astype(np.float32)


def closure(env):
    """The same, hidden in what a function encloses."""
    seen = []

    def shift(observation):
        seen.append(float(observation[0]))
        return (observation - np.mean(seen)).astype(np.float32)

    return gym.wrappers.TransformObservation(env, shift, env.observation_space)


class Holder(gym.Wrapper):
    """Keeps its statistics in the wrapper inside it, to which it refers by another name."""

    def __init__(self, env):
        super().__init__(MeanSoFar(env))
        self.inner = self.env

    def step(self, action):
        assert self.inner is self.env
        return super().step(action)


class Echo:
    """Acts with what it sees, so that returns tell what was shown."""

    def act(self, observations):
        return np.asarray(observations, np.float64)

    def reset(self, done=None): ...


def echo(*, num_envs, seed):
    return Echo()


WRAPPERS = {
    "NormalizeObservation": lambda: gym.wrappers.NormalizeObservation(Bandit()),
    "own": lambda: MeanSoFar(Bandit()),
    "closure": lambda: closure(Bandit()),
    "holder": lambda: Holder(Bandit()),
}


def played(pipeline, envs, seed=1):
    playing, notes = pipeline.as_in_training(envs)
    return rollout(echo, playing, episodes=6, seed=seed).returns, notes


@pytest.mark.parametrize("kind", WRAPPERS)
def test_evaluation_sees_what_training_saw(kind):
    pipeline = VectorBatchPipeline(WRAPPERS[kind], Echo(), n_envs=2, window_size=400)
    for _ in range(2):
        pipeline.collect()
    envs = pipeline.make_eval_env(2)
    returns, notes = played(pipeline, envs)
    # Fresh statistics would show exactly 0 first; those of training show numbers around 0.
    assert abs(returns.mean()) < 2
    assert returns.std() > 0.5
    again, _ = played(pipeline, envs)
    np.testing.assert_array_equal(returns, again)
    assert bool(notes) == (kind != "NormalizeObservation")
    assert all("cannot be frozen" in note for note in notes)


@pytest.mark.parametrize("kind", WRAPPERS)
def test_what_training_remembers_is_untouched_by_evaluation(kind):
    def after(evaluations):
        pipeline = VectorBatchPipeline(WRAPPERS[kind], Echo(), n_envs=2, window_size=40, seed=3)
        pipeline.collect()
        for seed in range(evaluations):
            played(pipeline, pipeline.make_eval_env(2), seed)
        return pipeline.collect().observations

    np.testing.assert_array_equal(after(0), after(2))


@pytest.mark.parametrize("kind", WRAPPERS)
def test_environments_that_are_lent_remember_training_alone(kind):
    def after(evaluations):
        pipeline = VectorBatchPipeline(WRAPPERS[kind], Echo(), n_envs=1, window_size=40, seed=3)
        pipeline.collect()
        for seed in range(evaluations):
            with pipeline.lend() as lent:
                played(pipeline, lent, seed)
        with pipeline.lend():  # new episodes begin in both runs
            pass
        return pipeline.collect().observations

    np.testing.assert_array_equal(after(0), after(2))


@pytest.mark.parametrize("wrapped", [gym.wrappers.vector.NormalizeObservation, gym.wrappers.vector.NormalizeReward])
def test_wrappers_of_a_ready_vector_environment_are_frozen_while_it_is_lent(wrapped):
    envs = wrapped(SyncVectorEnv([Bandit] * 3))
    pipeline = VectorBatchPipeline(envs, Echo(), window_size=100)
    pipeline.collect()
    statistics = envs.obs_rms if hasattr(envs, "obs_rms") else envs.return_rms
    before = float(np.ravel(statistics.mean)[0]), float(statistics.count)
    with pipeline.lend() as lent:
        returns, notes = played(pipeline, lent)
    assert notes == []
    assert (float(np.ravel(statistics.mean)[0]), float(statistics.count)) == before
    assert envs.update_running_mean
    if hasattr(envs, "obs_rms"):
        assert abs(returns.mean()) < 2
        assert returns.std() > 0.5
    pipeline.collect()
    assert float(statistics.count) > before[1]


def test_what_cannot_be_taken_over_is_said():
    class Uncopied(MeanSoFar):
        def __init__(self, env):
            super().__init__(env)
            self.handle = (number for number in range(3))

    odd = iter([MeanSoFar, gym.wrappers.NormalizeObservation])
    for factory, why in ((lambda: Uncopied(Bandit()), "cannot be copied"), (lambda: next(odd)(Bandit()), "other wrap")):
        pipeline = VectorBatchPipeline(factory, Echo(), n_envs=1, window_size=8)
        pipeline.collect()
        _, notes = played(pipeline, pipeline.make_eval_env(1))
        assert any(why in note and "plays without it" in note for note in notes)


def test_wrappers_without_a_memory_are_not_spoken_of():
    def plain():
        env = gym.wrappers.TransformReward(gym.wrappers.TimeLimit(Bandit(), 3), lambda reward: 2 * reward)
        return gym.wrappers.RecordEpisodeStatistics(env)

    pipeline = VectorBatchPipeline(plain, Echo(), n_envs=2, window_size=8)
    pipeline.collect()
    assert played(pipeline, pipeline.make_eval_env(2))[1] == []


def test_validation_plays_with_the_memory_of_training():
    training = VectorBatchPipeline(WRAPPERS["NormalizeObservation"], Echo(), n_envs=2, window_size=400)
    training.collect()
    validation = VectorBatchPipeline(WRAPPERS["NormalizeObservation"], Echo(), n_envs=3, window_size=8)
    validation.take_over_memory(training)
    shown = validation.collect().observations
    assert abs(shown).max() < 6  # fresh statistics are still learning the mean of 100
    assert shown[0].std() > 0


def test_a_result_tells_of_a_memory(skill_env, skill_agent):
    class Counting(gym.RewardWrapper):
        seen = 0

        def reward(self, reward):
            self.seen += 1
            return reward

    agent = skill_agent()
    pipeline = VectorBatchPipeline(lambda: Counting(skill_env(noise=0.05)), agent, n_envs=2, window_size=20)
    result = RLOptimizer(agent, pipeline, max_env_steps=2000).run()
    assert any("cannot be frozen (Counting)" in note for note in result.notes)
