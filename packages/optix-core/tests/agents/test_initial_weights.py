import numpy as np
import pytest

from optix_core.agents.initial_weights import orthogonal


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (3, 3, 2, 7)])
def test_the_smaller_side_is_orthogonal_with_the_gain_as_length(shape):
    weights = orthogonal(shape, 1.5, np.random.default_rng(0)).reshape(-1, shape[-1])
    rows, columns = weights.shape
    smaller = weights.T @ weights if rows >= columns else weights @ weights.T
    np.testing.assert_allclose(smaller, 2.25 * np.eye(min(rows, columns)), atol=1e-6)
    assert weights.dtype == np.float32
