"""A worker process: ``python -m optix_core.search.worker`` trains what it is sent, and dies with who started it.

It reads pickles from its standard input and writes them to its standard output, and never sees the study.
"""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
from typing import Any, BinaryIO

from optix_core.errors import OptixError
from optix_core.search.trials import Factories, Training, train


def main() -> None:
    """Train until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anybody prints is no answer
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, inbox), daemon=True).start()
    sys.path[:] = inbox.get()
    factories: Factories = pickle.loads(inbox.get())

    def tell(kind: str, content: Any) -> None:
        pickle.dump((kind, content), answers)
        answers.flush()

    def on_score(number: int, score: float) -> bool:
        tell("score", (number, score))
        return bool(inbox.get())

    while True:
        training: Training = inbox.get()
        try:
            outcome = train(training, factories, on_score)
        except OptixError as error:
            tell("refused", str(error))
        except Exception as error:
            tell("failed", f"{type(error).__name__}: {error}")
        else:
            tell("done", outcome)


def _listen(source: BinaryIO, inbox: queue.SimpleQueue[Any]) -> None:
    """Pass on what is sent; the end of it is the end of the process, in the middle of a training, too."""
    try:
        while True:
            inbox.put(pickle.load(source))
    except EOFError:
        os._exit(1)
    except BaseException:
        os._exit(3)


if __name__ == "__main__":
    main()
