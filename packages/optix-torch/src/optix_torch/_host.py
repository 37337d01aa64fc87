"""Tiny dense networks that learn in NumPy: on a few rows, calling torch costs more than what it computes.

A kernel of torch's for 32 rows and 64 x 64 weights takes 2 to 5 microseconds in a loop of its own, and three times as
long where other code has run in between and evicted torch's from the processor's caches. DQN makes one update of 32
rows every few steps, and between two of them everything else is NumPy and Python.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from optix_core.policies import ACTIVATIONS, MLP
from optix_protocol import Array

MOST_PRODUCTS = 262_144
"""Beyond so many multiplications NumPy's products start threads."""


class HostChain:
    """Dense layers that learn in NumPy, on the very memory of a module's parameters and gradients.

    Args:
        weights: ``[out, in]`` of each layer, in main memory.
        biases: ``[out]`` of each layer.
        activations: ``"tanh"``, ``"relu"`` or ``"identity"`` after each layer.
        gradients: where the gradients of weight and bias of each layer go.
    """

    def __init__(
        self,
        *,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        activations: Sequence[str],
        gradients: Sequence[tuple[Tensor, Tensor]],
    ) -> None:
        self._weights = [weight.detach().numpy() for weight in weights]
        self._biases = [bias.detach().numpy() for bias in biases]
        self._activations = list(activations)
        self._gradients = [(weight.numpy(), bias.numpy()) for weight, bias in gradients]
        self._widest = max(weight.size for weight in self._weights)
        self._values: list[Array] = []
        transposed = [weight.T for weight in self._weights]
        self._network = MLP(weights=transposed, biases=self._biases, activations=self._activations)
        functions = [ACTIVATIONS[activation] for activation in self._activations]
        self._layers = list(zip(transposed, self._biases, functions, strict=True))

    def is_sooner(self, num_rows: int) -> bool:
        """Whether NumPy does so many rows sooner than torch."""
        return num_rows * self._widest <= MOST_PRODUCTS

    def forward(self, x: Array) -> Array:
        """Return outputs ``[B, out]`` for ``[B, in]`` and remember what ``backward`` needs."""
        self._values = [x]
        for weight, bias, activation in self._layers:
            x = x.dot(weight)
            x += bias
            x = activation(x)
            self._values.append(x)
        return x

    def infer(self, x: Array) -> Array:
        """Return outputs ``[B, out]``; what ``backward`` needs stays."""
        return self._network(x)

    def backward(self, gradient: Array) -> None:
        """Write the parameters' gradients, given that of the last outputs ``[B, out]``, which may be overwritten."""
        for layer in reversed(range(len(self._weights))):
            below, value = self._values[layer : layer + 2]
            if self._activations[layer] == "relu":
                gradient *= value > 0.0
            elif self._activations[layer] == "tanh":
                gradient *= 1.0 - value * value
            weight_gradient, bias_gradient = self._gradients[layer]
            np.dot(gradient.T, below, out=weight_gradient)
            np.add.reduce(gradient, axis=0, out=bias_gradient)
            if layer:
                gradient = gradient.dot(self._weights[layer])
