"""What a plan takes where its configuration says nothing: an algorithm, hyperparameters, settings of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from optix_core.agents.backends import action_kind, algorithm_info, choose_algorithm, excluded_by
from optix_core.convergence import MonitorSettings
from optix_core.environments import EnvSpec
from optix_core.training.defaults import Recipe, usual_algorithm
from optix_core.training.loop_settings import LoopSettings
from optix_protocol import AlgorithmInfo, Backend


def choose_info(backend: Backend, algorithm: str, spec: EnvSpec) -> AlgorithmInfo:
    """Return an algorithm by its name; ``"auto"`` takes what is usual for the environment, or for its actions.

    Raises:
        ConfigError: the backend has no such algorithm, or it cannot act there.
    """
    if algorithm == "auto":
        usual = usual_algorithm(str(spec.env_id))
        known = bool(usual) and usual in backend.algorithms()
        algorithm = str(usual) if known else choose_algorithm(backend, spec.action_space)
    return algorithm_info(backend, algorithm, action_kind(spec.action_space))


def choose_hyperparams(info: AlgorithmInfo, family: Recipe, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe's hyperparameters that the algorithm has, under those that were asked for."""
    usual = {k: v for k, v in family.hyperparams.items() if k in info.default_hyperparams and k not in asked}
    for name in asked:
        usual.pop(excluded_by(info.name, name), None)
    return {**usual, **asked}


def choose_loop_settings(
    family: Recipe, asked: Mapping[str, Any], *, budget: int, n_envs: int, budget_is_chosen: bool
) -> LoopSettings:
    """Return the settings of the loop, with windows that fit the budget.

    Args:
        family: the recipe.
        asked: what the user set.
        budget: environment steps.
        n_envs: environments side by side.
        budget_is_chosen: whether the user chose the budget.
    """
    settings = LoopSettings.of({"window_size": family.window_size, **family.loop, **asked})
    settings = replace(settings, window_size=min(settings.window_size, max(1, budget // n_envs)))
    if settings.early_plateau_fraction is not None:
        return settings
    # A budget that somebody chose is evidence of how long the task should take; a default cap is none.
    fraction = MonitorSettings.early_plateau_fraction if budget_is_chosen else 0.0
    return replace(settings, early_plateau_fraction=fraction)
