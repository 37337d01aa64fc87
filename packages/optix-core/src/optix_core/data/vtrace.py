"""V-trace: values and advantages of a policy from what an earlier one did, correct at truncation and reset rows."""

from __future__ import annotations

import numpy as np

from optix_protocol import Array


def compute_vtrace(
    rewards: Array,
    values: Array,
    next_values: Array,
    terminated: Array,
    truncated: Array,
    log_ratios: Array,
    valid: Array | None = None,
    *,
    gamma: float,
    trace_decay: float = 1.0,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> tuple[Array, Array]:
    """V-trace (Espeholt et al. 2018, eq. 1 and section 4.2) with partial-episode bootstrapping.

    With ``rho = exp(log pi - log mu)`` of the learner's policy ``pi`` and the one that acted, ``mu``,
    ``discount = gamma (1 - terminated)`` and ``cut = 1 - (terminated | truncated)``:

    - ``delta = min(rho_bar, rho) (r + discount V(next) - V)``,
    - ``D_t = delta_t + gamma cut lambda min(c_bar, rho) D_{t+1}``, and the target of the value is ``vs = V + D``,
    - the advantage is ``min(rho_bar, rho) (r + discount (cut vs_{t+1} + (1 - cut) V(next)) - V)``.

    A truncated episode bootstraps from its final observation (Pardo et al. 2018), and nothing is carried over from the
    episode after it; the last row bootstraps from the observation after it. With ``rho = 1`` the targets are those of
    :func:`~optix_core.data.compute_gae`.

    Args:
        rewards: ``[T, N]``.
        values: ``[T, N]`` V of the observations acted on.
        next_values: ``[T, N]`` V of the true next observations (:func:`~optix_core.data.successor_values`).
        terminated: ``[T, N]`` bool.
        truncated: ``[T, N]`` bool.
        log_ratios: ``[T, N]`` ``log pi(a|s) - log mu(a|s)``.
        valid: ``[T, N]`` bool; rows that are no transition get advantage 0 and pass nothing on. None: all are.
        gamma: discount in [0, 1].
        trace_decay: ``lambda`` in [0, 1], how much of later corrections is carried back.
        rho_bar: largest weight of a row; decides which policy the values are of.
        c_bar: largest weight with which corrections are carried back; decides how quickly they spread.

    Returns:
        Advantages, which hold the weight of their row, and value targets ``vs``, both ``[T, N]`` in the dtype of
        ``values``; computed in float64.
    """
    known = np.ones(rewards.shape, np.bool_) if valid is None else valid
    ratios = np.exp(np.where(known, log_ratios, 0.0).astype(np.float64))
    weights = np.where(known, np.minimum(ratios, rho_bar), 0.0)
    ended = terminated | truncated
    v = values.astype(np.float64)
    bootstraps = gamma * np.where(terminated, 0.0, next_values)
    corrections = weights * (rewards + bootstraps - v)
    carry = np.where(known & ~ended, gamma * trace_decay * np.minimum(ratios, c_bar), 0.0)
    for t in range(len(corrections) - 2, -1, -1):
        corrections[t] += carry[t] * corrections[t + 1]
    targets = v + corrections
    within = ~ended[:-1]
    bootstraps[:-1][within] = gamma * targets[1:][within]
    advantages = weights * (rewards + bootstraps - v)
    return advantages.astype(values.dtype), targets.astype(values.dtype)
