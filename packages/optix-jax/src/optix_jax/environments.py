"""Environments that are pure functions, so that they can be stepped inside compiled code."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from optix_core.errors import EnvError

if TYPE_CHECKING:
    import gymnasium as gym


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


class PureEnvironment(Protocol):
    """One environment as pure functions; hashable, and equal to what may share its compiled code."""

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Space of one observation."""
        ...

    @property
    def action_space(self) -> gym.Space[Any]:
        """Space of one action."""
        ...

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """Begin an episode: return its first observation and state."""
        ...

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Transition:
        """Take a step, without beginning the next episode by itself; the action is within its space."""
        ...


@dataclass(frozen=True)
class GymnaxEnvironment:
    """An environment of gymnax 1.x with its default parameters.

    Attributes:
        env_id: as gymnax names it, ``"CartPole-v1"``, ``"Breakout-MinAtar"``.
    """

    env_id: str

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Space of one observation."""
        env, params = _made(self.env_id)
        return _gymnasium_space(env.observation_space(params))

    @property
    def action_space(self) -> gym.Space[Any]:
        """Space of one action."""
        env, params = _made(self.env_id)
        return _gymnasium_space(env.action_space(params))

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """Begin an episode."""
        env, params = _made(self.env_id)
        observation, state = env.reset_env(key, params)
        # With explicit types, which the loop around it keeps, or a second step would be compiled for other types.
        return observation, jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.asarray(leaf).dtype), state)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Transition:
        """Take a step; the time limit truncates."""
        env, params = _made(self.env_id)
        observation, after, reward, terminated, _ = env.step_env(key, state, action, params)
        truncated = jnp.logical_and(env.is_truncated(after, params), jnp.logical_not(terminated))
        # Some environments change a type on the way (a weak float, say); compiled loops need it to stay.
        after = jax.tree.map(lambda new, old: jnp.asarray(new, jnp.asarray(old).dtype), after, state)
        return Transition(observation, after, jnp.asarray(reward, jnp.float32).reshape(()), terminated, truncated)


def registered() -> tuple[str, ...]:
    """Return the environments that gymnax has; none where it is not installed."""
    if not importlib.util.find_spec("gymnax"):
        return ()
    import gymnax

    return tuple(gymnax.registered_envs)


def gymnax_id(env_id: str) -> str | None:
    """Return the name under which gymnax has the environment of a Gymnasium id, None if it has not, or is not there."""
    name = env_id.removeprefix("gymnax/")
    return name if name in registered() else None


@functools.cache
def _made(env_id: str) -> tuple[Any, Any]:
    if not importlib.util.find_spec("gymnax"):
        raise EnvError('Environments of gymnax need it: pip install "optix-jax[gymnax]".')
    import gymnax

    made: tuple[Any, Any] = gymnax.make(env_id)
    return made


def _gymnasium_space(space: Any) -> gym.Space[Any]:
    from gymnasium import spaces
    from gymnax.environments.spaces import gymnax_space_to_gym_space

    converted: gym.Space[Any] = gymnax_space_to_gym_space(space)
    if isinstance(converted, spaces.Box) and converted.dtype == bool:
        return spaces.Box(0.0, 1.0, converted.shape)
    return converted
