"""How a trial is scored: greedy episodes at regular moments, the same in every trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from optix_core.seeding import derive_seed
from optix_protocol import Array, EvalMetrics, LoopCallback

NUM_EVALUATIONS = 20
"""Moments at which a trial that uses its whole budget is evaluated."""

LAST_SHARE = 0.2
"""The score of a trial is the mean over this last share of what it used, never the best of its evaluations."""

LEAST_EPISODES, MOST_EPISODES = 2, 8

EVALUATION_SHARE = 0.1
"""Evaluations may cost this share of the training, but no fewer than the least episodes are played."""


class TrialRun(Protocol):
    """A run as a trial needs it; :class:`RLOptimizer` is one."""

    def run(self) -> Any:
        """Train; return the result."""
        ...

    def stop(self) -> None:
        """Ask the run to end after the window in hand."""
        ...

    def add_callback(self, callback: LoopCallback) -> None:
        """Tell another callback what happens."""
        ...

    def play(self, episodes: int, seed: int) -> Array:
        """Return the returns of greedy episodes."""
        ...

    def expected_length(self) -> int:
        """Return how long an episode may well be."""
        ...


@dataclass
class TrialEvaluations(LoopCallback):
    """Plays the present policy greedily at regular moments of a run.

    Attributes:
        budget: of the trial, in ``unit``.
        unit: ``"num_env_steps"`` or ``"num_episodes"``.
        seed: of the search; evaluation k of every trial plays the same episodes.
        on_score: is told each score; returns whether the trial shall end.
        scores: by the number of the evaluation, from 1.
        pruned: whether the trial was ended so.
    """

    budget: int
    unit: str
    seed: int
    on_score: Callable[[int, float], bool]
    scores: dict[int, float] = field(default_factory=dict)
    pruned: bool = False
    _loop: TrialRun | None = None
    _asked: set[int] = field(default_factory=set)

    def join(self, loop: TrialRun) -> None:
        """Take the run whose policy is played."""
        self._loop = loop

    def on_window(
        self, progress: Mapping[str, float], eval_metrics: EvalMetrics | None, diagnostics: Mapping[str, float]
    ) -> None:
        """Evaluate if it is time to."""
        del eval_metrics, diagnostics
        loop = self._loop
        assert loop is not None
        number = int(NUM_EVALUATIONS * min(1.0, progress[self.unit] / self.budget) + 1e-9)
        if number < 1 or number in self._asked or self.pruned:
            return
        self._asked.add(number)
        if number not in self.scores:  # else it was played before a kill
            self._play(loop, number)
        if number in self.scores:
            self.pruned = self.on_score(number, self.scores[number])
        if self.pruned:
            loop.stop()

    def _play(self, loop: TrialRun, number: int) -> None:
        affordable = EVALUATION_SHARE * self.budget / NUM_EVALUATIONS
        if self.unit == "num_env_steps":
            affordable /= max(1, loop.expected_length())
        episodes = int(min(MOST_EPISODES, max(LEAST_EPISODES, affordable)))
        returns = loop.play(episodes, derive_seed(self.seed, "trial evaluation", number))
        if len(returns):
            self.scores[number] = float(np.mean(returns))

    @property
    def score(self) -> float:
        """Mean of the evaluations in the last fifth of what the trial used, NaN without any."""
        if not self.scores:
            return math.nan
        last = max(self.scores)
        late = [score for number, score in self.scores.items() if number > (1 - LAST_SHARE) * last]
        return float(np.mean(late))
