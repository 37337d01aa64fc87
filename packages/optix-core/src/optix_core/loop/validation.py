"""Measuring the policy on a pipeline that only acts, within a share of the training steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from optix_core.loop.budget import EVALUATION_SHARE
from optix_core.loop.capabilities import BeginsEpisodes, RemembersForWrappers, TakesOverMemory
from optix_core.loop.counters import ValidationCounters
from optix_protocol import Array, BaseEvaluator, BasePipeline, EpisodeData, EvalMetrics

MAX_VALIDATION_WINDOWS = 50
"""A validation that has seen no end of an episode after so many windows is given up."""


@dataclass(kw_only=True)
class Validation:
    """When to validate, and what it has cost.

    Attributes:
        pipeline: where the windows come from, or None for no validation.
        training: the pipeline of training; its wrappers' memory goes to those of validation, where both can do that.
        counters: what it has cost so far, and when it is due again.
    """

    pipeline: BasePipeline | None
    training: BasePipeline | None = None
    counters: ValidationCounters = field(default_factory=ValidationCounters)

    @property
    def num_env_steps(self) -> int:
        """Environment steps that validation has taken so far."""
        return self.counters.validation_steps

    def measure(
        self,
        *,
        trained_env_steps: int,
        interval: int,
        evaluator: BaseEvaluator,
        on_failure: Callable[[str], object],
    ) -> EvalMetrics | None:
        """Measure the policy if that is due and within its share of the steps; called for every training window.

        A pipeline that can (:class:`BeginsEpisodes`) begins new episodes, so that nothing that another policy did
        counts, and goes on until each environment has ended its first. Only these are scored: whichever ended first
        would favour short ones. Of any other pipeline, windows are taken until one has a score.

        Args:
            trained_env_steps: steps of training so far, the window in hand included.
            interval: training windows between two validations.
            evaluator: scores a window.
            on_failure: is told when no episode ended.
        """
        if self.pipeline is None:
            return None
        counters = self.counters
        counters.windows_since_validation += 1
        affordable = counters.validation_steps + counters.validation_cost <= EVALUATION_SHARE * trained_env_steps
        if counters.windows_since_validation < interval or not affordable:
            return None
        before = counters.validation_steps
        if isinstance(self.pipeline, TakesOverMemory) and isinstance(self.training, RemembersForWrappers):
            self.pipeline.take_over_memory(self.training)
        if isinstance(self.pipeline, BeginsEpisodes):
            self.pipeline.begin_episodes()
            metrics = self._score_first_episodes(evaluator)
        else:
            metrics = next((found for window in self._windows() if (found := evaluator.score(window, {}))), None)
        if metrics is None:
            on_failure(f"No episode ended in {MAX_VALIDATION_WINDOWS} windows of validation: make its windows longer.")
        counters.windows_since_validation = 0
        counters.validation_cost = counters.validation_steps - before
        return metrics

    def _windows(self) -> Iterator[EpisodeData]:
        assert self.pipeline is not None
        for window in islice(self.pipeline.windows(), MAX_VALIDATION_WINDOWS):
            self.counters.validation_steps += window.num_env_steps
            yield window

    def _score_first_episodes(self, evaluator: BaseEvaluator) -> EvalMetrics | None:
        """Score what each environment did until the end of its first episode, all windows taken as one."""
        taken: list[EpisodeData] = []
        for window in self._windows():
            taken.append(window)
            ended = np.any([part.done.any(axis=0) for part in taken], axis=0)
            if ended.all():
                break
            # A score of the user's own may need no end of an episode.
            if not ended.any() and (metrics := evaluator.score(first_episodes(taken), {})) is not None:
                return metrics
        return evaluator.score(first_episodes(taken), {}) if taken else None


def first_episodes(windows: Sequence[EpisodeData]) -> EpisodeData:
    """Join successive windows to one, in which nothing after the first episode of each environment is valid."""
    done = np.concatenate([window.done for window in windows])
    counts = done.astype(np.int64)
    kept = np.cumsum(counts, axis=0) - counts == 0  # up to and with the first end
    ends = np.argwhere(done)
    first = kept[ends[:, 0], ends[:, 1]]

    def join(name: str) -> Array:
        return np.concatenate([vars(window)[name] for window in windows])

    return replace(
        windows[0],
        observations=join("observations"),
        actions=join("actions"),
        rewards=join("rewards"),
        terminated=join("terminated") & kept,
        truncated=join("truncated") & kept,
        valid=join("valid") & kept,
        last_observation=windows[-1].last_observation,
        final_observations=join("final_observations")[first],
        episode_returns=join("episode_returns")[first],
        episode_lengths=join("episode_lengths")[first],
        behaviour_log_probs=None,
        intrinsic_rewards=None,
    )
