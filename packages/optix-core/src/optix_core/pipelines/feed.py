"""The thread that reads a stream: a bounded queue, connections that are opened again, an end within a moment."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from optix_core.errors import ConfigError, EnvError, MissingExtraError, OptixError, real_number, whole_number

WhenFull: TypeAlias = Literal["block", "drop_oldest", "drop_newest"]

_POLL_S = 0.05
"""How long anybody sleeps before looking whether it is over."""

END = object()
"""In the place of an item: the stream has returned."""


@runtime_checkable
class DataSource(Protocol):
    """What a :class:`LivePipeline` reads.

    ``connect()``, ``disconnect()`` and ``send_action(action)`` are called where a source has them. A stream that
    returns is at its end; one that raises is opened again. ``disconnect`` is called from another thread to end a stream
    that waits.
    """

    def stream(self) -> Iterator[Any]:
        """Yield ``(observation, reward, terminated, truncated, info)``, or mappings of these names."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reconnect:
    """How long to wait between attempts to open a source again: ``stamina``'s law.

    The ``k``-th wait is ``min(wait_max_s, wait_initial_s * exp_base^(k-1) + uniform(0, jitter_s))`` seconds.

    Attributes:
        attempts: in a row without an item, until the run ends with an error.
        wait_initial_s: first wait in seconds.
        wait_max_s: longest wait in seconds.
        jitter_s: most of what is added at random, in seconds.
        exp_base: by which waits grow.
    """

    attempts: int = 10
    wait_initial_s: float = 0.1
    wait_max_s: float = 30.0
    jitter_s: float = 1.0
    exp_base: float = 2.0

    def __post_init__(self) -> None:
        """Check every value."""
        whole_number("attempts", self.attempts, least=1)
        for name in ("wait_initial_s", "wait_max_s", "jitter_s"):
            real_number(name, getattr(self, name), least=0.0)
        real_number("exp_base", self.exp_base, least=1.0)


@dataclass(kw_only=True)
class FeedCounts:
    """What became of the items of a stream: ``received`` is the sum of all others.

    Attributes:
        received: items that the source gave.
        learned: that are in windows.
        dropped: for which there was no room, or that were waiting when the stream was left.
        duplicates: with an id that had been seen.
        invalid: that are no items, or hold NaN.
        waiting: in the queue or in the window in the making.
        reconnects: how often the source was opened again.
    """

    received: int = 0
    learned: int = 0
    dropped: int = 0
    duplicates: int = 0
    invalid: int = 0
    waiting: int = 0
    reconnects: int = 0

    def to_dict(self) -> dict[str, int]:
        """Return them by name."""
        return asdict(self)


