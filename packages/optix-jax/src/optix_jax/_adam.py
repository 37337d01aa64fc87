"""Adam (Kingma and Ba 2015) without its learning rate, as optax has it, for those who bring no optimiser.

Importing optax would cost every run a sixth of a second. Whoever passes one of its optimisers has imported it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree


class Transformation(NamedTuple):
    """From gradients to steps, with the form of ``optax.GradientTransformation``.

    Attributes:
        init: from parameters to a memory.
        update: from gradients, a memory and parameters to steps and the next memory.
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]


class AdamState(NamedTuple):
    """What Adam remembers, named as in optax.

    Attributes:
        count: steps so far, int32.
        mu: running means of the gradients.
        nu: running means of their squares.
    """

    count: Any
    mu: Any
    nu: Any


def adam(*, epsilon: float, beta1: float = 0.9, beta2: float = 0.999) -> Transformation:
    """Return ``optax.scale_by_adam(beta1, beta2, epsilon)``."""

    def init(params: Any) -> AdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(jnp.zeros([], jnp.int32), zeros, jax.tree.map(jnp.zeros_like, params))

    def update(gradients: Any, state: AdamState, params: Any = None) -> tuple[Any, AdamState]:
        del params
        count = state.count + 1
        mu = jax.tree.map(lambda g, m: (1 - beta1) * g + beta1 * m, gradients, state.mu)
        nu = jax.tree.map(lambda g, v: (1 - beta2) * (g**2) + beta2 * v, gradients, state.nu)
        correction1, correction2 = 1 - beta1**count, 1 - beta2**count
        steps = jax.tree.map(
            lambda m, v: (m / correction1.astype(m.dtype)) / (jnp.sqrt(v / correction2.astype(v.dtype)) + epsilon),
            mu,
            nu,
        )
        return steps, AdamState(count, mu, nu)

    return Transformation(init, update)


def in_one_vector(inner: Transformation) -> Transformation:
    """Return a transformation that sees all parameters as one vector: small layers one by one cost several kernels."""

    def init(params: Any) -> Any:
        return inner.init(ravel_pytree(params)[0])

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        vector, as_tree = ravel_pytree(gradients)
        steps, state = inner.update(vector, state)
        return as_tree(steps), state

    return Transformation(init, update)


def apply_steps(params: Any, steps: Any) -> Any:
    """Return parameters after steps, in the types that they had."""
    return jax.tree.map(lambda p, step: jnp.asarray(p + step).astype(jnp.asarray(p).dtype), params, steps)
