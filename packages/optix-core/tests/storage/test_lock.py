import os
import signal
import subprocess
import sys

import pytest

from optix_core.checkpoints import DirectoryLock, is_locked
from optix_core.errors import RunDirectoryError

HOLDER = """
import sys
from optix_core.checkpoints import DirectoryLock
lock = DirectoryLock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_writer_is_refused_in_one_line_that_names_the_first(tmp_path, holder):
    assert is_locked(tmp_path)
    with pytest.raises(RunDirectoryError, match=f"in use by process {holder.pid}:") as refusal:
        DirectoryLock(tmp_path)
    assert "\n" not in str(refusal.value)


def test_the_lock_of_a_killed_owner_is_taken_over(tmp_path, holder):
    holder.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    holder.wait()
    assert not is_locked(tmp_path)
    DirectoryLock(tmp_path).release()


def test_one_process_cannot_lock_twice(tmp_path):
    with DirectoryLock(tmp_path):
        with pytest.raises(RunDirectoryError, match=f"process {os.getpid()}"):
            DirectoryLock(tmp_path)
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    DirectoryLock(tmp_path).release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork, so no child inherits a lock")
def test_a_forked_child_neither_keeps_nor_frees_the_lock(tmp_path):
    lock = DirectoryLock(tmp_path)
    alive_read, alive_write = os.pipe()
    end_read, end_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end_write)
        os.write(alive_write, b"!")
        os.read(end_read, 1)
        os._exit(0)
    os.read(alive_read, 1)
    try:
        assert is_locked(tmp_path)
        lock.release()
        assert not is_locked(tmp_path)  # although the child lives
    finally:
        for descriptor in (end_write, end_read, alive_read, alive_write):
            os.close(descriptor)
        os.waitpid(child, 0)


def test_rubbish_in_the_lock_file_does_no_harm(tmp_path):
    (tmp_path / ".optix-lock").write_bytes(b"\xff\x00 not a pid" * 50)
    with DirectoryLock(tmp_path), pytest.raises(RunDirectoryError, match="in use by process"):
        DirectoryLock(tmp_path)


def test_a_link_in_place_of_the_lock_file_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".optix-lock").symlink_to(victim)
    if hasattr(os, "O_NOFOLLOW"):
        with pytest.raises(RunDirectoryError, match="lock"):
            DirectoryLock(tmp_path / "run")
    assert victim.read_text() == "precious"
