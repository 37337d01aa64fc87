"""Capabilities of agents that train many at once, and in environments that live on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from optix_protocol.types import Array, EpisodeData, HyperparamSet

if TYPE_CHECKING:
    from optix_protocol.agent import BaseAgent
    from optix_protocol.contracts import BasePipeline

__all__ = ["MemberGroup", "SeedGroup", "SupportsFusedTraining", "SupportsManySeeds", "SupportsPopulation"]


@runtime_checkable
class SupportsFusedTraining(Protocol):
    """Collecting and learning on the device, in environments that live there, without a way back for every step."""

    def fused_pipeline(self, env_id: str, *, num_envs: int, num_steps: int, seed: int) -> BasePipeline | None:
        """Return a pipeline whose windows come from the device, or None if this environment has no such form.

        Its windows tell the loop rewards, ends, returns and lengths of episodes, and are given to ``learn`` as any
        other; what else is in them is between pipeline and agent. Evaluation plays in the Gymnasium environment.

        Args:
            env_id: a Gymnasium id.
            num_envs: environments ``N`` side by side.
            num_steps: rows ``T`` of a window.
            seed: of the environments and of exploration.
        """
        ...


class SeedGroup(Protocol):
    """Agents of many seeds that are trained side by side; positions count those that still train, from 0."""

    def collect(self) -> Sequence[EpisodeData]:
        """Return the next window of every agent, by position."""
        ...

    def learn(self, windows: Sequence[EpisodeData]) -> Sequence[Mapping[str, float]]:
        """Let every agent learn from its window; return their diagnostics."""
        ...

    def weights(self, position: int) -> Mapping[str, Array]:
        """Return a copy of what acting needs of one agent."""
        ...

    def agent_with(self, weights: Mapping[str, Array]) -> BaseAgent:
        """Return an agent that acts by these weights until the next call; it takes no part in the training."""
        ...

    def keep(self, positions: Sequence[int]) -> None:
        """Let only these continue, in this order; the others cost nothing from now on."""
        ...


@runtime_checkable
class SupportsManySeeds(Protocol):
    """Training from many seeds in one process, as fast as the device can."""

    def seed_group(
        self,
        env_id: str,
        *,
        agent_seeds: Sequence[int],
        pipeline_seeds: Sequence[int],
        num_envs: int,
        num_steps: int,
    ) -> SeedGroup | None:
        """Return untrained agents with this agent's settings, or None where the environment does not allow it.

        Args:
            env_id: a Gymnasium id.
            agent_seeds: of each agent. It learns as one of that seed would alone.
            pipeline_seeds: of the environments and the exploration of each agent, in the same order.
            num_envs: environments ``N`` side by side, for each agent.
            num_steps: rows ``T`` of a window.
        """
        ...


class MemberGroup(SeedGroup, Protocol):
    """Members of a population that are trained side by side, each with hyperparameters of its own (protocol 1.2)."""

    def hyperparams(self, position: int) -> HyperparamSet:
        """Return the hyperparameters of one member."""
        ...

    def set_hyperparams(self, position: int, hyperparams: HyperparamSet) -> None:
        """Change hyperparameters of one member; names that are left out stay, and nothing else of it changes.

        Raises:
            ValueError: an unknown name, a value out of range, or one that all members must share.
        """
        ...

    def copy(self, source: int, target: int) -> None:
        """Make one member an exact copy of another, its environments and random numbers included.

        The other one is not touched. The next window of both is the same, bit for bit.
        """
        ...


@runtime_checkable
class SupportsPopulation(Protocol):
    """Training of many members in one process, with hyperparameters that differ and may change (protocol 1.2)."""

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
        """Return untrained members with this agent's settings, or None where the environment does not allow it.

        Args:
            env_id: a Gymnasium id.
            agent_seeds: of each member. It learns as one of that seed and those hyperparameters would alone.
            pipeline_seeds: of the environments and the exploration of each member, in the same order.
            num_envs: environments ``N`` side by side, for each member.
            num_steps: rows ``T`` of a window.
            hyperparams: of each member, what differs from this agent.

        Raises:
            ValueError: an unknown name, a value out of range, or one that all members must share.
        """
        ...
