"""Actors that take turns in the learner's own process: nothing is left to chance."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from optix_core.errors import ConfigError, whole_number
from optix_distributed.codec import Origin
from optix_distributed.collector import Collector
from optix_distributed.transport import ActorHealth, ActorJob, Delivery
from optix_distributed.weights import Layout
from optix_protocol import StateTree


class InProcessTransport:
    """Actors in turn, in this process. The same seed gives the same run, bit for bit.

    Args:
        n_actors: how many.
        lag: by how many publications actors stay behind the learner: 0 (in step) or 1, where each trajectory is
            collected by the policy before the newest, as if actors and learner worked at the same time (Cleanba, Huang
            et al. 2023).

    Raises:
        ConfigError: no actor, or another lag.
    """

    in_step = True

    def __init__(self, n_actors: int = 1, *, lag: int = 0) -> None:
        self.n_actors = whole_number("n_actors", n_actors, least=1)
        if lag not in (0, 1):
            raise ConfigError(f"lag must be 0 or 1 in one process, got {lag!r}.")
        self._published: deque[tuple[bytes, int, int]] = deque(maxlen=lag + 1)
        self._collectors: list[Collector] = []
        self._turn = 0
        self._steps = [0] * self.n_actors

    def open(self, job: ActorJob) -> None:
        """Make the environments of all actors."""
        self._layout = Layout.of(job.policy)
        self._collectors = [Collector(job, actor=actor) for actor in range(self.n_actors)]

    def publish(self, policy: StateTree, *, policy_version: int, hyperparam_version: int) -> None:
        """Let the actors act by these weights, now or one publication later."""
        self._published.append((bytes(self._layout.pack(policy)), policy_version, hyperparam_version))

    def poll(self, timeout_s: float) -> Delivery | None:  # noqa: ARG002 - there is nobody to wait for
        """Let the next actor collect a trajectory.

        Raises:
            EnvError: its environment failed.
        """
        turn, actor = divmod(self._turn, self.n_actors)
        block, policy_version, hyperparam_version = self._published[0]
        window = self._collectors[actor].collect(
            self._layout.unpack(block), policy_version=policy_version, hyperparam_version=hyperparam_version
        )
        self._turn += 1
        self._steps[actor] += window.num_env_steps
        return Delivery(window=window, origin=Origin(actor=actor, incarnation=0, sequence=turn))

    def health(self) -> Sequence[ActorHealth]:
        """Say what each actor has collected."""
        return [
            ActorHealth(
                actor=actor,
                state="collecting",
                env_steps=self._steps[actor],
                seconds={"environment": collector.env_s, "acting": collector.acting_s},
            )
            for actor, collector in enumerate(self._collectors)
        ]

    def close(self, deadline_s: float = 5.0) -> None:  # noqa: ARG002 - nothing runs by itself
        """Close the environments."""
        for collector in self._collectors:
            collector.close()
