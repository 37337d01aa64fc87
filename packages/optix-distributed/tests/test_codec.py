"""Trajectories survive the way; what is no trajectory is refused, whatever it is."""

from contextlib import suppress
from dataclasses import fields, replace

import numpy as np
import pytest
from gymnasium import spaces

from optix_distributed.codec import DamagedTrajectoryError, Origin, decode, encode, message_bound
from optix_distributed.joining import join
from optix_protocol import EpisodeData
from optix_protocol.testing import random_window

SPACES = spaces.Box(-1, 1, (3, 2), np.float32), spaces.Discrete(4)
ORIGIN = Origin(actor=3, incarnation=2, sequence=70)


def full_window(seed=0, T=9, N=3):
    """A window in which every field says something."""
    rng = np.random.default_rng(seed)
    window = random_window(*SPACES, num_steps=T, num_envs=N, seed=seed)
    episodes = len(window.ends)
    return replace(
        window,
        behaviour_log_probs=rng.normal(size=(T, N)).astype(np.float32),
        intrinsic_rewards=rng.normal(size=(T, N)),
        action_mask=rng.random((T, N, 4)) < 0.5,
        last_action_mask=rng.random((N, 4)) < 0.5,
        final_action_masks=rng.random((episodes, 4)) < 0.5,
        initial_state={"h": rng.normal(size=(N, 5)).astype(np.float32)},
        infos={"distance": rng.normal(size=(T, N)), "_distance": rng.random((T, N)) < 0.5},
        episode_infos={"is_success": rng.random(episodes)},
        policy_version=12,
        hyperparam_version=3,
        episode_id=99,
    )


def equal(a, b):
    for field in fields(EpisodeData):
        ours, theirs = getattr(a, field.name), getattr(b, field.name)
        if hasattr(ours, "keys"):
            assert ours.keys() == theirs.keys()
            pairs = [(ours[name], theirs[name]) for name in ours]
        else:
            pairs = [(ours, theirs)]
        for left, right in pairs:
            np.testing.assert_array_equal(left, right, err_msg=field.name)
            assert getattr(left, "dtype", None) == getattr(right, "dtype", None), field.name


def message(window):
    return b"".join(bytes(piece) for piece in encode(window, ORIGIN))


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost(seed):
    for window in (full_window(seed), random_window(*SPACES, num_steps=4, num_envs=2, seed=seed)):
        arrived, origin = decode(memoryview(message(window)))
        equal(arrived, window)
        assert origin == ORIGIN


def test_what_is_cut_or_changed_is_refused():
    data = message(full_window())
    for length in range(0, len(data) - 8, 97):
        with pytest.raises(DamagedTrajectoryError):
            decode(memoryview(data[:length]))
    rng = np.random.default_rng(0)
    for _ in range(300):  # a change in the numbers themselves is not noticed here, one of the form is
        changed = bytearray(data)
        changed[rng.integers(min(len(data), 400))] = rng.integers(256)
        with suppress(DamagedTrajectoryError):
            decode(memoryview(bytes(changed)))


def test_the_bound_holds_where_every_step_ends_an_episode():
    window = full_window(T=1, N=1)
    worst = full_window(T=16, N=4)
    worst = replace(
        worst, terminated=np.ones((16, 4), bool), truncated=np.zeros((16, 4), bool), valid=np.ones((16, 4), bool)
    )
    worst = replace(
        worst,
        final_observations=np.zeros((64, *worst.observations.shape[2:]), worst.observations.dtype),
        episode_returns=np.zeros(64),
        episode_lengths=np.ones(64, np.int64),
        final_action_masks=np.ones((64, 4), bool),
        episode_infos={f"number {i}": np.zeros(64) for i in range(10)},
    )
    assert len(message(worst)) <= message_bound(window, num_steps=16, num_envs=4)


def test_joined_windows_are_side_by_side():
    parts = [full_window(seed) for seed in range(3)]
    whole = join(parts, episode_id=5)
    whole.check()
    assert whole.rewards.shape == (9, 9) and whole.episode_id == 5
    for i, part in enumerate(parts):
        columns = slice(3 * i, 3 * i + 3)
        np.testing.assert_array_equal(whole.next_observations[:, columns], part.next_observations)
        np.testing.assert_array_equal(whole.next_action_mask[:, columns], part.next_action_mask)
        np.testing.assert_array_equal(whole.infos["distance"][:, columns], part.infos["distance"])
        mine = (whole.ends[:, 1] >= 3 * i) & (whole.ends[:, 1] < 3 * i + 3)
        np.testing.assert_array_equal(whole.episode_returns[mine], part.episode_returns)
        np.testing.assert_array_equal(whole.episode_infos["is_success"][mine], part.episode_infos["is_success"])
