"""Who trains: this process, one training after the other, or several worker processes at once."""

from __future__ import annotations

import pickle
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol

from optix_core.errors import AgentError, ConfigError
from optix_core.search.trials import Factories, OnScore, Outcome, Training, train

MOST_DEATHS = 10
"""Workers that may die of the same training without a new evaluation between two deaths."""

Key = Any
"""What a training is told apart by."""


class Crew(Protocol):
    """Whoever trains."""

    @property
    def num_idle(self) -> int:
        """How many trainings can be taken on now."""
        ...

    @property
    def num_busy(self) -> int:
        """How many trainings have not been handed back."""
        ...

    def start(self, key: Key, training: Training, on_score: OnScore) -> None:
        """Take on a training."""
        ...

    def wait(self, timeout_s: float | None = None) -> tuple[Key, Outcome] | None:
        """Return the next training that has ended, or None after the time."""
        ...


@contextmanager
def crew_of(workers: int, factories: Factories) -> Iterator[Crew]:
    """Have somebody who trains: processes where there is more than one worker."""
    if workers == 1:
        yield Alone(factories)
        return
    with Processes(workers, factories) as processes:
        yield processes


class Alone:
    """Trains in this process.

    Args:
        factories: of agents and pipelines.
    """

    def __init__(self, factories: Factories) -> None:
        self._factories = factories
        self._taken: deque[tuple[Key, Training, OnScore]] = deque()

    @property
    def num_idle(self) -> int:
        """One, unless a training was taken on."""
        return 1 - len(self._taken)

    @property
    def num_busy(self) -> int:
        """None, unless a training was taken on."""
        return len(self._taken)

    def start(self, key: Key, training: Training, on_score: OnScore) -> None:
        """Take on a training, which begins when it is waited for."""
        self._taken.append((key, training, on_score))

    def wait(self, timeout_s: float | None = None) -> tuple[Key, Outcome] | None:
        """Train."""
        del timeout_s
        if not self._taken:
            return None
        key, training, on_score = self._taken[0]
        try:
            return key, train(training, self._factories, on_score)
        finally:
            self._taken.popleft()


@dataclass(kw_only=True)
class _Task:
    """A training that a worker is at.

    Attributes:
        key: see there.
        training: with all scores that were heard.
        on_score: hears them.
        num_deaths: of workers since the last score.
    """

    key: Key
    training: Training
    on_score: OnScore
    num_deaths: int = 0

    def hear(self, number: int, score: float) -> bool:
        """Pass a score on, and keep it for the next worker."""
        self.training = replace(self.training, scores={**self.training.scores, number: score})
        self.num_deaths = 0
        return self.on_score(number, score)


@dataclass(kw_only=True)
class _Worker:
    """A process, what it is at, and what it says."""

    process: subprocess.Popen[bytes]
    task: _Task | None = None

    def send(self, message: Any) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # it is dead, which its output will say
            pickle.dump(message, self.process.stdin)
            self.process.stdin.flush()


class Processes:
    """Trains in processes that this one starts, sends trainings to, and replaces when they die.

    A process is a new Python, which imports nothing of the caller's script: no ``if __name__ == "__main__"`` is needed.
    Factories go there by value, what modules define by name. A training whose worker died goes on where it was with the
    next. Workers have no part in Ctrl-C, and end with this process, however that ends.

    Args:
        workers: how many.
        factories: of agents and pipelines.

    Raises:
        ConfigError: the factories cannot be sent to another process.
    """

    def __init__(self, workers: int, factories: Factories) -> None:
        import cloudpickle

        try:
            self._factories: bytes = cloudpickle.dumps(factories)
        except Exception as error:
            raise ConfigError(
                f"The factories cannot be sent to worker processes ({error}): use workers=1, or let them make what "
                "they need."
            ) from error
        self._size = workers
        self._workers: list[_Worker] = []
        self._heard: queue.SimpleQueue[tuple[_Worker, str, Any]] = queue.SimpleQueue()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
            for pipe in (worker.process.stdin, worker.process.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]

    @property
    def num_busy(self) -> int:
        """Workers that train."""
        return sum(worker.task is not None for worker in self._workers)

    @property
    def num_idle(self) -> int:
        """Workers that do not, those that are not started among them."""
        return self._size - self.num_busy

    def start(self, key: Key, training: Training, on_score: OnScore) -> None:
        """Let an idle worker train."""
        self._give(_Task(key=key, training=training, on_score=on_score))

    def wait(self, timeout_s: float | None = None) -> tuple[Key, Outcome] | None:
        """Return the next training that has ended, or None after the time.

        Raises:
            AgentError: a worker met an error that no hyperparameters are to blame for.
        """
        while self.num_busy:
            try:
                worker, kind, content = self._heard.get(timeout=timeout_s)
            except queue.Empty:
                return None
            task = worker.task
            if kind == "gone":
                self._workers.remove(worker)
                worker.process.wait()
                if task is not None and (lost := self._replace(task, worker.process.returncode)) is not None:
                    return task.key, lost
            elif task is not None:
                if kind == "score":
                    worker.send(task.hear(*content))
                elif kind == "done":
                    worker.task = None
                    return task.key, content
                else:
                    raise AgentError(str(content))
        return None

    def _give(self, task: _Task) -> None:
        worker = next((worker for worker in self._workers if worker.task is None), None) or self._hire()
        worker.task = task
        worker.send(task.training)

    def _replace(self, task: _Task, code: int) -> Outcome | None:
        """Let another worker go on, unless workers die of it again and again."""
        task.num_deaths += 1
        if task.num_deaths >= MOST_DEATHS:
            return Outcome(error=f"Its process died {MOST_DEATHS} times without a new evaluation (exit code {code}).")
        self._give(task)
        return None

    def _hire(self) -> _Worker:
        worker = _Worker(
            process=subprocess.Popen(
                [sys.executable, "-m", "optix_core.search.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        )
        self._workers.append(worker)
        worker.send(sys.path)
        worker.send(self._factories)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        return worker

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        try:
            while True:
                self._heard.put((worker, *pickle.load(worker.process.stdout)))
        except Exception:  # the end of its output, or half a message: it is gone
            self._heard.put((worker, "gone", None))
