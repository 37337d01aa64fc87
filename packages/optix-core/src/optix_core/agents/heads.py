"""What a policy network's outputs mean for an action space: logits, or the means of a Gaussian."""

from __future__ import annotations

from typing import Any

import numpy as np

from optix_core.errors import ConfigError, in_one_line
from optix_core.policies import Bernoulli, Categorical, DiagonalGaussian, MultiCategorical, SquashedGaussian
from optix_core.policies.ranges import bounds_of, number_type

_MOST_OUTPUTS = 1_000_000


def num_outputs_for(action_space: Any) -> int:
    """Return how many outputs a network needs for the actions of a space: logits, or one mean per dimension.

    Raises:
        ConfigError: more than a network can have.
    """
    if hasattr(action_space, "nvec"):
        number = int(np.sum(action_space.nvec))
    elif hasattr(action_space, "n") and not is_multi_binary(action_space):
        number = int(action_space.n)
    else:
        number = int(np.prod(action_space.shape))
    if number < 1:
        raise ConfigError(f"There is nothing to choose in the action space {in_one_line(action_space)}.")
    if number > _MOST_OUTPUTS:
        raise ConfigError(
            f"{in_one_line(action_space)} has too many actions for a network with an output for each ({number:,}): "
            "wrap the environment so that an action is made up of several small choices (MultiDiscrete)."
        )
    return number


def is_multi_binary(action_space: Any) -> bool:
    """Whether a space holds switches: like a Discrete it has ``n``, but its actions are arrays."""
    return hasattr(action_space, "n") and tuple(action_space.shape) != ()


def make_head(
    action_space: Any,
    num_outputs: int,
    *,
    log_std_init: float,
    continuous: bool = False,
    action_dim: int | None = None,
) -> Categorical | MultiCategorical | Bernoulli | DiagonalGaussian | SquashedGaussian:
    """Return what turns the outputs of a new network into actions.

    Two outputs for every number of a continuous action are means and logarithms of deviations ``[mean || log_std]`` of
    a Gaussian through tanh; one output is a mean, whose deviation is a parameter of its own.

    Args:
        action_space: of a single environment; None stands for discrete actions from 0, or for continuous ones in units
            of their own (through tanh: from -1 to 1).
        num_outputs: width of the network's outputs.
        log_std_init: first logarithm of a Gaussian's deviations.
        continuous: only continuous actions will do.
        action_dim: how many actions there are, or how many numbers in one, where the space does not say it.

    Raises:
        ConfigError: the network has another number of outputs than the space needs, or the space is not continuous.
    """
    if continuous or hasattr(action_space, "low"):
        size = action_dim or num_outputs
        if action_space is not None and hasattr(action_space, "low"):
            size = num_outputs_for(action_space)
        if num_outputs == 2 * size:
            return _squashed(action_space, size)
    if action_space is None and action_dim not in (None, num_outputs):
        both = f"{action_dim} or {2 * action_dim}" if continuous and action_dim else action_dim
        raise ConfigError(f"The actor has {num_outputs} outputs; {action_dim} actions need {both}.")
    if action_space is not None and num_outputs_for(action_space) != num_outputs:
        raise ConfigError(f"The actor has {num_outputs} outputs, {action_space} needs another number.")
    if continuous and not (action_space is None or hasattr(action_space, "low")):
        raise ConfigError(f"A Gaussian policy acts in Box spaces, not in {action_space}.")
    if action_space is None and not continuous:
        return Categorical()
    if hasattr(action_space, "nvec"):
        nvec, start = action_space.nvec.reshape(-1), action_space.start.reshape(-1)
        return MultiCategorical(
            nvec=tuple(map(int, nvec)),
            start=tuple(map(int, start)),
            shape=None if action_space.nvec.ndim == 1 else action_space.nvec.shape,
        )
    if is_multi_binary(action_space):
        return Bernoulli(shape=tuple(action_space.shape))
    if hasattr(action_space, "n"):
        return Categorical(start=int(action_space.start))
    log_std = np.full(num_outputs, log_std_init, np.float32)
    if action_space is None:
        high = np.full(num_outputs, np.inf, np.float32)
        return DiagonalGaussian(low=-high, high=high, shape=(num_outputs,), log_std=log_std)
    low, high = bounds_of(action_space)
    return DiagonalGaussian(
        low=low, high=high, shape=action_space.shape, log_std=log_std, dtype=number_type(action_space.dtype)
    )


def _squashed(action_space: Any, size: int) -> SquashedGaussian:
    """Return a Gaussian through tanh, to a space's range."""
    if action_space is None:
        high = np.ones(size, np.float32)
        return SquashedGaussian(low=-high, high=high, shape=(size,))
    low, high = bounds_of(action_space)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ConfigError(
            f"An actor with [mean || log_std] squashes actions into a range, and {in_one_line(action_space)} has none: "
            f"let it give {size} outputs, means only."
        )
    return SquashedGaussian(low=low, high=high, shape=action_space.shape, dtype=number_type(action_space.dtype))
