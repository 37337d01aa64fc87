"""What an on-policy update learns from and what it says of itself, in whatever framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from optix_protocol import Array, EpisodeData


class Batch(NamedTuple):
    """Rows to learn from, all first axes ``R``.

    Attributes:
        observations: encoded, as the networks take them.
        actions: as they were drawn; ``[R]`` or ``[R, D]``.
        log_probs: ``[R]`` under the policy that acted; None where the algorithm needs none.
        values: ``[R]`` by the critic before the update; 0 without one.
        advantages: ``[R]``, normalised if asked for.
        returns: ``[R]`` value targets.
        masks: ``[R, A]`` bool, the actions that were allowed; ``[R, 0]``, or None, where all were.
    """

    observations: Any
    actions: Any
    log_probs: Any
    values: Any
    advantages: Any
    returns: Any
    masks: Any = None

    @classmethod
    def of(
        cls,
        window: EpisodeData,
        *,
        observations: Array,
        actions: Array,
        log_probs: Array,
        values: Array,
        advantages: Array,
        returns: Array,
        masks: Array,
    ) -> Batch:
        """Return a window's valid rows, then zeros: always ``R = T N``, so that compiled code fits every window.

        Args:
            window: the window.
            observations: of all its rows, as the next three: ``[T N, ...]``.
            actions: ``[T N]`` or ``[T N, D]``.
            log_probs: ``[T N]``.
            values: ``[T N]``.
            advantages: of the valid rows only.
            returns: of the valid rows only.
            masks: ``[T N, A]`` or ``[T N, 0]``.
        """
        rows = slice(None) if window.valid.all() else window.valid.reshape(-1)
        columns = (observations[rows], actions[rows], log_probs[rows], values[rows], advantages, returns)
        return cls(*(_filled(column, window.valid.size) for column in (*columns, masks[rows])))

    def map(self, change: Callable[[Any], Any]) -> Batch:
        """Return the batch with every column changed in the same way."""
        return Batch(*map(change, self))


class Diagnostics(NamedTuple):
    """What PPO says of a minibatch, or of many in the mean: numbers, or 0-d arrays of a framework.

    Attributes:
        policy_loss: clipped surrogate, negated.
        value_loss: mean squared error of the values.
        entropy: mean entropy.
        approx_kl: estimate of KL(old || new), ``E[(r - 1) - log r]`` (Schulman 2020).
        clip_fraction: share of ratios outside the clip range.
        grad_norm: norm of the gradient before clipping.
    """

    policy_loss: Any
    value_loss: Any
    entropy: Any
    approx_kl: Any
    clip_fraction: Any
    grad_norm: Any

    def report(self, *, entropy_coef: float, value_coef: float) -> dict[str, float]:
        """Return the numbers by name, behind the ``loss`` that they add up to."""
        loss = self.policy_loss - entropy_coef * self.entropy + value_coef * self.value_loss
        return {"loss": loss, **self._asdict()}


def explained_variance(values: Array, returns: Array) -> float:
    """Return ``1 - Var[R - V] / Var[R]``, 0 where the returns ``[B]`` do not vary."""
    variance = float(returns.var())
    return 1.0 - float((returns - values).var()) / variance if variance > 0 else 0.0


def adapted_learning_rate(learning_rate: float, approx_kl: float, target: float | None) -> float:
    """Keep the policy's step near ``target``: change by 1.5 outside half to twice that (as RSL-RL does)."""
    if target is None:
        return learning_rate
    factor = 1 / 1.5 if approx_kl > 2 * target else 1.5 if approx_kl < target / 2 else 1.0
    return min(max(learning_rate * factor, 1e-5), 1e-2)


def _filled(rows: Array, size: int) -> Array:
    """Return ``[size, ...]``: the rows, then zeros."""
    if len(rows) == size:
        return rows
    filled = np.zeros((size, *rows.shape[1:]), rows.dtype)
    filled[: len(rows)] = rows
    return filled
