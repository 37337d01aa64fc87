"""Normalisers and hindsight in loops of a user's own."""

import numpy as np
import pytest

from optix_core import ConfigError
from optix_core.data import HandFilledHERBuffer, HERBuffer, ObsNormalizer, RewardNormalizer

OBS, ACT, GOAL = 5, 2, 2


def near(achieved, desired):
    return -float(np.linalg.norm(achieved - desired) > 0.1)


def episode(length, number=0):
    """Step ``t`` of episode ``number`` achieves (number, t + 1); the goal of all is (-1, -1)."""
    obs = np.full((length, OBS), -1.0)
    obs[:, 0], obs[:, 1] = number, np.arange(length)
    next_obs = obs.copy()
    next_obs[:, 1] += 1
    achieved = np.stack([np.full(length, number), np.arange(1, length + 1)], axis=1)
    dones = np.arange(length) == length - 1
    return obs, np.ones((length, ACT)), np.full(length, -1.0), next_obs, dones, achieved


@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
def test_new_goals_were_achieved_in_the_same_episode_and_earn_their_reward(strategy):
    buffer = HERBuffer(OBS, ACT, GOAL, strategy=strategy, k=4, capacity=100)
    for number, length in enumerate((7, 3, 12)):
        buffer.store_episode(*episode(length, number), near)
    obs, actions, rewards, next_obs, dones, weights, indices, n_steps = buffer.sample(5000)
    assert obs.shape == next_obs.shape == (5000, OBS)
    assert actions.shape == (5000, ACT)
    assert rewards.shape == dones.shape == weights.shape == indices.shape == n_steps.shape == (5000,)
    number, t, goal = obs[:, 0], obs[:, 1], obs[:, -GOAL:]
    assert (next_obs[:, -GOAL:] == goal).all()
    assert (next_obs[:, 1] == t + 1).all()
    new = goal[:, 0] != -1
    assert new.mean() == pytest.approx(0.8, abs=0.03)
    length = np.array([7, 3, 12])[number.astype(int)]
    assert (goal[new, 0] == number[new]).all()
    low = {"future": t + 1, "final": length, "episode": np.ones_like(t)}[strategy]
    assert ((goal[:, 1] >= low) & (goal[:, 1] <= length))[new].all()
    assert (rewards == np.where(new & (goal[:, 1] == t + 1), 0.0, -1.0)).all()
    assert (dones == (t == length - 1)).all()


def test_whole_episodes_leave_a_full_memory():
    buffer = HandFilledHERBuffer(OBS, ACT, GOAL, capacity=20, k=0)
    for number in range(9):
        buffer.store_episode(*episode(6, number), near)
        assert len(buffer) == min(18, 6 * (number + 1))
    assert set(buffer.sample(500).obs[:, 0]) == {6, 7, 8}
    with pytest.raises(ConfigError, match="does not fit into a memory of 20"):
        buffer.store_episode(*episode(21), near)


def test_goal_functions_for_batches_and_with_an_info_serve_too():
    def distances(achieved, desired, info):
        return -(np.linalg.norm(achieved - desired, axis=-1) > 0.1).astype(float)

    one, other = (HERBuffer(OBS, ACT, GOAL, capacity=50, seed=3) for _ in range(2))
    one.store_episode(*episode(9), near)
    other.store_episode(*episode(9), compute_reward=distances)
    np.testing.assert_array_equal(one.sample(64).rewards, other.sample(64).rewards)


def test_obs_dim_may_leave_out_the_goal_and_goals_may_begin_one_step_before():
    *arrays, achieved = episode(4)
    buffer = HERBuffer(obs_dim=OBS - GOAL, act_dim=ACT, goal_dim=GOAL)
    buffer.store_episode(*arrays, np.concatenate([[[9, 9]], achieved]), near)
    goals = buffer.sample(300).obs[:, -GOAL:]
    assert not (goals == 9).any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"obs": np.zeros((4, 9))}, r"obs of an episode must be \[4, 5 or 7\]"),
        ({"actions": np.zeros((4, 3))}, r"actions of an episode must be \[4, 2\]"),
        ({"rewards": np.zeros(3)}, r"rewards of an episode must be \[4\], got \[3\]"),
        ({"achieved_goals": np.zeros((4, 1))}, r"achieved of an episode must be \[4, 2\]"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(change, said):
    names = ("obs", "actions", "rewards", "next_obs", "dones", "achieved_goals")
    with pytest.raises(ConfigError, match=said):
        HERBuffer(OBS, ACT, GOAL).store_episode(
            **dict(zip(names, episode(4), strict=True)) | change, compute_reward=near
        )


def test_an_empty_memory_and_an_unknown_strategy():
    with pytest.raises(ValueError, match="empty"):
        HERBuffer(OBS, ACT, GOAL).sample(1)
    with pytest.raises(ConfigError, match="future, final, episode"):
        HERBuffer(OBS, ACT, GOAL, strategy="next")


def test_an_observation_normaliser_by_hand():
    rng = np.random.default_rng(0)
    normalizer = ObsNormalizer(obs_shape=(3,), clip=2.0)
    normalizer.update(rng.normal(5, 2, (1000, 3)))
    assert np.abs(normalizer.normalize([5.0, 5.0, 5.0])).max() < 0.2
    assert normalizer.normalize(np.full((4, 3), 100.0)).max() == 2.0
    assert normalizer.normalize(np.zeros(3)).dtype == np.float32
    count = normalizer.stats.count
    normalizer.update(np.zeros(3))
    assert normalizer.stats.count == count + 1
    assert ObsNormalizer(3).stats.mean.shape == (3,)
    with pytest.raises(ConfigError, match="one argument"):
        ObsNormalizer(shape=(3,), obs_shape=(4,))
    with pytest.raises(ConfigError, match="shape of one observation"):
        ObsNormalizer()


def test_a_reward_normaliser_step_by_step_is_one_that_sees_windows():
    rng = np.random.default_rng(0)
    rewards, done = rng.normal(size=(50, 2)), rng.random((50, 2)) < 0.1
    by_step, by_window = RewardNormalizer(gamma=0.9, clip=10.0), RewardNormalizer(0.9, 10.0)
    for t in range(50):
        by_step.step(rewards[t], done[t])
    by_window(rewards, done, np.ones_like(done))
    np.testing.assert_allclose(by_step.stats.var, by_window.stats.var)
    np.testing.assert_allclose(by_step.normalize(rewards), by_window.normalize(rewards), rtol=1e-6)


def test_a_reward_normaliser_begins_anew_with_an_episode():
    normalizer = RewardNormalizer(gamma=0.5, clip=1e9)
    assert isinstance(normalizer.step(4.0), float)
    normalizer.reset()
    one = RewardNormalizer(gamma=0.5, clip=1e9)
    one.step(4.0, done=True)
    assert normalizer.step(2.0) == one.step(2.0)
    carried = RewardNormalizer(gamma=0.5, clip=1e9)
    carried.step(4.0)
    assert carried.step(2.0) != normalizer.normalize(2.0)
