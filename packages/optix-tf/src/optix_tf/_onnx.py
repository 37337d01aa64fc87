"""Keras models as parts of a policy's ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from optix_core.errors import ConfigError
from optix_core.policies.onnx_export import PolicyGraph
from optix_protocol import Array
from optix_tf._runtime import keras
from optix_tf.networks import SeesPictures, name_of_activation


def write_model(graph: PolicyGraph, model: Any, x: str) -> str:
    """Add a ``keras.Sequential`` of the layers that this package builds with to a graph, return its outputs' name.

    Models that see pictures in flat rows are put together from several of these.

    Raises:
        ConfigError: it holds, or is, something else.
    """
    sees = getattr(model, "sees_pictures", None)
    if isinstance(sees, SeesPictures):
        pixels, rest = graph.pictures_apart(x, sees.pictures)
        seen = [write_model(graph, cnn, picture) for cnn, picture in zip(sees.cnns, pixels, strict=True)]
        return write_model(graph, sees.join, graph.add("Concat", *seen, *rest, axis=1))
    layers = model.layers if type(model) is keras.Sequential else [model]
    for layer in layers:
        writer = _WRITERS.get(type(layer))
        name = name_of_activation(layer)
        if writer is None or name is None:
            raise ConfigError(
                f"{type(layer).__name__} cannot be written as ONNX: use export_saved_model, which takes any model."
            )
        x = graph.activation(writer(graph, layer, x), name)
    return x


def _dense(graph: PolicyGraph, layer: Any, x: str) -> str:
    return graph.dense(x, _array(layer.kernel), _array(layer.bias) if layer.use_bias else None)


def _conv(graph: PolicyGraph, layer: Any, x: str) -> str:
    if layer.padding != "valid" or layer.data_format != "channels_last" or layer.groups != 1:
        raise ConfigError("Only convolutions with channels last, one group and no padding are written as ONNX.")
    weights = [_array(layer.kernel).transpose(3, 2, 0, 1)] + ([_array(layer.bias)] if layer.use_bias else [])
    channels_first = graph.add("Transpose", x, perm=[0, 3, 1, 2])
    convolved = graph.add(
        "Conv",
        channels_first,
        *weights,
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.strides),
        dilations=list(layer.dilation_rate),
    )
    return graph.add("Transpose", convolved, perm=[0, 2, 3, 1])


def _rescaling(graph: PolicyGraph, layer: Any, x: str) -> str:
    return graph.affine(graph.to_float(x), np.asarray(layer.scale), np.asarray(layer.offset))


def _permute(graph: PolicyGraph, layer: Any, x: str) -> str:
    return graph.add("Transpose", x, perm=[0, *layer.dims])


def _flatten(graph: PolicyGraph, layer: Any, x: str) -> str:
    del layer
    return graph.add("Flatten", x, axis=1)


def _nothing(graph: PolicyGraph, layer: Any, x: str) -> str:
    del graph, layer
    return x


_WRITERS: Mapping[type, Callable[[PolicyGraph, Any, str], str]] = {
    keras.layers.Dense: _dense,
    keras.layers.Conv2D: _conv,
    keras.layers.Rescaling: _rescaling,
    keras.layers.Permute: _permute,
    keras.layers.Flatten: _flatten,
    keras.layers.Activation: _nothing,
}


def _array(variable: Any) -> Array:
    array: Array = variable.numpy()
    return array
