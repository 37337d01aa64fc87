import numpy as np

from optix_core.data import ObsNormalizer, RewardNormalizer, RunningMeanStd


def test_running_statistics_equal_those_of_all_batches_together():
    rng = np.random.default_rng(0)
    batches = [rng.normal(1e4, 3.0, size=(size, 3)).astype(np.float32) for size in (1, 5, 0, 200, 17)]
    stats = RunningMeanStd((3,))
    for batch in batches:
        stats.update(batch)
    everything = np.concatenate(batches).astype(np.float64)
    assert stats.count == len(everything)
    np.testing.assert_allclose(stats.mean, everything.mean(0), rtol=1e-12)
    np.testing.assert_allclose(stats.var, everything.var(0), rtol=1e-9)


def test_observations_come_out_centred_scaled_and_clipped():
    rng = np.random.default_rng(1)
    data = rng.normal([5.0, -100.0], [2.0, 30.0], size=(5000, 2))
    normalizer = ObsNormalizer((2,), clip=4.0)
    normalizer.update(data)
    scaled = normalizer(data.astype(np.float32))
    np.testing.assert_allclose(scaled.mean(0), 0.0, atol=1e-2)
    np.testing.assert_allclose(scaled.std(0), 1.0, atol=1e-2)
    assert normalizer(np.array([[1e6, -1e6]], np.float32)).tolist() == [[4.0, -4.0]]


def test_using_a_normalizer_does_not_change_it_and_its_state_restores_it():
    rng = np.random.default_rng(2)
    normalizer = ObsNormalizer((2,))
    normalizer.update(rng.normal(size=(50, 2)))
    before = normalizer.state()
    x = rng.normal(size=(9, 2)).astype(np.float32)
    y = normalizer(x)
    np.testing.assert_equal(normalizer.state(), before)
    other = ObsNormalizer((2,))
    other.restore(before)
    np.testing.assert_array_equal(other(x), y)


def test_reward_scale_is_the_spread_of_discounted_returns_cut_at_episode_ends():
    rewards = np.array([[1.0], [2.0], [3.0], [7.0], [1.0]])
    done = np.array([[False], [True], [False], [False], [False]])
    valid = np.array([[True], [True], [True], [False], [True]])
    normalizer = RewardNormalizer(gamma=0.5, clip=100.0, epsilon=0.0)
    scaled = normalizer(rewards, done, valid)
    returns = [1.0, 2.5, 3.0, 2.5]  # the fourth row is no transition; the episode ended after the second
    np.testing.assert_allclose(scaled, rewards / np.std(returns))


def test_running_returns_carry_over_from_window_to_window():
    rng = np.random.default_rng(3)
    rewards = rng.normal(size=(40, 2))
    done, valid = rng.random((40, 2)) < 0.1, np.ones((40, 2), bool)
    whole, halves = RewardNormalizer(gamma=0.9), RewardNormalizer(gamma=0.9)
    whole(rewards, done, valid)
    for part in (slice(0, 13), slice(13, 40)):
        halves(rewards[part], done[part], valid[part])
    np.testing.assert_allclose(whole.state()["var"], halves.state()["var"])
    np.testing.assert_allclose(whole.state()["running"], halves.state()["running"])
