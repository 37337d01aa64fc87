"""The operations that a graph's forward function is written in, for NumPy and for PyTorch.

The forward function (:mod:`optix_neuroevo.forward`) and the neurons know nothing else, so that acting in NumPy,
learning in PyTorch and exporting to ONNX run the same lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from optix_protocol import Array


class Ops(Protocol):
    """Operations on arrays ``[B, ...]``; besides them, ``+ - * @``, slices of the last axis and negation are used."""

    def tanh(self, x: Any) -> Any:
        """Return the hyperbolic tangent."""
        ...

    def sigmoid(self, x: Any) -> Any:
        """Return the logistic function."""
        ...

    def relu(self, x: Any) -> Any:
        """Return ``max(x, 0)``."""
        ...

    def exp(self, x: Any) -> Any:
        """Return the exponential."""
        ...

    def sin(self, x: Any) -> Any:
        """Return the sine."""
        ...

    def abs(self, x: Any) -> Any:
        """Return the absolute value."""
        ...

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Return ``a * b + c``."""
        ...

    def cat(self, parts: Sequence[Any]) -> Any:
        """Join along the last axis."""
        ...


class NumpyOps:
    """Operations on NumPy arrays."""

    tanh = staticmethod(np.tanh)
    exp = staticmethod(np.exp)
    sin = staticmethod(np.sin)
    abs = staticmethod(np.abs)

    @staticmethod
    def sigmoid(x: Array) -> Array:
        """Return ``(1 + tanh(x / 2)) / 2``, which never overflows."""
        squashed: Array = np.tanh(x * 0.5)
        squashed += 1.0
        squashed *= 0.5
        return squashed

    @staticmethod
    def relu(x: Array) -> Array:
        """Return ``max(x, 0)``."""
        array: Array = np.maximum(x, 0.0)
        return array

    @staticmethod
    def fma(a: Array, b: Array, c: Array) -> Array:
        """Return ``a * b + c``."""
        product: Array = a * b
        product += c
        return product

    @staticmethod
    def cat(parts: Sequence[Array]) -> Array:
        """Join along the last axis."""
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


class TorchOps:
    """Operations on PyTorch tensors."""

    tanh = staticmethod(torch.tanh)
    sigmoid = staticmethod(torch.sigmoid)
    relu = staticmethod(torch.relu)
    exp = staticmethod(torch.exp)
    sin = staticmethod(torch.sin)
    abs = staticmethod(torch.abs)

    @staticmethod
    def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """Return ``a * b + c`` in one operation."""
        return torch.addcmul(c, a, b)

    @staticmethod
    def cat(parts: Sequence[Tensor]) -> Tensor:
        """Join along the last axis."""
        return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=-1)


NUMPY, TORCH = NumpyOps(), TorchOps()


def _elu(z: Any, ops: Ops) -> Any:
    return ops.relu(z) + ops.exp(-ops.relu(-z)) - 1.0


ACTIVATIONS: Mapping[str, Callable[[Any, Ops], Any]] = {
    "linear": lambda z, ops: z,  # noqa: ARG005
    "tanh": lambda z, ops: ops.tanh(z),
    "relu": lambda z, ops: ops.relu(z),
    "sigmoid": lambda z, ops: ops.sigmoid(z),
    "elu": _elu,
    "silu": lambda z, ops: z * ops.sigmoid(z),
    "sin": lambda z, ops: ops.sin(z),
    "gauss": lambda z, ops: ops.exp(-(z * z)),
    "abs": lambda z, ops: ops.abs(z),
}
"""The activation functions of point neurons, by name; ``"gauss"`` is ``exp(-z^2)``."""
