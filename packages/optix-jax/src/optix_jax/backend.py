"""The entry point of the group ``optix.backends``: what this package offers, without importing JAX."""

from __future__ import annotations

from collections.abc import Mapping

from optix_core.agents.catalog import CatalogBackend


class JaxBackend(CatalogBackend):
    """Builds JAX agents; see :class:`optix_protocol.Backend`."""

    name = "jax"
    networks_from = "flax"
    model_kind = "flax.Module"
    model_agent = "optix_jax.supervised:MLAgent"
    agents: Mapping[tuple[str, str], str] = {
        ("ppo", "box"): "optix_jax.algorithms.ppo:FlaxGaussianPPOAgent",
        ("ppo", "any"): "optix_jax.algorithms.ppo:FlaxPPOAgent",
        ("a2c", "any"): "optix_jax.agent:FlaxAgent",
        ("dqn", "any"): "optix_jax.algorithms.dqn:FlaxDQNAgent",
        ("sac", "any"): "optix_jax.algorithms.sac:FlaxSACAgent",
        ("td3", "any"): "optix_jax.algorithms.td3:FlaxTD3Agent",
    }


def create() -> JaxBackend:
    """Return the backend; cheap, JAX is not imported."""
    return JaxBackend()
