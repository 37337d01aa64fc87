from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optix_core.data import ReplayBuffer


def expected_transitions(window, n_step, gamma):
    """By observation number: reward sum, next observation, discount; slowly, from the definition in float64."""
    found = {}
    T, N = window.rewards.shape
    after = window.next_observations
    for n in range(N):
        for t in range(T):
            if not window.valid[t, n]:
                continue
            total = 0.0
            for k in range(1, n_step + 1):
                row = t + k - 1
                if row == T:
                    break  # waits for rewards that the stream does not have
                total += gamma ** (k - 1) * float(window.rewards[row, n])
                if window.done[row, n] or k == n_step:
                    discount = 0.0 if window.terminated[row, n] else gamma**k
                    found[float(window.observations[t, n, 0])] = (total, float(after[row, n, 0]), discount)
                    break
    return found


def num_that_fit(window, capacity):
    """How many transitions the latest whole steps have whose rows fit: one for each cell, one more where it ends."""
    rows = window.num_envs + window.done.sum(axis=1)[::-1]
    return int(window.valid.sum(axis=1)[::-1][rows.cumsum() <= capacity].sum())


def make(capacity=1000, **options):
    shapes = {"observation_shape": (1,), "observation_dtype": np.float32, "action_shape": (), "action_dtype": np.int64}
    return ReplayBuffer(capacity=capacity, **(shapes | options))


def sampled(buffer, draws=4000):
    batch = buffer.sample(draws)
    np.testing.assert_array_equal(batch.actions, batch.observations[:, 0])
    np.testing.assert_array_equal(batch.weights, 1.0)
    rows = zip(batch.observations[:, 0], batch.rewards, batch.next_observations[:, 0], batch.discounts, strict=True)
    return {float(key): tuple(map(float, rest)) for key, *rest in rows}


def check_equal(found, expected):
    for key, (reward, after, discount) in found.items():
        assert expected[key][0] == pytest.approx(reward, abs=1e-5)
        assert expected[key][1] == after
        assert expected[key][2] == pytest.approx(discount, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    T=st.integers(1, 30),
    N=st.integers(1, 3),
    n_step=st.integers(1, 6),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    end_rate=st.sampled_from([0.0, 0.05, 0.3, 0.9]),
    next_step_reset=st.booleans(),
)
def test_transitions_agree_with_their_definition_however_the_stream_is_cut(
    stream, pieces, seed, T, N, n_step, gamma, sizes, end_rate, next_step_reset
):
    window = stream(T, N, seed=seed, end_rate=end_rate, next_step_reset=next_step_reset)
    buffer = make(n_step=n_step, gamma=gamma)
    for piece in pieces(window, sizes):
        buffer.add(piece)
    expected = expected_transitions(window, n_step, gamma)
    assert len(buffer) == len(expected)
    if expected:
        found = sampled(buffer)
        assert found.keys() == expected.keys()
        check_equal(found, expected)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    capacity=st.integers(40, 70),
    n_step=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    next_step_reset=st.booleans(),
)
def test_the_ring_forgets_the_oldest_and_mixes_nothing_up(
    stream, pieces, seed, capacity, n_step, sizes, next_step_reset
):
    N = 2
    window = stream(120, N, seed=seed, next_step_reset=next_step_reset)
    expected = expected_transitions(window, n_step, 0.9)
    buffer = make(capacity=capacity, n_step=n_step, gamma=0.9)
    for piece in pieces(window, sizes):
        buffer.add(piece)
    found = sampled(buffer)
    assert len(found) == len(buffer) <= capacity
    check_equal(found, expected)
    # Of what fits, these steps are missing at most: those that still wait for their rewards, the one to come, and one
    # of which a part has been overwritten.
    most = num_that_fit(window, capacity)
    assert most - N * (n_step + 2) <= len(found) <= most
    surely_there = len(found) - 2 * N * n_step
    assert set(sorted(expected)[len(expected) - surely_there :]) <= found.keys()


@pytest.mark.parametrize(("name", "discount"), [("terminated", 0.0), ("truncated", 0.9**2)])
def test_a_time_limit_bootstraps_and_a_termination_does_not(stream, name, discount):
    window = stream(3, 1, end_rate=0.0)
    ends = np.array([[False], [True], [False]])
    final = np.array([[77.0]], np.float32)
    buffer = make(n_step=3, gamma=0.9)
    buffer.add(replace(window, **{name: ends, "final_observations": final}))
    _, after, found = sampled(buffer)[1.0]
    assert (after, found) == (77.0, pytest.approx(discount))


