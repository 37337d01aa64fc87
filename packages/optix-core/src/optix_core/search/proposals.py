"""Which configurations are tried: proposed in rounds, each from a copy of the study as it was before the round.

What is proposed for trial ``n`` depends on the seed, on ``n``, and on what came of earlier rounds. It does not depend
on who ran which trial, in which order they ended, or how often somebody was killed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from optix_core.errors import ConfigError
from optix_core.search.studies import optuna, quiet
from optix_core.search.trials import OnScore, go_on
from optix_core.seeding import derive_seed
from optix_core.tuning.space import Axis, Space


@dataclass(frozen=True, kw_only=True)
class Proposer:
    """Proposes trials, and judges by earlier rounds whether one is pruned.

    Attributes:
        space: of hyperparameters.
        seed: of the search.
        round_size: trials that are proposed at once.
        sampler: Optuna's, or what makes one from the seed of a trial; None takes Optuna's TPE.
        pruner: Optuna's, or None.
    """

    space: Space
    seed: int
    round_size: int
    sampler: Any = None
    pruner: Any = None

    def begin_next(self, study: Any, first: Callable[[], Mapping[str, Any]]) -> None:
        """Add the next trial to a study as a running one, or let one that waits begin.

        Either is one write of the storage, so that a kill leaves no trial without its hyperparameters.

        Args:
            study: whose trials before this round have ended.
            first: the values of the first trial.
        """
        state = optuna().trial.TrialState
        waiting = study.get_trials(deepcopy=False, states=(state.WAITING,))
        number = waiting[0].number if waiting else len(study.get_trials(deepcopy=False))
        copy = self._copy(study, number)
        if waiting:
            copy.add_trial(waiting[0])
        elif number == 0:
            copy.enqueue_trial({axis.name: encoded(axis, first()[axis.name]) for axis in self.space.axes})
        with quiet():
            copy.ask(distributions(self.space))
        proposed = copy.get_trials(deepcopy=False)[-1]
        if not waiting:
            study.add_trial(
                optuna().trial.create_trial(
                    state=state.RUNNING,
                    params=proposed.params,
                    distributions=proposed.distributions,
                    system_attrs=proposed.system_attrs,
                )
            )
            return
        trial_id, storage = waiting[0]._trial_id, study._storage
        for name, value in proposed.params.items():
            kind = proposed.distributions[name]
            storage.set_trial_param(trial_id, name, kind.to_internal_repr(value), kind)
        storage.set_trial_state_values(trial_id, state=state.RUNNING)

    def judge(self, study: Any, number: int) -> OnScore:
        """Return what says after each evaluation of a trial whether it is pruned: by earlier rounds, never by others.

        Args:
            study: whose trials before this round have ended.
            number: of the trial.
        """
        if self.pruner is None:
            return go_on
        copy = self._copy(study, number)
        copy.add_trial(_only_begun(study.get_trials(deepcopy=False)[number]))
        trial = optuna().trial.Trial(copy, copy.get_trials(deepcopy=False)[-1]._trial_id)

        told: set[int] = set()

        def heard(step: int, score: float) -> bool:
            if math.isfinite(score) and step not in told:
                trial.report(score, step=step)
                told.add(step)
            return bool(trial.should_prune())

        return heard

    def _copy(self, study: Any, number: int) -> Any:
        """Return the study as it was when a trial was proposed: those of its round have only begun."""
        begin = number - number % self.round_size
        sampler = self.sampler
        if sampler is None or not isinstance(sampler, optuna().samplers.BaseSampler):
            seed = derive_seed(self.seed, "sampler", number)  # what was drawn before a kill does not matter
            sampler = (sampler or _tpe)(seed)
        with quiet():
            copy = optuna().create_study(
                direction="maximize", sampler=sampler, pruner=self.pruner or optuna().pruners.NopPruner()
            )
            trials = study.get_trials(deepcopy=False)[:number]
            copy.add_trials([trial if trial.number < begin else _only_begun(trial) for trial in trials])
        return copy


def _tpe(seed: int) -> Any:
    return optuna().samplers.TPESampler(seed=seed)


def _only_begun(trial: Any) -> Any:
    return optuna().trial.create_trial(
        state=optuna().trial.TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        system_attrs=trial.system_attrs,
    )


def distributions(space: Space) -> dict[str, Any]:
    """Return the space as Optuna knows it; choices by their number, since a storage changes tuples into lists."""
    kinds = optuna().distributions
    found: dict[str, Any] = {}
    for axis in space.axes:
        if axis.choices is not None:
            found[axis.name] = kinds.CategoricalDistribution(list(range(len(axis.choices))))
        elif axis.integer:
            low, high = math.ceil(axis.low), math.floor(axis.high)
            found[axis.name] = kinds.IntDistribution(low, high, log=axis.log)
        else:
            found[axis.name] = kinds.FloatDistribution(axis.low, axis.high, log=axis.log)
    return found


def described(space: Space) -> dict[str, list[Any]]:
    """Return the ranges of a space as a study keeps them: by kind, as :meth:`Space.of` takes them."""

    def kind(axis: Axis) -> str:
        return ("log_" if axis.log else "") + ("int" if axis.integer else "float")

    return {
        axis.name: [kind(axis), axis.low, axis.high] if axis.choices is None else ["categorical", *axis.choices]
        for axis in space.axes
    }


def values_of(space: Space, trial: Any) -> dict[str, Any]:
    """Return the hyperparameters of a trial."""
    return {axis.name: _decoded(axis, trial.params[axis.name]) for axis in space.axes}


def clipped(axis: Axis, value: Any, middle: Any) -> Any:
    """Return a value inside its range: the very same if it is; the middle if it is none (off, or no choice)."""
    try:
        inside = axis.decode(axis.encode(value))
    except ConfigError:
        return middle
    return value if axis.choices is None and axis.low <= value <= axis.high else inside


def encoded(axis: Axis, value: Any) -> Any:
    """Return a value as a study keeps it."""
    return value if axis.choices is None else axis.choices.index(value)


def _decoded(axis: Axis, value: Any) -> Any:
    return value if axis.choices is None else axis.choices[int(value)]
