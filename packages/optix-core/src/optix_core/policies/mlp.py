"""Multilayer perceptrons in NumPy, for acting without a framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from optix_core.policies.activations import ACTIVATIONS
from optix_protocol import Array, StateTree


@dataclass(frozen=True, kw_only=True)
class MLP:
    """A chain of dense layers, ``x <- activation(x W + b)``.

    NumPy's matrix products start BLAS threads once ``N * in * out`` passes about 260,000; set
    ``OPENBLAS_NUM_THREADS=1`` before NumPy is imported where that hurts (it does on busy machines).

    Attributes:
        weights: ``[in, out]`` of each layer, float32.
        biases: ``[out]`` of each layer, float32.
        activations: a key of :data:`optix_core.policies.ACTIVATIONS` for each layer.
    """

    weights: Sequence[Array]
    biases: Sequence[Array]
    activations: Sequence[str]

    def __call__(self, x: Array) -> Array:
        """Return ``[N, out]`` for rows ``[N, in]``."""
        for weight, bias, activation in zip(self.weights, self.biases, self.activations, strict=True):
            x = x.dot(weight)  # as x @ weight, which takes several times as long for one row
            x += bias
            x = ACTIVATIONS[activation](x)
        return x

    def tree(self) -> dict[str, Any]:
        """Return copies of layers and settings for a file: ``{"0": {"weight", "bias", "activation"}, ...}``."""
        layers = zip(self.weights, self.biases, self.activations, strict=True)
        return {
            str(i): {"weight": np.array(weight, order="C"), "bias": bias.copy(), "activation": activation}
            for i, (weight, bias, activation) in enumerate(layers)
        }

    @classmethod
    def from_tree(cls, tree: StateTree) -> MLP:
        """Return the network whose :meth:`tree` this is.

        Raises:
            ValueError: layers that do not fit together, or an unknown activation.
        """
        layers = [tree[str(i)] for i in range(len(tree))]
        for before, after in pairwise(layers):
            if before["weight"].shape[1] != after["weight"].shape[0]:
                raise ValueError(f"Layers do not fit: {before['weight'].shape} before {after['weight'].shape}.")
        unknown = {layer["activation"] for layer in layers} - ACTIVATIONS.keys()
        if unknown:
            raise ValueError(f"Unknown activation '{unknown.pop()}'; known: {', '.join(ACTIVATIONS)}.")
        return cls(
            weights=[layer["weight"] for layer in layers],
            biases=[layer["bias"] for layer in layers],
            activations=[layer["activation"] for layer in layers],
        )
