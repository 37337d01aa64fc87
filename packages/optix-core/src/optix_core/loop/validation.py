"""Measuring the policy on a pipeline that only acts, within a share of the training steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from optix_core.loop.budget import EVALUATION_SHARE
from optix_protocol import BaseEvaluator, BasePipeline, EvalMetrics

MAX_VALIDATION_WINDOWS = 50
"""A validation that has seen no end of an episode after so many windows is given up."""


@dataclass(kw_only=True)
class Validation:
    """When to validate, and what it has cost.

    Attributes:
        pipeline: where the windows come from, or None for no validation.
        num_env_steps: environment steps that validation has taken so far.
    """

    pipeline: BasePipeline | None
    num_env_steps: int = 0
    _windows_since: int = 0
    _cost: int = 0

    def measure(
        self,
        *,
        trained_env_steps: int,
        interval: int,
        evaluator: BaseEvaluator,
        on_failure: Callable[[str], object],
    ) -> EvalMetrics | None:
        """Measure the policy if that is due and within its share of the steps; called for every training window.

        It goes on until an episode has ended, because a window without one is no evidence.

        Args:
            trained_env_steps: steps of training so far, the window in hand included.
            interval: training windows between two validations.
            evaluator: scores a window.
            on_failure: is told when no episode ended.
        """
        if self.pipeline is None:
            return None
        self._windows_since += 1
        affordable = self.num_env_steps + self._cost <= EVALUATION_SHARE * trained_env_steps
        if self._windows_since < interval or not affordable:
            return None
        before = self.num_env_steps
        for held_out in islice(self.pipeline.windows(), MAX_VALIDATION_WINDOWS):
            self.num_env_steps += held_out.num_env_steps
            metrics = evaluator.score(held_out, {})
            if metrics is not None:
                break
        else:
            on_failure(f"No episode ended in {MAX_VALIDATION_WINDOWS} windows of validation: make its windows longer.")
            metrics = None
        self._windows_since = 0
        self._cost = self.num_env_steps - before
        return metrics

    def counters(self) -> dict[str, Any]:
        """Return what the future depends on, the pipeline apart."""
        return {
            "validation_steps": self.num_env_steps,
            "windows_since_validation": self._windows_since,
            "validation_cost": self._cost,
        }

    def restore_counters(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`counters` returned."""
        self.num_env_steps = int(state["validation_steps"])
        self._windows_since = int(state["windows_since_validation"])
        self._cost = int(state["validation_cost"])
