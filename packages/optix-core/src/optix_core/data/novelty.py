"""Random network distillation: how new an observation is, by how badly a network foretells another one of it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from optix_core.data.normalizers import RunningMeanStd
from optix_protocol import Array, StateTree

_CLIP = 5.0
_BETAS, _EPSILON = (0.9, 0.999), 1e-8


class _Network:
    """Two hidden layers of ReLU, in NumPy."""

    def __init__(self, rng: np.random.Generator, sizes: tuple[int, ...]) -> None:
        pairs = list(pairwise(sizes))
        self.weights = [rng.normal(0.0, np.sqrt(2.0 / rows), (rows, columns)) for rows, columns in pairs]
        self.biases = [np.zeros(columns) for _, columns in pairs]

    def forward(self, rows: Array) -> list[Array]:
        """Return inputs and outputs of every layer, ``[B, *]`` each."""
        layers = [rows]
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            outputs = layers[-1] @ weight + bias
            layers.append(np.maximum(outputs, 0.0) if number < len(self.weights) - 1 else outputs)
        return layers

    def gradients(self, layers: list[Array], error: Array) -> list[Array]:
        """Return gradients of weights and biases in turn, given that of the outputs ``[B, *]``."""
        found: list[Array] = []
        for number in range(len(self.weights) - 1, -1, -1):
            found += [error.sum(axis=0), layers[number].T @ error]
            error = (error @ self.weights[number].T) * (layers[number] > 0)
        return found[::-1]

    def parameters(self) -> list[Array]:
        """Return weights and biases in turn; they are the network's own."""
        return [array for pair in zip(self.weights, self.biases, strict=True) for array in pair]


class RandomNetworkDistillation:
    """The bonus of Burda et al. 2018, "Exploration by Random Network Distillation".

    A predictor learns what a fixed random network makes of the observations that were visited; its squared error is
    high where few were. Observations are normalised by running statistics and clipped to -5..5, the bonus is divided by
    the running standard deviation of its discounted sum.

    Args:
        size: numbers of an observation.
        seed: of both networks and of the minibatches.
        hidden: units of each hidden layer.
        features: outputs.
        learning_rate: of Adam.
        gamma: discount of the sum that scales the bonus.
        minibatch_size: rows of a step of the predictor.
    """

    def __init__(
        self,
        size: int,
        *,
        seed: int = 0,
        hidden: int = 64,
        features: int = 32,
        learning_rate: float = 1e-3,
        gamma: float = 0.99,
        minibatch_size: int = 256,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        sizes = (size, hidden, hidden, features)
        self._target, self._predictor = _Network(self._rng, sizes[:2] + sizes[3:]), _Network(self._rng, sizes)
        self._learning_rate, self._gamma, self._minibatch_size = learning_rate, gamma, minibatch_size
        self._seen, self._sums = RunningMeanStd((size,)), RunningMeanStd()
        self._running: Array = np.zeros(0)
        self._moments = [np.zeros((2, *array.shape)) for array in self._predictor.parameters()]
        self._num_steps = 0

    def bonus(self, observations: Array) -> Array:
        """Return how new observations are, and learn from having seen them.

        Args:
            observations: ``[T, N, *obs]`` in order of time.

        Returns:
            ``[T, N]``, about 1 in size at first and falling where one has been before.
        """
        rows = observations.reshape(*observations.shape[:2], -1).astype(np.float64)
        flat = rows.reshape(-1, rows.shape[-1])
        self._seen.update(flat)
        normal = np.clip((flat - self._seen.mean) / np.sqrt(self._seen.var + _EPSILON), -_CLIP, _CLIP)
        wanted = self._target.forward(normal)[-1]
        errors = np.square(self._predictor.forward(normal)[-1] - wanted).mean(axis=1).reshape(rows.shape[:2])
        self._learn(normal, wanted)
        scaled: Array = errors / self._scale(errors)
        return scaled

    def _scale(self, errors: Array) -> float:
        if len(self._running) != errors.shape[1]:
            self._running = np.zeros(errors.shape[1])
        sums = np.empty_like(errors)
        for t, row in enumerate(errors):
            self._running = self._gamma * self._running + row
            sums[t] = self._running
        self._sums.update(sums.reshape(-1))
        return float(np.sqrt(self._sums.var + _EPSILON))

    def _learn(self, rows: Array, wanted: Array) -> None:
        order = self._rng.permutation(len(rows))
        for start in range(0, len(rows), self._minibatch_size):
            chosen = order[start : start + self._minibatch_size]
            layers = self._predictor.forward(rows[chosen])
            error = 2.0 * (layers[-1] - wanted[chosen]) / layers[-1].size
            self._step(self._predictor.gradients(layers, error))

    def _step(self, gradients: list[Array]) -> None:
        """Take a step of Adam (Kingma and Ba 2015)."""
        self._num_steps += 1
        first, second = _BETAS
        rate = self._learning_rate * np.sqrt(1 - second**self._num_steps) / (1 - first**self._num_steps)
        for array, moment, gradient in zip(self._predictor.parameters(), self._moments, gradients, strict=True):
            moment[0] += (1 - first) * (gradient - moment[0])
            moment[1] += (1 - second) * (np.square(gradient) - moment[1])
            array -= rate * moment[0] / (np.sqrt(moment[1]) + _EPSILON)

    def state(self) -> dict[str, Any]:
        """Return a copy of all that the coming bonuses depend on; the fixed network follows from the seed."""
        return {
            "parameters": {str(i): array.copy() for i, array in enumerate(self._predictor.parameters())},
            "moments": {str(i): array.copy() for i, array in enumerate(self._moments)},
            "num_steps": self._num_steps,
            "seen": self._seen.state(),
            "sums": self._sums.state(),
            "running": self._running.copy(),
            "rng": dict(self._rng.bit_generator.state),
        }

    def restore(self, state: StateTree) -> None:
        """Go on from what :meth:`state` returned."""
        for i, (array, moment) in enumerate(zip(self._predictor.parameters(), self._moments, strict=True)):
            array[...], moment[...] = state["parameters"][str(i)], state["moments"][str(i)]
        self._num_steps, self._running = int(state["num_steps"]), np.array(state["running"])
        self._seen.restore(state["seen"])
        self._sums.restore(state["sums"])
        self._rng.bit_generator.state = dict(state["rng"])
