"""Whether a policy loses by acting greedily what it earned while it trained, and how much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optix_core.evaluation.statistics import summarise
from optix_core.loop.arena import Arena
from optix_core.loop.scoring import ScoreHistory
from optix_core.seeding import derive_seed
from optix_protocol import SupportsPolicy

GAP_EPISODES = 30
"""Most episodes that are sampled to measure the gap."""

GAP_FRACTION = 0.05
"""A gap below this fraction of the range of training scores is not worth a word."""


def greedy_gap(
    arena: Arena,
    confirmed: Mapping[str, Any],
    *,
    trained: float,
    history: ScoreHistory,
    seed: int,
    max_episodes: int = GAP_EPISODES,
) -> dict[str, float] | None:
    """Measure what the policy in the agent earns when it samples its actions, if training gives reason to.

    A policy may need its randomness: where states look alike, or the opponent learns. Greedy episodes are what is
    reported, so that such a policy would look bad for no visible reason.

    Args:
        arena: plays episodes.
        confirmed: summary of the greedy returns.
        trained: the score that this policy had in training, where actions are sampled.
        history: the scores of the run, for their range.
        seed: the run's seed; the episodes have a stream of their own.
        max_episodes: as many as can be afforded.

    Returns:
        ``sampled``, ``greedy``, ``gap`` (of the means), ``ci_low`` and ``ci_high`` (95 %, of the gap: Zou and Donner
        2008) and ``episodes``; None without a gap that is certain and worth a word.
    """
    scores = [point.score for point in history.points(keep=set()) if math.isfinite(point.score)]
    worth = GAP_FRACTION * (max(scores) - min(scores)) if scores else math.inf
    greedy = float(confirmed["mean"])
    if not isinstance(arena.agent, SupportsPolicy) or not trained - greedy > worth or confirmed["ci_low"] is None:
        return None
    episodes = min(GAP_EPISODES, max_episodes, int(confirmed["episodes"]))
    played = arena.play(episodes, derive_seed(seed, "greedy_gap"), mode="sample")
    if played is None or played.episodes < 2:
        return None
    sampled = summarise(played.returns)
    assert sampled["ci_low"] is not None and sampled["ci_high"] is not None
    gap = sampled["mean"] - greedy
    low = gap - math.hypot(sampled["mean"] - sampled["ci_low"], confirmed["ci_high"] - greedy)
    high = gap + math.hypot(sampled["ci_high"] - sampled["mean"], greedy - confirmed["ci_low"])
    if low <= 0 or gap <= worth:
        return None
    return {
        "sampled": sampled["mean"],
        "greedy": greedy,
        "gap": gap,
        "ci_low": low,
        "ci_high": high,
        "episodes": float(played.episodes),
    }


def gap_sentence(gap: Mapping[str, float]) -> str:
    """Say what sampling gains."""
    sampled, more, episodes = gap["sampled"], gap["gap"], gap["episodes"]
    return (
        f"Sampling its actions the policy returned {sampled:.4g} over {episodes:.0f} episodes, "
        f'{more:.4g} more than acting greedily: play it in mode "sample".'
    )
