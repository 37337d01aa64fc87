"""The entry point of the group ``optix.backends``: what this package offers, without importing JAX."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from optix_core.agents import default_values, specs
from optix_core.backends import action_kind, algorithm_info
from optix_protocol import AlgorithmInfo, BaseAgent

_ALGORITHMS: Mapping[str, AlgorithmInfo] = {
    "ppo": AlgorithmInfo(
        name="ppo",
        description="Proximal policy optimisation: clipped surrogate, GAE, separate policy and value networks.",
        action_kinds=frozenset({"discrete", "multidiscrete", "box"}),
        on_policy=True,
        default_hyperparams=default_values(specs.PPO),
    ),
    "a2c": AlgorithmInfo(
        name="a2c",
        description="Advantage actor-critic: one gradient step per window, the base for a loss of your own.",
        action_kinds=frozenset({"discrete", "multidiscrete", "box"}),
        on_policy=True,
        default_hyperparams=default_values(specs.A2C),
    ),
    "dqn": AlgorithmInfo(
        name="dqn",
        description="Deep Q-learning: double, with n-step returns and prioritised replay as options.",
        action_kinds=frozenset({"discrete"}),
        on_policy=False,
        default_hyperparams=default_values(specs.DQN),
    ),
    "sac": AlgorithmInfo(
        name="sac",
        description="Soft actor-critic: twin critics, squashed Gaussian policy, automatic temperature.",
        action_kinds=frozenset({"box"}),
        on_policy=False,
        default_hyperparams=default_values(specs.SAC),
    ),
    "td3": AlgorithmInfo(
        name="td3",
        description="Twin delayed deterministic policy gradient with target policy smoothing.",
        action_kinds=frozenset({"box"}),
        on_policy=False,
        default_hyperparams=default_values(specs.TD3),
    ),
}

_AGENTS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("ppo", "box"): ("algorithms.ppo", "FlaxGaussianPPOAgent"),
    ("ppo", "any"): ("algorithms.ppo", "FlaxPPOAgent"),
    ("a2c", "any"): ("agent", "FlaxAgent"),
    ("dqn", "any"): ("algorithms.dqn", "FlaxDQNAgent"),
    ("sac", "any"): ("algorithms.sac", "FlaxSACAgent"),
    ("td3", "any"): ("algorithms.td3", "FlaxTD3Agent"),
}
"""Module and class of the agent, by algorithm and kind of action."""


class JaxBackend:
    """Builds JAX agents; see :class:`optix_protocol.Backend`."""

    name = "jax"
    protocol_version = "0.1"
    conformance_hyperparams: Mapping[str, Mapping[str, Any]] = {
        "sac": {"hidden_sizes": [16, 16]},
        "td3": {"hidden_sizes": [16, 16]},
    }

    def algorithms(self) -> Mapping[str, AlgorithmInfo]:
        """Return the algorithms by name."""
        return _ALGORITHMS

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
        module, name = _AGENTS.get((algorithm, kind), _AGENTS[algorithm, "any"])
        agent = getattr(import_module(f"optix_jax.{module}"), name)
        built: BaseAgent = agent.from_spaces(
            observation_space, action_space, seed=seed, device=device, hyperparams=hyperparams
        )
        return built


def create() -> JaxBackend:
    """Return the backend; cheap, JAX is not imported."""
    return JaxBackend()
