"""Before a run ends because its score never rose: has the policy learned what exploring hides?

Training scores are those of the exploring policy. On a short budget an off-policy agent may still score like an
untrained one while its greedy policy does much better. So the present policy and the one that training began with play
the same fresh episodes, both greedily.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from optix_core.convergence.degradation import paired_p_value

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
