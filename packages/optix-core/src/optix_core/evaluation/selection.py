"""Choosing the best of the policies that one run has kept, without flattering the choice.

The best of K noisy scores overstates its policy by about ``s sqrt(2 ln K)``, and is often not the best policy. Here

1. the scores of the whole run are smoothed along time (:mod:`optix_core.evaluation.smoothing`), and the ``top_k``
   most promising policies are shortlisted;
2. they play fresh episodes in rounds. All players of a round share its seeds, and each round invites as many of the
   most promising policies as make the most of its share of the budget: many while much is open, two in the end. (Plain
   successive halving spends most of a small budget on policies that cannot win.)
3. rounds end early when the gain to be expected from the rest of the budget is negligible (the Bayesian value of
   sample information: Raiffa and Schlaifer 1961; for selecting the best: Chick and Inoue 2001, Frazier, Powell and
   Dayanik 2009);
4. the winner plays on seeds that nobody has seen, and only these returns are reported. They had no part in the
   choice, so they are unbiased.

Nothing here plays episodes itself: that is what the argument ``evaluate`` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

from optix_core.evaluation._contest import Contest
from optix_core.evaluation.rollouts import Rollouts
from optix_core.evaluation.smoothing import Belief, smooth_scores
from optix_core.evaluation.statistics import Summary, summarise
from optix_core.seeding import derive_seed

K = TypeVar("K", bound=Hashable)
Evaluate: TypeAlias = Callable[[K, int, int], Rollouts]
"""``evaluate(key, episodes, seed)`` plays episodes of a policy; the same seed means the same initial states."""

NUM_ROUNDS = 6
MIN_EPISODES = 4
"""Fewer episodes per player and round tell next to nothing, not even how noisy they are."""
DISCREPANCY = 0.3
"""How far the true score in training may lie from the true greedy score, policy by policy, in standard deviations of
an episode's return. Training explores. Believing the training scores outright costs a third more regret where they
mislead; this much doubt costs nothing where they do not (``benchmarks/selection.py``)."""


@dataclass(frozen=True, kw_only=True)
class Candidate(Generic[K]):
    """A score that a policy of the run earned while it trained.

    Attributes:
        key: names the policy to ``evaluate``; None if it was not kept. Its score still tells about its neighbours.
        score: mean return of its episodes.
        episodes: how many episodes the score averages.
        return_std: sample standard deviation of these episodes' returns; only read if there were at least two.
        num_env_steps: when it was measured; strictly increasing along the run.
    """

    key: K | None
    score: float
    episodes: int = 1
    return_std: float = 0.0
    num_env_steps: int


@dataclass(frozen=True, kw_only=True)
class Round(Generic[K]):
    """One round of fresh episodes.

    Attributes:
        keys: the policies that played, most promising first.
        episodes: episodes that each of them played, all on the same seeds.
        means: mean return of each in this round alone.
        beliefs: expected true score of each afterwards, training scores and earlier rounds included.
    """

    keys: tuple[K, ...]
    episodes: int
    means: tuple[float, ...]
    beliefs: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Selection(Generic[K]):
    """The chosen policy and the evidence.

    Attributes:
        key: the chosen policy.
        shortlist: the policies that could play, most promising by their smoothed training scores first.
        rounds: what was played.
        reason: why the rounds ended, in plain words.
        confirmed: the chosen policy's episodes on untouched seeds; the only numbers to report.
        num_env_steps: environment steps of all rounds and the confirmation.
    """

    key: K
    shortlist: tuple[K, ...]
    rounds: tuple[Round[K], ...]
    reason: str
    confirmed: Rollouts
    num_env_steps: int

    def summary(self) -> Summary:
        """Summarise the confirmed returns: mean, its 95 % interval, interquartile mean."""
        return summarise(self.confirmed.returns)

    def to_dict(self) -> dict[str, Any]:
        """Return the story of the choice in JSON types (keys must be some), for the journal."""
        return {
            "key": self.key,
            "shortlist": list(self.shortlist),
            "rounds": [asdict(played) for played in self.rounds],
            "reason": self.reason,
            "confirmed_return": dict(self.summary()),
            "num_env_steps": self.num_env_steps,
        }


def select(
    candidates: Sequence[Candidate[K]],
    evaluate: Evaluate[K],
    *,
    seed: int,
    top_k: int = 16,
    confirm_episodes: int | Callable[[int | None], int] = 100,
    max_episodes: int = 320,
    max_eval_env_steps: int | None = None,
    min_gain: float = 0.01,
) -> Selection[K]:
    """Choose the best policy of a run and measure it on untouched seeds.

    Args:
        candidates: all scores of one training run in order of time; those with a key can be chosen.
        evaluate: plays fresh episodes of a policy. Its results must not depend on what it was asked before.
        seed: rounds use the streams ``"selection", r`` of it, the confirmation ``"confirmation"``.
        top_k: length of the shortlist.
        confirm_episodes: episodes of the confirmation, or what says how many: called before them, with the length of
            the longest episode that the winner has played in the rounds (None if it has played none).
        max_episodes: budget of all rounds together, in episodes.
        max_eval_env_steps: budget of all rounds together, in environment steps; only the first round, before the
            length of an episode is known, may exceed it. The confirmation comes on top: what is not confirmed is not
            reported.
        min_gain: the rounds end when what the rest of the budget can be expected to gain falls below this many
            standard deviations of a single episode's return.

    Returns:
        The choice. Policies of equal standing (all at the maximum return, say) are ranked by time: the later one has
        been trained on more.

    Raises:
        ValueError: no candidate has a key, or the arguments are out of range.
    """
    if (isinstance(confirm_episodes, int) and confirm_episodes < 1) or top_k < 1:
        raise ValueError("confirm_episodes and top_k must be at least 1.")
    belief, episode_variance = _training_belief(candidates)
    kept = {index: candidate.key for index, candidate in enumerate(candidates) if candidate.key is not None}
    # Of two equals the later comes first, and stays first: the contest's ranking is stable.
    shortlist = sorted(kept, key=lambda index: (-belief.mean[index], -index))[:top_k]
    keys = [kept[index] for index in shortlist]
    contest = Contest(belief.of(shortlist), episode_variance, seed=derive_seed(seed, "selection", "gain"))
    budget = _Budget(max_episodes, max_eval_env_steps)
    best_score = max(candidate.score for candidate in candidates)
    rounds: list[Round[K]] = []
    longest: dict[K, int] = {}
    while not (reason := _why_stop(contest, budget, len(rounds), min_gain)):
        share = budget.share(NUM_ROUNDS - len(rounds))
        players = contest.best_round(share, min_episodes=MIN_EPISODES)
        episodes = share // len(players)
        round_seed = derive_seed(seed, "selection", len(rounds))
        played = [evaluate(keys[player], episodes, round_seed) for player in players]
        budget.spend(played)
        for player, rollouts in zip(players, played, strict=True):
            longest[keys[player]] = max(longest.get(keys[player], 0), int(rollouts.lengths.max()))
        returns = np.stack([rollouts.returns for rollouts in played])
        contest.observe(players, returns)
        rounds.append(
            Round(
                keys=tuple(keys[player] for player in players),
                episodes=episodes,
                means=tuple(returns.mean(axis=1).tolist()),
                beliefs=tuple(contest.belief.mean[players].tolist()),
            )
        )
        if returns.max() == returns.min() >= best_score:
            reason = f"every episode of every player returned {returns.max():.6g}, and no score of the run is higher"
            break
    winner = keys[contest.ranking()[0]]
    if not isinstance(confirm_episodes, int):
        confirm_episodes = confirm_episodes(longest.get(winner))
    confirmed = evaluate(winner, confirm_episodes, derive_seed(seed, "confirmation"))
    return Selection(
        key=winner,
        shortlist=tuple(keys),
        rounds=tuple(rounds),
        reason=reason,
        confirmed=confirmed,
        num_env_steps=budget.env_steps_used + confirmed.num_env_steps,
    )


def _why_stop(contest: Contest, budget: _Budget, rounds_played: int, min_gain: float) -> str:
    """Return why no further round should be played, or an empty string."""
    if len(contest.belief.mean) == 1:
        return "there is only one policy to choose"
    if rounds_played == NUM_ROUNDS:
        return f"all {NUM_ROUNDS} rounds are played"
    episodes = budget.episodes_left
    if episodes < 2 * MIN_EPISODES:
        return "the budget is spent"
    # As if everyone got half of what is left, which is more than anyone can get: an upper bound.
    gain = contest.expected_gain(range(len(contest.belief.mean)), episodes // 2)
    if gain <= min_gain * contest.episode_std:
        return f"up to {episodes} more episodes can be expected to gain no more than {gain:.2g}"
    return ""


def _training_belief(candidates: Sequence[Candidate[K]]) -> tuple[Belief, float]:
    """Turn training scores into a belief; also return the pooled variance of a single episode's return."""
    if not any(candidate.key is not None for candidate in candidates):
        raise ValueError("there is no policy to choose from: no candidate has a key.")
    scores = np.array([candidate.score for candidate in candidates], dtype=np.float64)
    episodes = np.array([candidate.episodes for candidate in candidates], dtype=np.float64)
    if (episodes < 1).any():
        raise ValueError("every candidate's score must come from at least one episode.")
    variances = np.array([candidate.return_std**2 for candidate in candidates], dtype=np.float64)
    if (episodes > 1).any():
        pooled = float(np.average(variances, weights=episodes - 1))
        # Half-way to the pooled variance: a handful of equal returns is no proof of certainty.
        noise = np.where(episodes > 1, (variances + pooled) / 2, pooled) / episodes
    else:
        # Neighbours differ by twice the noise, and by little else (von Neumann 1941).
        pooled = float(np.mean(np.diff(scores) ** 2) / 2) if len(scores) > 1 else 0.0
        noise = pooled / episodes
    smoothed = smooth_scores(scores, noise, [candidate.num_env_steps for candidate in candidates])
    doubt = DISCREPANCY**2 * pooled * np.eye(len(scores))
    return Belief(mean=smoothed.mean, covariance=smoothed.covariance + doubt), pooled


class _Budget:
    """Episodes and environment steps for the rounds."""

    def __init__(self, max_episodes: int, max_env_steps: int | None) -> None:
        self._max_episodes = max_episodes
        self._max_env_steps = max_env_steps
        self._episodes_used = 0
        self.env_steps_used = 0

    @property
    def episodes_left(self) -> int:
        """Episodes that can be paid for, at the mean length so far; as few as possible to find that length out."""
        left = self._max_episodes - self._episodes_used
        if self._max_env_steps is None:
            return left
        if self._episodes_used == 0:
            return min(left, 2 * MIN_EPISODES) if self._max_env_steps > 0 else 0
        length = max(1.0, self.env_steps_used / self._episodes_used)
        return min(left, max(0, math.floor((self._max_env_steps - self.env_steps_used) / length)))

    def share(self, rounds: int) -> int:
        """Episodes for the next of so many rounds."""
        return max(2 * MIN_EPISODES, self.episodes_left // rounds)

    def spend(self, played: Sequence[Rollouts]) -> None:
        """Enter a round into the books."""
        self._episodes_used += sum(rollouts.episodes for rollouts in played)
        self.env_steps_used += sum(rollouts.num_env_steps for rollouts in played)
