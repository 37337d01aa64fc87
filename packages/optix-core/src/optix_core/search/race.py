"""What a setting is worth: the best of a search race on fresh seeds, and the winner is trained again on others.

The best of many scores is ahead by luck as well. The race chooses on seeds that had no part in the search; what is
reported comes from seeds that had no part in the race, with an interval for a training that is yet to come.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optix_core.errors import ConfigError
from optix_core.evaluation.intervals import student
from optix_core.search.claims import POLL_S, Locks
from optix_core.search.crew import Crew
from optix_core.search.trials import Outcome, Training, go_on

MakeTraining = Callable[[str, Mapping[str, Any], str, int], Training]
"""From a name, hyperparameters, and what seeds are for and their number, to a training."""


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A configuration that races.

    Attributes:
        trial: number of its trial.
        params: its hyperparameters.
        returns: of its trainings in the race: confirmed returns, one for each seed; -inf where there was none.
    """

    trial: int
    params: Mapping[str, Any]
    returns: Sequence[float] = ()

    @property
    def mean(self) -> float:
        """Of its returns."""
        return float(np.mean(self.returns))


@dataclass(frozen=True, kw_only=True)
class RaceResult:
    """What a race found.

    Attributes:
        winner: of the race.
        finalists: all of them, the winner too.
        returns: of trainings of the winner after the race: confirmed returns on fresh seeds.
        mean: of these.
        low: lower end of the 95 % prediction interval for the confirmed return of another training.
        high: its upper end.
        spread: SD of a training that the interval is made from.
        train_env_steps: of all trainings.
        eval_env_steps: likewise.
    """

    winner: Finalist
    finalists: Sequence[Finalist]
    returns: Sequence[float]
    mean: float
    low: float
    high: float
    spread: float
    train_env_steps: int
    eval_env_steps: int

    @property
    def params(self) -> dict[str, Any]:
        """Hyperparameters of the winner."""
        return dict(self.winner.params)

    def summary(self) -> dict[str, Any]:
        """Return what a study keeps of it."""
        numbers = {name: getattr(self, name) for name in ("mean", "low", "high", "train_env_steps", "eval_env_steps")}
        return {"trial": self.winner.trial, **numbers}


def prediction_interval(returns: Sequence[float], others: Sequence[Sequence[float]] = ()) -> tuple[float, float, float]:
    """Return the 95 % interval of one more value, and the SD that it is made from.

    ``mean +- t s sqrt(1 + 1/n)`` (Hahn and Meeker 1991), with ``s`` pooled over all groups: the few values of one group
    may happen to be equal where trainings are not.

    Args:
        returns: ``n`` values, at least 2, whose mean is the middle.
        others: groups of values that spread as these do, around means of their own.
    """
    groups = [np.asarray(group, dtype=np.float64) for group in (returns, *others) if len(group) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    spread = math.sqrt(sum(((group - group.mean()) ** 2).sum() for group in groups) / freedom)
    half = student(freedom, 0.95) * spread * math.sqrt(1 + 1 / len(returns))
    middle = float(np.mean(returns))
    return middle - half, middle + half, spread


@dataclass(frozen=True, kw_only=True)
class Race:
    """Finds the best of a few configurations, and what a fresh training of it reaches.

    Attributes:
        num_finalists: configurations that race.
        race_seeds: trainings of each; all train on the same seeds.
        fresh_seeds: trainings of the winner after that.
    """

    num_finalists: int
    race_seeds: int
    fresh_seeds: int

    @property
    def num_trainings(self) -> int:
        """Trainings in all."""
        return self.num_finalists * self.race_seeds + self.fresh_seeds if self.num_finalists else 0

    def hold(self, crew: Crew, locks: Locks, finalists: Sequence[Finalist], make: MakeTraining) -> RaceResult:
        """Train everything; what was trained before a kill is read, or goes on where it was.

        Args:
            crew: who trains.
            locks: of everybody who works on the study.
            finalists: the best first.
            make: makes their trainings.

        Raises:
            ConfigError: the winner has no confirmed return to be judged by.
        """
        rounds = _Trainings(crew=crew, locks=locks, make=make)
        returns = rounds.train(finalists, "race", self.race_seeds)
        raced = [
            Finalist(trial=finalist.trial, params=finalist.params, returns=found)
            for finalist, found in zip(finalists, returns, strict=True)
        ]
        winner = max(raced, key=lambda finalist: finalist.mean)
        (fresh,) = rounds.train([winner], "fresh", self.fresh_seeds)
        if not np.isfinite(fresh).all():
            raise ConfigError(f"Trial {winner.trial} won the race, but learning broke in a fresh training of it.")
        low, high, spread = prediction_interval(fresh, [f.returns for f in raced if np.isfinite(f.returns).all()])
        return RaceResult(
            winner=winner,
            finalists=raced,
            returns=fresh,
            mean=float(np.mean(fresh)),
            low=low,
            high=high,
            spread=spread,
            train_env_steps=rounds.train_env_steps,
            eval_env_steps=rounds.eval_env_steps,
        )


@dataclass(kw_only=True)
class _Trainings:
    """Trainings of some configurations on some seeds, side by side, shared with other processes.

    Attributes:
        crew: who trains.
        locks: of everybody who works on the study.
        make: makes a training.
        train_env_steps: of all so far.
        eval_env_steps: likewise.
    """

    crew: Crew
    locks: Locks
    make: MakeTraining
    train_env_steps: int = 0
    eval_env_steps: int = 0

    def train(self, finalists: Sequence[Finalist], purpose: str, seeds: int) -> list[list[float]]:
        """Return the confirmed return of each configuration on each seed, -inf where there is none."""
        waiting = {
            f"{purpose}-{finalist.trial:04d}-{seed}": (row, seed)
            for seed in range(seeds)
            for row, finalist in enumerate(finalists)
        }
        found = [[-math.inf] * seeds for _ in finalists]
        places = dict(waiting)
        while waiting or self.crew.num_busy:
            for name, (row, seed) in list(waiting.items()):
                if self.crew.num_idle and self.locks.take(name):
                    del waiting[name]
                    training = self.make(name, finalists[row].params, purpose, seed)
                    self.crew.start(name, training, go_on)
            if not self.crew.num_busy:  # others are at the rest
                time.sleep(POLL_S)
                continue
            ended = self.crew.wait(POLL_S if waiting and self.crew.num_idle else None)
            if ended is not None:
                name, outcome = ended
                row, seed = places[name]
                found[row][seed] = self._value(outcome)
                self.locks.release(name)
        return found

    def _value(self, outcome: Outcome) -> float:
        if outcome.interrupted:
            raise KeyboardInterrupt
        self.train_env_steps += outcome.train_env_steps
        self.eval_env_steps += outcome.eval_env_steps
        return -math.inf if outcome.confirmed is None else outcome.confirmed
