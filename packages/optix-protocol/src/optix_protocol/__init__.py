"""The contract between optix and the agents it trains.

Six methods make an agent (:class:`BaseAgent`); everything more is an optional capability. This package needs NumPy
and nothing else, so that a backend can depend on it without depending on the loop.
"""

from optix_protocol.agent import BaseAgent
from optix_protocol.capabilities import (
    CAPABILITIES,
    ActionDistribution,
    MemberGroup,
    ParamBound,
    Policy,
    PolicyMode,
    SeedGroup,
    SupportsActionDistribution,
    SupportsActionMasks,
    SupportsBatches,
    SupportsExport,
    SupportsFusedTraining,
    SupportsHostPolicy,
    SupportsLaggedWindows,
    SupportsManySeeds,
    SupportsModels,
    SupportsParamBounds,
    SupportsPolicy,
    SupportsPopulation,
    SupportsRecurrentState,
    SupportsTeardown,
    SupportsTrainingState,
    capabilities_of,
    is_on_policy,
)
from optix_protocol.contracts import (
    ActionKind,
    AlgorithmInfo,
    Backend,
    BaseEvaluator,
    BaseOptimizer,
    BasePipeline,
    LoopCallback,
    SupportsOwnNetworks,
    SupportsPipelineState,
)
from optix_protocol.host import host_policy_tree
from optix_protocol.types import (
    Array,
    EpisodeData,
    EvalMetrics,
    HyperparamSet,
    LoopState,
    PolicySnapshot,
    RecurrentState,
    StateTree,
    Verdict,
)

__version__ = "1.2.0"
PROTOCOL_VERSION = "1.2"
"""Major and minor version of the contract; a backend that is written for it declares it as ``protocol_version``."""

__all__ = [
    "CAPABILITIES",
    "PROTOCOL_VERSION",
    "ActionDistribution",
    "ActionKind",
    "AlgorithmInfo",
    "Array",
    "Backend",
    "BaseAgent",
    "BaseEvaluator",
    "BaseOptimizer",
    "BasePipeline",
    "EpisodeData",
    "EvalMetrics",
    "HyperparamSet",
    "LoopCallback",
    "LoopState",
    "MemberGroup",
    "ParamBound",
    "Policy",
    "PolicyMode",
    "PolicySnapshot",
    "RecurrentState",
    "SeedGroup",
    "StateTree",
    "SupportsActionDistribution",
    "SupportsActionMasks",
    "SupportsBatches",
    "SupportsExport",
    "SupportsFusedTraining",
    "SupportsHostPolicy",
    "SupportsLaggedWindows",
    "SupportsManySeeds",
    "SupportsModels",
    "SupportsOwnNetworks",
    "SupportsParamBounds",
    "SupportsPipelineState",
    "SupportsPolicy",
    "SupportsPopulation",
    "SupportsRecurrentState",
    "SupportsTeardown",
    "SupportsTrainingState",
    "Verdict",
    "__version__",
    "capabilities_of",
    "host_policy_tree",
    "is_on_policy",
]
