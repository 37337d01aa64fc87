"""A WebSocket on this machine that sends a noisy wave, drops connections, and repeats itself: something to try out.

uv run python examples/websocket_server.py 8765
"""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve


class Wave:
    """Sends items ``{"id", "observation", "reward"}``; the reward is high where the last action foretold the wave.

    Args:
        length: items in all.
        drop_every: items after which a connection is cut off, without a word.
        repeat: items that a new connection sends again.
    """

    def __init__(self, length: int = 2_000, drop_every: int = 700, repeat: int = 3) -> None:
        self.length, self.drop_every, self.repeat = length, drop_every, repeat
        self.next = self.sent = self.connections = 0

    def __call__(self, connection: ServerConnection) -> None:
        self.connections += 1
        start = max(0, self.next - self.repeat)
        guess = 0.0
        try:
            for number in range(start, self.length):
                if self.next >= self.length:
                    break
                wave = math.sin(number / 5)
                item = {"id": number, "observation": [wave, math.cos(number / 5)], "reward": -abs(wave - guess)}
                connection.send(json.dumps(item))
                self.sent += 1
                if number < self.next:
                    continue  # a repetition gets no action
                self.next = number + 1
                guess = float(connection.recv(timeout=10))
                if self.next % self.drop_every == 0 and self.next < self.length:
                    connection.socket.close()
                    return
            connection.close()
        except (ConnectionClosed, TimeoutError):
            return


@contextmanager
def running(wave: Wave, port: int = 0) -> Iterator[str]:
    """Serve for as long as the block; give the URL."""
    server: Server
    with serve(wave, "localhost", port) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"ws://localhost:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    with running(Wave(length=10**9), int(sys.argv[1]) if len(sys.argv) > 1 else 8765) as url:
        print(f"serving {url} until Ctrl-C")
        threading.Event().wait()
