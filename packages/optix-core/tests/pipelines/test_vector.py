import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from optix_core import AgentError, BatchPipeline, ConfigError, EnvError, VectorBatchPipeline


class CountingEnv(gym.Env):
    """Observation = (environment's number, episode, step): every row can be traced to where it came from."""

    def __init__(self, number=0, lengths=(3,), truncate_every=2, reward=1.0):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = gym.spaces.Discrete(5)
        self.number, self.lengths, self.truncate_every, self.reward = number, lengths, truncate_every, reward
        self.episode = -1

    def _observe(self):
        return np.array([self.number, self.episode, self.t], np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.t = 0
        return self._observe(), {}

    def step(self, action):
        self.t += 1
        over = self.t >= self.lengths[self.episode % len(self.lengths)]
        cut = over and self.episode % self.truncate_every == 1
        return self._observe(), self.reward * (1 + self.number), over and not cut, cut, {}


class Actor:
    """Answers with the step it sees, so that actions can be matched with observations."""

    def act(self, observation):
        return (np.asarray(observation)[..., 2] % 5).astype(np.int64)


def make(lengths_by_env, mode, window_size):
    envs = [lambda i=i, lengths=lengths: CountingEnv(i, lengths) for i, lengths in enumerate(lengths_by_env)]
    source = envs if mode is None else SyncVectorEnv(envs, autoreset_mode=mode)
    return VectorBatchPipeline(source, Actor(), window_size=window_size)


def test_what_an_agent_was_shown_stays_as_it_was():
    shown = []

    class Hoarder(Actor):
        def act(self, observation):
            shown.append(observation)
            return super().act(observation)

    pipeline = VectorBatchPipeline([lambda: CountingEnv(0, (3,))], Hoarder(), window_size=2)
    for _ in range(3):
        pipeline.collect()
    assert [observation[0, 2] for observation in shown] == [0, 1, 2, 0, 1, 2]


lengths = st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=3), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(lengths=lengths, window_size=st.integers(1, 12), mode=st.sampled_from(["NEXT_STEP", "SAME_STEP", None]))
def test_windows_tell_exactly_what_the_environments_did(lengths, window_size, mode):
    """Against a slow simulation: rows, successors, final observations, flags, returns, across several windows."""
    pipeline = make(lengths, AutoresetMode[mode] if mode else None, window_size)
    windows = [pipeline.collect() for _ in range(3)]
    state = [{"episode": 0, "t": 0, "total": 0.0} for _ in lengths]
    for window in windows:
        window.check()
        ends = []
        for t in range(window.num_steps):
            for n, env in enumerate(state):
                if not window.valid[t, n]:
                    assert mode == "NEXT_STEP"
                    assert window.rewards[t, n] == 0
                    assert not window.done[t, n]
                    continue
                assert window.observations[t, n].tolist() == [n, env["episode"], env["t"]]
                assert window.actions[t, n] == env["t"] % 5
                env["t"] += 1
                env["total"] += 1 + n
                assert window.rewards[t, n] == 1 + n
                assert window.next_observations[t, n].tolist() == [n, env["episode"], env["t"]]
                over = env["t"] >= lengths[n][env["episode"] % len(lengths[n])]
                cut = over and env["episode"] % 2 == 1
                assert window.truncated[t, n] == cut
                assert window.terminated[t, n] == (over and not cut)
                if over:
                    ends.append((env["total"], env["t"], [n, env["episode"], env["t"]]))
                    env.update(episode=env["episode"] + 1, t=0, total=0.0)
        assert window.episode_returns.tolist() == [total for total, _, _ in ends]
        assert window.episode_lengths.tolist() == [length for _, length, _ in ends]
        assert window.final_observations.tolist() == [final for _, _, final in ends]


def test_both_autoreset_modes_agree_on_the_episodes():
    episodes = []
    for mode in ("NEXT_STEP", "SAME_STEP"):
        pipeline = make([[3, 5]], AutoresetMode[mode], 40)
        window = pipeline.collect()
        episodes.append((window.episode_returns[:6].tolist(), window.final_observations[:6].tolist()))
    assert episodes[0] == episodes[1]


def test_native_cartpole_marks_reset_rows_and_counts_only_real_steps():
    class Random:
        rng = np.random.default_rng(0)

        def act(self, observation):
            return self.rng.integers(2, size=len(observation))

    window = VectorBatchPipeline("CartPole-v1", Random(), n_envs=4, window_size=200, seed=1).collect()
    resets = np.zeros_like(window.valid)
    resets[1:] = window.done[:-1]
    np.testing.assert_array_equal(window.valid, ~resets)
    assert window.num_env_steps == window.valid.sum() < window.valid.size
    assert window.rewards[~window.valid].sum() == 0
    np.testing.assert_array_equal(window.episode_returns, window.episode_lengths)


