"""What learners of every framework share: advantages, minibatches, normalisers. NumPy only."""

from optix_core.data.gae import compute_gae, successor_values
from optix_core.data.minibatches import make_minibatches, minibatch_slices
from optix_core.data.normalizers import ObsNormalizer, RewardNormalizer, RunningMeanStd

__all__ = [
    "ObsNormalizer",
    "RewardNormalizer",
    "RunningMeanStd",
    "compute_gae",
    "make_minibatches",
    "minibatch_slices",
    "successor_values",
]
