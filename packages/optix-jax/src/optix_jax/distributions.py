"""Distributions over actions as pure functions of a network's outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from optix_core.policies import heads
from optix_jax.squashed import SquashedGaussian

_LOG_2PI = math.log(2 * math.pi)


FORBIDDEN = -1e8
"""Logit of what is not allowed: its probability is exactly 0, its term of the entropy finite, its gradient 0."""


def only_allowed(outputs: jax.Array, masks: jax.Array | None) -> jax.Array:
    """Return logits or values ``[B, A]`` with :data:`FORBIDDEN` where bool masks ``[B, A]`` are False.

    Masks ``[B, 0]``, and None, allow everything. Those of switches are ``[B, 2 A]``, off and on of each side by side: a
    single position that is left has log-odds of that size.
    """
    if masks is None or not masks.shape[1]:
        return outputs
    if masks.shape[1] == outputs.shape[1]:
        return jnp.where(masks, outputs, FORBIDDEN)
    off, on = masks[:, ::2], masks[:, 1::2]
    return jnp.where(on, jnp.where(off, outputs, -FORBIDDEN), FORBIDDEN)


@dataclass(frozen=True, kw_only=True)
class Categorical:
    """One discrete action by its logits.

    Attributes:
        start: the smallest action.
    """

    start: int = 0

    def evaluate(self, outputs: jax.Array, log_std: Any, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return log-probabilities ``[B]`` of actions ``[B]`` or ``[B, 1]``, and entropies ``[B]``, by logits."""
        del log_std
        log_probs = jax.nn.log_softmax(outputs)
        # Chosen by a product: the gradient of an indexed read is a loop over rows on a CPU.
        chosen = jax.nn.one_hot(actions.reshape(-1) - self.start, outputs.shape[1], dtype=outputs.dtype)
        entropies = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=1)
        return jnp.sum(chosen * log_probs, axis=1), entropies

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draw what :meth:`sample` needs for outputs of this shape."""
        return jax.random.gumbel(key, shape)

    def sample(self, outputs: jax.Array, log_std: Any, noise: jax.Array) -> jax.Array:
        """Return actions ``[B]`` for outputs and noise ``[B, A]`` (the Gumbel-max trick)."""
        del log_std
        return jnp.argmax(outputs + noise, axis=1) + self.start


@dataclass(frozen=True, kw_only=True)
class MultiCategorical:
    """Several independent discrete actions, their logits side by side.

    Attributes:
        nvec: number of choices of each.
        start: smallest value of each.
        shape: of one action.
    """

    nvec: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...]

    def evaluate(self, outputs: jax.Array, log_std: Any, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Judge actions ``[B, len(nvec)]`` by logits ``[B, sum(nvec)]``: log-probabilities and entropies add up."""
        parts = [
            Categorical(start=low).evaluate(logits, log_std, actions[:, i])
            for i, (logits, low) in enumerate(zip(self._split(outputs), self.start, strict=True))
        ]
        log_probs, entropies = zip(*parts, strict=True)
        return sum(log_probs[1:], log_probs[0]), sum(entropies[1:], entropies[0])

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draw what :meth:`sample` needs for outputs of this shape."""
        return jax.random.gumbel(key, shape)

    def sample(self, outputs: jax.Array, log_std: Any, noise: jax.Array) -> jax.Array:
        """Return actions ``[B, *shape]`` for outputs and noise ``[B, sum(nvec)]``."""
        parts = zip(self._split(outputs), self._split(noise), self.start, strict=True)
        columns = [Categorical(start=low).sample(logits, log_std, n) for logits, n, low in parts]
        return jnp.stack(columns, axis=1).reshape(-1, *self.shape)

    def _split(self, outputs: jax.Array) -> list[jax.Array]:
        return jnp.split(outputs, np.cumsum(self.nvec)[:-1].tolist(), axis=1)


@dataclass(frozen=True, kw_only=True)
class Bernoulli:
    """Independent switches, each on (1) or off (0), by their log-odds.

    Attributes:
        shape: of one action.
    """

    shape: tuple[int, ...]

    def evaluate(self, outputs: jax.Array, log_std: Any, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Judge actions ``[B, D]`` by logits ``[B, D]``: log-probabilities and entropies add up.

        ``log p(a) = a x - softplus(x)`` and ``H = softplus(x) - sigmoid(x) x``.
        """
        del log_std
        chosen = actions.reshape(outputs.shape).astype(outputs.dtype)
        normaliser = jax.nn.softplus(outputs)
        entropies = normaliser - jax.nn.sigmoid(outputs) * outputs
        return jnp.sum(chosen * outputs - normaliser, axis=1), jnp.sum(entropies, axis=1)

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draw what :meth:`sample` needs for outputs of this shape."""
        return jax.random.logistic(key, shape)

    def sample(self, outputs: jax.Array, log_std: Any, noise: jax.Array) -> jax.Array:
        """Return actions ``[B, *shape]`` for outputs and noise ``[B, D]``."""
        del log_std
        return (outputs + noise > 0).astype(jnp.int8).reshape(-1, *self.shape)


@dataclass(frozen=True, kw_only=True)
class DiagonalGaussian:
    """Continuous actions: independent Gaussians whose spread does not depend on the observation.

    Densities are those of ``(action - centre) / scale``; the constant factor to the action's own units cancels in every
    ratio.

    Attributes:
        centre: ``D`` actions that an output of 0 means.
        scale: ``D`` lengths of one unit of output in units of the action.
        shape: of one action.
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    shape: tuple[int, ...]

    def evaluate(self, outputs: jax.Array, log_std: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Judge actions ``[B, D]`` (unclipped, as drawn) by means ``[B, D]`` and ``log_std`` ``[D]``."""
        centre, scale = (jnp.asarray(numbers, outputs.dtype) for numbers in (self.centre, self.scale))
        z = ((actions.reshape(outputs.shape) - centre) / scale - outputs) * jnp.exp(-log_std)
        constant = 0.5 * _LOG_2PI * len(self.centre)
        log_probs = -0.5 * jnp.sum(jnp.square(z), axis=1) - (jnp.sum(log_std) + constant)
        entropy = jnp.sum(log_std) + constant + 0.5 * len(self.centre)
        return log_probs, jnp.broadcast_to(entropy, log_probs.shape)

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draw what :meth:`sample` needs for outputs of this shape."""
        return jax.random.normal(key, shape)

    def sample(self, outputs: jax.Array, log_std: jax.Array, noise: jax.Array) -> jax.Array:
        """Return actions ``[B, *shape]`` for outputs and noise ``[B, D]``, unclipped."""
        centre, scale = (jnp.asarray(numbers, outputs.dtype) for numbers in (self.centre, self.scale))
        return (centre + scale * (outputs + jnp.exp(log_std) * noise)).reshape(-1, *self.shape)


Distribution: TypeAlias = Categorical | MultiCategorical | Bernoulli | DiagonalGaussian | SquashedGaussian


def distribution_of(head: heads.Head) -> Distribution:
    """Return the distribution that a NumPy head acts by.

    Raises:
        TypeError: a head that no on-policy agent has.
    """
    if isinstance(head, heads.Categorical):
        return Categorical(start=head.start)
    if isinstance(head, heads.MultiCategorical):
        return MultiCategorical(nvec=head.nvec, start=head.start, shape=head.action_shape)
    if isinstance(head, heads.Bernoulli):
        return Bernoulli(shape=head.shape)
    if isinstance(head, heads.DiagonalGaussian):
        centre, scale = (tuple(array.tolist()) for array in head.affine)
        return DiagonalGaussian(centre=centre, scale=scale, shape=head.shape)
    if isinstance(head, heads.SquashedGaussian):
        centre, scale = (tuple(array.tolist()) for array in head.affine)
        return SquashedGaussian(centre=centre, scale=scale, shape=head.shape)
    raise TypeError(f"{type(head).__name__} is no head of an on-policy agent.")
