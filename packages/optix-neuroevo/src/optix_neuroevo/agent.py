"""Agents whose actor and critic are one graph, trained by the recurrent PPO of optix-torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from optix_core.agents import HyperparamStore
from optix_core.agents.base import Blueprint
from optix_core.agents.files import load_weights
from optix_core.agents.heads import make_head, num_outputs_for
from optix_core.agents.recurrent import RecurrentActorCriticAgent
from optix_core.data import ObsNormalizer, RewardNormalizer
from optix_core.environments.flattening import flat_space
from optix_core.errors import one_of
from optix_core.policies import Flatten, encoder_for
from optix_core.policies.encoders import parts_of
from optix_neuroevo import hyperparams as specs
from optix_neuroevo.brain import BrainNetwork
from optix_neuroevo.building import layered_graph
from optix_neuroevo.errors import GraphError
from optix_neuroevo.graph import NeuronGraph
from optix_neuroevo.memory import STAMP
from optix_neuroevo.networks import GraphNetworks, graph_arrays
from optix_neuroevo.neurons import Neuron, TrainableGRUNeuron
from optix_protocol import EpisodeData, RecurrentState, StateTree
from optix_torch._arrays import resolve_device
from optix_torch._heads import make_distribution, parameters_of
from optix_torch._modes import OldPolicy
from optix_torch.algorithms.recurrent_ppo import Layout, TorchRecurrentPPOAgent
from optix_torch.recurrent import State


class GraphAgent(TorchRecurrentPPOAgent):
    """PPO on a graph that may change while it learns.

    The graph's last output is the value; the others are logits, or means of a Gaussian. What the graph remembers is
    handed in like the observation (:class:`optix_protocol.SupportsRecurrentState`), and gradients stop there;
    :class:`RecurrentGraphAgent` lets them flow through time.

    The graph is yours and trained in place. Edit it between windows, by hand or by a
    :class:`~optix_neuroevo.TopologyController`: weights, Adam's moments and what environments remember follow. Weight
    files and training states hold the topology, so loading and rolling back bring it back, too.

    Args:
        graph: with an input for every number of an (encoded) observation.
        obs_dim: numbers in an observation; None takes the graph's inputs.
        n_actions: how many actions there are, or numbers in one; None takes the graph's outputs but one.
        action_space: a single environment's space; None takes it from the pipeline where actions are discrete.
        observation_space: a single environment's space; None stands for vectors.
        hyperparams: values that differ from the defaults in :data:`optix_neuroevo.hyperparams.GRAPH_PPO`.
        seed: seed of exploration and shuffling.
        device: where it learns: ``"cpu"``, ``"cuda"`` or ``"auto"``. It acts in NumPy.
        action_dim: another name of ``n_actions``.
        obs_normalizer: your own, to continue with; None makes one where ``normalize_observations`` is set.
        reward_normalizer: your own, with a discount of its own; None makes one where ``normalize_rewards`` is set.

    Attributes:
        graph: the graph.

    Raises:
        ConfigError: (a ``ValueError``) a graph that does not fit, an unknown hyperparameter or a bad value.
    """

    specs = specs.GRAPH_PPO
    _kind_of_agent = "GraphPPO"
    _hidden_neuron: Neuron | None = None

    def __init__(
        self,
        graph: NeuronGraph,
        obs_dim: int | None = None,
        n_actions: int | None = None,
        *,
        action_space: Any = None,
        observation_space: Any = None,
        hyperparams: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
        action_dim: int | None = None,
        obs_normalizer: ObsNormalizer | None = None,
        reward_normalizer: RewardNormalizer | None = None,
    ) -> None:
        settings = HyperparamStore(self.specs, hyperparams)
        graph.compiled()
        num_outputs = len(graph.neurons("output")) - 1
        size = one_of(None, n_actions=n_actions, action_dim=action_dim)
        if observation_space is None:
            encoder: Any = Flatten(shape=(len(graph.neurons("input")) if obs_dim is None else int(obs_dim),))
        else:
            encoder = encoder_for(flat_space(observation_space))
        if len(encoder.encoded_shape) != 1:
            raise GraphError(f"A graph takes vectors, not observations {list(encoder.shape)}: flatten or encode them.")
        is_box = hasattr(action_space, "low")
        self._size = int(encoder.encoded_shape[0]), num_outputs + 1
        graph.check_size(self._size[0], (num_outputs if size is None or is_box else size) + 1)
        head = make_head(action_space, num_outputs, log_std_init=settings["log_std_init"], action_dim=size)
        extra = parameters_of(head)
        self.graph = graph
        self.device = resolve_device(device)
        # Not those of TorchRecurrentPPOAgent, which would put a cell between layers.
        RecurrentActorCriticAgent.__init__(
            self,
            networks=GraphNetworks(graph.float(), extra=extra, device=self.device),
            head=head,
            encoder=encoder,
            hyperparams=settings,
            kind=f"neuroevo/{type(head).__name__}{self._kind_of_agent}",
            seed=seed,
            action_space=action_space,
            num_outputs=num_outputs,
            obs_normalizer=obs_normalizer,
            reward_normalizer=reward_normalizer,
        )
        self._valid = np.ones((0, 0), np.bool_)
        self._distribution = make_distribution(head, extra, self.device)
        self._old_policy: OldPolicy | None = None

    @classmethod
    def _build(cls, blueprint: Blueprint) -> dict[str, Any]:
        space = flat_space(blueprint.observation_space)
        shape = encoder_for(space).encoded_shape
        if len(shape) != 1:
            raise GraphError(f"A graph takes vectors, not observations {list(shape)}: flatten or encode them.")
        graph = layered_graph(
            shape[0],
            num_outputs_for(blueprint.action_space) + 1,
            hidden_sizes=blueprint.settings["hidden_sizes"],
            neuron=cls._hidden_neuron or Neuron(blueprint.settings["activation"]),
            seed=blueprint.seed,
        )
        return {"graph": graph, "observation_space": space}

    # ---- the graph may have changed ---------------------------------------------------------------------------------

    _networks: GraphNetworks

    @property  # type: ignore[override]
    def networks(self) -> GraphNetworks:
        """What is learned: the graph as it is now."""
        networks = self._networks
        if networks.version_of_graph != self.graph.version:
            self.graph.check_size(*self._size)
            self._networks = networks.following()
            if self._networks is not networks:
                self._refresh_policy()
        return self._networks

    @networks.setter
    def networks(self, networks: GraphNetworks) -> None:
        self._networks = networks

    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Make one PPO update from a window, then let those decide who observe the graph.

        Args:
            episode_data: what this very policy collected, with the memory it began with.

        Returns:
            The diagnostics of :class:`optix_torch.TorchPPOAgent`, and what the observers say; nothing if the window
            holds no transition.

        Raises:
            AgentError: the window has no ``initial_state``.
        """
        diagnostics = super().learn(episode_data)
        if diagnostics and self.graph.observers:
            if self.graph.watch is not None:
                self.graph.watch.finish(*self.graph.compiled())
            for observer in self.graph.observers:
                diagnostics |= observer.after_learning()
            diagnostics |= {
                "num_neurons": float(self.graph.num_neurons),
                "num_edges": float(self.graph.num_edges),
                "num_parameters": float(self.graph.num_parameters),
            }
        return diagnostics

    def training_state(self) -> StateTree:
        """Return copies of graph, optimiser, random numbers, statistics, counters, and the state of observers."""
        observers = {str(number): observer.state() for number, observer in enumerate(self.graph.observers)}
        return {**super().training_state(), "observers": observers}

    def restore_training_state(self, state: StateTree) -> None:
        """Continue as the agent that returned ``state`` would, bit for bit, with the topology of then."""
        super().restore_training_state(state)
        for number, observer in enumerate(self.graph.observers):
            if str(number) in state.get("observers", {}):
                observer.restore(state["observers"][str(number)])

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Act as the agent did that wrote this file, with its topology.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or belongs to another algorithm, or to a graph of other inputs or outputs.
        """
        weights = load_weights(path, kind=self._kind, like=None, parts=parts_of(self._encoder))
        trial = type(self.graph)(dale_mode=self.graph.dale_mode)
        trial.topology.kinds = list(self.graph.topology.kinds)
        trial.load_arrays(graph_arrays(weights))
        trial.check_size(*self._size)
        own = {name: array.shape for name, array in self._weights().items() if not name.startswith("graph.")}
        theirs = {name: array.shape for name, array in weights.items() if not name.startswith("graph.")}
        if own != theirs:
            raise GraphError(f"{path} belongs to another agent: {min(own.keys() ^ theirs.keys(), default='a shape')}.")
        self._load(weights)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """Build an agent from a weight file alone: its graph comes with its topology.

        Args:
            path: a file of :meth:`save_weights`, or a snapshot's directory in a run directory.
            options: as in the constructor; ``action_space`` where actions are no plain choice.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged or holds another kind of agent.
        """
        file = Path(path)
        file = file / "weights.safetensors" if file.is_dir() else file
        arrays = graph_arrays(load_weights(file, kind=None, like=None))
        graph = BrainNetwork() if "ports" in arrays else NeuronGraph()
        graph.load_arrays(arrays)
        agent = cls(graph, **options)
        agent.load_weights(file)
        return agent

    # ---- learning ---------------------------------------------------------------------------------------------------

    def _beginning(self, window: EpisodeData) -> RecurrentState:  # type: ignore[override]
        self._valid = window.valid
        state = self.networks.brought(super()._beginning(window))
        return {name: array for name, array in state.items() if name != STAMP}

    def _memories(self, layout: Layout, observations: Tensor, state: State, keep: Tensor) -> tuple[State, State]:
        # The whole window in one go: sequences may be single rows.
        L, P, N = layout.length, layout.parts, layout.num_envs

        def by_time(tensor: Tensor) -> Tensor:
            return tensor.view(L, P, N, *tensor.shape[2:]).transpose(0, 1).flatten(0, 1)

        after = self.networks.through(by_time(observations), state, by_time(keep))
        if self.graph.watch is not None:
            self.graph.watch.see_rows(after["h"], by_time(keep), self._valid)
        # Without a past there is nothing before a sequence; the rows' own outputs are kept all the same.
        state = {name: state.get(name, torch.zeros_like(tensor[0])) for name, tensor in after.items()}
        before = {name: torch.cat([state[name][None], after[name][L - 1 : -1 : L]]).flatten(0, 1) for name in after}
        return before, {name: t.view(P, L, N, -1).transpose(0, 1).flatten(0, 2) for name, t in after.items()}


class RecurrentGraphAgent(GraphAgent):
    """The same, with gradients that flow through ``chunk_len`` steps (truncated back-propagation through time).

    Arguments as in :class:`GraphAgent`; defaults in :data:`optix_neuroevo.hyperparams.RECURRENT_GRAPH_PPO`.
    """

    specs = specs.RECURRENT_GRAPH_PPO
    _kind_of_agent = "RecurrentGraphPPO"
    _hidden_neuron = TrainableGRUNeuron()
