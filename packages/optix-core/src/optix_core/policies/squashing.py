"""The numbers that judging actions of a Gaussian through tanh takes, the same in every framework.

An action ``a = tanh(u)`` with ``u ~ N(mean, std)`` has the density ``N(u) / (1 - a^2)``. Its entropy is that of the
Gaussian and ``E[log(1 - tanh(u)^2)]``, which has no closed form: Gauss-Hermite quadrature finds it without drawing.
"""

from __future__ import annotations

import math

import numpy as np

from optix_protocol import Array

EDGE = 1e-6
"""Actions nearer than this to the end of their range, where it is -1 to 1, are taken for so near: tanh has no inverse
at its ends, and rounding lets draws reach them."""


def quadrature(num_points: int = 20) -> tuple[Array, Array]:
    """Return points and weights ``[K]`` float32 so that ``E[f(z)] = sum(weights f(points))`` for a standard normal z.

    Twenty points leave errors below 0.01 nats in an entropy for deviations up to 2, and far smaller ones below 1.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(num_points)
    return points.astype(np.float32), (weights / math.sqrt(2 * math.pi)).astype(np.float32)
