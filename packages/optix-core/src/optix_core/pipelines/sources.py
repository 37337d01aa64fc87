"""Sources made of what people have: iterables, async iterables, WebSockets."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from optix_core.errors import MissingExtraError, whole_number


def is_source(data: Any) -> bool:
    """Whether this is a live stream, and no data set: it has ``stream()``, or is an async iterable or a ws:// URL."""
    is_url = isinstance(data, str) and data.startswith(("ws://", "wss://"))
    return is_url or callable(getattr(data, "stream", None)) or isinstance(data, AsyncIterable)


def source_of(data: Any) -> Any:
    """Return a source: the same one if it has ``stream()``, an adapter where there is one, else what was given."""
    if callable(getattr(data, "stream", None)):
        return data
    if isinstance(data, str) and data.startswith(("ws://", "wss://")):
        return WebSocketSource(data)
    if isinstance(data, AsyncIterable):
        return AsyncSource(data)
    if isinstance(data, Iterable) and not isinstance(data, str | bytes):
        return IterableSource(data)
    return data


class IterableSource:
    """A stream of what an iterable gives: at its end the stream is at its end.

    Args:
        items: gone through anew each time that the source is opened; an iterator goes on where it was.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items

    def stream(self) -> Iterator[Any]:
        """Yield the items."""
        return iter(self._items)


class AsyncSource:
    """A stream of what an async iterable gives, in an event loop of its own.

    Args:
        items: an async iterable, or a function that returns one each time that the source is opened.
    """

    def __init__(self, items: AsyncIterable[Any] | Callable[[], AsyncIterable[Any]]) -> None:
        self._items = items
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    def stream(self) -> Iterator[Any]:
        """Yield the items, as they come."""
        items = self._items if isinstance(self._items, AsyncIterable) else self._items()
        iterator: AsyncIterator[Any] = aiter(items)
        with asyncio.Runner() as runner:
            while True:
                try:
                    item = runner.run(self._next(iterator))
                except (StopAsyncIteration, asyncio.CancelledError):
                    return
                if item is _AT_END:
                    return
                yield item

    async def _next(self, iterator: AsyncIterator[Any]) -> Any:
        task = asyncio.current_task()
        assert task is not None
        self._waiting = asyncio.get_running_loop(), task
        try:
            return await anext(iterator, _AT_END)
        finally:
            self._waiting = None

    def disconnect(self) -> None:
        """Wake a stream that waits."""
        waiting = self._waiting
        if waiting is not None:
            loop, task = waiting
            loop.call_soon_threadsafe(task.cancel)


_AT_END = object()


class WebSocketSource:
    """A stream of the messages of a WebSocket, read as JSON.

    A thread of its own drains the socket into a buffer, so that bursts and slow learning neither fill the
    connection nor hide the pings that keep it alive. Messages for which there is no room are dropped, the oldest
    first, and counted. Needs ``optix-core[live]``.

    Args:
        url: ``ws://`` or ``wss://``.
        decode: from a message (``str`` or ``bytes``) to an item; one that raises makes the item invalid.
        encode: from an action to a message; None sends nothing back.
        buffer_size: messages that may wait here.
        observation_space: for agents that are made for the source.
        action_space: likewise.
        open_timeout_s: longest wait for a connection, in seconds.

    Attributes:
        num_dropped: messages without room.
    """

    def __init__(
        self,
        url: str,
        *,
        decode: Callable[[Any], Any] = json.loads,
        encode: Callable[[Any], Any] | None = None,
        buffer_size: int = 65_536,
        observation_space: Any = None,
        action_space: Any = None,
        open_timeout_s: float = 5.0,
    ) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.num_dropped = 0
        self._url, self._decode = url, decode
        self._size = whole_number("buffer_size", buffer_size, least=1)
        self._open_timeout_s = open_timeout_s
        self._connection: Any = None
        self._open = ExitStack()
        if encode is not None:
            self._encode = encode
            self.send_action = self._send_action

    def connect(self) -> None:
        """Open the connection."""
        try:
            from websockets.sync.client import connect
        except ImportError as error:
            raise MissingExtraError('WebSockets need websockets: pip install "optix-core[live]"') from error
        # No bound but ours: once its own queue is full, the client would no longer see the answers to its pings.
        opening = connect(self._url, open_timeout=self._open_timeout_s, max_queue=None, close_timeout=0.5)
        self._connection = self._open.enter_context(opening)

    def stream(self) -> Iterator[Any]:
        """Yield messages until the server closes the connection for good.

        Raises:
            ConnectionError: the connection broke.
        """
        drain = _Drain(self._connection, self._size)
        try:
            while (message := drain.take()) is not _AT_END:
                self.num_dropped += drain.taken_drops()
                try:
                    yield self._decode(message)
                except ValueError:
                    yield message  # as it is, it is no item, and is counted as invalid
        finally:
            self.num_dropped += drain.taken_drops()
            drain.stop()

    def _send_action(self, action: Any) -> None:
        connection = self._connection
        if connection is not None:  # else the stream ends, and is opened again
            try:
                connection.send(self._encode(action))
            except Exception as error:
                raise ConnectionError(str(error)) from error

    def disconnect(self) -> None:
        """Close the connection; a stream that waits ends."""
        self._connection = None
        self._open.close()


class _Drain:
    """A thread that takes messages off a connection as they come."""

    def __init__(self, connection: Any, size: int) -> None:
        self._connection, self._size = connection, size
        self._messages: deque[Any] = deque()
        self._changed = threading.Condition()
        self._drops = 0
        self._failure: BaseException | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="optix-websocket", daemon=True)
        self._thread.start()

    def take(self) -> Any:
        """Wait for a message; at the end of a connection that was closed for good, return _AT_END."""
        with self._changed:
            while not self._messages:
                if self._ended:
                    if self._failure is not None:
                        raise ConnectionError(str(self._failure)) from self._failure
                    return _AT_END
                self._changed.wait()
            return self._messages.popleft()

    def taken_drops(self) -> int:
        """Return how many messages were dropped since the last call."""
        with self._changed:
            drops, self._drops = self._drops, 0
            return drops

    def stop(self) -> None:
        self._connection.close()
        self._thread.join(1.0)

    def _run(self) -> None:
        from websockets.exceptions import ConnectionClosedOK

        try:
            while True:
                message = self._connection.recv()
                with self._changed:
                    if len(self._messages) >= self._size:
                        self._messages.popleft()
                        self._drops += 1
                    self._messages.append(message)
                    self._changed.notify()
        except ConnectionClosedOK:
            pass
        except Exception as error:
            self._failure = error
        with self._changed:
            self._ended = True
            self._changed.notify()
