"""How large the replay memory of a run is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optix_core.data.capacity import fitting_capacity, row_bytes
from optix_core.environments import EnvSpec
from optix_protocol import AlgorithmInfo


def has_replay(info: AlgorithmInfo) -> bool:
    """Whether an algorithm learns from a replay memory whose size is a hyperparameter."""
    return not info.on_policy and isinstance(info.default_hyperparams.get("capacity"), int)


def usual_capacity(info: AlgorithmInfo, hyperparams: Mapping[str, Any], spec: EnvSpec, budget: int, window: int) -> int:
    """Choose the size of the replay memory: the usual one, as far as the budget fills it and this machine holds it.

    Args:
        info: the algorithm.
        hyperparams: what was chosen so far.
        spec: the environment.
        budget: environment steps of the run.
        window: environment steps of a window; a few of them must fit.
    """
    chosen = {**info.default_hyperparams, **hyperparams}
    numbers = {name: value for name, value in chosen.items() if isinstance(value, int | float)}
    stack = int(numbers.get("frame_stack", 1))
    least = max(int(numbers.get("learning_starts", 0)) + 1, (3 + stack) * window + 64 * int(numbers.get("n_step", 1)))
    wanted = int(chosen["capacity"])
    if least >= wanted:  # the agent says what contradicts what
        return wanted
    exact = chosen.get("normalize_observations") is True
    row = row_bytes(spec.observation_space, spec.action_space, frame_stack=stack, exact=exact)
    return fitting_capacity(wanted, row=row, budget=budget, least=least)
