"""Actions of a Gaussian through tanh, judged from where they lie in their range, as a pure function."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from optix_core.policies.heads import LOG_STD_RANGE
from optix_core.policies.squashing import EDGE, quadrature
from optix_tf._runtime import tf

_LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, kw_only=True)
class SquashedGaussian:
    """Continuous actions: a Gaussian through tanh, whose means and deviations the network gives.

    Densities are those of ``(action - centre) / scale``, which lies within -1 to 1; see
    :mod:`optix_core.policies.squashing`.

    Attributes:
        centre: ``D`` middles of the range.
        scale: ``D`` halves of its width.
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]

    def evaluate(self, outputs: Any, log_std: Any, actions: Any) -> tuple[Any, Any]:
        """Judge actions ``[B, D]`` by outputs ``[B, 2 D]``: means, then logarithms of standard deviations."""
        mean, log_std = tf.split(outputs, 2, axis=1)
        log_std = tf.clip_by_value(log_std, *LOG_STD_RANGE)
        std = tf.exp(log_std)
        centre, scale = (tf.constant(numbers, outputs.dtype) for numbers in (self.centre, self.scale))
        points, weights = (tf.constant(numbers, outputs.dtype) for numbers in quadrature())
        actions = tf.cast(tf.reshape(actions, tf.shape(mean)), outputs.dtype)
        unit = tf.clip_by_value((actions - centre) / scale, EDGE - 1.0, 1.0 - EDGE)
        z = (tf.atanh(unit) - mean) / std
        densities = -0.5 * tf.square(z) - log_std - 0.5 * _LOG_2PI - tf.math.log1p(-tf.square(unit))
        drawn = mean[:, :, None] + std[:, :, None] * points
        log_slopes = tf.reduce_sum(2.0 * (math.log(2.0) - drawn - tf.nn.softplus(-2.0 * drawn)) * weights, 2)
        entropies = log_std + 0.5 * (1.0 + _LOG_2PI) + log_slopes
        return tf.reduce_sum(densities, 1), tf.reduce_sum(entropies, 1)