def test_single_environment_passes_single_observations():
    shapes = []

    class Single(Actor):
        def act(self, observation):
            shapes.append(observation.shape)
            return int(super().act(observation))

    window = BatchPipeline(CountingEnv(lengths=(4,)), Single(), 10).collect()
    assert set(shapes) == {(3,)}
    assert window.actions.shape == (10, 1)
    assert window.observations.shape == (10, 1, 3)


def test_continuous_actions_are_clipped_for_the_environment_and_kept_for_the_learner(skill_env):
    seen = []

    class Env(skill_env):
        def step(self, action):
            seen.append(float(action[0]))
            return super().step(action)

    class Wild:
        def act(self, observation):
            return np.full((len(observation), 1), 99.0)

    window = VectorBatchPipeline(Env, Wild(), n_envs=1, window_size=4).collect()
    assert seen == [10.0] * 4
    assert (window.actions == 99.0).all()


def test_versions_are_stamped():
    pipeline = make([[3]], AutoresetMode.SAME_STEP, 5)
    assert pipeline.collect().policy_version == 0
    pipeline.policy_changed(policy_version=7, hyperparam_version=2)
    window = pipeline.collect()
    assert (window.policy_version, window.hyperparam_version) == (7, 2)


def test_same_seed_same_windows_and_other_seed_other_windows():
    def rewards(seed):
        class Constant:
            def act(self, observation):
                return np.zeros((len(observation), 1))

        pipeline = VectorBatchPipeline("Pendulum-v1", Constant(), n_envs=3, window_size=20, seed=seed)
        return pipeline.collect().rewards

    np.testing.assert_array_equal(rewards(3), rewards(3))
    assert not np.array_equal(rewards(3), rewards(4))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rewards_that_are_not_finite_are_refused_with_the_step(value):
    pipeline = VectorBatchPipeline(lambda: CountingEnv(reward=value), Actor(), n_envs=2, window_size=5)
    with pytest.raises(EnvError, match=r"rewards that are NaN or infinite \(environment 0, near step 0\)"):
        pipeline.collect()


def test_an_environment_that_raises_is_named_with_its_cause():
    class Broken(CountingEnv):
        def step(self, action):
            if self.episode == 2:
                raise RuntimeError("gripper jammed")
            return super().step(action)

    pipeline = VectorBatchPipeline(Broken, Actor(), n_envs=1, window_size=50)
    with pytest.raises(EnvError, match="raised RuntimeError after 6 steps: gripper jammed"):
        pipeline.collect()


def test_actions_of_a_wrong_shape_are_refused(skill_env):
    class Scalar:
        def act(self, observation):
            return np.zeros(len(observation))

    with pytest.raises(AgentError, match=r"shape \(2,\); this environment needs \(2, 1\)"):
        VectorBatchPipeline(skill_env, Scalar(), n_envs=2).collect()


def test_impossible_settings_are_refused(skill_env, skill_agent):
    with pytest.raises(ConfigError):
        VectorBatchPipeline(skill_env, skill_agent(), n_envs=0)
    with pytest.raises(ConfigError, match=r"window_size must be a whole number, got 2\.5"):
        VectorBatchPipeline(skill_env, skill_agent(), n_envs=1, window_size=2.5)
    with pytest.raises(ConfigError, match="make_policy"):
        VectorBatchPipeline(skill_env, skill_agent(), mode="greedy")

    class Odd(CountingEnv):
        def __init__(self):
            super().__init__()
            self.action_space = gym.spaces.Dict(a=gym.spaces.Discrete(2))

    with pytest.raises(EnvError, match="not supported"):
        VectorBatchPipeline(Odd, Actor(), n_envs=1)


def test_dict_observations_are_flattened():
    class Mixed(CountingEnv):
        def __init__(self):
            super().__init__()
            self.observation_space = gym.spaces.Dict(a=gym.spaces.Box(-1, 1, (2,)), b=gym.spaces.Discrete(3))

        def _observe(self):
            return {"a": np.ones(2, np.float32), "b": 1}

    class First:
        def act(self, observation):
            return np.zeros(len(observation), np.int64)

    assert VectorBatchPipeline(Mixed, First(), n_envs=2, window_size=3).collect().observations.shape == (3, 2, 5)


def test_environments_in_processes_of_their_own_deliver_the_same():
    class Constant:
        def act(self, observation):
            return np.zeros((len(observation), 1))

    here = VectorBatchPipeline("Pendulum-v1", Constant(), n_envs=2, window_size=10, seed=5)
    there = VectorBatchPipeline("Pendulum-v1", Constant(), n_envs=2, window_size=10, seed=5, async_envs=True)
    try:
        np.testing.assert_array_equal(here.collect().rewards, there.collect().rewards)
    finally:
        there.close()
        there.close()
