"""The entry point of the group ``optix.backends``: what this package offers, without importing TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping

from optix_core.agents.catalog import CatalogBackend


class TFBackend(CatalogBackend):
    """Builds TensorFlow agents; see :class:`optix_protocol.Backend`."""

    name = "tf"
    networks_from = "keras"
    model_kind = "keras.Model"
    model_agent = "optix_tf.supervised:MLAgent"
    agents: Mapping[tuple[str, str], str] = {
        ("ppo", "box"): "optix_tf.algorithms.ppo:TFGaussianPPOAgent",
        ("ppo", "any"): "optix_tf.algorithms.ppo:TFPPOAgent",
        ("a2c", "any"): "optix_tf.algorithms.a2c:TFAgent",
        ("dqn", "any"): "optix_tf.algorithms.dqn:TFDQNAgent",
        ("sac", "any"): "optix_tf.algorithms.sac:TFSACAgent",
        ("td3", "any"): "optix_tf.algorithms.td3:TFTD3Agent",
    }


def create() -> TFBackend:
    """Return the backend; cheap, TensorFlow is not imported."""
    return TFBackend()
