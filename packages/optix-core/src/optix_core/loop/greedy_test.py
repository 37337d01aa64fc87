"""Before a run ends because its score never rose: has the policy learned what exploring hides?

Training scores are those of the exploring policy. On a short budget an off-policy agent may still score like an
untrained one while its greedy policy does much better. So the present policy and the one that training began with play
the same fresh episodes, both greedily.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from optix_core.convergence.degradation import paired_p_value
from optix_core.journal import events
from optix_core.loop.budget import EVALUATION_SHARE
from optix_core.seeding import derive_seed
from optix_protocol import SupportsPolicy

if TYPE_CHECKING:
    from optix_core.loop.run import Run

NUM_PAIRS = 20
"""Episodes of each policy, where they can be afforded."""

LEAST_PAIRS = 8
"""Fewer would hardly ever tell the two apart."""

ALPHA = 0.01
"""Largest p-value that is believed. A false alarm costs a hopeless run as many steps again as it has taken."""


@dataclass(frozen=True, kw_only=True)
class GreedyTest:
    """Outcome of the comparison.

    Attributes:
        learned: whether the present policy is better beyond doubt.
        gain: mean paired difference, present minus untrained, in score units.
        p_value: one-sided paired t p-value.
        explanation: one sentence with the numbers.
    """

    learned: bool
    gain: float
    p_value: float
    explanation: str


def compare_with_untrained(untrained: ArrayLike, present: ArrayLike) -> GreedyTest:
    """Judge the present greedy policy against the untrained one.

    Args:
        untrained: returns of the policy that training began with, shape ``[n]``, ``n >= 2``, one per seed.
        present: returns of the present policy on the same seeds, shape ``[n]``.

    Raises:
        ValueError: if the shapes differ or there are fewer than two pairs.
    """
    before, now = np.asarray(untrained, dtype=np.float64), np.asarray(present, dtype=np.float64)
    p_value = paired_p_value(now, before)
    learned = p_value < ALPHA
    outcome = "it has learned what exploring hides" if learned else "nothing was learned"
    return GreedyTest(
        learned=learned,
        gain=float(now.mean() - before.mean()),
        p_value=p_value,
        explanation=(
            f"The training score has not risen; acting greedily on {len(now)} common fresh episodes, the policy "
            f"returns {now.mean():.4g} and the untrained one {before.mean():.4g} (p = {p_value:.2g}): {outcome}."
        ),
    )


def can_ask_greedily(run: Run) -> bool:
    """Whether greedy episodes measure what the scores of a run measure, without what exploring hides."""
    return run.judges_training_returns and isinstance(run.agent, SupportsPolicy)


def ask_greedily(run: Run, number: int) -> bool:
    """Play the present and the untrained policy on the same fresh episodes, and tell the controller.

    Args:
        run: about to end without signal.
        number: of this test in the run, from 1.

    Returns:
        Whether it was tried; it cannot be where nothing untrained was kept.
    """
    if not (can_ask_greedily(run) and run.run_dir.has_untrained):
        return False
    seed = derive_seed(run.seed, "greedy test", number)
    try:
        pairs = int(EVALUATION_SHARE * run.progress.num_env_steps) // (2 * run.arena.expected_length())
        pairs = min(NUM_PAIRS, max(LEAST_PAIRS, pairs))
        played = run.arena.paired_returns(pairs, seed, lambda: run.run_dir.load_untrained(run.agent))
    except Exception as error:  # a file, the environment or the agent: the run is about to end anyway
        run.journal.append(events.Error(message=f"The policy could not be compared with the untrained one: {error}"))
        return True
    if played is None:
        return True
    present, untrained = played
    found = compare_with_untrained(untrained, present)
    run.journal.append(
        events.GreedyTest(
            gain=events.number(found.gain),
            p_value=events.number(found.p_value),
            learned=found.learned,
            message=found.explanation,
        )
    )
    if found.learned:
        run.controller.learned_greedily(found.explanation)
    return True
