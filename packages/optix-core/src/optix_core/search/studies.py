"""Studies of Optuna: where they are kept, opened with an error of one line, and what a study is of."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optix_core.errors import ConfigError, MissingExtraError, in_one_line
from optix_core.storage.lock import lock_file

STUDY_NAME = "optix"

JOURNAL = "study.journal"
"""The journal of a study that is kept beside its trials."""

ABOUT = "optix"
"""The attribute of a study that says what it is of."""

RACE = "race"
"""The attribute of a study that says who won the race of its finalists."""

PATIENCE_S = 20.0
"""How long another writer of a journal is waited for."""


def optuna() -> Any:
    """Return Optuna.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("Trial search needs Optuna: pip install 'optix-core[tune]'.") from error
    return optuna


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from telling of every trial inside the block."""
    logging = optuna().logging
    before = logging.get_verbosity()
    logging.set_verbosity(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.set_verbosity(before)


def open_storage(given: Any) -> Any:
    """Return where studies are kept: a URL or a storage of Optuna's as it is, a path as a journal.

    Raises:
        ConfigError: the file is none of Optuna's journals, or cannot be written.
    """
    if not isinstance(given, str | os.PathLike) or "://" in str(given):
        return given
    path = Path(given)
    journal = optuna().storages.journal
    try:
        if not path.parent.is_dir():
            raise ConfigError(f"There is no directory {str(path.parent)!a} for the study: make it first.")
        _mend(path)
        return optuna().storages.JournalStorage(journal.JournalFileBackend(str(path), lock_obj=JournalLock(path)))
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"The study cannot be kept in {str(path)!a}: {error.strerror}.") from error
    except Exception as error:
        raise ConfigError(
            f"{str(path)!a} is no journal of Optuna's: give another file, or a URL such as sqlite:///trials.db."
        ) from error


def open_study(storage: Any, *, name: str = STUDY_NAME, create: bool = True) -> Any:
    """Return the study of a storage; scores are maximised.

    Raises:
        ConfigError: the storage cannot be used, or has no such study and none is to be made.
    """
    kept = open_storage(storage)
    try:
        with quiet():
            if not create:
                return optuna().load_study(study_name=name, storage=kept)
            sampler = optuna().samplers.RandomSampler(seed=0)  # never asked: proposals are made on a copy
            return optuna().create_study(
                direction="maximize", sampler=sampler, storage=kept, study_name=name, load_if_exists=True
            )
    except KeyError as error:
        raise ConfigError(f"There is no study {name!r} in {in_one_line(storage)}.") from error
    except Exception as error:
        if storage is None:
            raise
        told = in_one_line(str(error).split("(Background")[0])
        raise ConfigError(f"The storage of the study cannot be used: {told}") from error


def require_same(study: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a study is of; one without trials becomes one of ``about``.

    Raises:
        ConfigError: it is of something else, or not one of ours.
    """
    wanted: dict[str, Any] = json.loads(json.dumps(dict(about), default=repr))  # as a storage gives it back
    stored = study.user_attrs.get(ABOUT)
    if stored is None:
        if study.get_trials(deepcopy=False, states=_begun()):
            raise ConfigError(f"The study {study.study_name!r} was made by something else: give another storage.")
        study.set_user_attr(ABOUT, wanted)
        return wanted
    for key, value in wanted.items():
        if value is not None and stored.get(key) != value:
            raise ConfigError(
                f"The study in this storage has {key} {in_one_line(stored.get(key))}, not {in_one_line(value)}: "
                "go on with it as it was begun, or give another storage."
            )
    return {**wanted, **stored}


def _begun() -> tuple[Any, ...]:
    state = optuna().trial.TrialState
    return tuple(kind for kind in state if kind is not state.WAITING)


class JournalLock:
    """Lets one process at a time write a journal; the operating system frees it when its owner dies.

    Optuna's own locks are files, and one that a killed process leaves behind stops everybody for half a minute.

    Args:
        journal: the file that is written; the lock is a file beside it.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock.

        Raises:
            ConfigError: another process holds it for too long.
        """
        descriptor = os.open(self._journal.with_name(self._journal.name + ".flock"), os.O_RDWR | os.O_CREAT, 0o666)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                lock_file(descriptor)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    raise ConfigError(
                        f"{str(self._journal)!a} is locked by another process: wait for it, or stop it."
                    ) from None
                time.sleep(0.005)
            except OSError:  # a file system without locks
                break
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let others write."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _mend(path: Path) -> None:
    """Cut off a line that a killed process left half written, and refuse a file that is no journal.

    Raises:
        ValueError: what is in the file is no journal of Optuna's.
        OSError: it cannot be read or written.
    """
    if not path.exists():
        return
    lock = JournalLock(path)
    lock.acquire()
    try:
        with path.open("rb+") as file:
            first = file.readline()
            if first.endswith(b"\n") and "op_code" not in json.loads(first):
                raise ValueError(path)
            file.seek(0)
            text = file.read()
            whole = text.rfind(b"\n") + 1
            if whole < len(text):
                if not text[whole:].startswith(b"{"):
                    raise ValueError(path)
                with contextlib.suppress(json.JSONDecodeError):
                    json.loads(text[whole:])  # only the end of the line is missing
                    file.write(b"\n")
                    return
                file.truncate(whole)
    finally:
        lock.release()
