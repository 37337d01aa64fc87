"""Torch modules as parts of a policy's ONNX graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from optix_core.errors import ConfigError
from optix_core.policies.onnx_export import OPSET, PolicyGraph
from optix_protocol import Array
from optix_torch._modes import copy_of
from optix_torch._plain import ACTIVATIONS, is_plain, is_usual
from optix_torch.dueling import RainbowNetwork
from optix_torch.networks import ImageInput, NoisyLinear
from optix_torch.pictures import Pictures


def write_module(graph: PolicyGraph, module: nn.Module, x: str, example: Tensor) -> str:
    """Add a module to a graph and return the name of its outputs.

    The networks that this package builds are written operator by operator; any other module goes through PyTorch's own
    exporter.

    Args:
        graph: the graph.
        module: a module of one input and one output.
        x: name of the input.
        example: ``[2, ...]`` an input, for the exporter.

    Raises:
        ConfigError: the exporter is needed and not installed, or cannot export the module.
    """
    return _write(graph, module, x) if _is_known(module) else graph.splice(_exported(module, example), x)


def example_rows(graph: PolicyGraph) -> Tensor:
    """Return a batch of two such inputs as a policy's network takes."""
    return torch.zeros(2, *graph.rows_shape, dtype=getattr(torch, graph.rows_dtype), device="cpu")


def _write(graph: PolicyGraph, module: nn.Module, x: str) -> str:
    if isinstance(module, nn.Sequential):
        for part in module:
            x = _write(graph, part, x)
        return x
    return _WRITERS[type(module)](graph, module, x)


def _is_known(module: nn.Module) -> bool:
    if not is_plain(module, nn.Sequential, *_WRITERS):
        return False
    if isinstance(module, nn.Sequential):
        return all(_is_known(part) for part in module)
    if isinstance(module, Pictures):
        return all(_is_known(see) for see in module.see)
    if isinstance(module, RainbowNetwork):
        return all(_is_known(part) for part in (module.torso, module.value, module.advantage))
    if type(module) is nn.Conv2d and (module.padding_mode != "zeros" or isinstance(module.padding, str)):
        return False
    return type(module) not in ACTIVATIONS.values() or is_usual(module)


def _linear(graph: PolicyGraph, layer: Any, x: str) -> str:
    return graph.dense(x, _array(layer.weight.t()), None if layer.bias is None else _array(layer.bias))


def _noisy_linear(graph: PolicyGraph, layer: Any, x: str) -> str:
    return graph.dense(x, *layer.arrays())


def _conv(graph: PolicyGraph, layer: Any, x: str) -> str:
    weights = [_array(layer.weight)] + ([] if layer.bias is None else [_array(layer.bias)])
    return graph.add(
        "Conv",
        x,
        *weights,
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.stride),
        pads=[*layer.padding, *layer.padding],
        dilations=list(layer.dilation),
        group=layer.groups,
    )


def _flatten(graph: PolicyGraph, layer: Any, x: str) -> str:
    del layer
    return graph.add("Flatten", x, axis=1)


def _images(graph: PolicyGraph, layer: Any, x: str) -> str:
    scaled = graph.add("Div", graph.to_float(x), 255.0)
    return graph.add("Transpose", scaled, perm=[0, 3, 1, 2]) if layer.channels_last else scaled


def _pictures(graph: PolicyGraph, layer: Any, x: str) -> str:
    pixels, rest = graph.pictures_apart(x, layer.places)
    seen = [_write(graph, see, picture) for see, picture in zip(layer.see, pixels, strict=True)]
    return graph.add("Concat", *seen, *rest, axis=1)


def _rainbow(graph: PolicyGraph, network: Any, x: str) -> str:
    features = _write(graph, network.torso, x)
    value, advantage = (_write(graph, stream, features) for stream in (network.value, network.advantage))
    advantage = graph.add("Reshape", advantage, graph.integers(0, network.num_actions, -1))
    mean = graph.add("ReduceMean", advantage, graph.integers(1), keepdims=1)
    logits = graph.add("Sub", graph.add("Add", advantage, graph.add("Unsqueeze", value, graph.integers(1))), mean)
    return graph.add("Flatten", logits, axis=1)


def _activation(name: str) -> Callable[[PolicyGraph, Any, str], str]:
    return lambda graph, layer, x: graph.activation(x, name)  # noqa: ARG005 - it has no parameters


_WRITERS: Mapping[type[nn.Module], Callable[[PolicyGraph, Any, str], str]] = {
    nn.Linear: _linear,
    NoisyLinear: _noisy_linear,
    nn.Conv2d: _conv,
    nn.Flatten: _flatten,
    ImageInput: _images,
    Pictures: _pictures,
    RainbowNetwork: _rainbow,
    **{kind: _activation(name) for name, kind in ACTIVATIONS.items()},
}


def _exported(module: nn.Module, example: Tensor) -> Any:
    """Return a module as an ONNX model of its own, made by PyTorch's exporter."""
    own = copy_of(module).cpu().eval()
    batch = ({0: torch.export.Dim("N", min=1)},)
    try:
        program = torch.onnx.export(own, (example,), dynamic_shapes=batch, opset_version=OPSET, verbose=False)
    except ModuleNotFoundError as error:
        name = type(module).__name__
        raise ConfigError(f'torch exports {name} with {error.name}: pip install "optix-torch[onnx]".') from None
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"torch cannot export {type(module).__name__} to ONNX: {reason}") from error
    assert program is not None
    return program.model_proto


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    return array
