"""What passes between the parts that collect and learn on the device, and a window of it as the loop sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from optix_core.agents.updates import Batch
from optix_core.policies import Encoder
from optix_jax._learned import Model
from optix_jax.agent import FlaxAgent
from optix_jax.environments import PureEnvironment
from optix_protocol import EpisodeData


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a fused program is compiled for.

    Attributes:
        model: networks and optimiser.
        env: what is stepped.
        encoder: turns its observations into the networks' input.
        num_envs: environments side by side, ``N``.
        num_steps: steps of each between two updates, ``T``.
        num_updates: updates' worth of experience in one window, ``K``.
        minibatch_size: largest number of rows per optimiser step.
    """

    model: Model
    env: PureEnvironment
    encoder: Encoder
    num_envs: int
    num_steps: int
    num_updates: int
    minibatch_size: int

    @classmethod
    def of(cls, agent: FlaxAgent, env: PureEnvironment, *, num_envs: int, num_steps: int, num_updates: int) -> Plan:
        """Return what an agent's collecting and learning in an environment is compiled for."""
        return cls(
            model=agent.model,
            env=env,
            encoder=agent._encoder,
            num_envs=num_envs,
            num_steps=num_steps,
            num_updates=num_updates,
            minibatch_size=agent.hyperparams["minibatch_size"],
        )


class Actors(NamedTuple):
    """Where the collection is.

    Attributes:
        env_states: states of the environments, leaves ``[N, ...]``.
        observations: ``[N, *obs]`` not acted on yet.
        returns: ``[N]`` rewards of the episodes in hand so far.
        lengths: ``[N]`` their steps so far.
        key: of all random numbers to come.
    """

    env_states: Any
    observations: Any
    returns: Any
    lengths: Any
    key: Any


class Summary(NamedTuple):
    """What the loop has to know of a collection, leaves ``[T, N]``.

    Attributes:
        rewards: of the environment.
        terminated: bool.
        truncated: bool.
        returns: of the episode in hand after this step.
        lengths: of the episode in hand after this step.
    """

    rewards: Any
    terminated: Any
    truncated: Any
    returns: Any
    lengths: Any


class Report(NamedTuple):
    """What the host hears of a window, in few arrays: each costs a transfer of its own.

    Attributes:
        amounts: ``[2, K, T, N]`` rewards, and returns of the episodes in hand.
        counts: ``[2, K, T, N]`` their lengths, and 1 where an episode terminated, 2 where it was truncated.
        diagnostics: ``[K, 7]`` of the updates inside the window, see :func:`learn`; the first row is empty.
    """

    amounts: Any
    counts: Any
    diagnostics: Any


@dataclass(frozen=True, kw_only=True)
class FusedWindow(EpisodeData):
    """What the loop has to know of a window that stays on the device: rewards, ends, returns.

    Observations and actions have no width. The experience that is not learned from yet is in :attr:`pending`.

    Attributes:
        pending: the last batch, for ``learn``.
        plan: what it was collected by.
        diagnostics: ``[K - 1, 7]`` of the updates inside the window.
    """

    pending: Batch | None = None
    plan: Plan | None = None
    diagnostics: Any = None
