"""One file of weights and one batch for tests of parity, in plain NumPy float64, the same for every framework."""

from itertools import pairwise

import numpy as np
import pytest

NUM_ROWS, OBSERVATION_SIZE = 128, 5


@pytest.fixture
def torch_precision(monkeypatch):
    """A function that lets torch, and the agents made in it, compute in ``"float64"`` or ``"float32"``."""
    torch = pytest.importorskip("torch")
    from optix_torch import _precision

    def compute_in(name):
        torch.set_default_dtype(getattr(torch, name))
        monkeypatch.setattr(_precision, "PRECISION", getattr(torch, name))

    yield compute_in
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def reference_file(tmp_path):
    """A function that writes the file and returns its path.

    ``networks`` gives the layer sizes of each dense network. Layer ``i`` is ``<network>.<i>.kernel`` ``[in, out]`` and
    ``<network>.<i>.bias`` ``[out]``. The batch is what a replay memory gives: ``observations``, ``actions`` (whole
    numbers below ``num_actions``, or within -1..1 ``[B, num_dimensions]``), ``rewards``, ``next_observations``,
    ``discounts`` (0 where terminated), ``weights``; ``noise`` is ``[10, 2, B, num_dimensions]``, for ten updates.
    """

    def write(networks, *, num_actions=0, num_dimensions=1, seed=0):
        rng = np.random.default_rng(seed)
        arrays = {}
        for name, sizes in networks.items():
            for i, (low, high) in enumerate(pairwise(sizes)):
                arrays[f"{name}.{i}.kernel"] = rng.normal(size=(low, high)) / np.sqrt(low)
                arrays[f"{name}.{i}.bias"] = 0.1 * rng.normal(size=high)
        actions = (
            rng.integers(0, num_actions, NUM_ROWS)
            if num_actions
            else rng.uniform(-1.0, 1.0, (NUM_ROWS, num_dimensions))
        )
        arrays |= {
            "observations": rng.normal(size=(NUM_ROWS, OBSERVATION_SIZE)),
            "actions": actions,
            "rewards": 3.0 * rng.normal(size=NUM_ROWS),
            "next_observations": rng.normal(size=(NUM_ROWS, OBSERVATION_SIZE)),
            "discounts": np.where(rng.random(NUM_ROWS) < 0.2, 0.0, 0.97),
            "weights": rng.uniform(0.2, 1.0, NUM_ROWS),
            "noise": rng.standard_normal((10, 2, NUM_ROWS, num_dimensions), dtype=np.float32),
        }
        path = tmp_path / "reference.npz"
        np.savez(path, **arrays)
        return path

    return write
