"""The public face of a trial search: one whose trials are runs of the loop."""

from __future__ import annotations

from typing import ClassVar

from optix_core.loop.rl_optimizer import RLOptimizer
from optix_core.search.trial_search import TrialSearch
from optix_core.search.trials import MakeRun


class TrialOrchestrator(TrialSearch):
    """Searches a space of hyperparameters by runs of :class:`RLOptimizer`; see :class:`TrialSearch`."""

    default_run: ClassVar[MakeRun | None] = RLOptimizer
