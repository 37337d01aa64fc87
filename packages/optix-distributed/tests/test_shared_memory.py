"""Weights and trajectories in shared memory: nothing is torn, nothing is lost, nothing is left."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from optix_core.errors import AgentError
from optix_distributed.local import board as boards
from optix_distributed.local import ring as rings
from optix_distributed.local.board import Board
from optix_distributed.local.checksums import checksum
from optix_distributed.local.ring import Ring
from optix_distributed.local.segments import shared_folder, sweep
from optix_distributed.weights import Layout

WRITER = """
    import sys
    from pathlib import Path
    from optix_distributed.local.board import Board
    from optix_distributed.local.segments import Segment
    path, num_bytes = sys.argv[1], int(sys.argv[2])
    board = Board(Segment(Path(path)), num_bytes)
    blocks = [bytes([value]) * num_bytes for value in range(256)]
    print("ready", flush=True)
    number = 0
    while not board.stopped:
        number += 1
        board.publish(blocks[number % 256], policy_version=number, hyperparam_version=0)
"""


def read_beside_a_writer(num_bytes, reads):
    """Return how many of so many reads were torn, and the writes that were seen, of a process that never stops."""
    board = Board.create(num_bytes)
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(board.path), str(num_bytes)], stdout=subprocess.PIPE
    )
    try:
        writer.stdout.readline()
        torn = writes = have = taken = 0
        while taken < reads:
            found = board.latest(0)
            if found is None:
                continue
            taken, writes, have = taken + 1, writes + (found.number != have), found.number
            numbers = np.frombuffer(found.weights, np.uint8)
            torn += bool((numbers != found.policy_version % 256).any())
        board.stop()
        assert writer.wait(10) == 0
    finally:
        writer.kill()
        writer.stdout.close()
        board.close()
    return torn, writes


def test_no_read_is_torn():
    torn, writes = read_beside_a_writer(20_000, 20_000)
    assert torn == 0 and writes > 5


def test_without_the_numbers_reads_would_be_torn(monkeypatch):
    """The test above can see what it looks for: with one place in the place of three, and no look back, reads tear."""
    monkeypatch.setattr(boards, "_PLACES", 1)

    def careless(self, have=0):
        number = self.newest
        if number <= have:
            return None
        version = int(self._heads[0][boards._POLICY])
        return boards.Publication(number, version, 0, bytes(self._blocks[0]))

    monkeypatch.setattr(Board, "latest", careless)
    global WRITER
    before, WRITER = (
        WRITER,
        WRITER.replace(
            "path, num_bytes =", "import optix_distributed.local.board as b; b._PLACES = 1\n    path, num_bytes ="
        ),
    )
    try:
        assert read_beside_a_writer(200_000, 500)[0] > 0
    finally:
        WRITER = before


@pytest.mark.slow
@pytest.mark.parametrize("num_bytes", [20_000, 300_000])
def test_a_million_reads(num_bytes):
    torn, writes = read_beside_a_writer(num_bytes, 1_000_000)
    print(f"\n{num_bytes:,} bytes: {torn} of 1,000,000 reads torn, {writes:,} writes seen")
    assert torn == 0


def test_checksums_where_stores_arrive_in_any_order(monkeypatch):
    for module in (boards, rings):
        monkeypatch.setattr(module, "checksum", lambda data: __import__("zlib").crc32(data))
    board = Board.create(100)
    board.publish(b"a" * 100, policy_version=1, hyperparam_version=0)
    assert board.latest().weights == b"a" * 100
    board._blocks[1][:3] = b"xyz"  # as if a store had not arrived yet
    board._head[0] = 1
    ring = Ring.create(depth=2, capacity=64)
    ring.put([b"one", b"two"])
    assert bytes(ring.peek()) == b"onetwo"
    ring._slots[0][:1] = b"x"
    assert bytes(ring.peek()) == b""
    board.close()
    ring.close()
    assert checksum(b"abc") in (0, 891568578)


def test_a_ring_keeps_order_and_says_when_it_is_full():
    ring = Ring.create(depth=2, capacity=64)
    try:
        assert ring.peek() is None
        for text in (b"a", b"bb"):
            assert not ring.is_full
            ring.put([text])
        assert ring.is_full
        taken = []
        for text in (b"ccc", b"dddd"):
            taken.append(bytes(ring.peek()))
            ring.release()
            ring.put([text, b"!"])
        assert taken == [b"a", b"bb"] and bytes(ring.peek()) == b"ccc!"
        ring.release()
        with pytest.raises(ValueError, match="more than the 64 bytes"):
            ring.put([bytes(65)])
        assert bytes(ring.peek()) == b"dddd!"
    finally:
        ring.close()


def test_blocks_of_the_dead_are_swept_and_those_of_the_living_are_not():
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left = shared_folder() / f"optix-{int(gone.stdout)}-0123"
    other = shared_folder() / "optix-notes-of-somebody"
    mine = Ring.create(depth=1, capacity=8)
    try:
        left.write_bytes(b"x")
        other.write_bytes(b"x")
        assert left.name in sweep()
        assert not left.exists() and other.exists() and mine.path.exists()
        assert str(os.getpid()) in mine.path.name
    finally:
        other.unlink()
        mine.close()
    assert not mine.path.exists()


def test_a_policy_as_one_block():
    policy = {
        "format": 1,
        "layers": {"0": {"weight": np.arange(6.0).reshape(2, 3), "activation": "tanh"}},
        "n": np.array(3),
    }
    layout = Layout.from_json(Layout.of(policy).to_json())
    found = layout.unpack(bytes(layout.pack(policy)))
    assert found["format"] == 1 and found["layers"]["0"]["activation"] == "tanh" and found["n"] == 3
    np.testing.assert_array_equal(found["layers"]["0"]["weight"], policy["layers"]["0"]["weight"])
    policy["layers"]["0"]["weight"] = np.zeros((2, 4))
    with pytest.raises(AgentError, match="changed its form"):
        layout.pack(policy)
