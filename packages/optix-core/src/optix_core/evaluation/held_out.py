"""Scores of models on rows that they have not learned from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from optix_core.data.rows import parted
from optix_core.errors import AgentError
from optix_protocol import BaseAgent, BaseEvaluator, EpisodeData, EvalMetrics, SupportsBatches

Metric: TypeAlias = Callable[[Any, Any], float]
"""From the outputs for all held-out rows and their targets to a number that is to be maximised."""


class HeldOutEvaluator(BaseEvaluator):
    """The agent's loss on held-out rows, with its sign changed, or a metric of the user's own.

    A score is that of the very policy that is in the agent, on the same rows each time.

    Args:
        agent: who is judged.
        batches: goes through the held-out rows.
        metric: score in place of the loss.
    """

    scores_exactly = True

    def __init__(self, agent: BaseAgent, batches: Callable[[], Iterable[Any]], *, metric: Metric | None = None) -> None:
        self._agent, self._batches, self._metric = agent, batches, metric

    def score(self, episode_data: EpisodeData, train_diagnostics: Mapping[str, float]) -> EvalMetrics | None:
        """Judge the agent as it is now.

        Args:
            episode_data: not used; what an agent learns from says nothing of held-out rows.
            train_diagnostics: of the latest ``learn``, where its training loss is.

        Returns:
            The score, with the loss and what else the agent measures as further metrics; None if it is not finite.
        """
        del episode_data
        found = self.measure()
        if not math.isfinite(found.primary_score):
            return None  # a broken model: the loss that it learns by next says so
        loss = train_diagnostics.get("loss", math.nan)
        if self._metric is None and math.isfinite(loss):
            return replace(found, generalization_gap=-loss - found.primary_score)
        return found

    def measure(self) -> EvalMetrics:
        """Judge the agent as it is now.

        Raises:
            AgentError: the metric is no number.
        """
        if isinstance(self._agent, SupportsBatches):
            found = self._agent.evaluate(self._batches(), metric=self._metric)
        else:
            assert self._metric is not None
            parts = [(np.asarray(self._agent.act(inputs)), targets) for inputs, targets in map(parted, self._batches())]
            outputs, targets = (np.concatenate(column) for column in zip(*parts, strict=True))
            found = EvalMetrics(primary_score=float(self._metric(outputs, targets)))
        if math.isnan(found.primary_score) and self._metric is not None:
            raise AgentError("The metric of the held-out rows is NaN: return a number, -inf for a useless model.")
        return found

    def score_agent(self, agent: BaseAgent) -> float:
        """Return the score of the policy that is in the agent now, for the choice of the one that is kept."""
        del agent
        score = self.measure().primary_score
        return score if math.isfinite(score) else -math.inf
