"""Neuromodulation: the regime that a run is in sets how much the graph explores, associates and grows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from optix_core.evolution import Regime, RegimeDetector
from optix_neuroevo.errors import GraphError
from optix_protocol import BaseAgent, EvalMetrics, HyperparamSet, LoopCallback, StateTree

if TYPE_CHECKING:
    from optix_neuroevo.controller import TopologyController
    from optix_neuroevo.hebbian import HebbianHook


@dataclass(frozen=True, kw_only=True)
class Modulation:
    """Factors on what was set at the beginning.

    Attributes:
        entropy: of ``entropy_coef``.
        hebbian: of the Hebbian rate.
        growth: of the threshold that gradient utilisation has to pass for growth.
    """

    entropy: float = 1.0
    hebbian: float = 1.0
    growth: float = 1.0


MODULATIONS: Mapping[Regime, Modulation] = {
    "trending": Modulation(entropy=0.5, hebbian=0.5),
    "ranging": Modulation(hebbian=2.0),
    "volatile": Modulation(entropy=2.0, growth=1.5),
}
"""Trending: exploit, and leave weights to the gradient. Ranging: associate more. Volatile: explore more, grow less."""


class NeuromodulatorSignal(LoopCallback):
    """Sets entropy coefficient, Hebbian rate and growth threshold by the regime of the scores.

    Factors apply to the values that were there when the signal was made, so they do not pile up. Added to a run as a
    callback it detects the regime itself; every change stands in the run's diagnostics (``neuromodulation``: 0 ranging,
    1 trending, 2 volatile), which the journal keeps.

    Args:
        hook: whose rate changes, or None.
        agent: whose ``entropy_coef`` changes, or None.
        controller: whose threshold changes, or None.
        detector: tells regimes apart.
        modulations: factors by regime.

    Attributes:
        regime: the latest one, None before the first.
    """

    def __init__(
        self,
        *,
        hook: HebbianHook | None = None,
        agent: BaseAgent | None = None,
        controller: TopologyController | None = None,
        detector: RegimeDetector | None = None,
        modulations: Mapping[Regime, Modulation] = MODULATIONS,
    ) -> None:
        self.hook, self.agent, self.controller = hook, agent, controller
        self.detector = detector or RegimeDetector()
        self.modulations = modulations
        self.regime: Regime | None = None
        self._scores: list[float] = []
        self._entropy = None if agent is None else float(agent.get_hyperparams().params.get("entropy_coef", 0.0))
        self._rate = None if hook is None else hook.hebbian_lr
        graph = getattr(agent, "graph", None)
        if graph is not None:
            graph.observe(self)

    def apply(self, regime: Regime) -> None:
        """Set everything for a regime.

        Raises:
            GraphError: there is no such regime.
        """
        if regime not in self.modulations:
            raise GraphError(f"A regime is one of {', '.join(self.modulations)}; got {regime!r}.")
        chosen = self.modulations[regime]
        self.regime = regime
        if self.agent is not None and self._entropy is not None:
            self.agent.set_hyperparams(HyperparamSet(params={"entropy_coef": self._entropy * chosen.entropy}))
        if self.hook is not None and self._rate is not None:
            self.hook.hebbian_lr = self._rate * chosen.hebbian
        if self.controller is not None:
            self.controller.growth_factor = chosen.growth

    def on_window(
        self, progress: Mapping[str, float], eval_metrics: EvalMetrics | None, diagnostics: Mapping[str, float]
    ) -> None:
        """Hear a window's score."""
        del progress, diagnostics
        if eval_metrics is not None:
            self._scores = [*self._scores, float(eval_metrics.primary_score)][-self.detector.window :]

    def after_learning(self) -> dict[str, float]:
        """Detect the regime and set everything for it; the agent calls this after each update."""
        if len(self._scores) >= self.detector.least:
            self.apply(self.detector.detect(self._scores))
        number = {None: 0.0, "ranging": 0.0, "trending": 1.0, "volatile": 2.0}[self.regime]
        entropy = {} if self.agent is None else {"entropy_coef": float(self.agent.get_hyperparams()["entropy_coef"])}
        factor = {} if self.controller is None else {"growth_factor": self.controller.growth_factor}
        rate = {} if self.hook is None else {"hebbian_rate": self.hook.hebbian_lr}
        return {"neuromodulation": number, **entropy, **factor, **rate}

    def state(self) -> dict[str, Any]:
        """Return what its future depends on."""
        return {"scores": np.array(self._scores, np.float64), "regime": self.regime}

    def restore(self, state: StateTree) -> None:
        """Go on from what :meth:`state` returned."""
        self._scores = [float(score) for score in state["scores"]]
        self.regime = state["regime"]
