"""From settings by name to the scheduler that has them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from optix_core.convergence import BackoffScheduler, ConvergenceMonitor, MonitorSettings
from optix_core.errors import ConfigError, suggest
from optix_protocol import BaseAgent, is_on_policy


def choose_scheduler(
    settings: Mapping[str, Any], agent: BaseAgent, *, budget_env_steps: int | None
) -> BackoffScheduler | ConvergenceMonitor:
    """Build the scheduler that the settings belong to: a ``ConvergenceMonitor`` where there are none.

    Args:
        settings: arguments of one of the two schedulers, by name.
        agent: off-policy agents have defaults of their own for :class:`BackoffScheduler`.
        budget_env_steps: the run's budget.

    Raises:
        ConfigError: a setting that neither has, settings of both, or a value out of range.
    """
    of_backoff = set(inspect.signature(BackoffScheduler).parameters)
    of_monitor = {field.name for field in fields(MonitorSettings)} - {"budget_env_steps"}
    for name in settings:
        if name not in of_backoff | of_monitor:
            raise ConfigError(f"RLOptimizer has no setting '{name}'.{suggest(name, of_backoff | of_monitor)}")
    classic, bounding = sorted(settings.keys() & of_backoff), sorted(settings.keys() & of_monitor)
    if classic and bounding:
        raise ConfigError(
            f"{classic[0]} belongs to BackoffScheduler and {bounding[0]} to ConvergenceMonitor: a run has one of them."
        )
    try:
        if not classic:
            return ConvergenceMonitor(budget_env_steps=budget_env_steps, **settings)
        if is_on_policy(agent):
            return BackoffScheduler(**settings)
        return BackoffScheduler.for_off_policy(type(agent).__name__, **settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error
