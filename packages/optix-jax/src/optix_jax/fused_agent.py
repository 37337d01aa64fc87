"""Agents whose windows may be collected on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from optix_jax.agent import FlaxAgent
from optix_jax.algorithms.ppo_update import Settings
from optix_jax.environments import PureEnvironment, pure_environment
from optix_jax.fused_types import FusedWindow
from optix_jax.members import FusedMembers
from optix_jax.pipeline import FusedPipeline, diagnostics_of_window, learn
from optix_jax.seeds import FusedSeeds
from optix_protocol import BasePipeline, EpisodeData, MemberGroup, SeedGroup


class TrainsFused(FlaxAgent):
    """Learns by PPO's loss from windows that stay on the device, alone or many seeds at once.

    See :class:`optix_protocol.SupportsFusedTraining`, :class:`optix_protocol.SupportsManySeeds` and
    :class:`optix_protocol.SupportsPopulation`.
    """

    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Make one update from a window, wherever it is; see :meth:`FlaxAgent.learn`."""
        if isinstance(episode_data, FusedWindow):
            return self._learn_on_device(episode_data)
        return super().learn(episode_data)

    def fused_pipeline(self, env_id: str, *, num_envs: int, num_steps: int, seed: int) -> BasePipeline | None:
        """Return a pipeline that collects on the device, or None where that is impossible.

        It is possible for agents without normalisers, in environments of which there is a pure version.

        Args:
            env_id: a Gymnasium id, of whose environment :func:`optix_jax.environments.pure_environment` has a version.
            num_envs: environments ``N`` side by side.
            num_steps: rows ``T`` of a window.
            seed: of the environments, of exploration and of the order of minibatches.
        """
        env = self._pure_environment(env_id)
        if env is None:
            return None
        return FusedPipeline(env, self, n_envs=num_envs, window_size=num_steps, seed=seed, eval_env=env_id)

    def seed_group(
        self,
        env_id: str,
        *,
        agent_seeds: Sequence[int],
        pipeline_seeds: Sequence[int],
        num_envs: int,
        num_steps: int,
    ) -> SeedGroup | None:
        """Return untrained agents with these networks and hyperparameters, or None where fusing is impossible.

        Args:
            env_id: as in :meth:`fused_pipeline`.
            agent_seeds: of each agent.
            pipeline_seeds: of the environments of each agent, in the same order.
            num_envs: environments ``N`` side by side, for each agent.
            num_steps: rows ``T`` of a window.
        """
        env = self._pure_environment(env_id)
        if env is None:
            return None
        agents = [self._untrained(env, seed, {}) for seed in agent_seeds]
        return FusedSeeds(env, agents, pipeline_seeds, num_envs=num_envs, num_steps=num_steps)

    def member_group(
        self,
        env_id: str,
        *,
        agent_seeds: Sequence[int],
        pipeline_seeds: Sequence[int],
        num_envs: int,
        num_steps: int,
        hyperparams: Sequence[Mapping[str, Any]],
    ) -> MemberGroup | None:
        """Return untrained members with these networks, or None where fusing is impossible.

        Args:
            env_id: as in :meth:`fused_pipeline`.
            agent_seeds: of each member.
            pipeline_seeds: of the environments of each member, in the same order.
            num_envs: environments ``N`` side by side, for each member.
            num_steps: rows ``T`` of a window.
            hyperparams: of each member, what differs from this agent. ``minibatch_size`` is a shape, and what is off
                changes the program: all members must agree on these.
        """
        env = self._pure_environment(env_id)
        if env is None:
            return None
        agents = [self._untrained(env, seed, own) for seed, own in zip(agent_seeds, hyperparams, strict=True)]
        return FusedMembers(env, agents, pipeline_seeds, num_envs=num_envs, num_steps=num_steps)

    def _untrained(self, env: PureEnvironment, seed: int, own: Mapping[str, Any]) -> Self:
        return self.from_spaces(
            env.observation_space,
            env.action_space,
            seed=seed,
            hyperparams={**self.hyperparams, **self.schedules, **own},
            device=self._device_name,
        )

    def _pure_environment(self, env_id: str) -> PureEnvironment | None:
        if self._obs_normalizer is not None or self._reward_normalizer is not None:
            return None
        env = pure_environment(env_id)
        return env if env is not None and env.observation_space.shape == self._encoder.shape else None

    def _learn_on_device(self, window: FusedWindow) -> dict[str, float]:
        """Learn from the last batch of a window, and report on all of its updates."""
        settings = Settings.of(self.hyperparams)
        seed = np.uint32(self._rng.integers(2**32))
        state, told = learn(window.plan, self.networks.train_state, window.pending, settings, seed)
        self.networks.train_state = state
        self._num_updates += 1
        self._refresh_policy()
        return diagnostics_of_window(window, np.asarray(told), settings)
