"""What a run counts, as its saved state keeps it: read back strictly, so that a damaged or foreign state is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from optix_core.loop.budget import StopReason

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Counters = TypeVar("Counters", bound="DataclassInstance")


def decode(kind: type[Counters], values: Mapping[str, Any]) -> Counters:
    """Return the dataclass that a saved state holds the fields of.

    Args:
        kind: a dataclass; fields with a default may be absent, as in states of earlier releases.
        values: by name.

    Raises:
        ValueError: a field is missing, unknown, or of another type.
    """
    unknown = values.keys() - {known.name for known in fields(kind)}
    if unknown:
        raise ValueError(f"unknown field {min(unknown)!r}")
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    return replace(msgspec.convert(plain, kind))  # msgspec leaves defaults to the class; every counter is its own


def overwrite(counters: Counters, saved: Any) -> None:
    """Give every counter the value that it has in ``saved``, in place: several parts of a run share them."""
    values = vars(saved)
    vars(counters).update({known.name: values[known.name] for known in fields(counters)})


@dataclass(kw_only=True)
class ValidationCounters:
    """What validation has cost, and when it is due again.

    Attributes:
        validation_steps: environment steps that validation has taken so far.
        windows_since_validation: windows of training since then.
        validation_cost: environment steps of the latest validation.
    """

    validation_steps: int = 0
    windows_since_validation: int = 0
    validation_cost: int = 0


@dataclass(kw_only=True)
class RunCounters:
    """What a run counts beside the evidence of its controller; its parts share one object of this class.

    Attributes:
        diagnostics: what the latest ``learn`` returned.
        policy_version: how often the policy has changed.
        hyperparam_version: number of the hyperparameters in use.
        hyperparam_versions: how many changes there have been; a number is never given twice.
        safe_hyperparam_version: number of the hyperparameters that belong to the state that a rollback restores.
        num_confirmations: tests of a suspected degradation.
        num_greedy_tests: tests of what exploring may hide.
        search_env_steps: environment steps of branches that tried out other hyperparameters.
        num_experiments: that the laboratory has held for a tuner.
        tuning_form: how a tuner's experiments are held, "" before the first.
        outcome: why training is over, once it is by itself; a run that is killed after that has only to finish.
    """

    diagnostics: dict[str, float] = field(default_factory=dict)
    policy_version: int = 0
    hyperparam_version: int = 0
    hyperparam_versions: int = 0
    safe_hyperparam_version: int = 0
    num_confirmations: int = 0
    num_greedy_tests: int = 0
    search_env_steps: int = 0
    num_experiments: int = 0
    tuning_form: str = ""
    outcome: tuple[StopReason, str] | None = None


@dataclass(kw_only=True)
class SavedCounters(RunCounters, ValidationCounters):
    """All counters of a run, as its saved state holds them.

    Attributes:
        best: number of the best snapshot, or None.
        eval_env_steps: environment steps of tests by play.
        elapsed_s: seconds of this run, earlier sittings included.
        budget: what ``outcome`` belongs to.
        episode_lengths: of recent episodes of training, oldest first; absent in states of release 0.1.
    """

    best: int | None
    eval_env_steps: int
    elapsed_s: float
    budget: dict[str, Any]
    episode_lengths: list[int] = field(default_factory=list)

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> SavedCounters:
        """Return the counters of a saved state.

        Raises:
            KeyError: it has no ``hyperparam_version``.
            ValueError: another field is missing, unknown, or of another type.
        """
        version = state["hyperparam_version"]
        absent_in_0_1 = {"hyperparam_versions": version, "safe_hyperparam_version": version}
        return decode(cls, {**absent_in_0_1, **state})
