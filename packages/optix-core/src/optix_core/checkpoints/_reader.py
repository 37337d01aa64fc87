"""The half of the registry that only reads: what there is, which is best, and getting it into an agent."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from optix_core.checkpoints._index import SnapshotIndex
from optix_core.checkpoints._records import Record, read_best, read_record
from optix_core.checkpoints._weights import average_weights, load_weights
from optix_core.errors import RunDirectoryError
from optix_core.storage.damage import DamagedFileError, Problem, VerifyReport
from optix_core.storage.documents import read_json
from optix_core.storage.files import numbered_directories, require_own_directory
from optix_protocol import BaseAgent, PolicySnapshot

_Snapshots: TypeAlias = list[PolicySnapshot]  # inside the class, ``list`` is a method


class SnapshotReader:
    """The snapshots in a directory, as they were when it was opened.

    Attributes:
        path: the ``snapshots`` directory.
        problems: what was skipped, and what was cleaned up.
    """

    def __init__(self, path: Path) -> None:
        """Index what is intact and name what is not.

        Raises:
            DamagedFileError: something else is in the directory's place.
        """
        require_own_directory(path)
        self.path = path
        self._index = SnapshotIndex()
        problems: list[Problem] = []
        for snapshot_id, directory in numbered_directories(path).items():
            try:
                self._index.records[snapshot_id] = read_record(directory, snapshot_id)
            except DamagedFileError as error:
                problems.append(self._problem(error))
        try:
            self._index.marked = read_best(path, self._index.records)
        except DamagedFileError as error:
            problems.append(self._problem(error))
        self.problems: tuple[Problem, ...] = tuple(problems)

    def _settle(self) -> None:
        """Take in what a writer has found out meanwhile; nothing here."""

    def _wait(self) -> None:
        """Wait for a writer; nothing here."""

    def list(self) -> _Snapshots:
        """Return the snapshots in the order in which they were saved."""
        self._settle()
        return [self._index.records[i].snapshot for i in self._index.ids()]

    @property
    def best(self) -> PolicySnapshot | None:
        """The marked snapshot, or else the one with the highest score (the earliest of equals), or None."""
        self._settle()
        best = self._index.best()
        return None if best is None else self._index.records[best].snapshot

    def load(self, agent: BaseAgent, snapshot_id: int) -> PolicySnapshot:
        """Give the agent the weights of a snapshot.

        Raises:
            DamagedFileError: the weights are not the ones that were saved; the agent is untouched.
            RunDirectoryError: there is no such snapshot.
            AgentError: the weights are intact, but do not fit this agent.
        """
        record = self._get(snapshot_id)
        load_weights(agent, self._intact(record), f"Snapshot {snapshot_id} does")
        return record.snapshot

    def load_best(self, agent: BaseAgent) -> PolicySnapshot:
        """Give the agent the best intact weights, passing over damaged ones, which :attr:`problems` then names.

        Raises:
            RunDirectoryError: there is no intact snapshot.
            AgentError: the weights are intact, but do not fit this agent.
        """
        self._settle()
        for snapshot_id in self._index.ranking():
            try:
                return self.load(agent, snapshot_id)
            except DamagedFileError as error:
                self._set_aside(snapshot_id, error)
        raise self._nothing_intact()

    def load_ensemble(self, agent: BaseAgent, top_k: int) -> _Snapshots:
        """Give the agent the average of the weights of the best ``top_k`` intact snapshots of this run.

        Floating-point arrays are averaged; everything else (counters) comes from the best one. Sensible along one
        training run, where weights stay in one basin (Izmailov et al. 2018, arXiv:1803.05407).

        Returns:
            The snapshots that were averaged, best first.

        Raises:
            RunDirectoryError: there is no intact snapshot, the weights are no safetensors or differ in shape, or they
                are those of a population, whose members are runs of their own.
            AgentError: the average does not fit this agent.
        """
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}.")
        self._require_one_run()
        self._settle()
        chosen: dict[int, Path] = {}
        for snapshot_id in self._index.ranking():
            try:
                chosen[snapshot_id] = self._intact(self._index.records[snapshot_id])
            except DamagedFileError as error:
                self._set_aside(snapshot_id, error)
            if len(chosen) == top_k:
                break
        if not chosen:
            raise self._nothing_intact()
        average_weights(agent, tuple(chosen.values()))
        return [self._index.records[snapshot_id].snapshot for snapshot_id in chosen]

    def _require_one_run(self) -> None:
        """Refuse snapshots of several members: weights of independent runs lie in basins of their own.

        Their mean is no policy at all; what can be joined is what they would do (:class:`optix_core.EnsembleAgent`).
        """
        try:
            described = read_json(self.path.parent / "run.json")
        except (OSError, DamagedFileError):
            return
        if described.get("population"):
            raise RunDirectoryError(
                f"These snapshots come from the {described['population']} members of a population, independent runs "
                "whose weights have no sensible mean: let them act together as an EnsembleAgent instead."
            )

    def weights_path(self, snapshot_id: int) -> Path:
        """Return the path of intact weights, for tools that read them without an agent.

        Raises:
            RunDirectoryError: there is no such snapshot, or it is damaged.
        """
        return self._intact(self._get(snapshot_id))

    def verify(self) -> VerifyReport:
        """Read every file in full and compare it with its checksum."""
        self._wait()
        directories = numbered_directories(self.path)
        problems = []
        for snapshot_id, directory in directories.items():
            try:
                self._intact(read_record(directory, snapshot_id))
            except DamagedFileError as error:
                problems.append(self._problem(error))
        return VerifyReport(num_checked=len(directories), problems=tuple(problems))

    def _get(self, snapshot_id: int) -> Record:
        self._settle()
        try:
            return self._index.records[snapshot_id]
        except KeyError:
            known = ", ".join(str(i) for i in self._index.ids()) or "none"
            raise RunDirectoryError(
                f"There is no snapshot {snapshot_id} in {str(self.path)!a} (kept: {known})."
            ) from None

    def _intact(self, record: Record) -> Path:
        """Return the path of weights that are the very ones that were saved."""
        if record.seal is None:
            self._wait()
        path = self.path / str(record.snapshot.snapshot_id) / Path(record.snapshot.weights).name
        if record.seal is None:
            raise DamagedFileError(path, "it could not be saved")
        record.seal.check(path)
        return path

    def _nothing_intact(self) -> RunDirectoryError:
        return RunDirectoryError(f"{str(self.path)!a} holds no intact snapshot: train first.")

    def _set_aside(self, snapshot_id: int, error: DamagedFileError) -> None:
        self._index.records.pop(snapshot_id, None)
        self.problems += (self._problem(error),)

    def _problem(self, error: DamagedFileError) -> Problem:
        return Problem(path=error.path.relative_to(self.path.parent).as_posix(), reason=error.reason)
