"""Turning a window into a score, with what learning said of itself beside it."""

from __future__ import annotations

from collections.abc import Mapping

from optix_core.evaluation.evaluators import ReturnEvaluator, beside_training
from optix_protocol import EpisodeData, EvalMetrics


class TFEvaluator(ReturnEvaluator):
    """The mean return of the window's episodes, and the diagnostics of ``learn`` among the metrics.

    Inherit from it and override :meth:`score` for another goal.
    """

    def score(self, episode_data: EpisodeData, train_diagnostics: Mapping[str, float]) -> EvalMetrics | None:
        """Score a window by its finished episodes.

        Args:
            episode_data: the window.
            train_diagnostics: what ``learn`` returned; the finite numbers become metrics ``train/<name>``.

        Returns:
            As :meth:`optix_core.evaluation.ReturnEvaluator.score`; None if no episode ended in the window.
        """
        found = super().score(episode_data, train_diagnostics)
        return None if found is None else beside_training(found, train_diagnostics)
