"""Who is at which trial: held by locks of the operating system, which end with their holder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optix_core.errors import RunDirectoryError
from optix_core.search.proposals import Proposer
from optix_core.search.studies import optuna
from optix_core.storage.files import make_directories
from optix_core.storage.lock import DirectoryLock

POLL_S = 0.2
"""How often is looked whether others have ended what everybody waits for."""


class Locks:
    """The locks that a search holds in the directory which it shares with others.

    Args:
        folder: that directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / ".locks"
        self._held: dict[str, DirectoryLock] = {}
        make_directories(self._folder)

    def __enter__(self) -> Locks:
        return self

    def __exit__(self, *error: object) -> None:
        for name in list(self._held):
            self.release(name)

    def take(self, name: str) -> bool:
        """Lock a name, unless another process has, or this one."""
        if name in self._held:
            return False
        try:
            self._held[name] = DirectoryLock(self._folder, name)
        except RunDirectoryError:
            return False
        return True

    def release(self, name: str) -> None:
        """Let others have it."""
        self._held.pop(name).release()


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Finds the next trial that nobody is at, and has a round proposed where all have ended.

    Attributes:
        study: of the search.
        locks: of everybody who works on it.
        proposer: proposes rounds.
        num_trials: in all.
        first: returns the values of the first trial.
    """

    study: Any
    locks: Locks
    proposer: Proposer
    num_trials: int
    first: Callable[[], Mapping[str, Any]]

    def next(self) -> Any:
        """Return a trial to begin or to go on with, whose name is locked then; None where there is none now."""
        trial = self._claim()
        if trial is None and self._propose():
            trial = self._claim()
        return trial

    def release(self, trial: Any) -> None:
        """Let others see that a trial has ended."""
        self.locks.release(name_of(trial))

    def is_done(self) -> bool:
        """Whether all trials have ended."""
        return self._num_begun() >= self.num_trials and not self._running()

    def _claim(self) -> Any:
        if not self._round_is_whole():
            return None
        for trial in self._running():
            if self.locks.take(name_of(trial)):
                now = self.study.get_trials(deepcopy=False)[trial.number]  # it may have ended just before
                if not now.state.is_finished():
                    return now
                self.release(trial)
        return None

    def _propose(self) -> bool:
        """Fill the present round, or begin the next if all trials have ended; return whether trials were added."""
        if not self.locks.take("study"):  # somebody else is proposing
            return False
        try:
            if self._round_is_whole() and (self._running() or self._num_begun() >= self.num_trials):
                return False
            self.proposer.begin_next(self.study, self.first)
            while not self._round_is_whole():
                self.proposer.begin_next(self.study, self.first)
            return True
        finally:
            self.locks.release("study")

    def _running(self) -> list[Any]:
        return list(self.study.get_trials(deepcopy=False, states=(optuna().trial.TrialState.RUNNING,)))

    def _num_begun(self) -> int:
        waiting = optuna().trial.TrialState.WAITING
        return sum(trial.state is not waiting for trial in self.study.get_trials(deepcopy=False))

    def _round_is_whole(self) -> bool:
        begun = self._num_begun()
        return begun >= self.num_trials or begun % self.proposer.round_size == 0


def name_of(trial: Any) -> str:
    """Return the name of a trial's directory and lock."""
    return f"trial-{trial.number:04d}"
