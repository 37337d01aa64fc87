"""Turning a window into a score by a pure function, compiled."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from optix_core.evaluation.evaluators import ReturnEvaluator, beside_training
from optix_protocol import EpisodeData, EvalMetrics


class FlaxEvaluator(ReturnEvaluator):
    """The mean return of the window's episodes, or a goal of your own, with the diagnostics of ``learn`` beside it.

    Args:
        goal: pure function of rewards ``[T, N]``, ``terminated``, ``truncated`` and ``valid`` (bool ``[T, N]``) to a
            scalar, compiled by JAX; NaN says that the window holds no evidence. None scores by returns.
    """

    def __init__(self, goal: Callable[[Any, Any, Any, Any], Any] | None = None) -> None:
        self._goal = goal
        self._compiled: Callable[..., Any] | None = None

    def score(self, episode_data: EpisodeData, train_diagnostics: Mapping[str, float]) -> EvalMetrics | None:
        """Score a window.

        Args:
            episode_data: the window.
            train_diagnostics: what ``learn`` returned; the finite numbers become metrics ``train/<name>``.

        Returns:
            The score, with the metrics of :meth:`optix_core.evaluation.ReturnEvaluator.score` where an episode ended;
            None without evidence.
        """
        found = super().score(episode_data, train_diagnostics)
        if self._goal is not None:
            value = self._value(episode_data)
            if math.isnan(value):
                return None
            found = EvalMetrics(primary_score=value, metrics={} if found is None else found.metrics)
        return None if found is None else beside_training(found, train_diagnostics)

    def _value(self, window: EpisodeData) -> float:
        if self._compiled is None:
            import jax

            assert self._goal is not None
            self._compiled = jax.jit(self._goal)
        return float(self._compiled(window.rewards, window.terminated, window.truncated, window.valid))
