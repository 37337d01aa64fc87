"""Wrappers that bring masks of allowed actions into the info, whatever way an environment has of telling them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from optix_core.environments.making import blaming_environment, layers
from optix_core.environments.masks import KEY, flat_mask
from optix_core.policies.masks import mask_parts
from optix_protocol import Array

_METHOD = "action_masks"


def with_masks(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Return an environment whose masks, if it has any, are in its infos."""
    says = env.has_wrapper_attr(_METHOD) or _shows_mask(env.observation_space)
    return MasksInInfo(env) if says and mask_parts(env.action_space) is not None else env


def vector_with_masks(envs: gym.vector.VectorEnv[Any, Any, Any]) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Return a vector environment whose masks, if it has any, are in its infos."""
    if mask_parts(envs.single_action_space) is None:
        return envs
    ask = None if _shows_mask(envs.single_observation_space) else _method_of(envs)
    return VectorMasksInInfo(envs, ask) if ask or _shows_mask(envs.single_observation_space) else envs


class MasksInInfo(gym.Wrapper[Any, Any, Any, Any]):
    """Puts what ``action_masks()`` or a Dict observation says into ``info["action_mask"]``, unless it is there."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, self._told(observation, info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, self._told(observation, info)

    def _told(self, observation: Any, info: dict[str, Any]) -> dict[str, Any]:
        if KEY in info:
            return info
        if _shows_mask(self.env.observation_space):
            return {**info, KEY: flat_mask(observation[KEY])}
        with blaming_environment(f"in {_METHOD}()"):
            return {**info, KEY: flat_mask(self.env.get_wrapper_attr(_METHOD)())}


class VectorMasksInInfo(gym.vector.VectorWrapper):
    """Does the same for environments that were made side by side by somebody else.

    Args:
        env: the environments.
        ask: returns the masks of all; None takes them from the observations.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], ask: Any) -> None:
        super().__init__(env)
        self._ask = ask

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin episodes."""
        observations, info = self.env.reset(seed=seed, options=options)
        return observations, self._told(observations, info)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        return observations, rewards, terminated, truncated, self._told(observations, info)

    def _told(self, observations: Any, info: dict[str, Any]) -> dict[str, Any]:
        if KEY in info:
            return info
        if self._ask is not None:
            with blaming_environment(f"in {_METHOD}()"):
                return {**info, KEY: _objects([flat_mask(mask) for mask in self._ask()])}
        info = {**info, KEY: _objects([flat_mask(mask) for mask in observations[KEY]])}
        if "final_obs" in info:
            finals = [None if last is None else flat_mask(last[KEY]) for last in info["final_obs"]]
            info["final_info"] = {**info.get("final_info", {}), KEY: _objects(finals)}
        return info


def _objects(masks: list[Any]) -> Array:
    array = np.empty(len(masks), object)
    for index, mask in enumerate(masks):
        array[index] = mask
    return array


def _shows_mask(space: gym.Space[Any]) -> bool:
    return isinstance(space, spaces.Dict) and KEY in space.spaces


def _method_of(envs: gym.vector.VectorEnv[Any, Any, Any]) -> Any:
    """Return what asks for the masks of a vector environment, or None if there is no such method."""
    for layer in layers(envs):
        own = getattr(layer, _METHOD, None)
        if callable(own):
            return own
    base: Any = layers(envs)[-1]
    if isinstance(base, gym.vector.SyncVectorEnv | gym.vector.AsyncVectorEnv):
        with blaming_environment(f"when asked for {_METHOD}"):
            if all(base.call("has_wrapper_attr", _METHOD)):
                return lambda: base.call(_METHOD)
    return None
