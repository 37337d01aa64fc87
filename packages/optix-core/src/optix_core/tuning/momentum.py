"""Simultaneous perturbation with a memory: where one experiment follows another's direction, steps grow longer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from optix_core.errors import real_number
from optix_core.tuning.space import Point, Range
from optix_core.tuning.spsa import SPSAOptimizer
from optix_core.tuning.trial import Trial


class MomentumOptimizer(SPSAOptimizer):
    """Follows a running mean of SPSA's estimates (Polyak 1964, as an exponential mean that is unbiased from the start).

    Made for scores that hang together from window to window: a single difference says little then, several in a row do.

    Args:
        param_bounds: see :class:`OnlineTuner`.
        log_params: see there.
        perturbation: see :class:`SPSAOptimizer`.
        learning_rate: see there.
        momentum: weight of what was estimated before, 0 to below 1.
        num_directions: see there.
        expected_probes: see there.
        gate: see :class:`OnlineTuner`.
        num_windows: see there.
        seed: see there.
    """

    name = "momentum"

    def __init__(
        self,
        param_bounds: Mapping[str, Range] | None = None,
        log_params: Collection[str] = (),
        perturbation: float = 0.12,
        learning_rate: float = 0.05,
        momentum: float = 0.5,
        *,
        num_directions: int = 1,
        expected_probes: int = 20,
        gate: bool = True,
        num_windows: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(
            param_bounds,
            log_params,
            perturbation,
            learning_rate,
            num_directions=num_directions,
            expected_probes=expected_probes,
            gate=gate,
            num_windows=num_windows,
            seed=seed,
        )
        self.momentum = real_number("momentum", momentum, least=0.0, below=1.0)
        self._mean: Point | None = None
        self._weight = 0.0

    def _direction(self, trial: Trial) -> Point:
        estimate = super()._direction(trial)
        before = np.zeros_like(estimate) if self._mean is None else self._mean
        self._mean = self.momentum * before + (1 - self.momentum) * estimate
        self._weight = self.momentum * self._weight + 1 - self.momentum
        mean: Point = self._mean / self._weight
        return mean

    def _own_state(self) -> dict[str, Any]:
        mean = None if self._mean is None else self._mean.tolist()
        return {**super()._own_state(), "mean": mean, "weight": self._weight}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        super()._load_own_state(state)
        mean = state["mean"]
        self._mean = None if mean is None else np.array(mean, dtype=np.float64)
        self._weight = float(state["weight"])
