"""The exact state of environments, so that a run can continue where it stopped.

Gymnasium has no call for it, and physics engines do not expose their state. What every environment does allow is to
be played again: from the state of its random numbers before the episode began, through the same actions. Vector
environments whose state is a handful of NumPy arrays (Gymnasium's own native ones) are copied instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from optix_core.environments.in_turn import step_in_turn
from optix_core.environments.making import layers
from optix_core.environments.outcomes import reward_of
from optix_core.environments.own_arrays import Outcomes
from optix_protocol import Array, StateTree

MAX_RECORDED_STEPS = 100_000
"""An episode longer than this is not recorded any further, and restarts after a resume."""


class EpisodeRecorder(Outcomes):
    """Remembers how the present episode began and what was done in it.

    A step costs it one list append more; a reset the copy of a random generator's state.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._seed: int | None = None
        self._generator: Mapping[str, Any] | None = None
        self._actions: list[Any] = []
        self._rewards: list[float] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode and forget the last one."""
        if seed is None and getattr(self.env, "is_mid_game", False):
            return super().reset(options=options)  # only a life was lost: what began before goes on
        self._seed = seed
        self._generator = None if seed is not None else _generator_state(self.env)
        self._actions.clear()
        self._rewards.clear()
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and remember the action."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if type(reward) is not float:
            reward = reward_of(reward)
        if len(self._actions) <= MAX_RECORDED_STEPS:
            self._actions.append(action)
            self._rewards.append(reward)
        return self._kept(observation), reward, terminated, truncated, info

    def state(self) -> StateTree | None:
        """Return what :meth:`restore` needs, or None if the episode is too long or a wrapper may remember more."""
        if len(self._actions) > MAX_RECORDED_STEPS or not _forgets(self.env):
            return None
        if self._seed is None and self._generator is None:
            return None  # the episode began with random numbers of a kind that cannot be brought back
        actions, rewards = np.array(self._actions), np.array(self._rewards, dtype=np.float64)
        return {"seed": self._seed, "generator": self._generator, "actions": actions, "rewards": rewards}

    def restore(self, state: StateTree) -> Any:
        """Play the episode again; return its latest observation, or None if it comes out differently."""
        if state["seed"] is not None:
            observation, _ = self.reset(seed=int(state["seed"]))
        else:
            self.env.reset(seed=0)  # some environments only make their generator in the first reset
            self.env.unwrapped.np_random.bit_generator.state = state["generator"]
            observation, _ = self.reset()
        for action, expected in zip(state["actions"], state["rewards"], strict=True):
            observation, reward, terminated, truncated, _ = self.step(action)
            if float(reward) != expected:
                return None
            if terminated or truncated:
                if not getattr(self.env, "is_mid_game", False):
                    return None
                observation, _ = self.reset()
        return observation


# Wrappers that keep nothing from one episode to the next. Any other, and every wrapper of a user's, may.
_FORGETFUL = frozenset(
    {
        "AtariPreprocessing", "ClipAction", "ClipReward", "DiscretizeAction", "DiscretizeObservation",
        "DtypeObservation", "FilterObservation", "FlattenObservation", "FrameStackObservation", "GrayscaleObservation",
        "MaxAndSkipObservation",
        "OrderEnforcing", "PassiveEnvChecker", "RescaleAction", "RescaleObservation", "ReshapeObservation",
        "ResizeObservation", "StickyAction", "TimeAwareObservation", "TimeLimit",
    }
)  # fmt: skip
_OURS = tuple(f"optix_core.environments.{name}" for name in ("atari", "flattening", "mask_wrappers", "own_arrays"))


def _generator_state(env: gym.Env[Any, Any]) -> Mapping[str, Any] | None:
    """Return the state of an environment's random numbers, or None if they are not NumPy's usual ones.

    Environments that were written for Gym keep a ``RandomState`` there, others a ``random.Random`` or nothing.
    """
    try:
        generator = env.unwrapped.np_random
    except Exception:
        return None
    return generator.bit_generator.state if isinstance(generator, np.random.Generator) else None


def forgets_episodes(wrapper: Any) -> bool:
    """Whether a wrapper is known to keep nothing from one episode to the next."""
    kind = type(wrapper)
    return kind.__module__ in _OURS or (kind.__module__.startswith("gymnasium.") and kind.__name__ in _FORGETFUL)


def _forgets(env: gym.Env[Any, Any]) -> bool:
    return all(forgets_episodes(layer) for layer in layers(env)[:-1])


def capture(env: gym.vector.VectorEnv[Any, Any, Any]) -> StateTree | None:
    """Return the exact state of a vector environment, or None if it has no way to give it."""
    if step_in_turn(env):
        states = [single.state() if isinstance(single, EpisodeRecorder) else None for single in env.envs]
        if any(state is None for state in states):
            return None
        return {"kind": "replay", "episodes": {str(i): state for i, state in enumerate(states)}}
    if _is_plain_arrays(env):
        return {"kind": "arrays", "values": _plain_values(env)}
    return None


def restore(env: gym.vector.VectorEnv[Any, Any, Any], state: StateTree, expected: Array) -> bool:
    """Bring a fresh vector environment into a captured state.

    Args:
        env: made like the one that was captured.
        state: what :func:`capture` returned.
        expected: ``[N, *obs]`` the latest observations; the environment must show them again.

    Returns:
        Whether it does. If not, the environment is not as deterministic as it should be; reset it.
    """
    if state["kind"] == "replay" and step_in_turn(env):
        episodes = state["episodes"]
        if len(episodes) != len(env.envs):
            return False
        for index, single in enumerate(env.envs):
            assert isinstance(single, EpisodeRecorder)
            observation = single.restore(episodes[str(index)])
            if observation is None or not np.array_equal(observation, expected[index]):
                return False
            env._env_obs[index] = observation
        return True
    if state["kind"] == "arrays" and _is_plain_arrays(env):
        env.reset(seed=0)
        values, present = state["values"], _plain_values(env)
        if values.keys() != present.keys() or any(type(values[k]) is not type(present[k]) for k in values):
            return False
        for name, value in values.items():
            if isinstance(value, dict):
                getattr(env, name).bit_generator.state = value
            else:
                setattr(env, name, value.copy() if isinstance(value, np.ndarray) else value)
        return True
    return False


def _is_plain_arrays(env: gym.vector.VectorEnv[Any, Any, Any]) -> bool:
    return env is env.unwrapped and type(env).__module__.startswith("gymnasium.envs.classic_control")


def _plain_values(env: Any) -> dict[str, Any]:
    """Return the attributes that are numbers, arrays or random generators."""
    found: dict[str, Any] = {}
    for name, value in vars(env).items():
        if isinstance(value, np.random.Generator):
            found[name] = value.bit_generator.state
        elif isinstance(value, np.ndarray):
            found[name] = value.copy()
        elif isinstance(value, bool | int | float | np.number):
            found[name] = value
    return found
