"""The policy that training began with, kept for the question whether a run without a rise has learned nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from optix_core.checkpoints.registry import SNAPSHOTS_NAME, CheckpointRegistry
from optix_core.storage.damage import Problem, VerifyReport
from optix_core.storage.files import require_own_directory
from optix_core.storage.writer import BackgroundWriter
from optix_protocol import BaseAgent, EvalMetrics

UNTRAINED_NAME = "untrained"


class UntrainedPolicy:
    """``untrained/`` of a run.

    Args:
        run: the directory of the run.
        read_only: nothing may be written.
        writer: of the run.

    Raises:
        RunDirectoryError: there is a link in the place of the directory.
    """

    def __init__(self, run: Path, *, read_only: bool, writer: BackgroundWriter) -> None:
        self._path, self._read_only, self._writer = run / UNTRAINED_NAME, read_only, writer
        for directory in (self._path, self._path / SNAPSHOTS_NAME):
            require_own_directory(directory)
        self._opened: CheckpointRegistry | None = None

    @property
    def _registry(self) -> CheckpointRegistry:
        """A registry of its own, made when it is first asked for, so that a run that never began leaves nothing."""
        if self._opened is None:
            self._opened = CheckpointRegistry(self._path, resume=True, read_only=self._read_only, writer=self._writer)
        return self._opened

    @property
    def is_kept(self) -> bool:
        """Whether it is there."""
        return self._path.exists() and bool(self._registry.list())

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was damaged, as far as it has been looked at."""
        return () if self._opened is None else _inside(self._opened.problems)

    def keep(self, agent: BaseAgent) -> None:
        """Keep an agent's policy, once.

        Raises:
            RunDirectoryError: the disk is full or refuses.
            AgentError: the agent did not write its weights.
        """
        if not self.is_kept:
            score = EvalMetrics(primary_score=-math.inf, episode_id=0)
            self._registry.save(agent, eval_metrics=score, hyperparams=agent.get_hyperparams())

    def load(self, agent: BaseAgent) -> None:
        """Give it to an agent.

        Raises:
            RunDirectoryError: it is damaged or missing; the agent is untouched.
        """
        self._registry.load_best(agent)

    def verify(self) -> VerifyReport:
        """Read its files in full and report what is damaged."""
        found = self._registry.verify()
        return replace(found, problems=_inside(found.problems))


def _inside(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(replace(problem, path=f"{UNTRAINED_NAME}/{problem.path}") for problem in problems)
