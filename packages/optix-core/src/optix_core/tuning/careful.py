"""The tuner that the loop takes by itself where it is asked to (``optimizer="auto"``)."""

from __future__ import annotations

from optix_core.tuning.spsa import SPSAOptimizer
from optix_protocol import BaseAgent, SupportsParamBounds, SupportsTrainingState


def careful_tuner(agent: BaseAgent, *, seed: int = 0) -> SPSAOptimizer | None:
    """Return SPSA for the learning rate, which does most harm where it is wrong; None where there is no need of it.

    That is the case for an agent without exact training state (trying in turn costs the run itself), without a range
    for its learning rate, or with one that moves by itself (``adaptive_kl``, a schedule).

    Args:
        agent: whose.
        seed: of the tuner.
    """
    if not (isinstance(agent, SupportsParamBounds) and isinstance(agent, SupportsTrainingState)):
        return None
    bounds, values = agent.param_bounds(), agent.get_hyperparams().params
    moves = "learning_rate" in getattr(agent, "schedules", ()) or values.get("adaptive_kl") is not None
    if "learning_rate" not in bounds or moves:
        return None
    return SPSAOptimizer({"learning_rate": bounds["learning_rate"]}, seed=seed)
