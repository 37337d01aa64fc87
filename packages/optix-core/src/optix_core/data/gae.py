"""Advantages and bootstrap values for on-policy learning, correct at truncation and at auto-reset rows."""

from __future__ import annotations

import numpy as np

from optix_protocol import Array, EpisodeData


def successor_values(episode_data: EpisodeData, values: Array, last_values: Array, final_values: Array) -> Array:
    """Value of the true successor of every row, without evaluating the critic twice on the whole window.

    Inside an episode the successor of row ``t`` is row ``t + 1``, whose value is already known; only the observations
    after the window and those at episode ends are left to evaluate.

    Args:
        episode_data: the window.
        values: ``[T, N]`` values of ``episode_data.observations``.
        last_values: ``[N]`` values of ``episode_data.last_observation``.
        final_values: ``[E]`` values of ``episode_data.final_observations``.

    Returns:
        ``[T, N]`` values of ``episode_data.next_observations``.
    """
    successors = np.concatenate([values[1:], last_values[None]])
    successors[episode_data.done] = final_values  # boolean indexing is row-major: the order of ``ends``
    return successors


def compute_gae(
    rewards: Array,
    values: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    valid: Array | None = None,
    *,
    gamma: float,
    gae_lambda: float,
) -> tuple[Array, Array]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16) with partial-episode bootstrapping.

    ``delta = r + gamma (1 - terminated) V(next) - V`` and
    ``A_t = delta_t + gamma lambda (1 - (terminated | truncated)) A_{t+1}``: a truncated episode still bootstraps from
    its final observation (Pardo et al. 2018), yet nothing is carried over from the episode after it.

    Args:
        rewards: ``[T, N]``.
        values: ``[T, N]`` V of the observations acted on.
        next_values: ``[T, N]`` V of the true next observations (:func:`successor_values`).
        terminated: ``[T, N]`` bool.
        truncated: ``[T, N]`` bool.
        valid: ``[T, N]`` bool; rows that are no transition get advantage 0 and pass nothing on. None: all are.
        gamma: discount in [0, 1].
        gae_lambda: mix between one-step (0) and Monte Carlo (1) advantages.

    Returns:
        Advantages and value targets ``A + V``, both ``[T, N]`` in the dtype of ``values``; computed in float64.
    """
    advantages = rewards + gamma * np.where(terminated, 0.0, next_values) - values.astype(np.float64)
    carry = np.where(terminated | truncated, 0.0, gamma * gae_lambda)
    if valid is not None:
        advantages = np.where(valid, advantages, 0.0)
        carry = np.where(valid, carry, 0.0)
    carried = np.empty(advantages.shape[1:])
    for t in range(len(advantages) - 2, -1, -1):
        np.multiply(carry[t], advantages[t + 1], out=carried)
        advantages[t] += carried
    dtype = values.dtype
    return advantages.astype(dtype), (advantages + values).astype(dtype)
