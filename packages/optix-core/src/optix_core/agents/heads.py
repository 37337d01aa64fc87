"""What a policy network's outputs mean for an action space: logits, or the means of a Gaussian."""

from __future__ import annotations

from typing import Any

import numpy as np

from optix_core.errors import ConfigError
from optix_core.policies import Categorical, DiagonalGaussian, MultiCategorical


def num_outputs_for(action_space: Any) -> int:
    """Return how many outputs a network needs for the actions of a space: logits, or one mean per dimension."""
    if hasattr(action_space, "n"):
        return int(action_space.n)
    return int(np.sum(action_space.nvec)) if hasattr(action_space, "nvec") else int(np.prod(action_space.shape))


def make_head(
    action_space: Any, num_outputs: int, *, log_std_init: float, continuous: bool = False
) -> Categorical | MultiCategorical | DiagonalGaussian:
    """Return what turns the outputs of a new network into actions.

    Args:
        action_space: of a single environment; None stands for discrete actions from 0, or for continuous ones in units
            of their own.
        num_outputs: width of the network's outputs.
        log_std_init: first logarithm of a Gaussian's deviations.
        continuous: only continuous actions will do.

    Raises:
        ConfigError: the network has another number of outputs than the space needs, or the space is not continuous.
    """
    if action_space is not None and num_outputs_for(action_space) != num_outputs:
        raise ConfigError(f"The actor has {num_outputs} outputs, {action_space} needs another number.")
    if continuous and not (action_space is None or hasattr(action_space, "low")):
        raise ConfigError(f"A Gaussian policy acts in Box spaces, not in {action_space}.")
    if action_space is None and not continuous:
        return Categorical()
    if hasattr(action_space, "nvec"):
        nvec, start = action_space.nvec.reshape(-1), action_space.start.reshape(-1)
        return MultiCategorical(nvec=tuple(map(int, nvec)), start=tuple(map(int, start)))
    if hasattr(action_space, "n"):
        return Categorical(start=int(action_space.start))
    high, shape = np.full(num_outputs, np.inf, np.float32), (num_outputs,)
    low = -high
    if action_space is not None:
        low, high, shape = action_space.low.reshape(-1), action_space.high.reshape(-1), action_space.shape
    log_std = np.full(num_outputs, log_std_init, np.float32)
    return DiagonalGaussian(low=low, high=high, shape=shape, log_std=log_std)