def test_a_window_that_was_left_out_cuts_what_waits_for_it(stream, pieces):
    window = stream(12, 2, end_rate=0.0)
    first, _, third = pieces(window, [4])
    buffer = make(n_step=3, gamma=0.5)
    buffer.add(first)
    assert len(buffer) == 2 * 2
    buffer.add(third)
    found = sampled(buffer)
    last = window.observations[3, 1, 0]  # its successor is known, two of its rewards are not
    assert found[last] == (pytest.approx(float(window.rewards[3, 1])), float(window.observations[4, 1, 0]), 0.5)
    assert len(found) == 2 * (4 + 2)


def test_another_number_of_environments_begins_anew_without_losing_anything(stream):
    first, second = stream(5, 2, end_rate=0.0), stream(5, 3, end_rate=0.0, seed=1)
    second = replace(second, observations=second.observations + 1000, actions=second.actions + 1000)
    buffer = make(n_step=2, gamma=0.5)
    buffer.add(first)
    buffer.add(second)
    found = sampled(buffer)
    assert len(found) == 5 * 2 + 4 * 3
    for n in range(2):
        last = found[float(first.observations[-1, n, 0])]
        assert last == (pytest.approx(float(first.rewards[-1, n])), float(first.last_observation[n, 0]), 0.5)


@pytest.mark.parametrize("sizes", [[10], [5], [4, 6]])
def test_nothing_goes_on_into_a_row_that_is_no_transition(stream, pieces, sizes):
    """An environment that delivers nothing for a while, without an episode's end."""
    window = stream(10, 1, end_rate=0.0)
    valid = np.ones((10, 1), bool)
    valid[5] = False
    window = replace(window, valid=valid, rewards=np.where(valid, 1.0, np.nan).astype(np.float32))
    buffer = make(n_step=3, gamma=0.5)
    for piece in pieces(window, sizes):
        buffer.add(piece)
    found = sampled(buffer)
    numbers = window.observations[:, 0, 0]
    assert set(found) == set(numbers[[0, 1, 2, 3, 4, 6, 7]])
    assert found[numbers[2]] == (1.75, numbers[5], 0.125)
    assert found[numbers[3]] == (1.5, numbers[5], 0.25)
    assert found[numbers[4]] == (1.0, numbers[5], 0.5)


def test_sampling_is_uniform(stream):
    buffer = make(seed=3)
    buffer.add(stream(25, 2, end_rate=0.3))
    counts = np.bincount(buffer.sample(50_000).indices, minlength=1000)
    counts = counts[counts > 0]
    assert len(counts) == 50
    assert np.square(counts - 1000).sum() / 1000 < 85.4  # chi-squared with 49 degrees of freedom, p = 0.001


def test_a_state_resumes_bit_for_bit_and_is_a_copy(stream, pieces):
    window = stream(200, 2)
    parts = list(pieces(window, [3, 1]))
    buffer = make(capacity=150, n_step=3)
    for piece in parts[:60]:
        buffer.add(piece)
    state = buffer.state()
    copies = [make(capacity=150, n_step=3, seed=9) for _ in range(2)]
    copies[1].add(stream(20, 3, seed=5))  # one that has a past of its own
    for copy in copies:
        copy.restore(state)
    for piece in parts[60:]:
        for each in (buffer, *copies):
            each.add(piece)
        batch, *others = (each.sample(32) for each in (buffer, *copies))
        for other in others:
            for name, array in batch._asdict().items():
                np.testing.assert_array_equal(array, getattr(other, name))


def test_images_stay_bytes_and_are_stored_once(stream):
    buffer = make(capacity=64, observation_shape=(4, 36, 36), observation_dtype=np.uint8)
    rng = np.random.default_rng(0)
    window = stream(20, 1, end_rate=0.0)
    images = rng.integers(0, 256, (21, 1, 4, 36, 36), np.uint8)
    empty = np.zeros((0, 4, 36, 36), np.uint8)
    buffer.add(replace(window, observations=images[:20], last_observation=images[20], final_observations=empty))
    batch = buffer.sample(100)
    assert batch.observations.dtype == np.uint8
    np.testing.assert_array_equal(batch.next_observations, images[batch.actions, 0])
    assert buffer.state()["observations"].nbytes == 21 * 4 * 36 * 36


def test_what_cannot_work_is_said_in_one_line(stream):
    with pytest.raises(ValueError, match="at least 1"):
        make(capacity=0)
    with pytest.raises(ValueError, match="at least 22 rows, not 10: raise capacity"):
        make(capacity=10).add(stream(10, 2, end_rate=0.0, seed=2))
    with pytest.raises(ValueError, match="is empty"):
        make().sample(3)
    with pytest.raises(ValueError, match="1000 rows, this one has 10"):
        make(capacity=10).restore(make().state())
    with pytest.raises(ValueError, match="another environment: its observations"):
        make(observation_shape=(2,)).restore(make().state())
