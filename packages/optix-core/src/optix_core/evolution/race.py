"""Whether a variant takes the incumbent's place: paired episodes, a bound that ends the race, and a level that is kept.

While it trains, a variant is screened: where the upper bound on its advantage falls below zero it cannot win, and the
race ends. Afterwards it meets the incumbent on fresh episodes, a batch at a time, and wins where the paired test
reaches its level divided by the number of looks (Bonferroni; Pocock 1977 has nearly the same bounds). Of equal members
the incumbent is thus replaced in at most :data:`ALPHA` of the races, however many looks there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from optix_core.convergence.degradation import paired_p_value
from optix_core.convergence.statistics import student_t_quantile

FloatArray: TypeAlias = NDArray[np.float64]

ALPHA = 0.05
"""Chance that an equal member replaces the incumbent."""

PAIRS_PER_LOOK, MOST_LOOKS, SCREEN_EPISODES, MOST_ROUNDS, MOST_WINDOWS = 12, 4, 8, 3, 24
LEAST_PAIRS = 6


@dataclass(frozen=True, kw_only=True)
class RacePlan:
    """What a race may cost.

    Attributes:
        windows: that the variant trains, at least 1.
        rounds: in which it does so; after each but the last it is screened.
        screen_episodes: episodes of each screening.
        looks: batches of the final duel, at most.
        pairs: episodes of each batch.
    """

    windows: int
    rounds: int = MOST_ROUNDS
    screen_episodes: int = SCREEN_EPISODES
    looks: int = MOST_LOOKS
    pairs: int = PAIRS_PER_LOOK

    @property
    def num_episodes(self) -> int:
        """Most episodes of both sides."""
        screens = self.screen_episodes * self.rounds if self.rounds > 1 else 0  # the incumbent plays once
        return screens + 2 * self.looks * self.pairs

    def windows_of(self, round_: int) -> int:
        """Return how many windows the variant trains in a round, from 0."""
        return self.windows * (round_ + 1) // self.rounds - self.windows * round_ // self.rounds


def plan_race(env_steps: float, *, window_env_steps: int, episode_length: int) -> RacePlan | None:
    """Return the longest race that a number of environment steps pays for, half of it training, or None.

    Less of it is training where the episodes are so long that the other half would not decide anything.

    Args:
        env_steps: that may be spent, may be infinite.
        window_env_steps: of a window.
        episode_length: of an episode.
    """
    trained = min(env_steps / 2, env_steps - 2 * LEAST_PAIRS * episode_length)
    windows = int(min(MOST_WINDOWS, trained // window_env_steps))
    if windows < 1:
        return None
    episodes = (env_steps - windows * window_env_steps) / episode_length
    if not math.isfinite(episodes):
        episodes = 1e9
    rounds = min(MOST_ROUNDS, windows)
    while rounds > 1:
        left = episodes - rounds * SCREEN_EPISODES
        looks = int(min(MOST_LOOKS, left // (2 * PAIRS_PER_LOOK)))
        if looks >= min(2, rounds - 1):
            return RacePlan(windows=windows, rounds=rounds, looks=looks)
        rounds -= 1
    looks = max(1, int(min(MOST_LOOKS, episodes // (2 * PAIRS_PER_LOOK))))
    pairs = int(min(PAIRS_PER_LOOK, episodes // (2 * looks)))
    return RacePlan(windows=windows, rounds=1, looks=looks, pairs=pairs) if pairs >= LEAST_PAIRS else None


def upper_bound(challenger: FloatArray, incumbent: FloatArray, alpha: float = ALPHA) -> float:
    """Return the upper confidence bound on the mean paired difference, challenger less incumbent."""
    difference = challenger - incumbent
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    return float(difference.mean()) + student_t_quantile(1.0 - alpha, len(difference) - 1) * error


@dataclass(frozen=True, kw_only=True)
class RaceResult:
    """How a race ended.

    Attributes:
        won: the variant takes the incumbent's place.
        gain: mean paired difference of the episodes that decided, NaN where none did.
        upper: upper bound on it.
        p_value: one-sided, of the last look.
        num_pairs: pairs that decided.
        rounds: of training that were held.
        why: in a sentence.
    """

    won: bool
    gain: float
    upper: float
    p_value: float
    num_pairs: int
    rounds: int
    why: str


Play: TypeAlias = Callable[[int, int, bool], FloatArray]
"""From episodes, number of the seed, and whether the variant plays (else the incumbent), to returns."""


def run_race(plan: RacePlan, train: Callable[[int], str | None], play: Play) -> RaceResult:
    """Hold a race.

    Args:
        plan: how long it may be.
        train: lets the variant train so many windows; returns what broke, or None.
        play: plays episodes; the same number of a seed stands for the same episodes.
    """
    incumbent = None
    for round_ in range(plan.rounds):
        damage = train(plan.windows_of(round_))
        if damage is not None:
            return _lost(round_ + 1, f"Its learning broke: {damage}")
        if round_ == plan.rounds - 1:
            break
        incumbent = play(plan.screen_episodes, 0, False) if incumbent is None else incumbent
        challenger = play(plan.screen_episodes, 0, True)
        bound = upper_bound(challenger, incumbent)
        if bound < 0:
            gain = float((challenger - incumbent).mean())
            why = f"It cannot win: its advantage is at most {bound:.4g} (95 % upper bound)."
            return _lost(round_ + 1, why, gain=gain, upper=bound, num_pairs=len(challenger))
    return duel(plan, play)


def duel(plan: RacePlan, play: Play) -> RaceResult:
    """Let challenger and incumbent meet on fresh episodes, a batch at a time, until it is clear or the looks are used.

    Arguments as in :func:`run_race`; nothing trains.
    """
    ours: list[FloatArray] = []
    theirs: list[FloatArray] = []
    level = ALPHA / plan.looks
    for look in range(plan.looks):
        ours.append(play(plan.pairs, look + 1, True))
        theirs.append(play(plan.pairs, look + 1, False))
        challenger, incumbent = np.concatenate(ours), np.concatenate(theirs)
        gain, bound = float((challenger - incumbent).mean()), upper_bound(challenger, incumbent)
        p_value = paired_p_value(challenger, incumbent)
        won = p_value < level
        if won or bound < 0 or look == plan.looks - 1:
            break
    pairs = len(challenger)
    told = f"{gain:+.4g} over {pairs} pairs, p = {p_value:.2g} at level {level:.2g}"
    return RaceResult(
        won=won,
        gain=gain,
        upper=bound,
        p_value=p_value,
        num_pairs=pairs,
        rounds=plan.rounds,
        why=f"It {'beats' if won else 'does not beat'} the incumbent: {told}.",
    )


def _lost(rounds: int, why: str, *, gain: float = math.nan, upper: float = math.nan, num_pairs: int = 0) -> RaceResult:
    return RaceResult(won=False, gain=gain, upper=upper, p_value=1.0, num_pairs=num_pairs, rounds=rounds, why=why)
