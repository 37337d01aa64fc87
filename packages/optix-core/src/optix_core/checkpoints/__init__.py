"""Run directories, snapshots and exact training states that survive kill -9, full disks and hostile files."""

from optix_core.checkpoints.registry import CheckpointRegistry
from optix_core.checkpoints.run_dir import RunDirectory, SavedState
from optix_core.checkpoints.runs import RunStatus, RunSummary, is_run_directory, list_runs, summarise_run
from optix_core.journal.journal import Journal, read_events
from optix_core.storage.arrays import read_arrays, write_arrays
from optix_core.storage.damage import DamagedFileError, Problem, VerifyReport
from optix_core.storage.documents import atomic_write_json, read_json
from optix_core.storage.files import atomic_write_bytes, sha256_file
from optix_core.storage.lock import DirectoryLock, is_locked
from optix_core.storage.tree import load_tree, save_tree
from optix_core.storage.writer import BackgroundWriter

__all__ = [
    "BackgroundWriter",
    "CheckpointRegistry",
    "DamagedFileError",
    "DirectoryLock",
    "Journal",
    "Problem",
    "RunDirectory",
    "RunStatus",
    "RunSummary",
    "SavedState",
    "VerifyReport",
    "atomic_write_bytes",
    "atomic_write_json",
    "is_locked",
    "is_run_directory",
    "list_runs",
    "load_tree",
    "read_arrays",
    "read_events",
    "read_json",
    "save_tree",
    "sha256_file",
    "summarise_run",
    "write_arrays",
]
