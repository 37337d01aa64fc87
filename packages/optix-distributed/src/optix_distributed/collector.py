"""What an actor does, wherever it runs: one trajectory after the other, each by one version of the policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any, cast

from optix_core.pipelines import VectorBatchPipeline
from optix_core.seeding import derive_seed
from optix_distributed.acting import make_actor
from optix_distributed.transport import ActorJob
from optix_protocol import BaseAgent, EpisodeData, StateTree


class Collector:
    """The environments of an actor, and the policy that acts in them.

    Args:
        job: what to do.
        actor: number of the actor; decides its seeds, with the incarnation.
        incarnation: how often it has been started before.
        on_act: called before every step.

    Attributes:
        env_s: seconds spent outside of acting while collecting, in environments mostly.
    """

    def __init__(
        self, job: ActorJob, *, actor: int, incarnation: int = 0, on_act: Callable[[], None] = lambda: None
    ) -> None:
        seed = derive_seed(job.seed, "actor", actor, incarnation)
        self._actor: Any = make_actor(job.policy, seed=derive_seed(seed, "exploration"), on_act=on_act)
        self._actor.wants_infos = job.wants_infos
        self._pipeline = VectorBatchPipeline(
            job.env,
            cast("BaseAgent", self._actor),
            n_envs=job.n_envs,
            window_size=job.trajectory_len,
            clip_rewards=job.clip_rewards,
            episodic_life=job.episodic_life,
            seed=derive_seed(seed, "environments"),
        )
        self.env_s = 0.0

    @property
    def acting_s(self) -> float:
        """Seconds spent in acting."""
        return float(self._actor.acting_s)

    def collect(self, policy: StateTree, *, policy_version: int, hyperparam_version: int) -> EpisodeData:
        """Return the next trajectory, by this policy.

        Raises:
            EnvError: an environment failed.
        """
        began, acted = perf_counter(), self.acting_s
        self._actor.take(policy)
        self._pipeline.policy_changed(policy_version=policy_version, hyperparam_version=hyperparam_version)
        window = self._pipeline.collect()
        log_probs = self._actor.log_probs(window.actions)
        self.env_s += perf_counter() - began - (self.acting_s - acted)
        return replace(window, behaviour_log_probs=log_probs)

    def close(self) -> None:
        """Close the environments."""
        self._pipeline.close()
