"""Initial weights, drawn in NumPy: the same for every framework, and nobody's global random numbers move."""

from __future__ import annotations

import math

import numpy as np

from optix_protocol import Array


def orthogonal(shape: tuple[int, ...], gain: float, rng: np.random.Generator) -> Array:
    """Return ``[*in, out]`` float32 whose columns, or rows where there are fewer, are orthogonal (Saxe et al. 2014).

    Args:
        shape: of a dense layer's kernel ``[in, out]`` or of a convolution's ``[height, width, in, out]``.
        gain: length of each of these columns or rows.
        rng: draws the matrix.
    """
    rows, columns = math.prod(shape[:-1]), shape[-1]
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))
    matrix = q if rows >= columns else q.T
    weights: Array = (gain * matrix).reshape(shape).astype(np.float32)
    return weights
