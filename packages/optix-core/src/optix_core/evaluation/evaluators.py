"""Turning a window into a score."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from optix_core.environments.endings import means
from optix_protocol import BaseEvaluator, EpisodeData, EvalMetrics


class ReturnEvaluator(BaseEvaluator):
    """The mean undiscounted return of the episodes that ended in the window.

    Inherit from it and override :meth:`score` for another goal. A Sharpe ratio, annualised from daily rewards::

        class SharpeEvaluator(ReturnEvaluator):
            def score(self, episode_data, train_diagnostics):
                daily = episode_data.flat(episode_data.rewards)
                if len(daily) < 2 or daily.std() == 0:
                    return None
                sharpe = np.sqrt(252) * daily.mean() / daily.std(ddof=1)
                return EvalMetrics(primary_score=float(sharpe), metrics={"days": len(daily)})
    """

    @property
    def scores_returns(self) -> bool:
        """Whether scores are mean returns of training; an evaluator that scores by another goal says no."""
        kind = type(self)
        return kind.score is ReturnEvaluator.score and kind.combine is ReturnEvaluator.combine

    def score(self, episode_data: EpisodeData, train_diagnostics: Mapping[str, float]) -> EvalMetrics | None:
        """Score a window by its finished episodes.

        Args:
            episode_data: the window; only its raw rewards count, never an intrinsic bonus.
            train_diagnostics: not used here.

        Returns:
            The mean return, with ``return_std`` (sample standard deviation, 0 for a single episode),
            ``episode_length`` (mean, in environment steps) and ``episodes`` as further metrics, and beside them the
            means of what the environment said when episodes ended (``is_success``); None if no episode ended in the
            window. A NaN reward makes the score NaN, for the loop to see.
        """
        del train_diagnostics
        returns = np.asarray(episode_data.episode_returns, dtype=np.float64)
        episodes = len(returns)
        if episodes == 0:
            return None
        # Written out: NumPy's own mean and std cost several times as much on a handful of episodes.
        mean = float(np.add.reduce(returns)) / episodes
        deviations = returns - mean
        variance = float(deviations @ deviations) / (episodes - 1) if episodes > 1 else 0.0
        return EvalMetrics(
            primary_score=mean,
            metrics={
                **means(episode_data.episode_infos),
                "episodes": float(episodes),
                "return_std": math.sqrt(variance),
                "episode_length": float(np.add.reduce(episode_data.episode_lengths)) / episodes,
            },
        )


def beside_training(metrics: EvalMetrics, train_diagnostics: Mapping[str, float]) -> EvalMetrics:
    """Return a score with the finite numbers of ``learn`` among its metrics, as ``train/<name>``."""
    finite = {f"train/{name}": float(value) for name, value in train_diagnostics.items() if math.isfinite(value)}
    return replace(metrics, metrics={**metrics.metrics, **finite})
