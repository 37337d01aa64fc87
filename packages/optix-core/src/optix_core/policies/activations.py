"""Activation functions: their names in every library, and what they compute in NumPy.

A name means the same in every framework here, with the constants of its paper, also where a library has others by
default: ``gelu`` is exact, not its approximation by tanh, and ``leaky_relu`` has the slope 0.01.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from optix_protocol import Array

LEAKY_SLOPE = 0.01
"""Slope of ``leaky_relu`` below 0 (Maas et al. 2013)."""

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
"""Constants of ``selu`` (Klambauer et al. 2017)."""


def _relu(x: Array) -> Array:
    return np.maximum(x, 0.0, out=x)


def _tanh(x: Array) -> Array:
    y: Array = np.tanh(x, out=x)
    return y


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        y: Array = 1.0 / (1.0 + np.exp(-x))
    return y


def _elu(x: Array) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0.0)))


def _silu(x: Array) -> Array:
    y: Array = x * _sigmoid(x)
    return y


def _identity(x: Array) -> Array:
    return x


def _selu(x: Array) -> Array:
    negative = SELU_ALPHA * np.expm1(np.minimum(x, 0.0))
    return SELU_SCALE * np.where(x > 0, x, negative)


def _gelu(x: Array) -> Array:
    from scipy.special import erf

    y: Array = 0.5 * x * (1.0 + erf(x * math.sqrt(0.5)))
    return y


def _softplus(x: Array) -> Array:
    y: Array = np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))
    return y


def _mish(x: Array) -> Array:
    y: Array = x * np.tanh(_softplus(x))
    return y


def _hard_sigmoid(x: Array) -> Array:
    return np.clip(x / 6.0 + 0.5, 0.0, 1.0)


def _hard_silu(x: Array) -> Array:
    y: Array = x * _hard_sigmoid(x)
    return y


def _soft_shrink(x: Array) -> Array:
    y: Array = x - np.clip(x, -0.5, 0.5)
    return y


def _sparse_plus(x: Array) -> Array:
    return np.where(x >= 1, x, 0.25 * np.square(np.maximum(x + 1.0, 0.0)))


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "identity": _identity,
    "relu": _relu,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "elu": _elu,
    "silu": _silu,
    "gelu": _gelu,
    "leaky_relu": lambda x: np.where(x > 0, x, LEAKY_SLOPE * x),
    "mish": _mish,
    "selu": _selu,
    "celu": _elu,
    "softplus": _softplus,
    "softsign": lambda x: x / (1.0 + np.abs(x)),
    "relu6": lambda x: np.clip(x, 0.0, 6.0),
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "hard_tanh": lambda x: np.clip(x, -1.0, 1.0),
    "hard_shrink": lambda x: np.where(np.abs(x) > 0.5, x, 0.0).astype(x.dtype, copy=False),
    "soft_shrink": _soft_shrink,
    "tanh_shrink": lambda x: x - np.tanh(x),
    "log_sigmoid": lambda x: -_softplus(-x),
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": lambda x: np.clip(0.5 * (x + 1.0), 0.0, 1.0),
    "squareplus": lambda x: 0.5 * (x + np.sqrt(np.square(x) + 4.0)),
    "exponential": np.exp,
}
"""Activation functions by name; they may work in place."""

_OTHER_NAMES: Mapping[str, str] = {
    "linear": "identity",
    "swish": "silu",
    "hardswish": "hard_silu",
    "exp": "exponential",
    **{name.replace("_", ""): name for name in ACTIVATIONS},
}


def activation_name(activation: Any) -> Any:
    """Return our name of an activation function, or what was given if it is none.

    Args:
        activation: a name in any library's spelling (``"LeakyReLU"``, ``"swish"``), or a class or function of that name
            (``nn.GELU``, ``jax.nn.gelu``).
    """
    name = activation if isinstance(activation, str) else getattr(activation, "__name__", None)
    if not isinstance(name, str):
        return activation
    return _OTHER_NAMES.get(name.lower().replace("_", ""), activation)
