"""Validation: only when it is due, and never for more than its share of the steps."""

import dataclasses
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from optix_core import RLOptimizer, VectorBatchPipeline
from optix_core.evaluation import ReturnEvaluator
from optix_core.loop.validation import MAX_VALIDATION_WINDOWS, Validation
from optix_protocol import EvalMetrics


class Windows:
    """Windows of so many steps; an episode ends in every ``every``-th one, never with None."""

    def __init__(self, num_env_steps, every=1):
        self.taken, self.num_env_steps, self.every = 0, num_env_steps, every

    def windows(self):
        while True:
            self.taken += 1
            yield SimpleNamespace(num_env_steps=self.num_env_steps, number=self.taken)

    def score(self, window, _diagnostics):
        return window if self.every and window.number % self.every == 0 else None


def measure(validation, source, trained, interval=1, said=None):
    said = [] if said is None else said
    return validation.measure(trained_env_steps=trained, interval=interval, evaluator=source, on_failure=said.append)


def test_it_stays_within_a_tenth_of_the_training_steps():
    source = Windows(60, every=2)
    validation = Validation(pipeline=source)
    for window in range(1, 201):
        measure(validation, source, trained=100 * window)
        assert validation.num_env_steps <= max(120, 0.1 * 100 * window)
    assert 0.05 * 20_000 < validation.num_env_steps <= 0.1 * 20_000


def test_it_waits_for_the_interval_and_for_the_end_of_an_episode():
    source = Windows(1, every=3)
    validation = Validation(pipeline=source)
    found = [measure(validation, source, trained=10_000, interval=4) for _ in range(8)]
    assert [metrics is not None for metrics in found] == 2 * [False, False, False, True]
    assert source.taken == 6


def test_windows_without_an_end_are_given_up_and_reported():
    source, said = Windows(1, every=0), []
    validation = Validation(pipeline=source)
    assert measure(validation, source, trained=1000, said=said) is None
    assert len(said) == 1 and source.taken == MAX_VALIDATION_WINDOWS == validation.num_env_steps


def test_restored_counters_go_on_alike():
    source = Windows(30)
    first, second = Validation(pipeline=source), Validation(pipeline=source)
    for window in range(1, 30):
        measure(first, source, trained=50 * window, interval=3)
    second.counters = dataclasses.replace(first.counters)
    for window in range(30, 60):
        assert (measure(first, source, 50 * window, 3) is None) == (measure(second, source, 50 * window, 3) is None)


class Pays(gym.Env):
    """Pays its action. The first episode after a seeded reset has ``lengths[seed % 2]`` steps, all others one step."""

    observation_space, action_space = gym.spaces.Box(0, 1, (1,), np.float32), gym.spaces.Discrete(100)

    def __init__(self, lengths=(100, 100)):
        self.lengths = lengths

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.length = 0, 1 if seed is None else self.lengths[seed % 2]
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), float(action), self.t >= self.length, False, {}


class Constant:
    """An agent whose policy always does the same."""

    action = 0

    def make_policy(self, mode, *, num_envs, seed):
        action = self.action
        return SimpleNamespace(act=lambda seen: np.full(len(seen), action), reset=lambda done=None: None)

    def act(self, observation):
        raise AssertionError("validation plays a frozen policy")

    learn = get_hyperparams = set_hyperparams = save_weights = load_weights = None


def validated(actions, evaluator=None, *, env=Pays, window_size=64, n_envs=2):
    """Return the validation and what it measured, policy by policy."""
    agent = Constant()
    pipeline = VectorBatchPipeline(env, agent, n_envs=n_envs, window_size=window_size, mode="greedy")
    validation, found, said = Validation(pipeline=pipeline), [], []
    for version, agent.action in enumerate(actions):
        pipeline.policy_changed(policy_version=version, hyperparam_version=0)
        found.append(
            validation.measure(
                trained_env_steps=10**9, interval=1, evaluator=evaluator or ReturnEvaluator(), on_failure=said.append
            )
        )
    pipeline.close()
    return validation, found, said


@pytest.mark.parametrize("window_size", [64, 100, 128, 7])
def test_every_policy_is_measured_on_episodes_of_its_own(window_size):
    actions = (0, 1, 0, 1, 1) if window_size > 7 else (0, 1)
    _, found, _ = validated(actions, window_size=window_size)
    assert [metrics.primary_score for metrics in found] == [100.0 * action for action in actions]
    assert all(metrics.metrics["episodes"] == 2 for metrics in found)


def test_a_short_episode_counts_no_more_than_a_long_one():
    """The first end would score short episodes only, and all ends the many that follow a short one."""
    _, found, _ = validated((1,) * 6, env=lambda: Pays((2, 30)), window_size=5, n_envs=8)
    for metrics in found:
        assert metrics.metrics["episodes"] == 8
    assert np.mean([metrics.metrics["episode_length"] for metrics in found]) == pytest.approx(16, abs=5)


def test_a_score_without_ends_sees_the_rows_of_first_episodes_only():
    seen = []

    class Daily(ReturnEvaluator):
        def score(self, episode_data, train_diagnostics):
            episode_data.check()
            rewards = episode_data.flat(episode_data.rewards)
            seen.append(len(rewards))
            return EvalMetrics(primary_score=float(rewards.mean())) if len(episode_data.episode_returns) else None

    validation, found, _ = validated((3,), Daily(), env=lambda: Pays((20, 20)), window_size=16)
    assert found[0].primary_score == 3 and seen[-1] == 2 * 20
    assert validation.num_env_steps == 2 * 32  # what was played is paid for, scored or not

    class Streaming(ReturnEvaluator):
        def score(self, episode_data, train_diagnostics):
            return EvalMetrics(primary_score=float(episode_data.num_env_steps))

    validation, found, _ = validated((3,), Streaming(), env=lambda: Pays((10**6, 10**6)), window_size=16)
    assert found[0].primary_score == validation.num_env_steps == 32


def test_an_episode_without_end_is_given_up_with_what_there_is():
    validation, found, said = validated((1,), env=lambda: Pays((10**6, 10**6)), window_size=4)
    assert found == [None] and len(said) == 1
    assert validation.num_env_steps == MAX_VALIDATION_WINDOWS * 8


def test_the_return_is_confirmed_in_the_environment_of_the_validation(skill_env, skill_agent):
    class TenFold(skill_env):
        def step(self, action):
            observation, reward, *rest = super().step(action)
            return observation, 10 * reward, *rest

    class Acting(skill_agent):
        def make_policy(self, mode, *, num_envs, seed):
            agent = self

            class Frozen:
                skill = agent.skill

                def act(self, observations):
                    return np.full((len(observations), 1), self.skill)

                def reset(self, done=None): ...

            return Frozen()

    agent = Acting()
    training = VectorBatchPipeline(skill_env, agent, n_envs=4, window_size=8)
    validation = VectorBatchPipeline(TenFold, agent, n_envs=4, window_size=8, mode="greedy")
    result = RLOptimizer(agent, training, val_pipeline=validation, max_env_steps=4000, confirm_episodes=10).run()
    assert result.confirmed_return["mean"] == pytest.approx(10.0, abs=1.0)
