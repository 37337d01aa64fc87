"""A search for the hyperparameters of a plan, as ``optix tune`` does it, and what ``optix train`` takes from one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optix_core.errors import ConfigError
from optix_core.search.orchestrator import TrialOrchestrator
from optix_core.search.proposals import values_of
from optix_core.search.studies import ABOUT, JOURNAL, RACE, open_study, optuna
from optix_core.tuning.space import Range, Space
from optix_protocol import BaseAgent, BasePipeline, SupportsParamBounds

if TYPE_CHECKING:
    from optix_core.training import TrainPlan


def search_plan(
    plan: TrainPlan, param_space: Mapping[str, Range], *, run_options: Mapping[str, Any] | None = None, **options: Any
) -> TrialOrchestrator:
    """Return a search whose first trial is the plan, and whose trials differ from it by hyperparameters and seed.

    Args:
        plan: its ``max_env_steps`` are those of each trial.
        param_space: see :class:`TrialOrchestrator`.
        run_options: see there; those of the plan come first.
        options: further arguments of it.
    """

    def make_agent(params: Mapping[str, Any], seed: int) -> BaseAgent:
        return replace(plan, seed=seed, hyperparams={**plan.hyperparams, **params}).make_agent()

    def make_pipeline(agent: BaseAgent, seed: int) -> BasePipeline:
        return replace(plan, seed=seed).make_pipeline(agent)

    monitor = asdict(plan.loop.monitor_settings(None))
    settings = {name: value for name, value in {**plan.loop.for_run(), **monitor}.items() if value is not None}
    return TrialOrchestrator(
        make_agent,
        make_pipeline,
        param_space,
        trial_steps=plan.max_env_steps,
        seed=plan.seed,
        run_options={**settings, **(run_options or {})},
        first_params=plan.make_agent().get_hyperparams().params,
        about={"env_id": plan.env_id, "backend": plan.backend, "algorithm": plan.algorithm},
        **options,
    )


def own_space(plan: TrainPlan) -> dict[str, Range]:
    """Return the ranges that the plan's agent has for its hyperparameters, those that are switched off left out."""
    agent = plan.make_agent()
    values = agent.get_hyperparams().params
    bounds = agent.param_bounds() if isinstance(agent, SupportsParamBounds) else {}
    return {name: bound for name, bound in bounds.items() if values.get(name) is not None}


def setting_of(storage: str | os.PathLike[str], trial: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a setting that a search of ``optix tune`` found.

    Args:
        storage: a file, a URL, or the directory of a search.
        trial: its number; None takes the winner of the race, or else the best trial.

    Returns:
        What the study is of (``env_id``, ``backend``, ``algorithm``), and hyperparameters by name.

    Raises:
        ConfigError: there is no such study or trial.
    """
    if "://" not in str(storage):
        path = Path(storage) / JOURNAL if Path(storage).is_dir() else Path(storage)
        if not path.is_file():
            raise ConfigError(f"There is no study in {str(storage)!a}: give the directory or storage of `optix tune`.")
        storage = path
    study = open_study(storage, create=False)
    about = study.user_attrs.get(ABOUT)
    if about is None or not {"env_id", "backend", "algorithm", "space"} <= about.keys():
        raise ConfigError(f"The study in {str(storage)!a} was not made by `optix tune`.")
    trials = study.get_trials(deepcopy=False)
    if trial is None:
        trial = _winner(study)
    elif not 0 <= trial < len(trials):
        raise ConfigError(f"There is no trial {trial}: the study has those from 0 to {len(trials) - 1}.")
    return dict(about), values_of(Space.of(about["space"]), trials[trial])


def _winner(study: Any) -> int:
    if RACE in study.user_attrs:
        return int(study.user_attrs[RACE]["trial"])
    done = study.get_trials(deepcopy=False, states=(optuna().trial.TrialState.COMPLETE,))
    if not done:
        raise ConfigError("No trial of this study has come to a score yet.")
    return int(max(done, key=lambda found: (found.value, -found.number)).number)
