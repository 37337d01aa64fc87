"""Trajectories of several actors as one window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from optix_protocol import Array, EpisodeData


def join(windows: Sequence[EpisodeData], *, episode_id: int) -> EpisodeData:
    """Return windows ``[T, N]`` of the same ``T`` as one ``[T, N1 + N2 + ...]``, side by side, in new arrays.

    Args:
        windows: of the same environments.
        episode_id: episodes that all sources together had finished at the end of it.

    Returns:
        The window; its versions are the oldest among them.
    """
    order = _order_of_ends(windows)
    first = windows[0]

    def side_by_side(name: str, axis: int = 1) -> Array | None:
        columns = [getattr(window, name) for window in windows]
        return None if any(column is None for column in columns) else np.concatenate(columns, axis=axis)

    def by_end(name: str) -> Array | None:
        joined = side_by_side(name, axis=0)
        return None if joined is None else joined[order]

    rows: dict[str, Any] = {
        name: side_by_side(name)
        for name in (
            "observations", "actions", "rewards", "terminated", "truncated", "valid", "behaviour_log_probs",
            "intrinsic_rewards", "action_mask",
        )
    }  # fmt: skip
    ends: dict[str, Any] = {
        name: by_end(name)
        for name in ("final_observations", "episode_returns", "episode_lengths", "final_action_masks")
    }
    return EpisodeData(
        **rows,
        **ends,
        last_observation=np.concatenate([window.last_observation for window in windows]),
        last_action_mask=side_by_side("last_action_mask", axis=0),
        initial_state=_memories(windows) if first.initial_state is not None else None,
        infos=_infos(windows) if first.infos is not None else None,
        episode_infos=_ends_said(windows, order),
        policy_version=min(window.policy_version for window in windows),
        hyperparam_version=min(window.hyperparam_version for window in windows),
        episode_id=episode_id,
    )


def _order_of_ends(windows: Sequence[EpisodeData]) -> Array:
    """Return the order in which the ends of all windows, one after the other, are those of the joined window."""
    times = np.concatenate([window.ends[:, 0] for window in windows])
    offsets = np.cumsum([0, *(window.num_envs for window in windows[:-1])])
    envs = np.concatenate([window.ends[:, 1] + offset for window, offset in zip(windows, offsets, strict=True)])
    return np.lexsort((envs, times))


def _memories(windows: Sequence[EpisodeData]) -> Mapping[str, Array]:
    states = [window.initial_state or {} for window in windows]
    return {name: np.concatenate([state[name] for state in states]) for name in states[0]}


def _infos(windows: Sequence[EpisodeData]) -> Mapping[str, Array]:
    """Return what environments said; one that did not say it has zeros, and says so in ``"_name"``."""
    said = [window.infos or {} for window in windows]
    shapes = {name: column for infos in said for name, column in infos.items()}
    return {
        name: np.concatenate(
            [
                infos[name] if name in infos else np.zeros((*window.rewards.shape, *like.shape[2:]), like.dtype)
                for infos, window in zip(said, windows, strict=True)
            ],
            axis=1,
        )
        for name, like in shapes.items()
    }


def _ends_said(windows: Sequence[EpisodeData], order: Array) -> Mapping[str, Array]:
    names = dict.fromkeys(name for window in windows for name in window.episode_infos)
    return {
        name: np.concatenate([window.episode_infos.get(name, np.full(len(window.ends), np.nan)) for window in windows])[
            order
        ]
        for name in names
    }
