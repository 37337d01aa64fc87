import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optix_core.data import PrioritizedReplayBuffer
from optix_core.data.prioritized import SumTree


def make(capacity=100, **options):
    shapes = {"observation_shape": (1,), "observation_dtype": np.float32, "action_shape": (), "action_dtype": np.int64}
    return PrioritizedReplayBuffer(capacity=capacity, **(shapes | options))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), capacity=st.sampled_from([1, 31, 32, 33, 1000, 40_000]), writes=st.integers(1, 10))
def test_the_tree_finds_where_a_target_lies_in_the_cumulative_sum(seed, capacity, writes):
    rng = np.random.default_rng(seed)
    tree, numbers = SumTree(capacity), np.zeros(capacity)
    for _ in range(writes):
        indices = rng.integers(0, capacity, rng.integers(1, 50))
        values = np.round(rng.exponential(size=len(indices)), 2) * (rng.random(len(indices)) < 0.8)
        tree[indices] = values
        numbers[indices] = values
    np.testing.assert_array_equal(tree[np.arange(capacity)], numbers)
    assert tree.total == pytest.approx(numbers.sum())
    if numbers.any():
        sums = numbers.cumsum()
        targets = rng.random(50) * sums[-1] * (1 - 1e-9)
        clear = np.abs(targets[:, None] - sums).min(axis=1) > 1e-9  # rounding may put others on either side
        np.testing.assert_array_equal(tree.find(targets)[clear], np.searchsorted(sums, targets, side="right")[clear])


def test_no_rounding_error_piles_up_in_the_sums():
    tree, rng = SumTree(5000), np.random.default_rng(0)
    for _ in range(3000):
        tree[rng.integers(0, 5000, 32)] = rng.exponential(size=32) * 10.0 ** rng.integers(-8, 9)
    assert tree.total == pytest.approx(math.fsum(tree[np.arange(5000)]), rel=1e-12)


def test_weights_and_frequencies_agree_with_a_loop(stream):
    alpha, beta, epsilon = 0.7, 0.5, 1e-3
    buffer = make(alpha=alpha, beta=beta, epsilon=epsilon, seed=1)
    buffer.add(stream(20, 1, end_rate=0.0))
    rng = np.random.default_rng(0)
    errors = rng.normal(size=20) * np.array([1.0, 100.0] * 10)
    buffer.update_priorities(np.arange(20), errors)
    scaled = [(abs(error) + epsilon) ** alpha for error in errors]
    probabilities = [p / sum(scaled) for p in scaled]
    counts = np.zeros(20)
    for _ in range(300):
        batch = buffer.sample(100)
        raw = [(20 * probabilities[i]) ** -beta for i in batch.indices]
        np.testing.assert_allclose(batch.weights, [w / max(raw) for w in raw], rtol=1e-5)
        counts += np.bincount(batch.indices, minlength=20)
    np.testing.assert_allclose(counts / 30_000, probabilities, atol=0.002)  # stratified: far less noise than binomial


def test_without_alpha_it_is_uniform_replay(stream):
    buffer = make(alpha=0.0)
    buffer.add(stream(20, 1, end_rate=0.0))
    buffer.update_priorities(np.arange(20), np.logspace(-3, 3, 20))
    batch = buffer.sample(20_000)
    np.testing.assert_array_equal(batch.weights, 1.0)
    np.testing.assert_allclose(np.bincount(batch.indices), 1000, atol=2)


def test_what_is_new_is_as_urgent_as_the_most_urgent_and_what_is_gone_is_never_drawn(stream, pieces):
    window = stream(150, 2, end_rate=0.3)
    buffer = make(alpha=1.0, n_step=3)
    rng = np.random.default_rng(0)
    for piece in pieces(window, [3, 2]):
        buffer.add(piece)
        if len(buffer):
            batch = buffer.sample(16)
            np.testing.assert_array_equal(batch.actions, batch.observations[:, 0])
            buffer.update_priorities(batch.indices, rng.exponential(size=16) * 3)
    held = buffer.state()["priorities"]
    assert np.count_nonzero(held) == len(buffer)
    np.testing.assert_array_equal(held > 0, buffer.state()["ready"])
    assert held.max() <= buffer.state()["largest_priority"]
    fresh = make(alpha=1.0)
    fresh.add(stream(4, 1, end_rate=0.0))
    fresh.update_priorities(np.arange(4), np.array([0.1, 5.0, 0.2, 0.3]))
    fresh.add(stream(2, 1, end_rate=0.0))
    assert fresh.state()["priorities"][-2] == pytest.approx(5.0)


def test_a_state_resumes_bit_for_bit(stream):
    buffer = make(n_step=2)
    for seed in range(4):
        buffer.add(stream(10, 3, seed=seed))
    buffer.update_priorities(buffer.sample(32).indices, np.linspace(0, 9, 32))
    twin = make(n_step=2, seed=5)
    twin.restore(buffer.state())
    for seed in range(4, 8):
        batches = []
        for each in (buffer, twin):
            each.add(stream(10, 3, seed=seed))
            batches.append(each.sample(32))
            each.update_priorities(batches[-1].indices, batches[-1].rewards)
        for name in batches[0]._fields:
            np.testing.assert_array_equal(*(getattr(batch, name) for batch in batches))


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="alpha and beta"):
        make(alpha=1.5)
    with pytest.raises(ValueError, match="is empty"):
        make().sample(1)
