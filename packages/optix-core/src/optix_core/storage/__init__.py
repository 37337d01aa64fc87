"""Durable files without an idea of a run: documents, arrays, trees of state, locks, a writer in the background.

Everything is written to a temporary name, flushed to disk, then renamed; what is read back is checked, and
never a pickle.
"""

from optix_core.storage.arrays import read_arrays, write_arrays
from optix_core.storage.damage import DamagedFileError, Problem, VerifyReport
from optix_core.storage.documents import atomic_write_json, read_json
from optix_core.storage.files import atomic_write_bytes, sha256_file
from optix_core.storage.lock import DirectoryLock, is_locked
from optix_core.storage.tree import load_tree, save_tree
from optix_core.storage.writer import BackgroundWriter

__all__ = [
    "BackgroundWriter",
    "DamagedFileError",
    "DirectoryLock",
    "Problem",
    "VerifyReport",
    "atomic_write_bytes",
    "atomic_write_json",
    "is_locked",
    "load_tree",
    "read_arrays",
    "read_json",
    "save_tree",
    "sha256_file",
    "write_arrays",
]
