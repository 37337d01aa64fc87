"""The life of one actor process as the learner sees it: started, watched, ended, started again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from optix_distributed.local.ring import ActorState, Ring, Word
from optix_distributed.local.setup import ActorSetup
from optix_distributed.transport import ActorHealth

BACKOFF_S = (0.25, 1.0, 4.0, 15.0, 60.0)
"""Seconds before an actor is started again, by how often it has failed since its last trajectory."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long an actor may take, and how often it may fail.

    Attributes:
        step_timeout_s: seconds without any sign of life; a step of all its environments may take no longer.
        start_timeout_s: seconds from the start to the first step.
        max_failures: without a trajectory between them; after that the actor is given up.
    """

    step_timeout_s: float = 60.0
    start_timeout_s: float = 120.0
    max_failures: int = 3


class Supervisor:
    """One actor.

    Args:
        setup: of its first incarnation.
        ring: its ring.
        limits: see there.

    Attributes:
        ring: its ring.
        failures: the latest reasons for starting it again.
        given_up: whether it is not started again, because it failed too often.
        has_stopped: whether it is not started again, because it is not needed any more.
    """

    def __init__(self, setup: ActorSetup, ring: Ring, limits: Limits) -> None:
        self._setup, self.ring, self._limits = setup, ring, limits
        self._process: subprocess.Popen[bytes] | None = None
        self.failures: deque[str] = deque(maxlen=5)
        self.num_failures = 0
        self.given_up = self.has_stopped = False
        self._in_a_row = 0
        self._start_at = 0.0
        self._beat = (-1, 0.0)
        self._delivered = 0

    @property
    def incarnation(self) -> int:
        """How often it has been started before."""
        return self._setup.incarnation

    @property
    def pid(self) -> int | None:
        """Of the process that runs, if one does."""
        return None if self._process is None else self._process.pid

    def start(self, now: float) -> None:
        """Start the process."""
        self.ring.begin_anew()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from optix_distributed.local.actor import main; main()"],
            env=_environment(),
            stdin=subprocess.PIPE,
            process_group=0 if os.name == "posix" else None,  # Ctrl-C is for the learner
        )
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended already, which is noticed like any other end
            self._process.stdin.write(self._setup.to_line().encode())
            self._process.stdin.flush()
        self._beat = (-1, now)

    def watch(self, now: float) -> str | None:
        """Look after the process; return what went wrong, if something did.

        Args:
            now: seconds of a clock that never goes back.
        """
        if self.given_up:
            return None
        if self._process is None:
            if now >= self._start_at:
                self.start(now)
            return None
        problem = self._problem(now)
        if problem is not None:
            self._fail(problem, now)
        return problem

    def delivered(self) -> None:
        """Hear that a trajectory has come from it: what went wrong before is forgotten."""
        self._in_a_row = 0

    def health(self) -> ActorHealth:
        """Say how it is doing."""
        words = self.ring.words
        state = "given up" if self.given_up else self.ring.state.name.lower()
        if self._process is None and not self.given_up:
            state = "stopped" if self.has_stopped else "restarting"
        seconds = {"environment": Word.ENV_NS, "acting": Word.ACT_NS, "waiting": Word.WAIT_NS}
        seconds["transfer"] = Word.TRANSFER_NS
        return ActorHealth(
            actor=self._setup.actor,
            state=state,
            incarnation=self.incarnation,
            env_steps=int(words[Word.ENV_STEPS]),
            failures=tuple(self.failures),
            seconds={name: int(words[word]) / 1e9 for name, word in seconds.items()},
        )

    # ---- ending -----------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
            self._forget()

    def has_ended(self) -> bool:
        """Whether no process runs any more; none will be started again."""
        self.has_stopped = True
        if self._process is not None and self._process.poll() is not None:
            self._forget()
        return self._process is None

    def _forget(self) -> None:
        assert self._process is not None
        self._process.wait()
        if self._process.stdin is not None:
            with suppress(OSError):  # what was never read
                self._process.stdin.close()
        self._process = None

    # ---- failing ----------------------------------------------------------------------------------------------------

    def _problem(self, now: float) -> str | None:
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            if self.ring.state is ActorState.FAILED and self.ring.text:
                return self.ring.text
            return f"the process was killed by signal {-code}" if code < 0 else f"the process ended with code {code}"
        beat = int(self.ring.words[Word.BEAT])
        if beat != self._beat[0]:
            self._beat = (beat, now)
            return None
        starting = self.ring.state is ActorState.STARTING
        allowed = self._limits.start_timeout_s if starting else self._limits.step_timeout_s
        if now - self._beat[1] > allowed:
            return f"no sign of life for {allowed:g} s {'after its start' if starting else 'in a step'}"
        return None

    def _fail(self, problem: str, now: float) -> None:
        self.kill()
        self.failures.append(problem)
        self.num_failures += 1
        self._in_a_row += 1
        if self._in_a_row >= self._limits.max_failures:
            self.given_up = True
            return
        self._start_at = now + BACKOFF_S[min(self._in_a_row - 1, len(BACKOFF_S) - 1)]
        self._setup = replace(self._setup, incarnation=self.incarnation + 1)


def _environment() -> dict[str, str]:
    """Return the variables of an actor process: one thread, no accelerator, the same modules as here."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        **os.environ,
        **dict.fromkeys(threads, "1"),
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
    }
