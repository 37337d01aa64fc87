"""How probable the actions were that a head drew."""

from __future__ import annotations

import math

import numpy as np

from optix_core.errors import ConfigError
from optix_core.policies.heads import Bernoulli, Categorical, DiagonalGaussian, Head, MultiCategorical
from optix_protocol import Array

_LOG_2PI = math.log(2 * math.pi)


def log_probs_of(head: Head, outputs: Array, actions: Array, mask: Array | None = None) -> Array:
    """Return the log-probability of each action, as agents judge it that learn from what they did.

    Args:
        head: drew the actions.
        outputs: ``[N, out]``, the network's.
        actions: ``[N, *act]``, not clipped.
        mask: bool ``[N, A]``, what was allowed, or None.

    Returns:
        ``[N]``: the sum over the parts of an action. Densities are those in units where the range is -1 to 1.

    Raises:
        ConfigError: the head is none of a stochastic policy that learns on-policy.
    """
    if isinstance(head, DiagonalGaussian):
        centre, scale = head.affine
        unit = (actions.reshape(outputs.shape) - centre) / scale
        z = (unit - outputs) * np.exp(-head.log_std)
        density: Array = -0.5 * np.square(z).sum(axis=1) - (head.log_std.sum() + 0.5 * _LOG_2PI * outputs.shape[1])
        return density
    if not isinstance(head, Categorical | MultiCategorical | Bernoulli):
        raise ConfigError(f"Actions of a {type(head).__name__} have no log-probabilities that a learner could use.")
    log_probs = head.distribution(outputs, mask).log_probs
    assert log_probs is not None
    flat = actions.reshape(len(outputs), -1).astype(np.int64)
    if isinstance(head, Bernoulli):
        columns = flat + 2 * np.arange(flat.shape[1])
    elif isinstance(head, MultiCategorical):
        columns = flat - np.array(head.start) + np.cumsum((0, *head.nvec[:-1]))
    else:
        columns = flat - head.start
    found: Array = np.take_along_axis(log_probs, columns, axis=1).sum(axis=1)
    return found
