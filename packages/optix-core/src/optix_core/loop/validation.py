"""Measuring the policy on a pipeline that only acts, within a share of the training steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import numpy as np

from optix_core.loop.budget import EVALUATION_SHARE
from optix_protocol import BaseEvaluator, BasePipeline, EpisodeData, EvalMetrics


@runtime_checkable
class BeginsEpisodes(Protocol):
    """A pipeline that can drop the episodes in hand."""

    def begin_episodes(self) -> None:
        """Let the next window begin with new episodes in every environment."""
        ...


MAX_VALIDATION_WINDOWS = 50
"""A validation that has seen no end of an episode after so many windows is given up."""


@dataclass(kw_only=True)
class Validation:
    """When to validate, and what it has cost.

    Attributes:
        pipeline: where the windows come from, or None for no validation.
        training: the pipeline of training; its wrappers' memory goes to those of validation, where both can do that.
        num_env_steps: environment steps that validation has taken so far.
    """

    pipeline: BasePipeline | None
    training: Any = None
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
        self._windows_since += 1
        affordable = self.num_env_steps + self._cost <= EVALUATION_SHARE * trained_env_steps
        if self._windows_since < interval or not affordable:
            return None
        before = self.num_env_steps
        if hasattr(self.pipeline, "take_over_memory") and hasattr(self.training, "as_in_training"):
            self.pipeline.take_over_memory(self.training)
        if isinstance(self.pipeline, BeginsEpisodes):
            self.pipeline.begin_episodes()
            metrics = self._score_first_episodes(evaluator)
        else:
            metrics = next((found for window in self._windows() if (found := evaluator.score(window, {}))), None)
        if metrics is None:
            on_failure(f"No episode ended in {MAX_VALIDATION_WINDOWS} windows of validation: make its windows longer.")
        self._windows_since = 0
        self._cost = self.num_env_steps - before
        return metrics

    def _windows(self) -> Iterator[EpisodeData]:
        assert self.pipeline is not None
        for window in islice(self.pipeline.windows(), MAX_VALIDATION_WINDOWS):
            self.num_env_steps += window.num_env_steps
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


def first_episodes(windows: Sequence[EpisodeData]) -> EpisodeData:
    """Join successive windows to one, in which nothing after the first episode of each environment is valid."""
    done = np.concatenate([window.done for window in windows])
    counts = done.astype(np.int64)
    kept = np.cumsum(counts, axis=0) - counts == 0  # up to and with the first end
    ends = np.argwhere(done)
    first = kept[ends[:, 0], ends[:, 1]]

    def join(name: str) -> Any:
        return np.concatenate([getattr(window, name) for window in windows])

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
