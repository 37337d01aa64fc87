"""Environments that are pure functions, so that they can be stepped inside compiled code."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from optix_core.errors import EnvError, suggest
from optix_jax.transitions import Transition

if TYPE_CHECKING:
    import gymnasium as gym
    from gymnasium.envs.registration import EnvSpec


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
        return observation, _strong(state)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Transition:
        """Take a step; the time limit truncates."""
        env, params = _made(self.env_id)
        observation, after, reward, terminated, _ = env.step_env(key, state, action, params)
        truncated = jnp.logical_and(env.is_truncated(after, params), jnp.logical_not(terminated))
        return Transition(
            observation, _like(state, after), jnp.asarray(reward, jnp.float32).reshape(()), terminated, truncated
        )


@dataclass(frozen=True)
class BraxEnvironment:
    """An environment of brax: continuous control with a physics engine in JAX, actions from -1 to 1.

    Attributes:
        name: as brax names it, ``"ant"``.
        backend: brax's physics: ``"generalized"``, ``"positional"``, ``"spring"`` or ``"mjx"``.
        episode_length: steps after which an episode is truncated; brax itself has no time limits.
    """

    name: str
    backend: str = "generalized"
    episode_length: int = 1000

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Space of one observation, without bounds."""
        from gymnasium import spaces

        return spaces.Box(-np.inf, np.inf, (int(_made_brax(self.name, self.backend).observation_size),))

    @property
    def action_space(self) -> gym.Space[Any]:
        """Space of one action, from -1 to 1."""
        from gymnasium import spaces

        return spaces.Box(-1.0, 1.0, (int(_made_brax(self.name, self.backend).action_size),))

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """Begin an episode."""
        state = _strong(_made_brax(self.name, self.backend).reset(key))
        return state.obs, (state, jnp.int32(0))

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Transition:
        """Take a step; nothing in it is random."""
        del key
        before, time = state
        after = _like(before, _made_brax(self.name, self.backend).step(before, action))
        terminated = after.done > 0
        truncated = (time + 1 >= self.episode_length) & ~terminated
        return Transition(after.obs, (after, time + 1), after.reward.astype(jnp.float32), terminated, truncated)


_OWN: dict[str, PureEnvironment] = {}
_ENTRY_POINT = "optix_jax.gymnasium_envs:PureEnv"
_VECTOR_ENTRY_POINT = "optix_jax.gymnasium_envs:PureVectorEnv"


def register(env_id: str, env: PureEnvironment) -> None:
    """Make an environment known by an id, to Gymnasium too.

    Where the call is in a module, ``optix train module:env_id --backend jax`` trains in it, ``--num-seeds`` included,
    and policies are compared, confirmed and evaluated in it.

    Args:
        env_id: as Gymnasium wants it, ``"Guess-v0"``.
        env: hashable, and its equals share its compiled code: a frozen dataclass, say.
    """
    _OWN[env_id] = env
    register_with_gymnasium(env_id)


def register_with_gymnasium(env_id: str) -> None:
    """Register the environment that :func:`named_environment` finds by this id with Gymnasium."""
    import gymnasium

    gymnasium.register(
        id=env_id,
        entry_point=_ENTRY_POINT,
        vector_entry_point=_VECTOR_ENTRY_POINT,
        kwargs={"env_id": env_id},
        disable_env_checker=True,
    )


def pure_environment(env_id: str) -> PureEnvironment | None:
    """Return what stands behind a Gymnasium id as pure functions, or None.

    The registration decides, not the name: an id that somebody registered anew, with another entry point, arguments,
    wrappers or vector version, is no longer the task of that name. There are pure versions of Gymnasium's classic
    control tasks (:mod:`optix_jax.classic_control`) and of what was registered by :func:`register`, as ``brax/<name>``
    or as ``gymnax/<name>``. An id that nobody has registered is looked up among the names of brax and gymnax.
    """
    import gymnasium

    name = env_id.rpartition(":")[2]
    spec = gymnasium.registry.get(name)
    if spec is None:
        return named_environment(name)
    if spec.additional_wrappers:
        return None
    if spec.entry_point == _ENTRY_POINT:
        plain = spec.vector_entry_point == _VECTOR_ENTRY_POINT and spec.max_episode_steps is None
        return named_environment(spec.kwargs["env_id"]) if plain and set(spec.kwargs) == {"env_id"} else None
    return _classic_task(spec)


def _classic_task(spec: EnvSpec) -> PureEnvironment | None:
    """Return the pure version of a classic control task of Gymnasium, None if the specification says anything else."""
    from optix_jax.classic_control import TASKS

    entry, vector = spec.entry_point, spec.vector_entry_point or "gymnasium.envs.classic_control"
    if not (isinstance(entry, str) and isinstance(vector, str)) or spec.kwargs or entry not in TASKS:
        return None
    module, _, name = entry.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    is_theirs = (getattr(found, "__module__", ""), getattr(found, "__qualname__", "")) == (module, name)
    if not is_theirs or not vector.startswith("gymnasium.envs.classic_control"):
        return None
    limit = spec.max_episode_steps
    task: PureEnvironment = TASKS[entry](max_steps=np.iinfo(np.int32).max if limit is None else limit)  # type: ignore[assignment]
    return task


def named_environment(name: str) -> PureEnvironment | None:
    """Return the environment that was registered by :func:`register` or that brax or gymnax has by this name, or None.

    Args:
        name: as it was registered, ``"brax/ant"``, or a name of gymnax with or without ``gymnax/`` before it.
    """
    if name in _OWN:
        return _OWN[name]
    if name.startswith("brax/"):
        return BraxEnvironment(name.removeprefix("brax/"))
    known = gymnax_id(name)
    return GymnaxEnvironment(known) if known is not None else None


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


def brax_names() -> tuple[str, ...]:
    """Return the names of brax's environments; importing brax takes seconds.

    Raises:
        EnvError: brax is not installed.
    """
    return tuple(sorted(_brax()._envs))


@functools.cache
def _brax() -> Any:
    if not importlib.util.find_spec("brax"):
        raise EnvError('Environments of brax need it: pip install "optix-jax[brax]".')
    # MuJoCo prints which optional parts it has not found, and brax's dependencies warn that they have had their day.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from brax import envs
    return envs


@functools.cache
def _made_brax(name: str, backend: str) -> Any:
    envs = _brax()
    if name not in envs._envs:
        raise EnvError(f"brax has no environment '{name}'.{suggest(name, envs._envs)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it is not developed any more
        return envs.get_environment(name, backend=backend)


def _strong(state: Any) -> Any:
    """Give every leaf an explicit type, which loops keep, or a second step would be compiled for other types."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.asarray(leaf).dtype), state)


def _like(state: Any, after: Any) -> Any:
    """Keep the types of a state: some environments change one on the way (a weak float, say)."""
    return jax.tree.map(lambda old, new: jnp.asarray(new, jnp.asarray(old).dtype), state, after)


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
