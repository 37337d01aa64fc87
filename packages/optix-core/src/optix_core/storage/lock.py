"""A lock on a directory that dies with its owner, so that a killed run never has to be unlocked by hand."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from optix_core.errors import RunDirectoryError
from optix_core.storage.files import write_error

LOCK_NAME = ".optix-lock"
_WINDOWS_LOCK_OFFSET = 2**30  # locked bytes cannot be read there: keep them away from the text
_ATTEMPTS, _PAUSE_S = 6, 0.02  # a reader that asks "is it in use?" holds the lock for a moment


class DirectoryLock:
    """The one writer of a directory.

    The operating system holds the lock (``flock``, on Windows a byte-range lock) and frees it when the process ends,
    however it ends. The file only says who the owner is; it stays behind, empty, and means nothing by itself. Forked
    children do not keep the lock alive.

    Attributes:
        supported: False if the file system knows no locks; then nothing guards against a second writer.
    """

    def __init__(self, directory: str | os.PathLike[str], name: str = LOCK_NAME) -> None:
        """Acquire the lock.

        Args:
            directory: to be written by nobody else.
            name: of the lock's file in it; locks of different names do not know of each other.

        Raises:
            RunDirectoryError: another process, or this one, is writing here; or the directory is not writable.
        """
        self._directory = Path(directory)
        path = self._directory / name
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            self._descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            raise write_error(f"lock {str(self._directory)!a}", error) from error
        self.supported = True
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE_S)
            try:
                lock_file(self._descriptor)
                break
            except BlockingIOError:
                continue
            except OSError:
                self.supported = False
                break
        else:
            owner = _owner(self._descriptor)
            self._close()
            raise RunDirectoryError(
                f"{str(self._directory)!a} is in use by {owner}: wait for it, stop it, or choose another directory."
            )
        with contextlib.suppress(OSError):  # a full disk: the lock itself needs no space
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_closer(weakref.ref(self)))

    def release(self) -> None:
        """Free the directory for others. Calling it twice is harmless."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self._close()


def is_locked(directory: str | os.PathLike[str]) -> bool:
    """Whether a living process is writing in this directory. Changes nothing and needs no right to write."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(Path(directory) / LOCK_NAME, flags)
    except OSError:
        return False
    try:
        lock_file(descriptor, shared=True)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _closer(lock: weakref.ref[DirectoryLock]) -> Callable[[], None]:
    def close_in_child() -> None:
        held = lock()
        if held is not None:
            held._close()

    return close_in_child


def _owner(descriptor: int) -> str:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        pid, host = os.read(descriptor, 300).decode("ascii").split()
        place = "" if host == socket.gethostname() else f" on {host[:80]}"
        return f"process {int(pid)}{place}"
    except (OSError, ValueError):
        return "another process"


if sys.platform == "win32":
    import msvcrt

    def lock_file(descriptor: int, *, shared: bool = False) -> None:  # noqa: ARG001
        """Lock an open file until it is closed, or raise ``BlockingIOError`` where another process has."""
        os.lseek(descriptor, _WINDOWS_LOCK_OFFSET, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def lock_file(descriptor: int, *, shared: bool = False) -> None:
        """Lock an open file until it is closed, or raise ``BlockingIOError`` where another process has."""
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
