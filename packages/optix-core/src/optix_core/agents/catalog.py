"""The algorithms that first-party backends share by name, and the backend that offers some of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from optix_core.agents import specs
from optix_core.agents.backends import action_kind, algorithm_info
from optix_core.agents.hyperparams import Hyperparam, default_values
from optix_protocol import ActionKind, AlgorithmInfo, BaseAgent

_EVERY_KIND: frozenset[ActionKind] = frozenset({"discrete", "multidiscrete", "multibinary", "box"})


@dataclass(frozen=True, kw_only=True)
class _Algorithm:
    description: str
    kinds: frozenset[ActionKind] = _EVERY_KIND
    on_policy: bool = False
    specs: Mapping[str, Hyperparam]


_ALGORITHMS: Mapping[str, _Algorithm] = {
    "ppo": _Algorithm(
        description="Proximal policy optimisation: clipped surrogate, GAE, separate policy and value networks.",
        on_policy=True,
        specs=specs.PPO,
    ),
    "recurrent_ppo": _Algorithm(
        description="PPO that remembers: a GRU or LSTM, trained on sequences.",
        on_policy=True,
        specs=specs.RECURRENT_PPO,
    ),
    "a2c": _Algorithm(
        description="Advantage actor-critic: one gradient step per window, the base for a loss of your own.",
        on_policy=True,
        specs=specs.A2C,
    ),
    "dqn": _Algorithm(
        description="Deep Q-learning: double, with n-step returns and prioritised replay as options.",
        kinds=frozenset({"discrete"}),
        specs=specs.DQN,
    ),
    "rainbow": _Algorithm(
        description="Distributional, dueling, double Q-learning with noisy layers, n-step returns, priorities.",
        kinds=frozenset({"discrete"}),
        specs=specs.RAINBOW,
    ),
    "sac": _Algorithm(
        description="Soft actor-critic: twin critics, squashed Gaussian policy, automatic temperature.",
        kinds=frozenset({"box"}),
        specs=specs.SAC,
    ),
    "td3": _Algorithm(
        description="Twin delayed deterministic policy gradient with target policy smoothing.",
        kinds=frozenset({"box"}),
        specs=specs.TD3,
    ),
}


class CatalogBackend:
    """A backend that builds agents by ``from_spaces``; see :class:`optix_protocol.Backend`.

    A subclass names itself, its agents and the hyperparameters that it has beyond the common ones. Its framework is
    imported when the first agent is built.

    Attributes:
        name: of the entry point.
        agents: ``"module:class"`` by algorithm and kind of action, ``"any"`` for all kinds that have no entry.
        specs: hyperparameters of algorithms that differ from those of :mod:`optix_core.agents.specs`.
        networks_from: the top-level package that has the classes of users' networks; empty where agents take none.
        model_kind: package and name of the framework's class of models, such as ``"torch.Module"``; empty for none.
        model_agent: ``"module:class"`` of what trains such models.
    """

    name: str
    agents: Mapping[tuple[str, str], str]
    specs: Mapping[str, Mapping[str, Hyperparam]] = {}
    networks_from: str = ""
    model_kind: str = ""
    model_agent: str = ""
    protocol_version = "1.2"
    conformance_hyperparams: Mapping[str, Mapping[str, Any]] = {
        "rainbow": {"hidden_sizes": [32], "num_atoms": 11},
        "sac": {"hidden_sizes": [16, 16], "updates_per_step": 0.5},
        "td3": {"hidden_sizes": [16, 16], "updates_per_step": 0.5},
    }

    def algorithms(self) -> Mapping[str, AlgorithmInfo]:
        """Return the algorithms by name."""
        offered = {algorithm for algorithm, _ in self.agents}
        return {
            name: AlgorithmInfo(
                name=name,
                description=known.description,
                action_kinds=known.kinds,
                on_policy=known.on_policy,
                default_hyperparams=default_values(self.specs.get(name, known.specs)),
            )
            for name, known in _ALGORITHMS.items()
            if name in offered
        }

    def make_agent(
        self,
        algorithm: str,
        *,
        observation_space: Any,
        action_space: Any,
        seed: int,
        device: str = "cpu",
        hyperparams: Mapping[str, Any] | None = None,
    ) -> BaseAgent:
        """Build an agent with networks that fit the spaces.

        Raises:
            ConfigError: (a ``ValueError``) an algorithm, a space, a device or a hyperparameter that it cannot serve.
        """
        kind = action_kind(action_space)
        algorithm = algorithm_info(self, algorithm, kind).name
        built: BaseAgent = self._agent_class(algorithm, kind).from_spaces(
            observation_space, action_space, seed=seed, device=device, hyperparams=hyperparams
        )
        return built

    def serves_model(self, model: object) -> bool:
        """Whether this is a model of the framework, by the names of its bases."""
        return any(
            f"{base.__module__.partition('.')[0]}.{base.__name__}" == self.model_kind for base in type(model).__mro__
        )

    def make_model_agent(
        self,
        model: Any,
        *,
        loss: Any = "auto",
        optimizer: Any = None,
        seed: int = 0,
        device: str = "cpu",
        hyperparams: Mapping[str, Any] | None = None,
    ) -> BaseAgent:
        """Return an agent that trains a model on a data set; see :class:`optix_protocol.SupportsModels`.

        Raises:
            ConfigError: (a ``ValueError``) a loss, a device or a hyperparameter that it does not have.
        """
        built: BaseAgent = _class_at(self.model_agent)(
            model, loss=loss, optimizer=optimizer, seed=seed, device=device, hyperparams=hyperparams
        )
        return built

    def agent_of_networks(
        self,
        algorithm: str,
        *,
        networks: Mapping[str, Any],
        optimizer: Any,
        observation_space: Any,
        action_space: Any,
        seed: int,
        device: str = "cpu",
        hyperparams: Mapping[str, Any] | None = None,
    ) -> BaseAgent | None:
        """Build an agent on a user's networks (:class:`optix_protocol.SupportsOwnNetworks`), None if of another make.

        Raises:
            ConfigError: (a ``ValueError``) networks, an algorithm, a space or a hyperparameter that it cannot serve.
        """
        if not all(self._has_class_of(network) for network in networks.values()):
            return None
        kind = action_kind(action_space)
        algorithm = algorithm_info(self, algorithm, kind).name
        built: BaseAgent = self._agent_class(algorithm, kind)(
            **networks,
            optimizer=optimizer,
            observation_space=observation_space,
            action_space=action_space,
            seed=seed,
            device=device,
            hyperparams=hyperparams,
        )
        return built

    def _has_class_of(self, network: Any) -> bool:
        return any(base.__module__.partition(".")[0] == self.networks_from for base in type(network).__mro__)

    def _agent_class(self, algorithm: str, kind: ActionKind) -> Any:
        place = self.agents.get((algorithm, kind)) or self.agents[algorithm, "any"]
        return _class_at(place)


def _class_at(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
