"""What evaluation may cost: how long an episode may be, and how many are played in the end.

Everything is counted in environment steps, never in seconds, so that the same seed stays the same run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

TOTAL_SHARE = 0.2
"""All evaluation together may cost this share of the training steps, unless a number of episodes is asked for."""

ROUNDS_SHARE = 0.1
"""The rounds of the final selection may cost this share of the training steps."""

USUAL_EPISODES = 100
"""Episodes of the confirmation where they can be afforded."""

LEAST_EPISODES = 10
"""Episodes of the confirmation, whatever they cost: fewer say next to nothing."""

SHORTEST_LIMIT = 1_000
"""Without a time limit of its own, an environment may take so many steps for an episode of evaluation at least."""

LONGEST_LIMIT = 100_000
"""The same at most."""

MIN_ROUND_EPISODES = 8
"""Two policies of four episodes each: the smallest round that tells anything."""


class EpisodeLengths:
    """How long episodes of training have been lately.

    Args:
        recent: lengths to begin with, oldest first.

    Attributes:
        steps_without_end: steps of each environment while no episode has ever ended.
    """

    def __init__(self, recent: Iterable[int] = ()) -> None:
        self._recent: deque[int] = deque((int(length) for length in recent), maxlen=200)
        self.steps_without_end = 0

    def add(self, lengths: ArrayLike, num_steps: int) -> None:
        """Take note of the episodes that ended within so many steps of each environment."""
        self._recent.extend(np.asarray(lengths, np.int64).tolist())
        self.steps_without_end = 0 if self._recent else self.steps_without_end + num_steps

    @property
    def recent(self) -> list[int]:
        """The latest lengths, oldest first."""
        return list(self._recent)

    def limit(self) -> int:
        """Return after how many steps an episode of evaluation is taken to be one that never ends.

        A policy that acts greedily may go in circles where exploring got it out. Four times the longest recent episode
        leaves room for a policy that is better at surviving.
        """
        return min(LONGEST_LIMIT, max(SHORTEST_LIMIT, 4 * max(self._recent, default=0)))

    def expected(self, limit: int) -> int:
        """Return how long an episode of evaluation may well be: twice the longest recent one, at most the limit."""
        return min(limit, 2 * max(self._recent)) if self._recent else limit


@dataclass(frozen=True, kw_only=True)
class FinalBudget:
    """Environment steps for choosing and confirming the final policy.

    Attributes:
        train_env_steps: environment steps of training.
        confirm_episodes: what was asked for; None rations the confirmation.
        expected_length: how long an episode may well be, in environment steps.
    """

    train_env_steps: int
    confirm_episodes: int | None
    expected_length: int

    def for_rounds(self, spent: int) -> int:
        """Return the steps for the rounds of the selection; 0 where there are too few for the smallest round.

        Args:
            spent: environment steps of evaluation so far.
        """
        usual = int(ROUNDS_SHARE * self.train_env_steps)
        if self.confirm_episodes is not None:
            return usual
        left = int(TOTAL_SHARE * self.train_env_steps) - spent - LEAST_EPISODES * self.expected_length
        affordable = min(usual, left)
        return affordable if affordable >= MIN_ROUND_EPISODES * self.expected_length else 0

    def for_confirmation(self, spent: int, longest: int | None = None) -> int:
        """Return the number of episodes of the confirmation.

        It is fixed before they begin: an end that depended on their lengths would favour some of them.

        Args:
            spent: environment steps of evaluation so far.
            longest: episode that the policy has played in the rounds, None if it has played none.
        """
        if self.confirm_episodes is not None:
            return self.confirm_episodes
        left = int(TOTAL_SHARE * self.train_env_steps) - spent
        return min(USUAL_EPISODES, max(LEAST_EPISODES, left // max(1, longest or self.expected_length)))
