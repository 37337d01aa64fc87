"""One small network with many sets of parameters at once, and what turns its outputs into actions."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Network:
    """A linear policy, or one with a hidden layer of tanh, whose parameters are one flat vector.

    Args:
        num_inputs: numbers of an observation.
        num_hidden: units of the hidden layer, 0 for none.
        num_outputs: logits, or the numbers of an action.
    """

    def __init__(self, num_inputs: int, num_hidden: int, num_outputs: int) -> None:
        sizes = [num_inputs, num_hidden, num_outputs] if num_hidden else [num_inputs, num_outputs]
        self.shapes = list(pairwise(sizes))
        self.num_parameters = sum((inputs + 1) * outputs for inputs, outputs in self.shapes)

    def layers(self, parameters: Array) -> list[tuple[Array, Array]]:
        """Return weight ``[..., in, out]`` and bias ``[..., out]`` of each layer, for parameters ``[..., P]``."""
        found, begin = [], 0
        for inputs, outputs in self.shapes:
            middle, end = begin + inputs * outputs, begin + (inputs + 1) * outputs
            weight = parameters[..., begin:middle].reshape(*parameters.shape[:-1], inputs, outputs)
            found.append((weight, parameters[..., middle:end]))
            begin = end
        return found

    def __call__(self, rows: Array, parameters: Array) -> Array:
        """Return outputs ``[N, out]`` for rows ``[N, in]``, each with parameters of its own ``[N, P]``."""
        x = rows
        for number, (weight, bias) in enumerate(self.layers(parameters)):
            x = np.einsum("ni,nio->no", x, weight) + bias
            if number < len(self.shapes) - 1:
                x = np.tanh(x)
        return x


class Discrete:
    """The action with the largest output."""

    def __init__(self, space: Any) -> None:
        self.num_outputs, self.start = int(space.n), int(getattr(space, "start", 0))

    def __call__(self, outputs: Array) -> Array:
        """Return actions ``[N]`` for outputs ``[N, n]``."""
        return outputs.argmax(axis=1) + self.start


class Box:
    """The outputs, in units in which the range is -1 to 1, cut at its ends."""

    log_std = -20.0
    """For the host policy, whose continuous actions are drawn: as good as none."""

    def __init__(self, space: Any) -> None:
        self.low, self.high = np.ravel(space.low), np.ravel(space.high)
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all()):
            raise ValueError(f"es needs a bounded action space, not {space}: clip or rescale the actions.")
        if np.dtype(space.dtype).kind != "f":
            raise ValueError(f"es needs continuous actions, not {space}.")
        self.shape, self.dtype, self.num_outputs = tuple(space.shape), space.dtype, self.low.size

    def __call__(self, outputs: Array) -> Array:
        """Return actions ``[N, *act]`` for outputs ``[N, A]``."""
        unit = (np.clip(outputs, -1.0, 1.0) + 1.0) / 2.0
        actions = (self.low + (self.high - self.low) * unit).astype(self.dtype)
        return np.clip(actions, self.low, self.high).reshape(len(outputs), *self.shape)


def head_for(space: Any) -> Discrete | Box:
    """Return what turns outputs into actions of a space.

    Raises:
        ValueError: neither Discrete nor a bounded Box.
    """
    if hasattr(space, "n") and tuple(space.shape) == ():
        return Discrete(space)
    if hasattr(space, "low"):
        return Box(space)
    raise ValueError(f"es needs Discrete or bounded Box actions, not {space}.")


class Normalizer:
    """Mean and variance of all observations so far (Chan et al. 1979)."""

    clip, epsilon = 5.0, 1e-8

    def __init__(self, num_inputs: int) -> None:
        self.arrays = {"mean": np.zeros(num_inputs), "var": np.ones(num_inputs), "count": np.zeros(1)}

    def __call__(self, rows: Array) -> Array:
        """Return rows ``[N, D]`` with mean 0 and variance 1, clipped."""
        scaled = (rows - self.arrays["mean"]) / np.sqrt(self.arrays["var"] + self.epsilon)
        return np.clip(scaled, -self.clip, self.clip)

    def update(self, rows: Array) -> None:
        """Take in rows ``[N, D]``."""
        old, batch = self.arrays, float(len(rows))
        total = old["count"] + batch
        delta = rows.mean(axis=0) - old["mean"]
        squares = old["var"] * old["count"] + rows.var(axis=0) * batch + delta**2 * old["count"] * batch / total
        self.arrays = {"mean": old["mean"] + delta * batch / total, "var": squares / total, "count": total}

    def settings(self) -> Mapping[str, Any]:
        """Return what a host policy needs to do the same."""
        return {"mean": self.arrays["mean"], "var": self.arrays["var"], "clip": self.clip, "epsilon": self.epsilon}
