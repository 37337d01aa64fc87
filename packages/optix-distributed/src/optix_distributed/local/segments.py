"""Blocks of memory that processes share, and which vanish with the process that made them.

A block is a file in the machine's memory, named after its owner's process. Nothing tracks it behind our back: the owner
unlinks it, and what an owner that was killed has left is swept when the next one starts.
"""

from __future__ import annotations

import mmap
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from optix_core.errors import ConfigError
from optix_protocol import Array

_PREFIX = "optix-"
_SURELY_REUSED_S = 7 * 24 * 3600.0


def shared_folder() -> Path:
    """Return where files are memory: ``/dev/shm`` on Linux, elsewhere the folder for temporary files."""
    linux = Path("/dev/shm")
    return linux if sys.platform == "linux" and linux.is_dir() else Path(tempfile.gettempdir())


class Segment:
    """A block of shared memory.

    Attributes:
        path: its file.
        bytes: all of it.
    """

    def __init__(self, path: Path, *, size: int | None = None, writable: bool = True) -> None:
        self.path = path
        flags = os.O_RDWR if writable else os.O_RDONLY
        descriptor = os.open(path, flags | (os.O_CREAT | os.O_EXCL if size is not None else 0), 0o600)
        try:
            if size is not None:
                _reserve(descriptor, size)
            access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
            self._map = mmap.mmap(descriptor, 0, access=access)
        except BaseException:
            if size is not None:
                path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        self.bytes = memoryview(self._map)
        self._owned = size is not None

    @classmethod
    def create(cls, size: int) -> Segment:
        """Make a block that belongs to this process.

        Raises:
            ConfigError: there is no room for it; says how much is needed and how to make room.
        """
        path = shared_folder() / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        try:
            return cls(path, size=size)
        except OSError as error:
            raise ConfigError(no_room(size, error)) from error

    def numbers(self, count: int, *, offset: int = 0) -> Array:
        """Return a view of ``count`` whole numbers of eight bytes."""
        array: Array = np.frombuffer(self.bytes, np.int64, count=count, offset=offset)
        return array

    def close(self) -> None:
        """Let go of the block, and remove it if it belongs to this process; views that are left keep it alive."""
        if self._owned:
            self.path.unlink(missing_ok=True)
            self._owned = False


def require_room(size: int) -> None:
    """Refuse to start what needs more shared memory than there is.

    Raises:
        ConfigError: says how much is needed and how to make room.
    """
    if hasattr(os, "statvfs"):
        found = os.statvfs(shared_folder())
        if found.f_bavail * found.f_frsize < size:
            raise ConfigError(no_room(size, None))


def no_room(size: int, error: OSError | None) -> str:
    """Say how much room is needed, how much there is, and what to do."""
    folder = shared_folder()
    free = ""
    if hasattr(os, "statvfs"):
        found = os.statvfs(folder)
        free = f", and {found.f_bavail * found.f_frsize / 1e6:.0f} MB are free"
    reason = f" ({error.strerror})" if error is not None and error.strerror else ""
    return (
        f"The actors need {size / 1e6:.0f} MB of shared memory in {folder}{free}{reason}. Make room "
        "(docker run --shm-size=1g; mount -o remount,size=1g /dev/shm), or take fewer actors or shorter trajectories."
    )


def sweep() -> list[str]:
    """Remove what owners have left that were killed; return the names of what was removed."""
    removed = []
    for path in shared_folder().glob(f"{_PREFIX}*-*"):
        owner = path.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not _may_live(int(owner), path):
            path.unlink(missing_ok=True)
            removed.append(path.name)
    return removed


def _may_live(process: int, path: Path) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's process
        return True
    try:
        return time.time() - path.stat().st_mtime < _SURELY_REUSED_S
    except OSError:
        return False


def _reserve(descriptor: int, size: int) -> None:
    """Give the file its pages now: without room, a later write would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)
