"""Whether a directory may become a run, or go on being one."""

from __future__ import annotations

import os
from pathlib import Path

from optix_core.checkpoints.registry import SNAPSHOTS_NAME
from optix_core.checkpoints.runs import EVENTS_NAME, is_run_directory
from optix_core.checkpoints.state import STATE_NAME
from optix_core.errors import RunDirectoryError
from optix_core.storage.damage import printable
from optix_core.storage.files import TEMPORARY_PREFIX, write_error
from optix_core.storage.lock import LOCK_NAME


def require_usable(directory: Path, *, resume: bool) -> None:
    """Refuse a directory that holds something else, or a run that is not to be resumed.

    Args:
        directory: it may be missing, or empty but for what a run leaves that was killed before it began.
        resume: whether a run in it goes on.

    Raises:
        RunDirectoryError: it must not be used, or cannot be read.
    """
    try:
        names = os.listdir(directory)  # noqa: PTH208
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise RunDirectoryError(f"{str(directory)!a} is a file: choose another directory.") from None
    except OSError as error:
        raise write_error(f"read {str(directory)!a}", error) from error
    names = [name for name in names if _is_content(directory / name)]
    if not names:
        return
    if is_run_directory(directory):
        if not resume:
            raise RunDirectoryError(
                f"{str(directory)!a} holds a run already: choose another directory, or resume that run."
            )
    else:
        raise RunDirectoryError(
            f"{str(directory)!a} is not empty and holds no run ({printable(min(names))}): choose another directory."
        )


def _is_content(path: Path) -> bool:
    """Whether a name is more than what a run leaves that was killed before it began."""
    if path.name == LOCK_NAME or path.name.startswith(TEMPORARY_PREFIX):
        return False
    if path.name == EVENTS_NAME:
        return path.is_symlink() or not path.is_file() or path.stat().st_size > 0
    if path.name in (SNAPSHOTS_NAME, STATE_NAME) and path.is_dir() and not path.is_symlink():
        return any(path.iterdir())
    return True
