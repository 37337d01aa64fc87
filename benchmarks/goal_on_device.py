"""The sparse goals of ``examples/point_goal.py`` in a plane, as pure functions; importing this registers them.

``SparsePoint-v0``: a point with inertia in a square is to reach a place drawn at random: 0 there and -1 everywhere
else, 50 steps. Without hindsight a policy sees hardly a reward in its first hundreds of thousands of steps, so that the
scores lie on a plateau, which is not the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np

from optix_jax.environments import Transition, register


@dataclass(frozen=True)
class SparsePoint:
    """Accelerate a point; observations are its position, its velocity and its goal.

    Attributes:
        dims: of the space.
        radius: of the goal.
        max_steps: time limit.
    """

    dims: int = 2
    radius: float = 0.05
    max_steps: int = 50

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Position, velocity, goal."""
        return gym.spaces.Box(-1.0, 1.0, (3 * self.dims,), np.float32)

    @property
    def action_space(self) -> gym.Space[Any]:
        """Acceleration."""
        return gym.spaces.Box(-1.0, 1.0, (self.dims,), np.float32)

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """Begin at rest in the centre."""
        still = jnp.zeros(self.dims)
        goal = jax.random.uniform(key, (self.dims,), minval=-1.0, maxval=1.0)
        return jnp.concatenate([still, still, goal]), (still, still, goal, jnp.int32(0))

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Transition:
        """Move."""
        del key
        position, velocity, goal, time = state
        velocity = jnp.clip(0.9 * velocity + 0.02 * action, -0.1, 0.1)
        moved = position + velocity
        position = jnp.clip(moved, -1.0, 1.0)
        velocity = jnp.where(moved != position, 0.0, velocity)  # a wall
        reward = -(jnp.linalg.norm(position - goal) > self.radius).astype(jnp.float32)
        after = (position, velocity, goal, time + 1)
        return Transition(jnp.concatenate(after[:3]), after, reward, jnp.zeros((), bool), time + 1 >= self.max_steps)


register("SparsePoint-v0", SparsePoint())
