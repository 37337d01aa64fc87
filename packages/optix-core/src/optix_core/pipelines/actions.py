"""From what an agent returns to what an environment takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from optix_core.errors import AgentError, EnvError
from optix_protocol import Array

if TYPE_CHECKING:
    import gymnasium as gym


def action_encoder(space: gym.Space[Any]) -> Callable[[Array], Array]:
    """Return a function from a batch of an agent's actions ``[N, *act]`` to the environment's actions.

    Continuous actions are clipped to the space's bounds here, at the border, so that the learner keeps the action that
    its distribution produced. Discrete ones are cast to the space's integer type.

    Raises:
        EnvError: an action space that has no array form (Dict, Tuple, Sequence, ...).
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        low, high = space.low, space.high
        dtype = space.dtype
        return lambda actions: np.clip(actions, low, high).astype(dtype, copy=False)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        integer = space.dtype
        return lambda actions: actions.astype(integer, copy=False)
    raise EnvError(
        f"Action space {space} is not supported: use Discrete, MultiDiscrete, MultiBinary or Box, "
        "or wrap the environment so that it has one of them."
    )


def check_actions(actions: Array, space: gym.Space[Any], num_envs: int) -> None:
    """Raise ``AgentError`` if a batch of actions has another shape than ``[N, *act]`` or is not finite."""
    expected = (num_envs, *(space.shape or ()))
    if actions.shape != expected:
        raise AgentError(f"act() returned actions of shape {actions.shape}; this environment needs {expected}.")
    if not np.isfinite(actions).all():
        raise AgentError("act() returned actions that are NaN or infinite; lower the learning rate or check the model.")