class Feed:
    """Reads a source in a thread of its own.

    Args:
        source: what to read.
        buffer_size: items that may wait.
        when_full: ``"block"`` lets the source wait, the others drop an item and count it.
        in_step: read the next item only when :meth:`release` was called for the last one.
        reconnect: the law of waits.

    Attributes:
        received: items so far.
        dropped: items without room.
        reconnects: openings after the first.
        waits_s: how long was waited before each of them, at most the latest 1000.
    """

    def __init__(
        self, source: Any, *, buffer_size: int, when_full: WhenFull, in_step: bool, reconnect: Reconnect
    ) -> None:
        self._source, self._size, self._when_full, self._in_step = source, buffer_size, when_full, in_step
        self._reconnect = reconnect
        self._low = buffer_size // 2  # a full queue is filled again from here: threads change turns seldom
        self.received = self.dropped = self.reconnects = 0
        self.waits_s: deque[float] = deque(maxlen=1000)
        self._queue: deque[Any] = deque()
        self._changed = threading.Condition()
        self._reader_waits = self._taker_waits = False
        self._permits = 1
        self._stopping = False
        self._ended = False
        self._failure: BaseException | None = None
        self._opening: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read; later calls do nothing."""
        if self._thread is None and not self._stopping:
            self._thread = threading.Thread(target=self._read, name="optix-feed", daemon=True)
            self._thread.start()

    def take(self, give_up: Callable[[], bool], until: float | None = None) -> Any:
        """Return the next item; END where the stream has ended, None where there is none before one gives up.

        Args:
            give_up: asked now and then.
            until: moment of ``time.monotonic`` at which to give up.

        Raises:
            EnvError: the source failed for good.
        """
        queue = self._queue
        while not queue:
            if self._ended and not queue:
                if self._failure is not None:
                    failure, self._failure = self._failure, None
                    raise failure
                return END
            if give_up() or (until is not None and time.monotonic() >= until):
                return None
            with self._changed:
                self._taker_waits = True
                if not queue and not self._ended:
                    self._changed.wait(_POLL_S)
                self._taker_waits = False
        item = queue.popleft()
        if self._reader_waits and len(queue) <= self._low:
            self._notify()
        return item

    def release(self) -> None:
        """Allow the next item to be read, where source and agent go in step."""
        if self._in_step:
            self._permits += 1
            if self._reader_waits:
                self._notify()

    def discard(self) -> int:
        """Empty the queue; return how many items it had."""
        number = len(self._queue)
        self._queue.clear()
        return number

    def stop(self, timeout_s: float = 1.0) -> bool:
        """End the thread; return whether it has ended. A source that waits without ``disconnect`` may keep it."""
        self._stopping = True
        self._notify()
        opening = self._opening
        if opening is not None:
            loop, task = opening
            with suppress(RuntimeError):  # it has just been opened
                loop.call_soon_threadsafe(task.cancel)
        thread = self._thread
        if thread is None:
            return True
        thread.join(_POLL_S)
        if thread.is_alive():
            self._disconnect()
            thread.join(timeout_s)
        return not thread.is_alive()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            self._read_until_the_end()
        except _StoppedError:
            pass
        except BaseException as error:  # whatever a source raises is told where the items are taken
            self._failure = error if isinstance(error, OptixError) else EnvError(_told("The source failed", error))
        finally:
            self._disconnect()
            self._ended = True
            self._notify()

    def _read_until_the_end(self) -> None:
        failure: Exception | None = None
        while not self._stopping:
            stream = self._opened(failure)
            if stream is None:
                return
            try:
                for item in stream:
                    self._put(item)
                return
            except _StoppedError:
                raise
            except Exception as error:
                failure = error
                self._disconnect()

    def _put(self, item: Any) -> None:
        self.received += 1
        if len(self._queue) >= self._size:
            if self._when_full == "drop_newest":
                self.dropped += 1
                return
            if self._when_full == "drop_oldest":
                with suppress(IndexError):  # it has just been taken
                    self._queue.popleft()
                    self.dropped += 1
            else:
                try:
                    self._wait(lambda: len(self._queue) <= self._low)
                except _StoppedError:
                    self.dropped += 1
                    raise
        self._queue.append(item)
        if self._taker_waits:
            self._notify()
        if self._in_step:
            self._permits -= 1
            self._wait(lambda: self._permits > 0)
        if self._stopping:
            raise _StoppedError

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            self._reader_waits = True
            while not ready() and not self._stopping:
                self._changed.wait(_POLL_S)
            self._reader_waits = False
        if self._stopping:
            raise _StoppedError

    def _opened(self, failure: Exception | None) -> Iterator[Any] | None:
        """Open the source; after a failure as often as the law allows, and after its waits."""
        if failure is None:
            try:
                return self._open()
            except OSError as error:  # nobody there yet
                failure = error
            except Exception as error:
                raise EnvError(_told("The source cannot be opened", error)) from error
        try:
            return asyncio.run(self._open_again(failure))
        except asyncio.CancelledError:
            return None

    async def _open_again(self, failure: Exception) -> Iterator[Any] | None:
        """Open the source within stamina's attempts, the first of which is what has failed already."""
        stamina = _stamina()
        law = self._reconnect
        task = asyncio.current_task()
        assert task is not None
        self._opening = asyncio.get_running_loop(), task
        last: Exception = failure
        waits_from = time.monotonic()
        try:
            async for attempt in stamina.retry_context(
                on=Exception,
                attempts=law.attempts + 1,
                timeout=None,
                wait_initial=law.wait_initial_s,
                wait_max=law.wait_max_s,
                wait_jitter=law.jitter_s,
                wait_exp_base=law.exp_base,
            ):
                with attempt:
                    if attempt.num == 1:
                        raise failure
                    if self._stopping:
                        return None
                    self.waits_s.append(time.monotonic() - waits_from)
                    self.reconnects += 1
                    try:
                        stream = self._open()
                        first = next(stream, END)
                    except Exception as error:
                        last, waits_from = error, time.monotonic()
                        self._disconnect()
                        raise
                    return _from(first, stream)
        except Exception as error:
            if error is not last:
                raise
            raise EnvError(_told(f"The source failed {law.attempts + 1} times in a row, the last time", last)) from last
        finally:
            self._opening = None
        return None

    def _open(self) -> Iterator[Any]:
        connect = getattr(self._source, "connect", None)
        if connect is not None:
            connect()
        return iter(self._source.stream())

    def _disconnect(self) -> None:
        disconnect = getattr(self._source, "disconnect", None)
        if disconnect is not None:
            with suppress(Exception):  # a connection that is broken anyway
                disconnect()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


class _StoppedError(Exception):
    """The feed is to end."""


def _from(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    if first is not END:
        yield first
        yield from rest


def _stamina() -> Any:
    try:
        import stamina
    except ImportError as error:
        raise MissingExtraError('Opening a source again needs stamina: pip install "optix-core[live]"') from error
    # Whoever has set up logging hears of every attempt; nobody else gets words without a context.
    logging.getLogger("stamina").addHandler(logging.NullHandler())
    return stamina


def _told(what: str, error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{what}: {type(error).__name__}{': ' + text if text else ''}."


def require_source(source: Any) -> None:
    """Refuse what is no source.

    Raises:
        ConfigError: it has no ``stream()``.
    """
    if isinstance(source, type) or not callable(getattr(source, "stream", None)):
        raise ConfigError(
            f"{type(source).__name__} is no source: it needs stream(), which yields (observation, reward, terminated, "
            "truncated, info). Iterables, async iterables and ws:// URLs are sources, too."
        )
