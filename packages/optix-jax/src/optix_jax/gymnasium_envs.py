"""Pure environments as Gymnasium environments.

They are stepped on the device, one compiled call per step of all environments, so that policies can be compared,
confirmed and looked at in environments that Gymnasium itself does not have.
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from optix_core.errors import EnvError
from optix_jax.environments import PureEnvironment, named_environment
from optix_protocol import Array


def _known(env_id: str) -> PureEnvironment:
    env = named_environment(env_id)
    if env is None:
        raise EnvError(f"There is no environment '{env_id}' in pure JAX.")
    return env


class PureEnv(gym.Env[Any, Any]):
    """One environment.

    Args:
        env_id: that :func:`optix_jax.environments.named_environment` knows.
    """

    def __init__(self, env_id: str) -> None:
        self._env = _known(env_id)
        self.observation_space = self._env.observation_space
        self.action_space = self._env.action_space
        self._state: Any = None
        self._key = jax.random.PRNGKey(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin an episode, from this seed or from where the random numbers are."""
        super().reset(seed=seed, options=options)
        self._key = jax.random.PRNGKey(int(self.np_random.integers(2**31)))
        observation, self._state = _reset(self._env, self._key)
        return self._host(observation), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Take a step."""
        self._key, after = _step(self._env, self._key, self._state, jnp.asarray(action))
        self._state = after.state
        ends = bool(after.terminated), bool(after.truncated)
        return self._host(after.observation), float(after.reward), *ends, {}

    def _host(self, observation: jax.Array) -> Array:
        return np.asarray(observation, self.observation_space.dtype)


class PureVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """Environments side by side, the next episode beginning with the step after the last one's end.

    Args:
        env_id: that :func:`optix_jax.environments.named_environment` knows.
        num_envs: how many.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012 - Gymnasium's own form

    def __init__(self, env_id: str, num_envs: int = 1) -> None:
        self._env = _known(env_id)
        self.num_envs = num_envs
        self.single_observation_space = self._env.observation_space
        self.single_action_space = self._env.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._key = jax.random.PRNGKey(0)
        self._states: Any = None
        self._ended: Any = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin an episode everywhere, from this seed or from where the random numbers are."""
        del options
        if seed is not None:
            self._key = jax.random.PRNGKey(int(np.ravel(np.array(seed, np.int64))[0]))
        self._key, observations, self._states = _reset_all(self._env, self._key, self.num_envs)
        self._ended = jnp.zeros(self.num_envs, bool)
        return self._host(observations), {}

    def step(self, actions: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Take a step everywhere; where an episode had ended, begin the next one instead."""
        self._key, after = _step_all(self._env, self._key, self._states, jnp.asarray(actions), self._ended)
        self._states, self._ended = after.state, after.terminated | after.truncated
        rewards, terminated, truncated = (np.array(x) for x in (after.reward, after.terminated, after.truncated))
        return self._host(after.observation), rewards.astype(np.float64), terminated, truncated, {}

    def _host(self, observations: jax.Array) -> Array:
        return np.array(observations, self.single_observation_space.dtype)


@functools.partial(jax.jit, static_argnums=0)
def _reset(env: PureEnvironment, key: jax.Array) -> Any:
    return env.reset(key)


@functools.partial(jax.jit, static_argnums=0)
def _step(env: PureEnvironment, key: jax.Array, state: Any, action: jax.Array) -> Any:
    key, step_key = jax.random.split(key)
    return key, env.step(step_key, state, action)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _reset_all(env: PureEnvironment, key: jax.Array, num_envs: int) -> Any:
    key, reset_key = jax.random.split(key)
    return key, *jax.vmap(env.reset)(jax.random.split(reset_key, num_envs))


@functools.partial(jax.jit, static_argnums=0)
def _step_all(env: PureEnvironment, key: jax.Array, states: Any, actions: jax.Array, ended: jax.Array) -> Any:
    key, step_key, reset_key = jax.random.split(key, 3)
    after = jax.vmap(env.step)(jax.random.split(step_key, len(ended)), states, actions)
    fresh = jax.vmap(env.reset)(jax.random.split(reset_key, len(ended)))

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(ended.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    observations, states = jax.tree.map(choose, fresh, (after.observation, after.state))
    return key, after._replace(
        observation=observations,
        state=states,
        reward=jnp.where(ended, 0.0, after.reward),
        terminated=after.terminated & ~ended,
        truncated=after.truncated & ~ended,
    )
