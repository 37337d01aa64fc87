"""Networks of this package as parts of a policy's ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from optix_core.errors import ConfigError
from optix_core.policies.onnx_export import PolicyGraph
from optix_jax.modules import CNN, Joined
from optix_jax.networks import Network, host_mlp


def write_network(graph: PolicyGraph, network: Network, params: Mapping[str, Any], x: str) -> str:
    """Add a network that sees pictures to a graph and return the name of its outputs.

    Args:
        graph: the graph.
        network: one that :func:`optix_jax.networks.build_network` built.
        params: its parameters.
        x: name of its input.

    Raises:
        ConfigError: it is a module of somebody else.
    """
    module = network.module
    if isinstance(module, CNN):
        return _cnn(graph, module, params, x)
    if not isinstance(module, Joined):
        raise ConfigError(
            f"{type(module).__name__} cannot be written as ONNX: chains of dense layers and the networks that optix "
            "builds for pictures can."
        )
    see, join = module.parts()
    pixels, rest = graph.pictures_apart(x, module.pictures)
    seen = [
        _cnn(graph, each, params[f"see_{i}"], picture)
        for i, (each, picture) in enumerate(zip(see, pixels, strict=True))
    ]
    mlp = host_mlp(Network(module=join), params["join"])
    assert mlp is not None
    return graph.mlp(graph.add("Concat", *seen, *rest, axis=1), mlp)


def _cnn(graph: PolicyGraph, module: CNN, params: Mapping[str, Any], x: str) -> str:
    """Add the operators of :class:`optix_jax.modules.CNN`."""
    x = graph.add("Div", graph.to_float(x), 255.0)
    x = graph.add("Transpose", x, perm=[0, 3, 1, 2]) if module.channels_last else x
    for i, stride in enumerate((4, 2, 1)):
        layer = params[f"Conv_{i}"]
        kernel = np.asarray(layer["kernel"])
        x = graph.add(
            "Conv",
            x,
            kernel.transpose(3, 2, 0, 1),
            np.asarray(layer["bias"]),
            kernel_shape=list(kernel.shape[:2]),
            strides=[stride, stride],
        )
        x = graph.activation(x, "relu")
    x = graph.add("Flatten", graph.add("Transpose", x, perm=[0, 2, 3, 1]), axis=1)
    for i, activation in enumerate(("relu", module.output_activation)):
        layer = params[f"Dense_{i}"]
        x = graph.activation(graph.dense(x, np.asarray(layer["kernel"]), np.asarray(layer["bias"])), activation)
    return x
