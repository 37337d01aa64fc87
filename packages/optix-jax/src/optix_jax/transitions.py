"""What a step of a pure environment returns."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax


class Transition(NamedTuple):
    """One step of one environment.

    Attributes:
        observation: ``[*obs]`` after the step, the true final one where the episode ends.
        state: the environment's state after the step.
        reward: a scalar.
        terminated: the future is worth nothing.
        truncated: the episode was cut off, by a time limit say.
    """

    observation: jax.Array
    state: Any
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
