"""Windows from actors, for the loop that trains with any other pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from optix_core.environments import EnvSpec
from optix_core.errors import AgentError, EnvError, real_number, whole_number
from optix_core.pipelines import VectorBatchPipeline
from optix_core.pipelines.actor import MeetsSpaces
from optix_core.pipelines.held import HeldEnvironments
from optix_core.pipelines.opening import open_environments
from optix_core.seeding import derive_seed
from optix_distributed.acting import make_actor
from optix_distributed.codec import message_bound
from optix_distributed.joining import join
from optix_distributed.statistics import Statistics
from optix_distributed.transport import ActorJob, Delivery, Transport
from optix_protocol import (
    BaseAgent,
    EpisodeData,
    StateTree,
    SupportsHostPolicy,
    SupportsLaggedWindows,
    is_on_policy,
)

_LOOK_S = 0.25


class ActorPipeline(HeldEnvironments):
    """Collects windows from actors that run beside the learner, and gives them the newest weights.

    The environments in this process are for evaluation; those that train are with the actors. An episode in hand when
    an actor fails has no end, and its return is not counted.

    Args:
        env: a Gymnasium id, a function that makes an environment, or an :class:`optix_core.EnvSpec`.
        transport: how actors are reached; the pipeline opens and closes it.
        agent: who learns; ``RLOptimizer`` gives its own to a pipeline that has none.
        envs_per_actor: environments side by side in each actor.
        trajectory_len: rows of a trajectory, and of a window.
        trajectories_per_window: how many trajectories make a window; as many as there are actors by default.
        max_lag: trajectories whose policy is more updates old are dropped and counted.
        rho_bar: of V-trace, see :func:`optix_core.data.compute_vtrace`.
        c_bar: likewise.
        clip_rewards: as in :class:`optix_core.VectorBatchPipeline`.
        episodic_life: likewise.
        seed: from which those of all actors follow.
        patience_s: seconds without a trajectory of any actor after which the run ends with an error.

    Attributes:
        statistics: what was counted.

    Raises:
        ConfigError: (a ``ValueError``) a number out of range.
        EnvError: an environment that cannot be made, or no actor that is left.
        AgentError: an agent that cannot learn from what actors did.
    """

    def __init__(
        self,
        env: Any,
        transport: Transport,
        agent: BaseAgent | None = None,
        *,
        envs_per_actor: int = 1,
        trajectory_len: int = 64,
        trajectories_per_window: int | None = None,
        max_lag: int = 20,
        rho_bar: float = 1.0,
        c_bar: float = 1.0,
        clip_rewards: bool = False,
        episodic_life: bool = False,
        seed: int = 0,
        patience_s: float = 600.0,
    ) -> None:
        self.transport, self.statistics = transport, Statistics()
        self._envs_per_actor = whole_number("envs_per_actor", envs_per_actor, least=1)
        self.window_size = whole_number("trajectory_len", trajectory_len, least=1)
        parts = transport.n_actors if trajectories_per_window is None else trajectories_per_window
        self._parts = whole_number("trajectories_per_window", parts, least=1)
        self.num_envs = self._parts * self._envs_per_actor
        self._max_lag = whole_number("max_lag", max_lag, least=0)
        self._patience_s = real_number("patience_s", patience_s, above=0.0)
        self._correction = {"rho_bar": rho_bar, "c_bar": c_bar}
        self._shaping: dict[str, Any] = {"clip_rewards": clip_rewards, "episodic_life": episodic_life}
        self._seed, self._max_eval_envs = whole_number("seed", seed), None
        self.env_spec: EnvSpec = EnvSpec.of(env)
        _, self._envs = open_environments(self.env_spec, 1, False, episodic_life)
        self._agent: BaseAgent | None = None
        self._versions, self._is_published, self._is_open = (0, 0), False, False
        self._num_episodes, self._left_at = 0, 0.0
        self._gives_up: Callable[[], bool] = lambda: False
        if agent is not None:
            self.take_agent(agent)

    # ---- what the loop asks of a pipeline ---------------------------------------------------------------------------

    def take_agent(self, agent: BaseAgent) -> None:
        """Let this agent learn; one that was given before stays.

        Raises:
            AgentError: it cannot learn from what actors did.
        """
        if self._agent is not None:
            return
        name = type(agent).__name__
        if not is_on_policy(agent) or not isinstance(agent, SupportsHostPolicy):
            raise AgentError(f"Actors are for on-policy agents with a host_policy(), such as PPO and A2C; not {name}.")
        if not isinstance(agent, SupportsLaggedWindows):
            raise AgentError(
                f"{name} cannot learn from actors that run ahead of it: it lacks correct_lag() "
                "(optix_protocol.SupportsLaggedWindows); PPO and A2C of optix-torch and optix-jax have it."
            )
        if isinstance(agent, MeetsSpaces):
            agent.meet_spaces(self.observation_space, self.action_space)
        agent.correct_lag(**self._correction)
        self._agent = agent

    def windows(self) -> Iterator[EpisodeData]:
        """Yield windows without end."""
        while (window := self._collect()) is not None:
            yield window

    def give_up_when(self, condition: Callable[[], bool]) -> None:
        """Wait for actors no longer once this is true: end."""
        self._gives_up = condition

    def policy_changed(self, *, policy_version: int, hyperparam_version: int) -> None:
        """Let actors act by the agent's policy of now, which has these versions."""
        self._versions, self._is_published = (policy_version, hyperparam_version), False

    def collect(self) -> EpisodeData:
        """Return as many trajectories as make a window, side by side.

        Raises:
            EnvError: no actor is left, none has sent anything for too long, or somebody wants no more.
        """
        window = self._collect()
        if window is None:
            raise EnvError("There is no window: the run is to end.")
        return window

    def _collect(self) -> EpisodeData | None:
        statistics, seconds = self.statistics, self.statistics.seconds
        began = time.perf_counter()
        if self._left_at:
            seconds["learning"] += began - self._left_at
        if not self._is_open:
            self._open()
        statistics.begin()
        if not self._is_published or self.transport.in_step:
            self._publish()
        published = time.perf_counter()
        deliveries = self._take()
        if deliveries is None:
            return None
        arrived = time.perf_counter()
        windows = [delivery.window for delivery in deliveries]
        self._num_episodes += sum(len(window.ends) for window in windows)
        window = join(windows, episode_id=self._num_episodes)
        statistics.collected(window.num_env_steps)
        self._left_at = time.perf_counter()
        seconds["waiting"] += arrived - published
        seconds["transfer"] += published - began + self._left_at - arrived
        return window

    def close(self) -> None:
        """End the actors and close the environments of this process."""
        if self._is_open:
            self.transport.close()
        super().close()

    def profile(self) -> Mapping[str, Any]:
        """Return where the time went, of the learner and of its actors, with lag and failures."""
        return self.statistics.summary(self.transport.health())

    def pipeline_state(self) -> StateTree:
        """Return what can be kept: the counters. Actors and their episodes begin anew."""
        return {"num_episodes": self._num_episodes}

    def restore_pipeline_state(self, state: StateTree) -> str | None:
        """Continue counting; return what was lost."""
        self._num_episodes = int(state["num_episodes"])
        self._seed = derive_seed(self._seed, "resumed", self._num_episodes)
        return "The actors begin new episodes, with other seeds."

    def _drop_episodes(self) -> None:
        """Do nothing: the environments in this process have no episodes in hand."""

    # ---- actors -----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        policy = self._policy()
        agent = cast("Any", self._agent)
        probe = VectorBatchPipeline(
            self.env_spec, cast("BaseAgent", make_actor(policy, seed=0)), n_envs=1, window_size=1, **self._shaping
        )
        try:
            row = probe.collect()
        finally:
            probe.close()
        job = ActorJob(
            env=self.env_spec,
            policy=policy,
            n_envs=self._envs_per_actor,
            trajectory_len=self.window_size,
            max_message_bytes=message_bound(row, num_steps=self.window_size, num_envs=self._envs_per_actor),
            seed=self._seed,
            wants_infos=getattr(agent, "wants_infos", False),
            **self._shaping,
        )
        self.transport.open(job)
        self._is_open = True

    def _policy(self) -> StateTree:
        if self._agent is None:
            raise AgentError(
                "This pipeline has no agent: pass agent=, or give the pipeline to RLOptimizer(agent, ...)."
            )
        policy = cast("SupportsHostPolicy", self._agent).host_policy()
        if policy is None:
            raise AgentError(
                f"Actors act in NumPy, and the policy of this {type(self._agent).__name__} has no such form: it is for "
                "chains of dense layers, with a GRU or LSTM or without."
            )
        return policy

    def _publish(self) -> None:
        policy_version, hyperparam_version = self._versions
        self.transport.publish(self._policy(), policy_version=policy_version, hyperparam_version=hyperparam_version)
        self._is_published = True

    def _take(self) -> list[Delivery] | None:
        """Return trajectories for a window, None if nobody waits for it any more."""
        taken: list[Delivery] = []
        until = time.monotonic() + self._patience_s
        while len(taken) < self._parts:
            delivery = self.transport.poll(_LOOK_S)
            if delivery is None:
                if self._gives_up():
                    return None
                if time.monotonic() > until:
                    raise EnvError(f"No actor has sent a trajectory for {self._patience_s:g} s.{self._failures()}")
                continue
            until = time.monotonic() + self._patience_s
            lag = self._versions[0] - delivery.window.policy_version
            if lag > self._max_lag:
                self.statistics.dropped += 1
                continue
            self.statistics.took(lag)
            taken.append(delivery)
        return taken

    def _failures(self) -> str:
        failures = [failure for actor in self.transport.health() for failure in actor.failures]
        return f" The latest failure: {failures[-1]}" if failures else ""
