"""Getting weights out of an agent of any make, and averages of them into it."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from optix_core.checkpoints._records import WEIGHTS_NAMES
from optix_core.errors import AgentError, RunDirectoryError
from optix_core.storage.arrays import read_arrays, write_arrays
from optix_core.storage.damage import DamagedFileError, one_line
from optix_protocol import Array, BaseAgent

_MAX_SAFETENSORS_HEADER = 2**32


def write_weights(source: BaseAgent | Callable[[Path], None], directory: Path) -> Path:
    """Let the agent write its weights into an empty directory, in whatever format it likes.

    Returns:
        The file: ``weights.safetensors`` if it looks like that format, ``weights.bin`` otherwise.

    Raises:
        OSError, RunDirectoryError: the disk is full or refuses.
        AgentError: the agent wrote no file, several, or one of another name.
    """
    path = directory / WEIGHTS_NAMES[0]
    save = source.save_weights if isinstance(source, BaseAgent) else source
    try:
        save(path)
    except OSError:
        raise
    except Exception as error:
        # The safetensors library reports a full disk as an error of its own.
        if "No space left" in str(error) or "os error 28" in str(error):
            raise RunDirectoryError(f"Could not save the weights: {error}. Free some disk space.") from error
        raise
    written = sorted(directory.iterdir())
    if written != [path] or not stat.S_ISREG(path.lstat().st_mode):
        names = ", ".join(repr(entry.name) for entry in written) or "nothing"
        raise AgentError(
            f"save_weights was given the path {path.name!r} but wrote {names}: write exactly this one file "
            "(np.save and np.savez append a suffix to a path: give them an open file)."
        )
    if _looks_like_safetensors(path):
        return path
    return path.rename(directory / WEIGHTS_NAMES[1])


def _looks_like_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < _MAX_SAFETENSORS_HEADER


def average_weights(agent: BaseAgent, paths: Sequence[Path]) -> None:
    """Load the mean of the floating-point arrays of several weight files; the rest comes from the first.

    Raises:
        RunDirectoryError: a file is no safetensors in NumPy's types, or the shapes differ.
        AgentError: the average does not fit this agent.
    """
    try:
        first, metadata = read_arrays(paths[0])
        total: dict[str, Array] = {
            name: array.astype(np.float64) for name, array in first.items() if array.dtype.kind == "f"
        }
        for path in paths[1:]:
            arrays, _ = read_arrays(path)
            if {name: array.shape for name, array in arrays.items()} != {n: array.shape for n, array in first.items()}:
                raise RunDirectoryError("The snapshots have networks of different shapes, which cannot be averaged.")
            for name, array in total.items():
                array += arrays[name]
    except DamagedFileError as error:
        raise RunDirectoryError(
            f"Averaging needs weights that are safetensors files of NumPy types ({error.path.name}: {error.reason})."
        ) from error
    average = {name: (total[name] / len(paths)).astype(array.dtype) if name in total else array
               for name, array in first.items()}  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / WEIGHTS_NAMES[0]
        write_arrays(path, average, metadata=metadata)
        load_weights(agent, path, "The averaged weights do")


def load_weights(agent: BaseAgent, path: Path, subject: str) -> None:
    """Call ``agent.load_weights``; whatever it raises becomes an :class:`AgentError` that starts with ``subject``."""
    try:
        agent.load_weights(path)
    except Exception as error:
        raise AgentError(f"{subject} not fit this agent: {one_line(error)}") from error
