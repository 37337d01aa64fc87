"""Environments that step in turn, in this process."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from optix_core.environments.infos import WideInfos
from optix_core.errors import EnvError
from optix_protocol import Array


class EnvsInTurn(WideInfos, SyncVectorEnv):
    """Gymnasium's ``SyncVectorEnv`` with a lean step, for environments that reset in the step that ends an episode.

    Gymnasium's own step costs several times what a small environment does: it asks for each environment how it resets,
    and puts observations together by a function that is chosen by the type of their space. Arrays of one shape need
    neither. Everything else is done as Gymnasium does it. Arguments as in ``SyncVectorEnv``.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._is_lean = (
            isinstance(self.single_observation_space, spaces.Box)
            and isinstance(self.single_action_space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete)
            and self.autoreset_mode == AutoresetMode.SAME_STEP
        )

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step each environment; one whose episode ends begins the next, and its last observation is in the info."""
        if not self._is_lean:
            return super().step(actions)
        num_envs, shape = self.num_envs, self.single_observation_space.shape
        buffer: Array = self._observations  # type: ignore[assignment]  # of a Box
        observations = np.empty_like(buffer) if self.copy else buffer
        rewards, terminated, truncated = np.empty(num_envs), np.empty(num_envs, np.bool_), np.empty(num_envs, np.bool_)
        infos: dict[str, Any] = {}
        for i, env in enumerate(self.envs):
            observation, rewards[i], has_terminated, was_truncated, info = env.step(actions[i])
            terminated[i], truncated[i] = has_terminated, was_truncated
            if has_terminated or was_truncated:
                infos = self._add_info(infos, {"final_obs": observation, "final_info": info}, i)
                observation, info = env.reset()
            if info:
                infos = self._add_info(infos, info, i)
            if getattr(observation, "shape", None) != shape and np.shape(observation) != shape:
                raise EnvError(f"The environment gave an observation of shape {np.shape(observation)}, not {shape}.")
            observations[i] = observation
        return observations, rewards, terminated, truncated, infos


def step_in_turn(env: Any) -> TypeGuard[SyncVectorEnv]:
    """Whether a vector environment's parts step in turn and can be played one by one, too."""
    return type(env) in (SyncVectorEnv, EnvsInTurn)
