"""Stacked pictures are read as they were written, although each is kept once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optix_core.data import PrioritizedReplayBuffer, ReplayBuffer

K = 3


def stacked(window, padding, rng):
    """Turn the numbers of a stream into stacks of pictures ``[K, 2, 1]``; return it and all stacks by number."""
    T, N = window.rewards.shape
    after = window.next_observations
    stacks = {}

    def begin(number):
        older = {"repeat": [number] * (K - 1), "zeros": [0.0] * (K - 1), "noise": list(rng.normal(size=K - 1))}[padding]
        stacks[number] = [*older, number]

    for n in range(N):
        begin(float(window.observations[0, n, 0]))
        for t in range(T):
            here, there = float(window.observations[t, n, 0]), float(after[t, n, 0])
            stacks[there] = [*stacks[here][1:], there]
            following = window.observations[t + 1, n, 0] if t + 1 < T else window.last_observation[n, 0]
            if float(following) != there or not window.valid[t, n]:
                begin(float(following))

    def look(numbers):
        flat = [stacks[float(number)] for number in numbers.reshape(-1)]
        pictures = np.array(flat, np.float32).reshape(*numbers.shape[:-1], K, 1, 1)
        return np.concatenate([pictures, -pictures], axis=-2)

    looks = {name: look(getattr(window, name)) for name in ("observations", "last_observation", "final_observations")}
    return replace(window, **looks), {number: look(np.array([number])) for number in stacks}


def make(capacity=1000, *, kind=ReplayBuffer, **options):
    shapes = {"observation_shape": (K, 2, 1), "observation_dtype": np.float32}
    return kind(capacity=capacity, **shapes, action_shape=(), action_dtype=np.int64, frame_stack=K, **options)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    capacity=st.sampled_from([300, 400, 5000]),
    N=st.integers(1, 3),
    n_step=st.integers(1, 3),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    end_rate=st.sampled_from([0.0, 0.1, 0.4]),
    next_step_reset=st.booleans(),
    padding=st.sampled_from(["repeat", "zeros", "noise"]),
    kind=st.sampled_from([ReplayBuffer, PrioritizedReplayBuffer]),
)
def test_what_is_read_is_what_was_written(
    stream, pieces, seed, capacity, N, n_step, sizes, end_rate, next_step_reset, padding, kind
):
    plain = stream(200, N, seed=seed, end_rate=end_rate, next_step_reset=next_step_reset)
    window, stacks = stacked(plain, padding, np.random.default_rng(seed))
    buffer = make(capacity, kind=kind, n_step=n_step)
    whole = ReplayBuffer(
        capacity=10_000, observation_shape=(1,), observation_dtype=np.float32, action_shape=(), action_dtype=np.int64,
        n_step=n_step,
    )  # fmt: skip
    seen = set()
    for piece, numbers in zip(pieces(window, sizes), pieces(plain, sizes), strict=True):
        buffer.add(piece)
        whole.add(numbers)
        if not len(buffer):
            continue
        batch = buffer.sample(32)
        np.testing.assert_array_equal(batch.observations, [stacks[float(number)] for number in batch.actions])
        newest = batch.next_observations[:, -1, 0, 0]
        np.testing.assert_array_equal(batch.next_observations, [stacks[float(number)] for number in newest])
        seen |= set(batch.actions)
    if capacity == 5000:
        assert len(buffer) == len(whole)
    assert len(buffer) >= min(len(whole), capacity // 8)
    assert len(seen) > 30


def test_a_state_resumes_bit_for_bit(stream, pieces):
    window, _ = stacked(stream(200, 2), "zeros", np.random.default_rng(0))
    parts = list(pieces(window, [3, 1]))
    buffer, twin = make(200, n_step=2), make(200, n_step=2, seed=5)
    for piece in parts[:70]:
        buffer.add(piece)
    twin.restore(buffer.state())
    for piece in parts[70:]:
        buffer.add(piece)
        twin.add(piece)
        ours, theirs = buffer.sample(32), twin.sample(32)
        for name in ours._fields:
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_each_picture_is_kept_once(stream):
    window, _ = stacked(stream(100, 1, end_rate=0.0), "repeat", np.random.default_rng(0))
    buffer = make()
    buffer.add(window)
    assert buffer.state()["observations"].shape == (101 + K - 1, 2, 1)


def test_a_stack_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"frame_stack=3 needs observations \[3, ...\]"):
        ReplayBuffer(
            capacity=10, observation_shape=(4, 2), observation_dtype=np.uint8, action_shape=(), action_dtype=np.int64,
            frame_stack=3,
        )  # fmt: skip


def test_a_memory_that_does_not_fit_is_said_in_one_line():
    types = {"observation_dtype": np.uint8, "action_shape": (), "action_dtype": np.int64}
    with pytest.raises(ValueError, match=r"\(4, 84, 84\) does not fit into this machine: lower capacity"):
        ReplayBuffer(capacity=10**12, observation_shape=(4, 84, 84), **types)


def test_a_window_must_fit_beside_the_pictures_that_its_stacks_reach_back_to(stream, pieces):
    window, _ = stacked(stream(52, 1, end_rate=0.0), "repeat", np.random.default_rng(0))
    first, second = pieces(window, [2, 50])
    memory = make(40)
    memory.add(first)
    # 50 steps and the upcoming observation; an older picture is at most a row and the 2 that began the episode away.
    with pytest.raises(ValueError, match=f"at least {50 + 1 + 2 * (1 + 2)} rows, not 40"):
        memory.add(second)
