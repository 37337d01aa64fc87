import errno
import os

import pytest

from optix_core.checkpoints import DamagedFileError, atomic_write_bytes, sha256_file
from optix_core.errors import RunDirectoryError
from optix_core.storage.files import TEMPORARY_PREFIX, numbered_directories, remove_orphans


def names(directory):
    return sorted(entry.name for entry in directory.iterdir())


def test_atomic_write_replaces_the_whole_file(tmp_path):
    path = tmp_path / "file"
    atomic_write_bytes(path, b"long old contents")
    atomic_write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    atomic_write_bytes(path, b"old")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(RunDirectoryError, match=r"Could not write file: No space left.*free some disk space"):
        atomic_write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in its file system")
def test_pipes_links_and_directories_are_refused_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "target").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "directory").mkdir()
    for name in ("pipe", "link", "directory"):
        with pytest.raises(DamagedFileError, match=name):
            sha256_file(tmp_path / name)


def test_only_marked_names_are_orphans(tmp_path):
    (tmp_path / f"{TEMPORARY_PREFIX}dir").mkdir()
    (tmp_path / f"{TEMPORARY_PREFIX}dir" / "file").touch()
    (tmp_path / f"{TEMPORARY_PREFIX}file").touch()
    (tmp_path / "mine.tmp").touch()
    assert len(remove_orphans(tmp_path)) == 2
    assert names(tmp_path) == ["mine.tmp"]


def test_only_plain_numbers_are_snapshots(tmp_path):
    for name in ("1", "12", "007", "-3", "1e3", "٣", "0", "9" * 40, "2x"):
        (tmp_path / name).mkdir()
    (tmp_path / "5").touch()
    (tmp_path / "6").symlink_to(tmp_path / "12")
    assert list(numbered_directories(tmp_path)) == [1, 12]
