"""What evaluation may cost, and what happens where episodes have no end."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from optix_core import ConfigError, RLOptimizer, VectorBatchPipeline
from optix_core.environments import EnvSpec
from optix_core.evaluation import evaluate
from optix_core.loop.rationing import EpisodeLengths, FinalBudget


class Endless(gym.Env):
    """Pays 1 a step, for ever; or until ``length`` steps have passed."""

    observation_space, action_space = gym.spaces.Box(-9, 9, (2,)), gym.spaces.Box(-10, 10, (1,))
    steps = 0

    def __init__(self, length=None):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        Endless.steps += 1
        return np.zeros(2, np.float32), 1.0, False, self.t == self.length, {}


def run(agent, env, **kwargs):
    kwargs.setdefault("max_env_steps", 4000)
    return RLOptimizer(agent, VectorBatchPipeline(env, agent, n_envs=2, window_size=50), **kwargs).run()


@pytest.mark.parametrize("ready", [False, True])
def test_an_environment_without_an_end_has_a_result_that_says_so(skill_agent, ready):
    agent, Endless.steps = skill_agent(), 0
    env = SyncVectorEnv([Endless] * 2) if ready else Endless
    result = run(agent, env)
    assert result.confirmed_return["mean"] == 1000
    assert (result.confirmed_return["episodes"], result.max_episode_steps) == (10, 1000)
    assert Endless.steps == 4000 + 10 * 1000
    text = " ".join(result.notes)
    assert "No episode ended within the first 1,000 steps of each environment" in text
    assert "10 of 10 confirmation episodes had not ended after 1000 steps and were cut" in text


def test_the_limit_can_be_set_and_an_own_time_limit_is_believed(skill_agent):
    result = run(skill_agent(), Endless, max_episode_steps=30, confirm_episodes=4)
    assert (result.confirmed_return["mean"], result.confirmed_return["episodes"]) == (30, 4)
    limited = run(skill_agent(), lambda: gym.wrappers.TimeLimit(Endless(), 1500), max_env_steps=2000)
    assert (limited.max_episode_steps, limited.confirmed_return["mean"]) == (1500, 1500)
    assert not any("cut" in note and "confirmation" in note for note in limited.notes)
    with pytest.raises(ConfigError, match="max_episode_steps must be at least 1"):
        run(skill_agent(), Endless, max_episode_steps=0)


@pytest.mark.parametrize("length", [5, 40])
@pytest.mark.parametrize("budget", [2_000, 20_000])
def test_all_evaluation_takes_a_fifth_or_ten_episodes(skill_agent, length, budget):
    result = run(skill_agent(lambda k: np.sin(k)), lambda: Endless(length), max_env_steps=budget)
    allowed = max(0.2 * result.train_env_steps, 10 * length)
    assert 10 * length <= result.eval_env_steps <= allowed
    shortened = result.confirmed_return["episodes"] < 100
    assert any("shortened from 100" in note for note in result.notes) == shortened


def test_a_number_of_episodes_that_is_asked_for_is_played(skill_agent):
    result = run(skill_agent(), lambda: Endless(40), confirm_episodes=50)
    assert result.confirmed_return["episodes"] == 50
    assert not any("shortened" in note for note in result.notes)


def test_the_same_seed_is_the_same_run_with_its_ration(skill_agent):
    first, second = (run(skill_agent(), lambda: Endless(40), max_env_steps=6000) for _ in range(2))
    assert first.eval_env_steps == second.eval_env_steps
    assert first.confirmed_return == second.confirmed_return


def test_the_ration():
    lengths = EpisodeLengths()
    assert (lengths.limit(), lengths.expected(1000)) == (1000, 1000)
    lengths.add([], 600)
    assert lengths.steps_without_end == 600
    lengths.add([100, 400], 600)
    assert (lengths.steps_without_end, lengths.limit(), lengths.expected(1600)) == (0, 1600, 800)
    assert EpisodeLengths([10**6]).limit() == 100_000
    assert EpisodeLengths(range(1000)).recent == list(range(800, 1000))

    budget = FinalBudget(train_env_steps=100_000, confirm_episodes=None, expected_length=200)
    assert budget.for_rounds(0) == 10_000
    assert budget.for_rounds(15_000) == 3_000  # ten episodes are kept back
    assert budget.for_rounds(17_000) == 0  # less than eight episodes
    assert budget.for_confirmation(10_000) == 50
    assert budget.for_confirmation(10_000, longest=100) == 100
    assert budget.for_confirmation(30_000) == 10
    asked = FinalBudget(train_env_steps=100_000, confirm_episodes=7, expected_length=200)
    assert (asked.for_rounds(19_000), asked.for_confirmation(19_000)) == (10_000, 7)


def test_evaluation_alone_counts_what_it_cut(skill_agent):
    played = evaluate(skill_agent(), EnvSpec.of(Endless), episodes=3, seed=0, max_episode_steps=20)
    assert (played.num_cut, played.lengths.tolist(), played.returns.tolist()) == (3, [20] * 3, [20.0] * 3)
    ended = evaluate(skill_agent(), EnvSpec.of(lambda: Endless(20)), episodes=3, seed=0, max_episode_steps=20)
    assert ended.num_cut == 0


def test_evaluation_alone_tells_of_wrappers_that_begin_afresh(skill_agent):
    normalizing, plain = gym.wrappers.NormalizeObservation, gym.wrappers.RecordEpisodeStatistics
    for wrapper, told in ((normalizing, ("NormalizeObservation",)), (plain, ())):
        spec = EnvSpec.of(lambda wrapper=wrapper: wrapper(Endless(5)))
        assert evaluate(skill_agent(), spec, episodes=3, seed=0).forgotten == told
