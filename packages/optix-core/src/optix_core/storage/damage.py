"""What can be wrong with files that are read back, and how it is told."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from optix_core.errors import RunDirectoryError


class DamagedFileError(RunDirectoryError):
    """A file that is truncated, altered, of the wrong type, or not what its name says.

    Attributes:
        path: the file.
        reason: what is wrong with it, in a few words.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)!a} is damaged: {reason}.")
        self.path = Path(path)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something in a run directory that was skipped.

    Attributes:
        path: file or directory, relative to the run directory.
        reason: what is wrong with it, in a few words.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What a check of every file found.

    Attributes:
        num_checked: snapshots (or other units) that were read in full.
        problems: those that are damaged.
    """

    num_checked: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.problems


def printable(text: str, *, limit: int = 120) -> str:
    """Return text from an untrusted name or value in a form that cannot disturb a terminal."""
    shown = text[:limit]
    return shown if shown.isascii() and shown.isprintable() else ascii(shown)


def one_line(error: BaseException, *, limit: int = 400) -> str:
    """Return what an error of unknown make says, in one line, or its type if it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return printable(text, limit=limit)
