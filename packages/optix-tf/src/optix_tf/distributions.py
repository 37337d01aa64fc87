"""Distributions over actions as pure functions of a network's outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

from optix_core.policies import heads
from optix_tf._runtime import tf
from optix_tf.squashed import SquashedGaussian

_LOG_2PI = math.log(2 * math.pi)


FORBIDDEN = -1e8
"""Logit of what is not allowed: its probability is exactly 0, its term of the entropy finite, its gradient 0."""


def only_allowed(outputs: Any, masks: Any) -> Any:
    """Return logits or values ``[B, A]`` with :data:`FORBIDDEN` where masks ``[B, A]`` (bool, or 1 and 0) are False.

    Masks ``[B, 0]``, and None, allow everything. Those of switches are ``[B, 2 A]``, off and on of each side by side: a
    single position that is left has log-odds of that size.
    """
    if masks is None or not masks.shape[1]:
        return outputs
    masks, forbidden = tf.cast(masks, tf.bool), tf.constant(FORBIDDEN, outputs.dtype)
    if masks.shape[1] == outputs.shape[1]:
        return tf.where(masks, outputs, forbidden)
    off, on = masks[:, ::2], masks[:, 1::2]
    return tf.where(on, tf.where(off, outputs, -forbidden), forbidden)


@dataclass(frozen=True, kw_only=True)
class Categorical:
    """One discrete action by its logits.

    Attributes:
        start: the smallest action.
    """

    start: int = 0

    def evaluate(self, outputs: Any, log_std: Any, actions: Any) -> tuple[Any, Any]:
        """Return log-probabilities ``[B]`` of actions ``[B]`` or ``[B, 1]``, and entropies ``[B]``, by logits."""
        del log_std
        log_probs = tf.nn.log_softmax(outputs)
        chosen = tf.one_hot(tf.reshape(actions, [-1]) - self.start, outputs.shape[1], dtype=outputs.dtype)
        entropies = -tf.reduce_sum(tf.exp(log_probs) * log_probs, 1)
        return tf.reduce_sum(log_probs * chosen, 1), entropies


@dataclass(frozen=True, kw_only=True)
class MultiCategorical:
    """Several independent discrete actions, their logits side by side.

    Attributes:
        nvec: number of choices of each.
        start: smallest value of each.
    """

    nvec: tuple[int, ...]
    start: tuple[int, ...]

    def evaluate(self, outputs: Any, log_std: Any, actions: Any) -> tuple[Any, Any]:
        """Judge actions ``[B, len(nvec)]`` by logits ``[B, sum(nvec)]``: log-probabilities and entropies add up."""
        parts = [
            Categorical(start=low).evaluate(logits, log_std, actions[:, i])
            for i, (logits, low) in enumerate(zip(tf.split(outputs, self.nvec, axis=1), self.start, strict=True))
        ]
        log_probs, entropies = zip(*parts, strict=True)
        return tf.add_n(log_probs), tf.add_n(entropies)


@dataclass(frozen=True, kw_only=True)
class Bernoulli:
    """Independent switches, each on (1) or off (0), by their log-odds."""

    def evaluate(self, outputs: Any, log_std: Any, actions: Any) -> tuple[Any, Any]:
        """Judge actions ``[B, D]`` by logits ``[B, D]``: log-probabilities and entropies add up.

        ``log p(a) = a x - softplus(x)`` and ``H = softplus(x) - sigmoid(x) x``.
        """
        del log_std
        chosen = tf.cast(tf.reshape(actions, tf.shape(outputs)), outputs.dtype)
        normaliser = tf.math.softplus(outputs)
        entropies = normaliser - tf.sigmoid(outputs) * outputs
        return tf.reduce_sum(chosen * outputs - normaliser, 1), tf.reduce_sum(entropies, 1)


@dataclass(frozen=True, kw_only=True)
class DiagonalGaussian:
    """Continuous actions: independent Gaussians whose spread does not depend on the observation.

    Densities are those of ``(action - centre) / scale``; the constant factor to the action's own units cancels in every
    ratio.

    Attributes:
        centre: ``D`` actions that an output of 0 means.
        scale: ``D`` lengths of one unit of output in units of the action.
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]

    def evaluate(self, outputs: Any, log_std: Any, actions: Any) -> tuple[Any, Any]:
        """Judge actions ``[B, D]`` (unclipped, as drawn) by means ``[B, D]`` and ``log_std`` ``[D]``."""
        centre, scale = (tf.constant(numbers, outputs.dtype) for numbers in (self.centre, self.scale))
        actions = tf.cast(tf.reshape(actions, tf.shape(outputs)), outputs.dtype)
        z = ((actions - centre) / scale - outputs) * tf.exp(-log_std)
        constant = 0.5 * _LOG_2PI * len(self.centre)
        log_probs = -0.5 * tf.reduce_sum(tf.square(z), 1) - (tf.reduce_sum(log_std) + constant)
        entropy = tf.reduce_sum(log_std) + constant + 0.5 * len(self.centre)
        return log_probs, tf.broadcast_to(entropy, tf.shape(log_probs))


Distribution: TypeAlias = Categorical | MultiCategorical | Bernoulli | DiagonalGaussian | SquashedGaussian


def distribution_of(head: heads.Head) -> Distribution:
    """Return the distribution that a NumPy head acts by.

    Raises:
        TypeError: a head that no on-policy agent has.
    """
    if isinstance(head, heads.Categorical):
        return Categorical(start=head.start)
    if isinstance(head, heads.MultiCategorical):
        return MultiCategorical(nvec=head.nvec, start=head.start)
    if isinstance(head, heads.Bernoulli):
        return Bernoulli()
    if isinstance(head, heads.DiagonalGaussian):
        centre, scale = (tuple(array.tolist()) for array in head.affine)
        return DiagonalGaussian(centre=centre, scale=scale)
    if isinstance(head, heads.SquashedGaussian):
        centre, scale = (tuple(array.tolist()) for array in head.affine)
        return SquashedGaussian(centre=centre, scale=scale)
    raise TypeError(f"{type(head).__name__} is no head of an on-policy agent.")
