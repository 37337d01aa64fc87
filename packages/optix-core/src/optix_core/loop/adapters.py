"""Parts that were written for less than the loop asks of them today, completed."""

from __future__ import annotations

from typing import Any

from optix_core.convergence import Assessment
from optix_core.loop.capabilities import Scheduler, Tuner
from optix_protocol import BaseOptimizer, EvalMetrics, HyperparamSet, LoopState, PolicySnapshot, Verdict


def complete_scheduler(scheduler: Any) -> Scheduler:
    """Return a scheduler that has all of :class:`~optix_core.loop.capabilities.Scheduler`: the same one if it has.

    Args:
        scheduler: with ``update``, ``assessment``, ``state_dict`` and ``load_state_dict`` at least.
    """
    if isinstance(scheduler, Scheduler) and isinstance(scheduler.state, LoopState):
        return scheduler
    return _CompletedScheduler(scheduler)


def complete_tuner(optimizer: BaseOptimizer | None) -> Tuner | None:
    """Return a tuner that has a state, if it is an empty one; the same one if it has a state of its own."""
    if optimizer is None or isinstance(optimizer, Tuner):
        return optimizer
    return _StatelessTuner(optimizer)


class _CompletedScheduler:
    """A scheduler with what it has itself, and defaults for the rest."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self.update = scheduler.update
        self.state_dict = scheduler.state_dict
        self.load_state_dict = scheduler.load_state_dict

    @property
    def assessment(self) -> Assessment:
        found: Assessment = self._scheduler.assessment
        return found

    @property
    def state(self) -> LoopState:
        # Schedulers of release 0.1 were not asked for a state, and some keep something else under that name.
        own = getattr(self._scheduler, "state", None)
        if isinstance(own, LoopState):
            return own
        if self.assessment.should_stop:
            return LoopState.DORMANT
        return LoopState.COOLING if self.assessment.verdict is Verdict.CONVERGED else LoopState.ACTIVE

    @property
    def interval(self) -> int:
        return int(getattr(self._scheduler, "interval", 1))  # release 0.1 looked at every window by default

    @property
    def costs_evaluation(self) -> bool:
        return bool(getattr(self._scheduler, "costs_evaluation", False))  # unknown in release 0.1


class _StatelessTuner:
    """A tuner that has no state to keep."""

    def __init__(self, optimizer: BaseOptimizer) -> None:
        self._optimizer = optimizer

    def suggest(self, hyperparams: HyperparamSet, eval_metrics: EvalMetrics) -> HyperparamSet | None:
        return self._optimizer.suggest(hyperparams, eval_metrics)

    def on_improvement(self, snapshot: PolicySnapshot) -> None:
        self._optimizer.on_improvement(snapshot)

    def on_plateau(self, episode_id: int, state: LoopState) -> None:
        self._optimizer.on_plateau(episode_id, state)

    def is_probing(self) -> bool:
        return self._optimizer.is_probing()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state
