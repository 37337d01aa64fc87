"""How good a policy really is: whole episodes on fresh seeds, honest intervals, selection without flattery."""

from optix_core.evaluation._comparison_row import ComparisonRow
from optix_core.evaluation._scores import iqm, mean
from optix_core.evaluation.compare import Comparison, compare_runs
from optix_core.evaluation.evaluators import ReturnEvaluator
from optix_core.evaluation.intervals import Interval, could_differ, stratified_bootstrap
from optix_core.evaluation.rollouts import PolicyFactory, Rollouts, evaluate, policy_factory, rollout
from optix_core.evaluation.selection import Candidate, Round, Selection, select
from optix_core.evaluation.smoothing import Belief, smooth_scores
from optix_core.evaluation.statistics import (
    PairedTest,
    Profile,
    Summary,
    normalise,
    paired_test,
    performance_profile,
    probability_of_improvement,
    summarise,
)

__all__ = [
    "Belief",
    "Candidate",
    "Comparison",
    "ComparisonRow",
    "Interval",
    "PairedTest",
    "PolicyFactory",
    "Profile",
    "ReturnEvaluator",
    "Rollouts",
    "Round",
    "Selection",
    "Summary",
    "compare_runs",
    "could_differ",
    "evaluate",
    "iqm",
    "mean",
    "normalise",
    "paired_test",
    "performance_profile",
    "policy_factory",
    "probability_of_improvement",
    "rollout",
    "select",
    "smooth_scores",
    "stratified_bootstrap",
    "summarise",
]
