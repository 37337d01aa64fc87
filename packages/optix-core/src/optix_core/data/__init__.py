"""What learners of every framework share: advantages, minibatches, normalisers, replay memories. NumPy only."""

from optix_core.data.gae import compute_gae, successor_values
from optix_core.data.hand_filled import HandFilledHERBuffer, HindsightBatch
from optix_core.data.hindsight import GoalLayout, HERBuffer, is_goal_env
from optix_core.data.minibatches import make_minibatches, minibatch_slices
from optix_core.data.normalizers import ObsNormalizer, RewardNormalizer, RunningMeanStd
from optix_core.data.prioritized import PrioritizedReplayBuffer
from optix_core.data.replay import ReplayBatch, ReplayBuffer
from optix_core.data.vtrace import compute_vtrace

__all__ = [
    "GoalLayout",
    "HERBuffer",
    "HandFilledHERBuffer",
    "HindsightBatch",
    "ObsNormalizer",
    "PrioritizedReplayBuffer",
    "ReplayBatch",
    "ReplayBuffer",
    "RewardNormalizer",
    "RunningMeanStd",
    "compute_gae",
    "compute_vtrace",
    "is_goal_env",
    "make_minibatches",
    "minibatch_slices",
    "successor_values",
]
