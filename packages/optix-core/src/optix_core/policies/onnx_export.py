"""Policies as ONNX models: raw observations in, greedy actions and their distribution out.

The graphs are written operator by operator from the parts that policies are made of, so that no framework and no tracer
is needed, and the model holds what the policy does and nothing else. A framework adds operators for networks of its own
through :class:`PolicyGraph`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optix_core.data.normalizers import ObsNormalizer
from optix_core.errors import ConfigError, MissingExtraError
from optix_core.policies.activations import LEAKY_SLOPE, SELU_ALPHA, SELU_SCALE
from optix_core.policies.encoders import Bits, Encoder, Flatten, Keep, OneHot
from optix_core.policies.heads import (
    LOG_STD_RANGE,
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    EpsilonGreedy,
    Head,
    MultiCategorical,
    SquashedGaussian,
)
from optix_core.policies.mlp import MLP
from optix_core.policies.network import parts_from_tree
from optix_core.policies.ranges import is_whole
from optix_core.policies.recurrent import GRU, Cell, RecurrentNetwork
from optix_protocol import Array

if TYPE_CHECKING:
    from optix_protocol import StateTree

OPSET = 18
"""Version of the operators; ONNX Runtime has had it since 1.14 (2023)."""

_IR_VERSION = 8
_BATCH = "N"
_ACTIVATIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "identity": ("Identity", {}),
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "elu": ("Elu", {}),
    "celu": ("Elu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": LEAKY_SLOPE}),
    "selu": ("Selu", {"alpha": SELU_ALPHA, "gamma": SELU_SCALE}),
    "softplus": ("Softplus", {}),
    "softsign": ("Softsign", {}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hard_silu": ("HardSwish", {}),
    "hard_shrink": ("Shrink", {"lambd": 0.5, "bias": 0.0}),
    "soft_shrink": ("Shrink", {"lambd": 0.5, "bias": 0.5}),
    "exponential": ("Exp", {}),
}
"""Activations that are one operator, with its attributes."""


def export_tree(tree: StateTree, path: str | os.PathLike[str], *, kind: str = "policy") -> None:
    """Write what an agent's ``host_policy()`` returned as an ONNX model.

    Args:
        tree: the policy (:func:`optix_core.policies.policy_tree`).
        path: exactly where to.
        kind: what it is, kept in the model's metadata.

    Raises:
        MissingExtraError: onnx is not installed.
        ValueError: written by a newer version, or damaged.
    """
    encoder, normalizer, network, head = parts_from_tree(tree)
    graph = PolicyGraph(encoder, normalizer)
    write = graph.mlp if isinstance(network, MLP) else graph.recurrent
    graph.act(head, write(graph.rows, network))  # type: ignore[arg-type]
    graph.save(path, kind=kind)


class PolicyGraph:
    """A policy's graph while it is written. Values in it go by names.

    Args:
        encoder: what the observations are, and what the network takes.
        normalizer: applied in between, or None.

    Attributes:
        rows: name of the network's input: observations, encoded and normalised.
        rows_shape: shape of one of them.
        rows_dtype: their type.

    Raises:
        MissingExtraError: the package ``onnx`` is not installed.
    """

    def __init__(self, encoder: Encoder, normalizer: ObsNormalizer | None) -> None:
        try:
            import onnx
        except ModuleNotFoundError:
            raise MissingExtraError('ONNX models need the package onnx: pip install "optix-core[onnx]".') from None
        self._onnx = onnx
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._num_names = 0
        self.rows_shape = encoder.encoded_shape
        self.rows_dtype = encoder.dtype if isinstance(encoder, Keep) and encoder.dtype != "float64" else "float32"
        observations = self.input("observation", encoder.shape, encoder.dtype)
        if normalizer is None:
            self.rows = self._encode(encoder, observations)
            return
        mean, scale = normalizer.stats.mean, 1.0 / np.sqrt(normalizer.stats.var + normalizer.epsilon)
        # In double precision, which tells apart what is small beside a large offset.
        rows = (
            self._flat(encoder, observations) if isinstance(encoder, Flatten) else self._encode(encoder, observations)
        )
        exact = self.add("Cast", rows, to=self._onnx.TensorProto.DOUBLE)
        shifted = self.to_float(self.add("Sub", exact, self.constant(mean.astype(np.float64))))
        self.rows = self.clip(self.affine(shifted, scale), -normalizer.clip, normalizer.clip)
        if isinstance(encoder, Flatten) and encoder.pictures:
            self.rows = self.add("Where", self.constant(encoder.in_pictures), self.to_float(rows), self.rows)

    # ---- building blocks --------------------------------------------------------------------------------------------

    def input(self, name: str, shape: Sequence[int | str], dtype: str = "float32") -> str:
        """Declare an input ``[N, *shape]`` and return its name."""
        self._inputs.append(self._value(name, shape, dtype))
        return name

    def output(self, name: str, value: str, shape: Sequence[int | str], dtype: str = "float32") -> None:
        """Declare a value ``[N, *shape]`` to be an output."""
        self.add("Identity", value, name=name)
        self._outputs.append(self._value(name, shape, dtype))

    def add(self, operator: str, *inputs: str | Array | float, name: str | None = None, **attributes: Any) -> str:
        """Add an operator and return the name of its output; inputs are names, or constants (kept as float32)."""
        names = [value if isinstance(value, str) else self.constant(np.float32(value)) for value in inputs]
        name = name or self._new_name(operator)
        self._nodes.append(self._onnx.helper.make_node(operator, names, [name], **attributes))
        return name

    def constant(self, value: Any) -> str:
        """Add a constant of this very type and return its name."""
        name = self._new_name("constant")
        self._constants.append(
            self._onnx.numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)
        )
        return name

    def integers(self, *values: int) -> str:
        """Add a vector of whole numbers and return its name."""
        return self.constant(np.array(values, np.int64))

    def affine(self, x: str, scale: Array, shift: Array | None = None) -> str:
        """Return the name of ``x * scale + shift``."""
        scaled = self.add("Mul", x, scale)
        return scaled if shift is None else self.add("Add", scaled, shift)

    def clip(self, x: str, low: Array | float, high: Array | float) -> str:
        """Return the name of ``x`` within bounds, which may differ from place to place."""
        return self.add("Min", self.add("Max", x, low), high)

    def to_float(self, x: str) -> str:
        """Return the name of ``x`` as float32."""
        return self.add("Cast", x, to=self._onnx.TensorProto.FLOAT)

    def part(self, x: str, start: int, stop: int) -> str:
        """Return the name of columns ``[N, start:stop]``."""
        return self.add("Slice", x, self.integers(start), self.integers(stop), self.integers(1))

    def reshape(self, x: str, *shape: int) -> str:
        """Return the name of ``x`` as ``[N, *shape]``."""
        return self.add("Reshape", x, self.integers(-1, *shape))

    def pictures_apart(self, x: str, pictures: Sequence[tuple[int, tuple[int, ...]]]) -> tuple[list[str], list[str]]:
        """Return the names of the pictures ``[N, *shape]`` that begin at these places of flat rows, and of the rest."""
        pixels, rest, end = [], [], 0
        for begin, shape in [*pictures, (self.rows_shape[0], ())]:
            rest += [self.part(x, end, begin)] if end < begin else []
            end = begin + math.prod(shape)
            pixels += [self.reshape(self.part(x, begin, end), *shape)] if shape else []
        return pixels, rest

    def dense(self, x: str, weight: Array, bias: Array | None = None) -> str:
        """Return the name of ``x @ weight + bias``."""
        product = self.add("MatMul", x, weight)
        return product if bias is None else self.add("Add", product, bias)

    def activation(self, x: str, kind: str) -> str:
        """Return the name of an activation function (:data:`optix_core.policies.ACTIVATIONS`) of ``x``."""
        if kind == "identity":
            return x
        if kind in _ACTIVATIONS:
            operator, attributes = _ACTIVATIONS[kind]
            return self.add(operator, x, **attributes)
        return self._composed(x, kind)

    def _composed(self, x: str, kind: str) -> str:
        """Return the name of an activation that is made up of several operators."""
        match kind:
            case "silu":
                return self.add("Mul", x, self.add("Sigmoid", x))
            case "gelu":
                below = self.add("Add", self.add("Erf", self.add("Mul", x, math.sqrt(0.5))), 1.0)
                return self.add("Mul", self.add("Mul", x, 0.5), below)
            case "mish":
                return self.add("Mul", x, self.add("Tanh", self.add("Softplus", x)))
            case "relu6":
                return self.clip(x, 0.0, 6.0)
            case "hard_tanh":
                return self.clip(x, -1.0, 1.0)
            case "tanh_shrink":
                return self.add("Sub", x, self.add("Tanh", x))
            case "log_sigmoid":
                return self.add("Neg", self.add("Softplus", self.add("Neg", x)))
            case "sparse_plus":
                rising = self.add("Max", self.add("Add", x, 1.0), 0.0)
                curve = self.add("Mul", self.add("Mul", rising, rising), 0.25)
                return self.add("Where", self.add("GreaterOrEqual", x, 1.0), x, curve)
            case "sparse_sigmoid":
                return self.clip(self.add("Mul", self.add("Add", x, 1.0), 0.5), 0.0, 1.0)
            case "squareplus":
                root = self.add("Sqrt", self.add("Add", self.add("Mul", x, x), 4.0))
                return self.add("Mul", self.add("Add", x, root), 0.5)
        raise ValueError(f"Unknown activation '{kind}'; update optix-core.")

    def splice(self, model: Any, value: str) -> str:
        """Take over a model of one input and one output, made elsewhere, and return the name of its output."""
        prefix = self._new_name("model") + "/"
        model = self._onnx.compose.add_prefix(model, prefix)
        (source,), (result,) = model.graph.input, model.graph.output
        self.add("Identity", value, name=source.name)
        self._nodes.extend(model.graph.node)
        self._constants.extend(model.graph.initializer)
        name: str = result.name
        return name

    # ---- networks ---------------------------------------------------------------------------------------------------

    def mlp(self, x: str, mlp: MLP) -> str:
        """Return the name of the outputs of dense layers."""
        for weight, bias, activation in zip(mlp.weights, mlp.biases, mlp.activations, strict=True):
            x = self.activation(self.dense(x, weight, bias), activation)
        return x

    def cell(self, x: str, cell: Cell) -> str:
        """Return a recurrent cell's output; inputs ``h``, ``c`` and outputs ``next_h``, ``next_c`` are its state."""
        size = len(cell.weights_state)
        h = self.input("h", (size,))
        a = self.dense(x, cell.weights_input, cell.bias_input)
        b = self.dense(h, cell.weights_state, cell.bias_state)
        if isinstance(cell, GRU):
            gates = self.add("Sigmoid", self.add("Add", self.part(a, 0, 2 * size), self.part(b, 0, 2 * size)))
            r, z = self.part(gates, 0, size), self.part(gates, size, 2 * size)
            from_state = self.add("Mul", r, self.part(b, 2 * size, 3 * size))
            new = self.add("Tanh", self.add("Add", self.part(a, 2 * size, 3 * size), from_state))
            after = self.add("Add", new, self.add("Mul", z, self.add("Sub", h, new)))
        else:
            c = self.input("c", (size,))
            both = self.add("Add", a, b)
            i, f, o = (self.add("Sigmoid", self.part(both, k * size, (k + 1) * size)) for k in (0, 1, 3))
            new = self.add("Tanh", self.part(both, 2 * size, 3 * size))
            memory = self.add("Add", self.add("Mul", f, c), self.add("Mul", i, new))
            after = self.add("Mul", o, self.add("Tanh", memory))
            self.output("next_c", memory, (size,))
        self.output("next_h", after, (size,))
        return after

    def recurrent(self, x: str, network: RecurrentNetwork) -> str:
        """Return the name of a recurrent network's outputs."""
        x = x if network.encoder is None else self.mlp(x, network.encoder)
        return self.mlp(self.cell(x, network.cell), network.output)

    def include(self, path: str | os.PathLike[str], prefix: str) -> dict[str, str]:
        """Add another policy's model, which sees the same observations.

        Args:
            path: of the model.
            prefix: of its names in this graph.

        Returns:
            The names of its outputs in this graph, by their own names.

        Raises:
            ConfigError: it has other inputs than the observation.
        """
        model = self._onnx.load(os.fspath(path))
        others = [value.name for value in model.graph.input if value.name != "observation"]
        if others:
            raise ConfigError(f"A policy with the input {others[0]!r} cannot be part of another model.")
        outputs = {value.name: prefix + value.name for value in model.graph.output}
        renamed = self._onnx.compose.add_prefix(model, prefix)
        for node in renamed.graph.node:
            for i, name in enumerate(node.input):
                if name == f"{prefix}observation":
                    node.input[i] = "observation"
        self._nodes += renamed.graph.node
        self._constants += renamed.graph.initializer
        return outputs

    # ---- from outputs to actions ------------------------------------------------------------------------------------

    def act(self, head: Head, outputs: str, *, masked: bool = False) -> None:
        """Declare the outputs ``action`` and, by the kind of head, ``log_probs``, ``values``, ``mean`` and ``std``.

        Args:
            head: turns the network's outputs into actions.
            outputs: name of the latter.
            masked: take an input ``action_mask`` (bool ``[N, A]``), where actions are discrete.
        """
        if masked and isinstance(head, Categorical | MultiCategorical):
            outputs = self._allowed(outputs)
        if isinstance(head, Categorical):
            self.output("action", self._choice(outputs, head.start), (), "int64")
            self.output("log_probs", self.add("LogSoftmax", outputs, axis=1), ("A",))
        elif isinstance(head, MultiCategorical):
            ends = np.cumsum(head.nvec).tolist()
            parts = [self.part(outputs, end - n, end) for n, end in zip(head.nvec, ends, strict=True)]
            actions = [self._choice(x, start, keepdims=1) for x, start in zip(parts, head.start, strict=True)]
            action = self.add("Concat", *actions, axis=1)
            self.output("action", self._shaped(action, head.action_shape), head.action_shape, "int64")
            log_probs = [self.add("LogSoftmax", x, axis=1) for x in parts]
            self.output("log_probs", self.add("Concat", *log_probs, axis=1), ("A",))
        elif isinstance(head, Bernoulli):
            outputs = self._switched(outputs, int(np.prod(head.shape))) if masked else outputs
            on = self.add("Cast", self.add("Greater", outputs, 0.0), to=self._onnx.TensorProto.INT8)
            self.output("action", self._shaped(on, head.shape), head.shape, "int8")
            # log p(off) = -softplus(x) and log p(on) = -softplus(-x), the pair of one switch after the other.
            size = int(np.prod(head.shape))
            pairs = self.add(
                "Concat", self.reshape(outputs, size, 1), self.add("Neg", self.reshape(outputs, size, 1)), axis=2
            )
            self.output("log_probs", self.reshape(self.add("Neg", self.add("Softplus", pairs)), 2 * size), (2 * size,))
        elif isinstance(head, EpsilonGreedy):
            values = outputs
            if head.support is not None:
                logits = self.add("Reshape", outputs, self.integers(0, -1, len(head.support)))
                values = self.add("MatMul", self.add("Softmax", logits, axis=2), head.support)
            best = self._allowed(values) if masked else values
            self.output("action", self._choice(best, head.start), (), "int64")
            self.output("values", values, ("A",))
        else:
            self._act_continuously(head, outputs)

    def _allowed(self, values: str) -> str:
        """Return the name of ``values`` with minus infinity where the input ``action_mask`` is False."""
        return self.add("Where", self.input("action_mask", ("A",), "bool"), values, -np.inf)

    def _switched(self, logits: str, size: int) -> str:
        """Return the name of the log-odds of switches, infinite where ``action_mask`` leaves one position only."""
        pairs = self.reshape(self.input("action_mask", (2 * size,), "bool"), size, 2)
        off, on = (self.reshape(self.add("Gather", pairs, self.integers(place), axis=2), size) for place in (0, 1))
        return self.add("Where", on, self.add("Where", off, logits, np.inf), -np.inf)

    def _act_continuously(self, head: DiagonalGaussian | SquashedGaussian, outputs: str) -> None:
        size, (centre, scale) = len(head.low), head.affine
        if isinstance(head, SquashedGaussian):
            unit = self.part(outputs, 0, size)
            log_std = self.clip(self.part(outputs, size, 2 * size), *LOG_STD_RANGE)
            mean, std = self.affine(unit, scale, centre), self.affine(self.add("Exp", log_std), scale)
            action = self._fitted(self.affine(self.add("Tanh", unit), scale, centre), head)
        else:
            mean = action = self.affine(outputs, scale, centre)
            std = self.add("Expand", scale * np.exp(head.log_std), self.add("Shape", mean))
            if head.clip:
                action = self._fitted(mean, head)
        self.output("action", self.reshape(action, *head.shape), head.shape, head.dtype)
        self.output("mean", mean, (size,))
        self.output("std", std, (size,))

    def _fitted(self, action: str, head: DiagonalGaussian | SquashedGaussian) -> str:
        """Return the name of actions clipped to their bounds, and rounded where they are whole numbers."""
        if not is_whole(head.dtype):
            return self.clip(action, head.low, head.high)
        # In double precision the ends of 32-bit types are exact; those of 64-bit ones are cut to the next number below.
        limits = np.iinfo(head.dtype)
        least, most = np.float64(limits.min), np.float64(limits.max)
        most = most if most <= limits.max else np.nextafter(most, 0)
        low, high = (self.constant(np.clip(bound, least, most)) for bound in (head.low, head.high))
        rounded = self.add("Round", self.add("Cast", action, to=self._onnx.TensorProto.DOUBLE))
        inside = self.add("Min", self.add("Max", rounded, low), high)
        return self.add("Cast", inside, to=self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(head.dtype)))

    def _shaped(self, action: str, shape: tuple[int, ...]) -> str:
        return action if len(shape) == 1 else self.reshape(action, *shape)

    def _choice(self, values: str, start: int, *, keepdims: int = 0) -> str:
        best = self.add("ArgMax", values, axis=1, keepdims=keepdims)
        return self.add("Add", best, self.constant(np.int64(start))) if start else best

    # ---- the file ---------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, kind: str) -> None:
        """Check the model and write it, replacing an old file only when the new one is complete.

        Args:
            path: exactly where to.
            kind: what the policy is, kept in the model's metadata.
        """
        onnx = self._onnx
        graph = onnx.helper.make_graph(self._nodes, "policy", self._inputs, self._outputs, self._constants)
        opset = onnx.helper.make_opsetid("", OPSET)
        model = onnx.helper.make_model(graph, producer_name="optix", opset_imports=[opset], ir_version=_IR_VERSION)
        onnx.helper.set_model_props(model, {"optix.kind": kind})
        onnx.checker.check_model(model, full_check=True)
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        partial.write_bytes(model.SerializeToString())
        partial.replace(target)

    def _encode(self, encoder: Encoder, observations: str) -> str:
        if isinstance(encoder, OneHot):
            offsets = np.cumsum([0, *encoder.nvec[:-1]]) - np.array(encoder.start)
            columns = self.add("Add", self.reshape(observations, len(encoder.nvec)), self.constant(offsets))
            size, bits = self.constant(np.int64(sum(encoder.nvec))), self.constant(np.array([0.0, 1.0], np.float32))
            return self.add("ReduceSum", self.add("OneHot", columns, size, bits), self.integers(1), keepdims=0)
        if isinstance(encoder, Bits):
            components, bits = np.array(encoder.places).T
            choices = self.add(
                "Sub", self.reshape(observations, len(encoder.nvec)), self.constant(np.array(encoder.start))
            )
            copies = self.add("Gather", choices, self.constant(components), axis=1)
            halved = self.add("Div", copies, self.constant(2**bits))
            return self.to_float(self.add("Mod", halved, self.constant(np.int64(2))))
        if isinstance(encoder, Flatten):
            observations = self._flat(encoder, observations)
        return observations if self.rows_dtype == encoder.dtype else self.to_float(observations)

    def _flat(self, encoder: Flatten, observations: str) -> str:
        return observations if len(encoder.shape) == 1 else self.reshape(observations, *encoder.encoded_shape)

    def _value(self, name: str, shape: Sequence[int | str], dtype: str) -> Any:
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self._onnx.helper.make_tensor_value_info(name, kind, [_BATCH, *shape])

    def _new_name(self, stem: str) -> str:
        self._num_names += 1
        return f"{stem}_{self._num_names}"
