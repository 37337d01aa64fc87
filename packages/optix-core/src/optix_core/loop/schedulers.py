"""From settings by name to the scheduler that has them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from optix_core.convergence import BackoffScheduler, ConvergenceMonitor, MonitorSettings
from optix_core.errors import ConfigError, suggest
from optix_protocol import BaseAgent, is_on_policy

_ELSEWHERE = {
    **dict.fromkeys(("total_timesteps", "n_timesteps", "max_steps"), "the budget is max_env_steps=."),
    **dict.fromkeys(("eval_env", "eval_pipeline", "validation_pipeline"), "pass val_pipeline=, which only acts."),
    **dict.fromkeys(("log_dir", "save_path", "tensorboard_log", "output_dir"), "files go to checkpoint_dir=."),
    **dict.fromkeys(("env", "n_envs", "num_envs", "window_size", "n_steps"), "it belongs to the pipeline."),
    **dict.fromkeys(("eval_freq", "n_eval_episodes"), "a run evaluates by itself; confirm_episodes= is for its end."),
    "patience": "a run stops by itself; dormant_threshold= (BackoffScheduler's) counts evaluations without gain.",
}
"""What to write instead of names by which other libraries call what a run has, or what belongs elsewhere."""


EXACT_MARGIN_FRACTION = 0.01
"""Margin of scores on held-out rows, as a fraction of their range: a fifth of that of returns, which are noisy."""


def choose_scheduler(
    settings: Mapping[str, Any],
    agent: BaseAgent,
    *,
    budget_env_steps: int | None,
    run_settings: Iterable[str] = (),
    scores_exactly: bool = False,
) -> BackoffScheduler | ConvergenceMonitor:
    """Build the scheduler that the settings belong to: a ``ConvergenceMonitor`` where there are none.

    Args:
        settings: arguments of one of the two schedulers, by name.
        agent: off-policy agents have defaults of their own for :class:`BackoffScheduler`.
        budget_env_steps: the run's budget.
        run_settings: what else the run has by name, for errors.
        scores_exactly: the scores have no noise of episodes; the margin may then be as small as what users compare.

    Raises:
        ConfigError: a setting that neither has, settings of both, or a value out of range.
    """
    of_backoff = set(inspect.signature(BackoffScheduler).parameters)
    of_monitor = {field.name for field in fields(MonitorSettings)} - {"budget_env_steps"}
    known = of_backoff | of_monitor | set(run_settings)
    for name in settings:
        if name not in of_backoff | of_monitor:
            raise ConfigError(f"RLOptimizer has no setting '{name}'{_instead(name, agent, known)}")
    classic, bounding = sorted(settings.keys() & of_backoff), sorted(settings.keys() & of_monitor)
    if classic and bounding:
        raise ConfigError(
            f"{classic[0]} belongs to BackoffScheduler and {bounding[0]} to ConvergenceMonitor: a run has one of them."
        )
    try:
        if not classic:
            if scores_exactly:
                settings = {"margin_fraction": EXACT_MARGIN_FRACTION, "early_plateau_fraction": 0.0, **settings}
            return ConvergenceMonitor(budget_env_steps=budget_env_steps, **settings)
        if is_on_policy(agent):
            return BackoffScheduler(**settings)
        return BackoffScheduler.for_off_policy(type(agent).__name__, **settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


def _instead(name: str, agent: BaseAgent, known: Iterable[str]) -> str:
    """Return how a line ends that begins with a name that a run does not have."""
    if name in _ELSEWHERE:
        return f": {_ELSEWHERE[name]}"
    close = suggest(name, known)
    return ": it is a hyperparameter of the agent." if name in agent.get_hyperparams().params else f".{close}"
