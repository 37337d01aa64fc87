"""From what an agent returns to what an environment takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from optix_core.errors import AgentError, EnvError, in_one_line
from optix_core.policies.ranges import fitted, is_whole
from optix_protocol import Array

if TYPE_CHECKING:
    import gymnasium as gym


def action_encoder(space: gym.Space[Any]) -> Callable[[Array], Array]:
    """Return a function from a batch of an agent's actions ``[N, *act]`` to the environment's actions.

    Continuous actions are clipped to the space's bounds here, at the border, so that the learner keeps the action that
    its distribution produced; where the Box holds whole numbers, they are rounded. Discrete ones are cast to the
    space's integer type. The function raises ``AgentError`` for actions that are not in a discrete space, and for NaN
    in the place of a whole number.

    Raises:
        EnvError: an action space that has no array form (Dict, Tuple, Sequence, ...).
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        return partial(_whole_numbers if is_whole(np.dtype(space.dtype)) else _real_numbers, space)
    if isinstance(space, spaces.Discrete):
        return partial(_choices, space, np.int64(space.start) if space.start else None, np.uint64(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return partial(_choices, space, space.start.astype(np.int64), space.nvec.astype(np.uint64))
    if isinstance(space, spaces.MultiBinary):
        return partial(_choices, space, None, np.uint64(2))
    raise EnvError(
        f"Action space {space} is not supported: use Discrete, MultiDiscrete, MultiBinary or Box, "
        "or wrap the environment so that it has one of them."
    )


def _real_numbers(space: Any, actions: Array) -> Array:
    clipped: Array = np.clip(actions, space.low, space.high).astype(space.dtype, copy=False)
    return clipped


def _whole_numbers(space: Any, actions: Array) -> Array:
    if actions.dtype.kind == "f" and not np.isfinite(actions).all():
        raise AgentError(_NOT_FINITE)
    return fitted(actions, space.low, space.high, space.dtype)


def _choices(space: Any, start: Any, sizes: Any, actions: Array) -> Array:
    choices = actions.astype(np.int64, copy=False)
    # Below the start, a difference is huge as an unsigned number: one comparison for both ends.
    outside = (choices if start is None else choices - start).view(np.uint64) >= sizes
    if np.count_nonzero(outside):  # an array of a few is sooner counted than asked for any
        wrong = choices[np.argwhere(outside)[0][0]]
        raise AgentError(
            f"act() returned the action {in_one_line(wrong)}, which is not in this environment's {in_one_line(space)}: "
            "the agent was made for another environment."
        )
    encoded: Array = actions.astype(space.dtype, copy=False)
    return encoded


_NOT_FINITE = "act() returned actions that are NaN or infinite; lower the learning rate or check the model."


def check_actions(actions: Array, space: gym.Space[Any], num_envs: int) -> None:
    """Raise ``AgentError`` if a batch of actions has another shape than ``[N, *act]`` or is not finite."""
    expected = (num_envs, *(space.shape or ()))
    if actions.shape != expected:
        raise AgentError(f"act() returned actions of shape {actions.shape}; this environment needs {expected}.")
    if actions.dtype.kind not in "biu" and not np.isfinite(actions).all():
        raise AgentError(_NOT_FINITE)
