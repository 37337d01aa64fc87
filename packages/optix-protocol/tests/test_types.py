"""What the data types promise: shapes, exact successors, and messages that say what to mend."""

import re
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optix_protocol import EpisodeData, LoopState, Verdict
from optix_protocol.conformance import example_case, make_window, reorder_environments


def small_window() -> EpisodeData:
    """Three steps of two environments; environment 1 terminates at step 0, environment 0 is truncated at step 1."""
    return EpisodeData(
        observations=np.arange(6.0).reshape(3, 2, 1),
        actions=np.zeros((3, 2), np.int64),
        rewards=np.ones((3, 2)),
        terminated=np.array([[False, True], [False, False], [False, False]]),
        truncated=np.array([[False, False], [True, False], [False, False]]),
        valid=np.array([[True, True], [True, False], [True, True]]),
        last_observation=np.array([[6.0], [7.0]]),
        final_observations=np.array([[-1.0], [-2.0]]),
        episode_returns=np.array([1.0, 2.0]),
        episode_lengths=np.array([1, 2]),
    )


def test_counts_and_ends():
    window = small_window()
    window.check()
    assert (window.num_steps, window.num_envs, window.num_env_steps) == (3, 2, 5)
    assert window.ends.tolist() == [[0, 1], [1, 0]]
    assert window.done.tolist() == [[False, True], [True, False], [False, False]]


def test_successors_are_exact():
    successors = small_window().next_observations[..., 0]
    # (0, 1) ends: its own final observation, not the reset row's; likewise (1, 0); the last row has last_observation.
    assert successors.tolist() == [[2.0, -1.0], [-2.0, 5.0], [6.0, 7.0]]


def test_successors_do_not_alias_observations():
    window = small_window()
    window.next_observations[:] = 0.0
    assert window.observations[1, 0, 0] == 2.0


def test_memory_begins_anew_after_ends_and_after_rows_that_are_no_transition():
    # (0, 1) and (1, 0) end episodes; (1, 1) is a reset row. What the first row remembers is initial_state's affair.
    assert small_window().episode_starts.tolist() == [[False, False], [False, True], [True, True]]


def test_flat_takes_valid_rows_in_order_of_time():
    window = small_window()
    assert window.flat(window.observations)[:, 0].tolist() == [0.0, 1.0, 2.0, 4.0, 5.0]


def test_frozen_and_keyword_only():
    with pytest.raises(FrozenInstanceError):
        small_window().rewards = np.zeros((3, 2))
    with pytest.raises(TypeError):
        EpisodeData(np.zeros((1, 1)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": np.ones(6)}, "rewards must be [T, N], got shape (6,): stack time first"),
        ({"terminated": np.zeros((3, 2))}, "terminated must be a bool array of shape (3, 2), got float64 (3, 2)"),
        ({"truncated": np.zeros((2, 3), bool)}, "truncated must be a bool array of shape (3, 2), got bool (2, 3)"),
        ({"valid": np.ones((3, 1), bool)}, "valid must be a bool array of shape (3, 2), got bool (3, 1)"),
        ({"observations": np.zeros((2, 3, 1))}, "observations must start with [T, N] = (3, 2), got (2, 3, 1)"),
        ({"actions": np.zeros(6)}, "actions must start with [T, N] = (3, 2), got (6,)"),
        ({"last_observation": np.zeros((2, 4))}, "last_observation must be [N, *obs] = (2, 1), got (2, 4)"),
        ({"valid": np.zeros((3, 2), bool)}, "a row that is not valid ends an episode"),
        ({"final_observations": np.zeros((1, 1))}, "final_observations needs one entry per episode end (2), got 1"),
        ({"final_observations": np.zeros((2, 4))}, "final_observations must be [E, *obs] with obs = (1,), got (2, 4)"),
        ({"behaviour_log_probs": np.zeros(6)}, "behaviour_log_probs must be [T, N] = (3, 2) or None, got (6,)"),
        ({"intrinsic_rewards": np.zeros((2, 3))}, "intrinsic_rewards must be [T, N] = (3, 2) or None, got (2, 3)"),
        ({"initial_state": {"h": np.zeros((3, 8))}}, "initial_state['h'] must start with [N] = (2,), got (3, 8)"),
        ({"episode_returns": np.zeros(3)}, "episode_returns needs one entry per episode end (2), got 3"),
        ({"episode_lengths": np.zeros(0)}, "episode_lengths needs one entry per episode end (2), got 0"),
    ],
)
def test_check_says_what_to_mend(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(small_window(), **changes).check()


def test_enums_are_their_names_in_json():
    assert [f"{verdict}" for verdict in Verdict] == [verdict.name for verdict in Verdict]
    assert [f"{state}" for state in LoopState] == [state.name for state in LoopState]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    num_steps=st.integers(1, 7),
    num_envs=st.integers(1, 4),
    seed=st.integers(0, 99),
    reset_rows=st.booleans(),
    data=st.data(),
)
def test_views_agree_with_a_walk_through_the_columns(num_steps, num_envs, seed, reset_rows, data):
    """Vectorised views against the definition, spelled out cell by cell."""
    cells = data.draw(
        st.lists(
            st.tuples(st.integers(0, num_steps - 1), st.integers(0, num_envs - 1)), max_size=6, unique=True
        ).filter(lambda cells: not reset_rows or not {(t + 1, n) for t, n in cells} & set(cells))
    )
    window = make_window(
        example_case(),
        num_steps=num_steps,
        num_envs=num_envs,
        seed=seed,
        terminated=cells[::2],
        truncated=cells[1::2],
        reset_rows=reset_rows,
    )
    final = iter(window.final_observations)
    for t in range(num_steps):
        for n in range(num_envs):
            if window.terminated[t, n] or window.truncated[t, n]:
                expected = next(final)
            elif t == num_steps - 1:
                expected = window.last_observation[n]
            else:
                expected = window.observations[t + 1, n]
            np.testing.assert_array_equal(window.next_observations[t, n], expected)
    assert window.num_env_steps == len(window.flat(window.rewards))


def test_reordering_environments_keeps_every_transition():
    window = make_window(example_case(), seed=3)
    order = [2, 0, 1]
    other = reorder_environments(window, order)
    other.check()
    for new, old in enumerate(order):
        np.testing.assert_array_equal(other.observations[:, new], window.observations[:, old])
        np.testing.assert_array_equal(other.next_observations[:, new], window.next_observations[:, old])
    assert sorted(other.episode_returns) == sorted(window.episode_returns)
    back = reorder_environments(other, [1, 2, 0])
    np.testing.assert_array_equal(back.final_observations, window.final_observations)
