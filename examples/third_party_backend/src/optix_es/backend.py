"""What the entry point ``es`` returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optix_protocol import AlgorithmInfo

_NO_VALUES = "evolution strategies have no value function: they compare what was earned"
_ROWS_ARE_MEMBERS = "each environment plays a member of the population, and its place says which"


class EvolutionBackend:
    """One algorithm, without a framework."""

    name = "es"
    protocol_version = "1.2"
    conformance_exemptions: Mapping[str, Mapping[str, str]] = {
        "es": {
            "truncation_is_not_termination": _NO_VALUES,
            "truncation_uses_final_observation": _NO_VALUES,
            "window_end_bootstraps": _NO_VALUES,
            "learn_keeps_environments_apart": _ROWS_ARE_MEMBERS,
        }
    }

    def algorithms(self) -> Mapping[str, AlgorithmInfo]:
        """Return what there is to choose from."""
        from optix_es.agent import DEFAULTS

        info = AlgorithmInfo(
            name="es",
            description="Evolution strategies, in plain NumPy.",
            action_kinds=frozenset({"discrete", "box"}),
            on_policy=True,
            default_hyperparams=DEFAULTS,
        )
        return {info.name: info}

    def make_agent(
        self,
        algorithm: str,
        *,
        observation_space: Any,
        action_space: Any,
        seed: int,
        device: str = "cpu",
        hyperparams: Mapping[str, Any] | None = None,
    ) -> Any:
        """Build an agent.

        Raises:
            ValueError: another algorithm or device, spaces or hyperparameters that it cannot serve.
        """
        from optix_es.agent import EvolutionAgent

        if algorithm not in self.algorithms():
            raise ValueError(f"unknown algorithm {algorithm!r}; known is es.")
        if device not in ("cpu", "auto"):
            raise ValueError(f"es computes on the CPU: leave out the device {device!r}.")
        return EvolutionAgent(observation_space, action_space, seed=seed, hyperparams=hyperparams)


def create() -> EvolutionBackend:
    """Return the backend."""
    return EvolutionBackend()
