"""For what networks are built: spaces, and the settings that shape them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from optix_core.agents.hyperparams import HyperparamStore
from optix_core.policies import Encoder, encoder_for


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """What networks are built for.

    Attributes:
        observation_space: a single environment's space.
        action_space: a single environment's space.
        settings: the hyperparameters, with those that shape the networks.
        seed: of the initial weights.
        device: as the constructors of agents take it.
    """

    observation_space: Any
    action_space: Any
    settings: HyperparamStore
    seed: int
    device: str

    @cached_property
    def encoder(self) -> Encoder:
        """Turns observations into the networks' input."""
        return encoder_for(self.observation_space)

    def layers(self, part: str = "") -> dict[str, Any]:
        """Return the hyperparameters that dense layers are built by: ``hidden_sizes`` and ``activation``.

        Args:
            part: ``"actor"`` or ``"critic"``, which may have sizes of their own.
        """
        own = self.settings.get(f"{part}_hidden_sizes")
        sizes = self.settings["hidden_sizes"] if own is None else own
        return {"hidden_sizes": sizes, "activation": self.settings["activation"]}


def spaces_of(env: Any) -> tuple[Any, Any]:
    """Return observation and action space of one environment, given an environment, a vector of them, or the pair."""
    if isinstance(env, tuple):
        return env
    if hasattr(env, "single_observation_space"):
        return env.single_observation_space, env.single_action_space
    return env.observation_space, env.action_space
