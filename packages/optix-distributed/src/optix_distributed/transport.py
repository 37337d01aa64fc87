"""What lies between a learner and its actors, wherever they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from optix_core.environments import EnvSpec
from optix_distributed.codec import Origin
from optix_protocol import EpisodeData, StateTree

__all__ = ["ActorHealth", "ActorJob", "Delivery", "Transport"]


@dataclass(frozen=True, kw_only=True)
class ActorJob:
    """What all actors of a run have to do.

    Attributes:
        env: how to make an environment.
        policy: what the agent's ``host_policy()`` returned at first; later ones have the same form.
        n_envs: environments ``N`` side by side in each actor.
        trajectory_len: rows ``T`` of a trajectory.
        max_message_bytes: what a trajectory may take (:func:`optix_distributed.codec.message_bound`).
        seed: from which the seeds of actors and their incarnations follow.
        clip_rewards: as in :class:`optix_core.VectorBatchPipeline`.
        episodic_life: likewise.
        wants_infos: whether trajectories carry what environments say in their ``info``.
    """

    env: EnvSpec
    policy: StateTree
    n_envs: int
    trajectory_len: int
    max_message_bytes: int
    seed: int = 0
    clip_rewards: bool = False
    episodic_life: bool = False
    wants_infos: bool = False


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A trajectory that has arrived.

    Attributes:
        window: what happened, with ``behaviour_log_probs``; its ``policy_version`` says which policy acted.
        origin: which actor it comes from.
    """

    window: EpisodeData
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class ActorHealth:
    """How an actor is doing.

    Attributes:
        actor: its number, from 0.
        state: ``"starting"``, ``"collecting"``, ``"waiting"``, ``"restarting"``, ``"given up"`` or ``"stopped"``.
        incarnation: how often it has been started before.
        env_steps: what it has collected, all incarnations together.
        failures: the latest reasons for which it had to be started again.
        seconds: how long it spent on ``environment``, ``acting``, ``waiting`` and ``transfer`` in this incarnation.
    """

    actor: int
    state: str
    incarnation: int = 0
    env_steps: int = 0
    failures: Sequence[str] = ()
    seconds: dict[str, float] = field(default_factory=dict)


@runtime_checkable
class Transport(Protocol):
    """Brings weights to actors and trajectories to the learner.

    Weights are pulled: :meth:`publish` leaves them where actors find them, and waits for nobody. Trajectories are
    bounded: an actor that is far ahead waits until the learner has taken some.
    """

    @property
    def n_actors(self) -> int:
        """How many actors there are."""
        ...

    @property
    def in_step(self) -> bool:
        """Whether actors wait for the weights that follow from their last trajectory, so that runs repeat exactly."""
        ...

    def open(self, job: ActorJob) -> None:
        """Start the actors; they begin with the first weights that are published.

        Raises:
            ConfigError: the job cannot be sent to them, or there is no room for what they need.
        """
        ...

    def publish(self, policy: StateTree, *, policy_version: int, hyperparam_version: int) -> None:
        """Let actors act by these weights from their next trajectory on."""
        ...

    def poll(self, timeout_s: float) -> Delivery | None:
        """Return a trajectory as soon as there is one, None after so many seconds without.

        Raises:
            EnvError: no actor is left that could send one; says what became of the last.
        """
        ...

    def health(self) -> Sequence[ActorHealth]:
        """Say how each actor is doing, in order of their numbers."""
        ...

    def close(self, deadline_s: float = 5.0) -> None:
        """Stop all actors within so many seconds and leave nothing behind; calling it twice is harmless."""
        ...
