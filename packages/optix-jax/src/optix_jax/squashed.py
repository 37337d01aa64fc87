"""Actions of a Gaussian through tanh, judged from where they lie in their range, as pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from optix_core.policies.heads import LOG_STD_RANGE
from optix_core.policies.squashing import EDGE, quadrature

_LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, kw_only=True)
class SquashedGaussian:
    """Continuous actions: a Gaussian through tanh, whose means and deviations the network gives.

    Densities are those of ``(action - centre) / scale``, which lies within -1 to 1; see
    :mod:`optix_core.policies.squashing`.

    Attributes:
        centre: ``D`` middles of the range.
        scale: ``D`` halves of its width.
        shape: of one action.
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    shape: tuple[int, ...]

    def evaluate(self, outputs: jax.Array, log_std: Any, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Judge actions ``[B, D]`` by outputs ``[B, 2 D]``: means, then logarithms of standard deviations."""
        mean, log_std, std = self._parts(outputs)
        centre, scale = (jnp.asarray(numbers, outputs.dtype) for numbers in (self.centre, self.scale))
        points, weights = (jnp.asarray(numbers, outputs.dtype) for numbers in quadrature())
        unit = jnp.clip((actions.reshape(mean.shape) - centre) / scale, EDGE - 1.0, 1.0 - EDGE)
        z = (jnp.arctanh(unit) - mean) / std
        densities = -0.5 * jnp.square(z) - log_std - 0.5 * _LOG_2PI - jnp.log1p(-jnp.square(unit))
        drawn = mean[:, :, None] + std[:, :, None] * points
        log_slopes = jnp.sum(2.0 * (math.log(2.0) - drawn - jax.nn.softplus(-2.0 * drawn)) * weights, axis=2)
        entropies = log_std + 0.5 * (1.0 + _LOG_2PI) + log_slopes
        return jnp.sum(densities, axis=1), jnp.sum(entropies, axis=1)

    def noise(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draw what :meth:`sample` needs for outputs of this shape."""
        return jax.random.normal(key, (*shape[:-1], shape[-1] // 2))

    def sample(self, outputs: jax.Array, log_std: Any, noise: jax.Array) -> jax.Array:
        """Return actions ``[B, *shape]`` for outputs ``[B, 2 D]`` and noise ``[B, D]``."""
        del log_std
        mean, _, std = self._parts(outputs)
        centre, scale = (jnp.asarray(numbers, outputs.dtype) for numbers in (self.centre, self.scale))
        return (centre + scale * jnp.tanh(mean + std * noise)).reshape(-1, *self.shape)

    @staticmethod
    def _parts(outputs: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        mean, log_std = jnp.split(outputs, 2, axis=1)
        log_std = jnp.clip(log_std, *LOG_STD_RANGE)
        return mean, log_std, jnp.exp(log_std)
