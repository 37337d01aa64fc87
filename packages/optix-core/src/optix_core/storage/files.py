"""Files that are either whole or not there: temporary name, flush to disk, rename, flush of the directory.

Reading is as careful as writing: only regular files are opened (a pipe or a link planted in a run directory is
refused), and every kind of damage is a :class:`DamagedFileError` that names the file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from optix_core.errors import RunDirectoryError
from optix_core.storage.damage import DamagedFileError, Problem, printable

TEMPORARY_PREFIX = ".optix-tmp-"
"""Whatever carries this prefix was being written when its writer died, and may be deleted."""

_NO_SPACE = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def write_error(action: str, error: OSError) -> RunDirectoryError:
    """Return the error that tells a user why a write failed: a full disk is named as such.

    Args:
        action: what could not be done, such as ``"save snapshot 7"``.
        error: what the operating system said.
    """
    hint = "free some disk space" if error.errno in _NO_SPACE else "check that the directory is writable"
    reason = error.strerror or type(error).__name__
    return RunDirectoryError(f"Could not {action}: {reason}. Everything saved earlier is intact; {hint}.")


def temporary_path(target: Path) -> Path:
    """Return an unused hidden name next to ``target``, marked as temporary."""
    return target.with_name(f"{TEMPORARY_PREFIX}{target.name}-{secrets.token_hex(4)}")


def sync_file(path: Path) -> None:
    """Flush a file's contents to the disk itself."""
    # Windows flushes only through a handle that may write.
    descriptor = os.open(path, (os.O_RDWR if os.name == "nt" else os.O_RDONLY) | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Flush a directory's list of names, so that a rename survives a power cut (not needed on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace a file as one step: after a crash it holds either its old or its new contents.

    Raises:
        RunDirectoryError: the disk is full or refuses; the old file is untouched.
    """
    target = Path(path)
    temporary = temporary_path(target)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        sync_directory(target.parent)
    except OSError as error:
        raise write_error(f"write {target.name}", error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def publish_directory(temporary: Path, target: Path) -> None:
    """Flush a finished temporary directory of files to disk and give it its name as one step.

    Raises:
        OSError: the disk refuses, or ``target`` exists already; then only the temporary directory is there.
    """
    for file in temporary.iterdir():
        sync_file(file)
    sync_directory(temporary)
    temporary.rename(target)
    try:
        sync_directory(target.parent)
    except OSError:
        target.rename(temporary)
        raise


def remove_directory(path: Path) -> None:
    """Delete a directory so that a crash half-way leaves only something marked as temporary."""
    doomed = temporary_path(path)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_orphans(directory: Path) -> list[Problem]:
    """Delete what a dead writer left half-written in ``directory``; the caller holds its lock."""
    removed = []
    for entry in _entries(directory):
        if entry.name.startswith(TEMPORARY_PREFIX):
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink()
                removed.append(Problem(path=printable(entry.name), reason="half-written when its writer died; removed"))
    return removed


def numbered_directories(directory: Path) -> dict[int, Path]:
    """Return the sub-directories named by a plain positive number (``"7"``, not ``"07"``), in order of the number."""
    found = {}
    for entry in _entries(directory):
        name = entry.name
        is_number = name.isascii() and name.isdigit() and len(name) <= 12 and name[0] != "0"
        if is_number and entry.is_dir(follow_symlinks=False):
            found[int(name)] = Path(entry.path)
    return dict(sorted(found.items()))


def require_own_directory(path: Path) -> None:
    """Raise :class:`DamagedFileError` if something else, such as a link to a foreign directory, is in its place."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise DamagedFileError(path, "it is not a directory of its own")


def make_directories(path: Path) -> None:
    """Create a directory and those above it, so that all of them survive a power cut.

    Raises:
        RunDirectoryError: the disk is full or refuses.
    """
    missing = [path, *path.parents]
    missing = missing[: next(i for i, directory in enumerate(missing) if directory.exists())]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(f"create {str(path)!a}", error) from error
    for directory in missing:
        with contextlib.suppress(OSError):  # one may create in a directory without the right to read it
            sync_directory(directory.parent)


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


@contextlib.contextmanager
def open_regular(path: Path, *, max_bytes: int | None = None) -> Iterator[io.BufferedReader]:
    """Open a regular file for reading; never a link, a pipe or a device, which could block or lead elsewhere.

    Raises:
        DamagedFileError: it is missing, not a regular file, unreadable, or larger than ``max_bytes``.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError as error:
        raise DamagedFileError(path, "it is missing") from error
    except (OSError, ValueError) as error:
        raise DamagedFileError(path, f"it cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    status = os.fstat(descriptor)
    reason = ""
    if not stat.S_ISREG(status.st_mode):
        reason = "it is not a regular file"
    elif max_bytes is not None and status.st_size > max_bytes:
        reason = f"it has {status.st_size} bytes, more than the {max_bytes} allowed"
    if reason:
        os.close(descriptor)
        raise DamagedFileError(path, reason)
    with os.fdopen(descriptor, "rb") as file:
        try:
            yield file
        except OSError as error:
            raise DamagedFileError(path, f"it cannot be read ({error.strerror})") from error


def read_bytes(path: Path, *, max_bytes: int) -> bytes:
    """Read a whole regular file.

    Raises:
        DamagedFileError: as :func:`open_regular`.
    """
    with open_regular(path, max_bytes=max_bytes) as file:
        data = file.read(min(os.fstat(file.fileno()).st_size, max_bytes) + 1)  # allocates as much as it is asked for
    if len(data) > max_bytes:
        raise DamagedFileError(path, f"it has more than the {max_bytes} bytes allowed")
    return data


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a regular file in hexadecimal.

    Raises:
        DamagedFileError: as :func:`open_regular`.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class FileSeal:
    """Size and SHA-256 that a file had when it was written."""

    num_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileSeal:
        """Measure a file."""
        return cls(num_bytes=path.stat().st_size, sha256=sha256_file(path))

    def check(self, path: Path, *, contents: bool = True) -> None:
        """Raise :class:`DamagedFileError` unless the file is the one that was sealed.

        Args:
            path: the file.
            contents: compare the SHA-256 too, and not only the size.
        """
        with open_regular(path) as file:
            num_bytes = os.fstat(file.fileno()).st_size
            if num_bytes != self.num_bytes:
                raise DamagedFileError(path, f"it has {num_bytes} bytes where {self.num_bytes} were written")
            if contents and hashlib.file_digest(file, "sha256").hexdigest() != self.sha256:
                raise DamagedFileError(path, "its SHA-256 is not the one that was recorded")
