"""What an actor-critic with a memory needs besides its mathematics: acting with a state that is handed in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from optix_core.agents.actor_critic import ActorCriticAgent, ActorCriticNetworks
from optix_core.errors import AgentError
from optix_core.policies import RecurrentNetwork, RecurrentPolicy, StateNetwork, policy_tree
from optix_protocol import Array, EpisodeData, PolicyMode, RecurrentState, StateTree

if TYPE_CHECKING:
    from optix_core.policies.onnx_export import PolicyGraph


class RecurrentNetworks(ActorCriticNetworks, Protocol):
    """The learned part of an agent with a memory."""

    def live(self) -> StateNetwork:
        """Return the acting network, following the parameters as they change."""
        ...

    def frozen(self) -> StateNetwork:
        """Return the acting network on a copy of the parameters."""
        ...

    def host(self) -> RecurrentNetwork | None:
        """Return the acting network in NumPy, None if parts of it are no dense layers."""
        ...


class RecurrentActorCriticAgent(ActorCriticAgent):
    """An actor-critic whose policy remembers the episode in hand; see :class:`optix_protocol.SupportsRecurrentState`.

    The memory is the caller's: pipelines keep it with the environments. ``act``, which is given none, answers as in the
    first step of an episode.
    """

    networks: RecurrentNetworks
    _behaviour: RecurrentPolicy

    def initial_state(self, num_envs: int) -> RecurrentState:
        """Return the memory of ``num_envs`` episodes that have just begun."""
        return self._behaviour.initial_state(num_envs)

    def act_with_state(self, observations: Array, state: RecurrentState) -> tuple[Array, RecurrentState]:
        """Draw actions ``[N, *act]`` for observations ``[N, *obs]``, and return what is remembered now."""
        return self._behaviour.act_with_state(np.asarray(observations), state)

    def make_policy(self, mode: PolicyMode, *, num_envs: int, seed: int) -> RecurrentPolicy:  # noqa: ARG002
        """Return a frozen copy of the policy with a memory and random numbers of its own."""
        return self._policy(self.networks.frozen(), mode, seed)

    def host_policy(self) -> StateTree | None:
        """Return the policy as plain arrays (``optix_core.policies.policy_from_tree``), None if parts are not dense."""
        network = self.networks.host()
        if network is None:
            return None
        return policy_tree(self._encoder, network, self._frozen_head(), self._obs_normalizer)

    # ---- for subclasses ---------------------------------------------------------------------------------------------

    def _write_network(self, graph: PolicyGraph) -> str:
        network = self.networks.host()
        return super()._write_network(graph) if network is None else graph.recurrent(graph.rows, network)

    def _explore(self, observations: Array) -> Array:
        return self._behaviour.act_with_state(observations, self.initial_state(len(observations)))[0]

    def _refresh_policy(self) -> None:
        self._behaviour = RecurrentPolicy(
            encoder=self._encoder,
            network=self.networks.live(),
            head=self._live_head(),
            normalizer=self._obs_normalizer,
            mode="sample",
            rng=self._rng,
        )

    def _policy(self, network: StateNetwork, mode: PolicyMode, seed: int) -> RecurrentPolicy:
        return RecurrentPolicy(
            encoder=self._encoder,
            network=network,
            head=self._frozen_head(),
            normalizer=None if self._obs_normalizer is None else self._obs_normalizer.copy(),
            mode=mode,
            rng=np.random.default_rng(seed),
        )

    @staticmethod
    def _beginning(window: EpisodeData) -> RecurrentState:
        """Return the memory with which a window begins.

        Raises:
            AgentError: it has none, so whoever collected it acted without the memory.
        """
        if window.initial_state is None:
            raise AgentError(
                "This window has no initial_state: it was collected without the agent's memory. Collect it with a "
                "VectorBatchPipeline, or through act_with_state (optix_protocol.SupportsRecurrentState)."
            )
        return window.initial_state
