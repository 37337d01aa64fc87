"""What a copy of an agent does otherwise: its hyperparameters moved a little, within their ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from optix_core.tuning.space import Space
from optix_protocol import BaseAgent, ParamBound, SupportsParamBounds


def space_of(agent: BaseAgent) -> Space:
    """Return what populations and evolutions perturb: all that has a range, slow or not, unless it moves by itself.

    A value outside its range was set there on purpose, an entropy coefficient of 0 say, and stays.

    Raises:
        ConfigError: the agent has no ranges.
    """
    bounds = agent.param_bounds() if isinstance(agent, SupportsParamBounds) else {}
    values = agent.get_hyperparams().params
    by_itself = {*getattr(agent, "schedules", ())}
    if values.get("adaptive_kl") is not None:
        by_itself.add("learning_rate")

    def moves(name: str, bound: ParamBound) -> bool:
        value = values.get(name)
        return value is not None and name not in by_itself and bound.low <= value <= bound.high

    return Space.of({name: bound for name, bound in bounds.items() if moves(name, bound)}).typed(values)


def perturbed(space: Space, values: Mapping[str, Any], scale: float, seed: int) -> dict[str, Any]:
    """Return values moved by ``U(-scale, scale)`` of every range, on a log scale where it has one.

    That is ``theta exp(U(-d, d))`` with ``d = scale ln(high / low)``. Whole numbers move by at least 1, and nothing
    leaves its range.
    """
    rng = np.random.default_rng(seed)
    distances = rng.uniform(-scale, scale, size=len(space.axes))
    return space.decode(space.moved(space.encode(values), distances))
