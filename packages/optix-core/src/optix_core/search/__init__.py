"""Trial search: many runs with other hyperparameters, proposed by Optuna, each judged by how it plays in the end."""

from optix_core.search.orchestrator import TrialOrchestrator

__all__ = ["TrialOrchestrator"]
