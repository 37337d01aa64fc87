"""The entry point of the group ``optix.backends``: what this package offers, without importing torch."""

from __future__ import annotations

from collections.abc import Mapping

from optix_core.agents import Hyperparam
from optix_core.agents.catalog import CatalogBackend
from optix_torch import hyperparams


class TorchBackend(CatalogBackend):
    """Builds PyTorch agents; see :class:`optix_protocol.Backend`."""

    name = "torch"
    networks_from = "torch"
    agents: Mapping[tuple[str, str], str] = {
        ("ppo", "box"): "optix_torch.algorithms.ppo:TorchGaussianPPOAgent",
        ("ppo", "any"): "optix_torch.algorithms.ppo:TorchPPOAgent",
        ("recurrent_ppo", "any"): "optix_torch.algorithms.recurrent_ppo:TorchRecurrentPPOAgent",
        ("a2c", "any"): "optix_torch.algorithms.a2c:TorchAgent",
        ("dqn", "any"): "optix_torch.algorithms.dqn:TorchDQNAgent",
        ("rainbow", "any"): "optix_torch.algorithms.rainbow:TorchRainbowDQNAgent",
        ("sac", "any"): "optix_torch.algorithms.sac:TorchSACAgent",
        ("td3", "any"): "optix_torch.algorithms.td3:TorchTD3Agent",
    }
    model_kind = "torch.Module"
    model_agent = "optix_torch.supervised:MLAgent"
    specs: Mapping[str, Mapping[str, Hyperparam]] = {"sac": hyperparams.SAC, "td3": hyperparams.TD3}


def create() -> TorchBackend:
    """Return the backend; cheap, torch is not imported."""
    return TorchBackend()
