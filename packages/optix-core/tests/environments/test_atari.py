"""Atari games as pipelines see them. The games are short because random play loses Breakout's lives soon."""

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("ale_py")

from optix_core import ConfigError, EnvError, EnvSpec, VectorBatchPipeline
from optix_core.checkpoints import load_tree, save_tree
from optix_core.evaluation.rollouts import rollout


class Random:
    """Acts at random from a generator of its own."""

    def __init__(self, num_actions, seed=0):
        self.num_actions, self.rng = num_actions, np.random.default_rng(seed)

    def act(self, observations):
        return self.rng.integers(self.num_actions, size=len(observations))

    def reset(self, done=None):
        pass


def pipeline(env_id="ALE/Breakout-v5", *, num_actions=4, n_envs=2, window_size=150, **options):
    agent = Random(num_actions)
    return VectorBatchPipeline(env_id, agent, n_envs=n_envs, window_size=window_size, seed=3, **options)


def test_a_game_shows_its_last_four_pictures():
    spec = EnvSpec.of("ALE/Pong-v5")
    assert spec.observation_space == gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert spec.action_space == gym.spaces.Discrete(6)
    window = pipeline("ALE/Pong-v5", num_actions=6, window_size=6).collect()
    assert window.observations.dtype == np.uint8
    np.testing.assert_array_equal(window.observations[1:, :, :-1], window.observations[:-1, :, 1:])
    assert (window.observations[1:, :, -1] != window.observations[:-1, :, -1]).any()


def test_an_action_lasts_four_frames_and_may_stick():
    env = EnvSpec.of("ALE/Pong-v5").make()
    env.reset(seed=0)
    before = env.unwrapped.ale.getEpisodeFrameNumber()
    env.step(0)
    assert env.unwrapped.ale.getEpisodeFrameNumber() == before + 4
    assert "StickyAction" in str(env)
    assert "StickyAction" not in str(EnvSpec.of("PongNoFrameskip-v4").make())


@pytest.mark.parametrize("kwargs", [{"obs_type": "ram"}, {"frameskip": 2}])
def test_whoever_chooses_frames_or_memory_gets_the_plain_game(kwargs):
    plain = EnvSpec(env_id="ALE/Pong-v5", kwargs=kwargs).make()
    assert plain.observation_space == gym.make("ALE/Pong-v5", **kwargs).observation_space


def test_fire_begins_each_life_without_the_agent():
    env = EnvSpec.of("ALE/Breakout-v5").make()
    ball = []
    for seed in range(3):
        env.reset(seed=seed)
        pictures = [env.step(0)[0][-1] for _ in range(12)]
        ball.append((pictures[0] != pictures[-1]).any())
        lives = env.unwrapped.ale.lives()
        while env.unwrapped.ale.lives() == lives:
            env.step(0)
        pictures = [env.step(0)[0][-1] for _ in range(12)]
        ball.append((pictures[0] != pictures[-1]).any())
    assert all(ball)  # it moves although nobody pressed FIRE


def test_learning_sees_clipped_rewards_and_scores_raw_ones():
    class Rich(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            self.t = 0
            return np.zeros(2, np.float32), {}

        def step(self, action):
            self.t += 1
            return np.zeros(2, np.float32), [7.0, -400.0, 0.25][self.t - 1], self.t == 3, False, {}

    window = VectorBatchPipeline(Rich, Random(2), n_envs=1, window_size=3, clip_rewards=True).collect()
    np.testing.assert_array_equal(window.rewards[:, 0], [7.0, -400.0, 0.25])
    np.testing.assert_array_equal((window.rewards + window.intrinsic_rewards)[:, 0], [1.0, -1.0, 0.25])
    np.testing.assert_allclose(window.episode_returns, [-392.75])
    assert VectorBatchPipeline(Rich, Random(2), n_envs=1, window_size=3).collect().intrinsic_rewards is None


def test_a_life_is_an_episode_only_where_it_is_asked_for():
    whole, lives = pipeline().collect(), pipeline(episodic_life=True).collect()
    assert lives.terminated.sum() > 3 * whole.terminated.sum() > 0
    assert lives.num_env_steps == whole.num_env_steps
    # The game goes on: the episode after a lost life begins with the very picture that ended the last one.
    goes_on = [
        np.array_equal(lives.final_observations[row], lives.observations[t + 1, n])
        for row, (t, n) in enumerate(lives.ends)
        if t + 1 < lives.num_steps
    ]
    assert sum(goes_on) == len(goes_on) - whole.terminated.sum()


@pytest.mark.parametrize("episodic_life", [False, True])
def test_a_game_is_brought_back_exactly(episodic_life, tmp_path):
    first = pipeline(episodic_life=episodic_life)
    for _ in range(2):
        first.collect()
    save_tree(tmp_path / "state", first.pipeline_state())
    second = pipeline(episodic_life=episodic_life)
    assert second.restore_pipeline_state(load_tree(tmp_path / "state")) is None
    first.agent, second.agent = Random(4, 1), Random(4, 1)
    for _ in range(2):
        ours, theirs = first.collect(), second.collect()
        for name in ("observations", "rewards", "terminated", "episode_returns", "final_observations"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


def test_lives_of_environments_without_any_are_refused():
    with pytest.raises(ConfigError, match="episodic_life is for Atari games"):
        pipeline("Acrobot-v1", episodic_life=True)


def test_evaluation_plays_whole_games_with_raw_rewards():
    def make_policy(*, num_envs, seed):
        return Random(4, seed)

    envs = EnvSpec.of("ALE/Breakout-v5").make_vector(2)
    played = rollout(make_policy, envs, episodes=3, seed=1)
    again = rollout(make_policy, envs, episodes=3, seed=1)
    np.testing.assert_array_equal(played.returns, again.returns)
    assert (played.lengths > 100).all()


def test_a_missing_image_library_is_named_with_its_command(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(EnvError, match=r'ALE/Pong-v5 needs atari: pip install "optix-core\[atari\]"'):
        EnvSpec.of("ALE/Pong-v5").make()
