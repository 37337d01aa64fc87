"""The three signals without which a graph does not grow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from optix_core.convergence.statistics import trend_bounds
from optix_neuroevo.topology import INPUT

if TYPE_CHECKING:
    from optix_neuroevo.graph import NeuronGraph

LEAST_SCORES = 12
"""With fewer scores than this nothing is said."""

_REACHED = 0.1
"""Share of the median gradient from which a neuron counts as reached."""


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What speaks for more capacity.

    Attributes:
        num_scores: scores that were looked at.
        is_flat: their slope is not significantly above 0.
        autocorrelation: of neighbouring residuals around their trend, -1 to 1.
        is_structured: the autocorrelation is significantly above 0: what is left is not mere noise.
        utilisation: share of the neurons that gradients reach, 0 to 1.
    """

    num_scores: int
    is_flat: bool
    autocorrelation: float
    is_structured: bool
    utilisation: float

    def ask_for_growth(self, grow_grad_threshold: float) -> bool:
        """Whether all three do."""
        return self.is_flat and self.is_structured and self.utilisation >= grow_grad_threshold


def signals(scores: Sequence[float], utilisation: float, *, alpha: float = 0.05) -> Signals:
    """Return the signals.

    Args:
        scores: of windows, oldest first; what is not finite is left out.
        utilisation: see :func:`gradient_utilisation`.
        alpha: one-sided error of both tests: the slope's bound is that of
            :func:`optix_core.convergence.statistics.trend_bounds`, the autocorrelation ``r`` of ``n`` residuals is
            compared with ``z / sqrt(n)`` (Box and Jenkins 1970).
    """
    from scipy.special import ndtri

    y = np.asarray([score for score in scores if math.isfinite(score)], np.float64)
    n = len(y)
    if n < LEAST_SCORES:
        return Signals(num_scores=n, is_flat=False, autocorrelation=0.0, is_structured=False, utilisation=utilisation)
    t = np.arange(n)
    trend = trend_bounds(t, y, alpha)
    centred = t - t.mean()
    residuals = y - y.mean() - centred * (centred @ (y - y.mean())) / (centred @ centred)
    power = float(residuals @ residuals)
    correlation = float(residuals[1:] @ residuals[:-1]) / power if power > 1e-12 * max(1.0, float(y @ y)) else 0.0
    return Signals(
        num_scores=n,
        is_flat=trend.lower <= 0.0,
        autocorrelation=correlation,
        is_structured=correlation > float(ndtri(1.0 - alpha)) / math.sqrt(n),
        utilisation=utilisation,
    )


def gradient_utilisation(graph: NeuronGraph) -> float:
    """Return the share of neurons, inputs apart, whose incoming weights have gradients, 0 without any gradient.

    A neuron is reached where the root of the sum of their squares is at least a tenth of the median over those neurons
    that get any at all.
    """
    topology = graph.topology
    if graph.edge_weight.grad is None:
        return 0.0
    power = torch.square(graph.edge_weight.grad).detach().cpu().numpy().astype(np.float64)
    total = np.zeros(topology.next_id + 1)
    alive = topology.edges["id"] >= 0
    np.add.at(total, topology.edges["destination"][alive], power[alive])
    rows = (topology.neurons["id"] >= 0) & (topology.neurons["role"] != INPUT)
    norms = np.sqrt(total[topology.neurons["id"][rows]])
    reached = norms[norms > 0.0]
    return float(np.mean(norms >= _REACHED * np.median(reached))) if len(reached) else 0.0
