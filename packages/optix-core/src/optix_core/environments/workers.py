"""Environments in processes of their own.

Gymnasium's ``AsyncVectorEnv`` with other ends of its pipes: errors leave a process as plain text, every wait has a
deadline, and no process outlives its use.
"""

from __future__ import annotations

import multiprocessing.connection
import queue
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState
from gymnasium.vector.utils import write_to_shared_memory

from optix_core.environments.infos import WideInfos
from optix_core.environments.making import close_quietly, environment_failed
from optix_core.errors import EnvError

TIMEOUT_S = 300.0
"""Seconds that an environment may take for an answer, its making included."""

CLOSE_TIMEOUT_S = 10.0
"""Seconds that it may take to close; after that its process is ended."""

_DEAD_S = 5.0
"""Seconds to wait for what a process that has failed or died leaves behind."""


class WorkerVectorEnv(WideInfos, AsyncVectorEnv):
    """Environments that are stepped at the same time, each in a process that is spawned, never forked.

    Args:
        factories: make one environment each, in its process; the first one also makes one in this process, to know its
            spaces, which is closed at once.
        timeout_s: seconds that an environment may take for an answer.

    Raises:
        EnvError: an environment raised, did not answer in time, or its process died. All processes are ended then.
    """

    def __init__(self, factories: Sequence[Callable[[], gym.Env[Any, Any]]], *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self.parent_pipes, self.processes = [], []
        work: Any = serve
        with self._ending_all("when it was made"):
            super().__init__(factories, context="spawn", worker=work, autoreset_mode=AutoresetMode.SAME_STEP)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin episodes."""
        with self._ending_all("in reset()"):
            self.reset_async(seed=seed, options=options)
            self._await("reset()")
            return self.reset_wait()

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step."""
        with self._ending_all("in step()"):
            self.step_async(actions)
            self._await("step()")
            return self.step_wait()

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method, or get an attribute, of each environment."""
        with self._ending_all(f"in {name}"):
            self.call_async(name, *args, **kwargs)
            self._await(name)
            return self.call_wait()

    def close_extras(self, timeout: float | None = None, terminate: bool = False, **_: Any) -> None:
        """Close the environments; processes that do not do that in time, or have failed, are ended."""
        seconds = CLOSE_TIMEOUT_S if timeout is None else timeout
        failed = [] if terminate else self._ask_to_close(seconds)
        self._end(gently=not terminate)
        if failed:
            raise EnvError(failed[0])

    def _ask_to_close(self, seconds: float) -> list[str]:
        asked = []
        for pipe in self.parent_pipes:
            try:
                pipe.send(("close", None))
                asked.append(pipe)
            except OSError:
                continue
        deadline = time.monotonic() + seconds
        failed = []
        for pipe in asked:
            try:
                while pipe.poll(max(0.0, deadline - time.monotonic())):
                    message, is_last = pipe.recv()
                    if is_last == "closed":
                        failed += [message] if message else []
                        break
                else:
                    failed.append(f"An environment did not close within {seconds:g} s; its process was ended.")
            except (EOFError, OSError):
                continue
        return failed

    def _end(self, *, gently: bool) -> None:
        """End every process, by force where it must be, and let go of the pipes."""
        for process in self.processes:
            if gently:
                process.join(1.0)
            if process.is_alive():
                process.terminate()
        for process in self.processes:
            process.join(_DEAD_S)
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in self.parent_pipes:
            pipe.close()
        self.parent_pipes, self.processes = [], []

    @contextmanager
    def _ending_all(self, doing: str) -> Iterator[None]:
        """End all processes if anything goes wrong inside the block, and say what it was."""
        try:
            yield
        except (EOFError, OSError) as error:
            death = self._death(doing)
            self._end(gently=False)
            raise death from error
        except BaseException as error:
            self._end(gently=False)
            raise environment_failed(error, doing) from error

    def _await(self, doing: str) -> None:
        """Wait until every process has answered, or can never do so."""
        deadline = time.monotonic() + self._timeout_s
        for index, pipe in enumerate(self.parent_pipes):
            if not pipe.poll(max(0.0, deadline - time.monotonic())):
                raise EnvError(
                    f"Environment {index} has not answered for {self._timeout_s:g} s ({doing}): it hangs, or it takes "
                    "longer than that. Its process was ended."
                )

    def _death(self, doing: str) -> EnvError:
        # A process may take a moment to end after its pipe has.
        ended = multiprocessing.connection.wait([process.sentinel for process in self.processes], timeout=_DEAD_S)
        for index, process in enumerate(self.processes):
            if process.sentinel in ended:
                process.join(_DEAD_S)
            code = process.exitcode
            if code is not None:
                how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                hint = ""
                if code == -signal.SIGKILL:
                    hint = " The system kills processes when memory runs out: use fewer environments."
                elif doing == "when it was made":
                    hint = ' A script that starts processes needs `if __name__ == "__main__":` around its main part.'
                return EnvError(f"The process of environment {index} died {doing} ({how}).{hint}")
        return EnvError(f"The process of an environment died {doing}.")

    def _raise_if_errors(self, successes: Sequence[bool]) -> None:
        if all(successes):
            return
        try:
            text = self.error_queue.get(timeout=_DEAD_S)
        except queue.Empty:
            text = "An environment failed, and its process could not say how."
        raise EnvError(text)

    def _check_spaces(self) -> None:
        for pipe in self.parent_pipes:
            pipe.send(("spaces", None))
        self._await("when it was made")
        answers, successes = zip(*[pipe.recv() for pipe in self.parent_pipes], strict=True)
        self._raise_if_errors(successes)
        for index, answer in enumerate(answers):
            if answer != (self.single_observation_space, self.single_action_space):
                raise EnvError(f"Environment {index} has other spaces than the first: all must have the same.")


def give_deadlines(envs: Any) -> None:
    """Let the waits of a ready ``AsyncVectorEnv`` end; any other vector environment is left as it is.

    Gymnasium waits for ever for a worker that hangs, and for the error of one that could not be pickled.
    """
    if type(envs) is not AsyncVectorEnv or isinstance(envs.error_queue, _PatientQueue):
        return
    ready: Any = envs
    ready.reset_wait = partial(_wait, ready.reset_wait)
    ready.step_wait = partial(_wait, ready.step_wait)
    ready.error_queue = _PatientQueue(ready.error_queue)


def _wait(waits: Callable[[float], Any], timeout: float | None = None) -> Any:
    return waits(TIMEOUT_S if timeout is None else timeout)


def terminate(envs: AsyncVectorEnv) -> None:
    """End every process of environments of which one has failed, whatever they are waiting for."""
    envs._state = AsyncState.DEFAULT
    envs.close(terminate=True)


class _PatientQueue:
    """A queue of errors whose ``get`` has an end."""

    def __init__(self, errors: Any) -> None:
        self._errors = errors

    def get(self) -> Any:
        try:
            return self._errors.get(timeout=_DEAD_S)
        except queue.Empty:
            raise EnvError("A worker of the environments failed with an error that cannot leave its process.") from None


def serve(
    index: int, make: Callable[[], Any], pipe: Any, parent_pipe: Any, shared_memory: Any, errors: Any, mode: Any
) -> None:
    """Be the process of one environment: make it, and answer until it is closed or the other end is gone."""
    del mode  # always SAME_STEP
    # Ctrl-C goes to every process of the terminal; what it means is for the run to say, which will close this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent_pipe.close()
    env, doing = None, "when it was made"
    try:
        env = make()
        while True:
            command, data = pipe.recv()
            if command == "close":
                closing, env = env, None
                pipe.send((close_quietly(closing), "closed"))
                return
            doing = f"in {command.strip('_')}()"
            pipe.send((_answer(env, command, data, index, shared_memory), True))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except BaseException as error:
        errors.put(_as_text(error, doing))
        pipe.send((None, False))
    finally:
        if env is not None:
            close_quietly(env)


def _as_text(error: BaseException, doing: str) -> str:
    try:
        return str(environment_failed(error, doing))
    except BaseException:
        return f"The environment raised {type(error).__name__} {doing}"


def _answer(env: Any, command: str, data: Any, index: int, shared_memory: Any) -> Any:
    if command == "reset":
        observation, info = env.reset(**data)
        return _shared(env, observation, index, shared_memory), info
    if command == "step":
        observation, reward, terminated, truncated, info = env.step(data)
        if terminated or truncated:
            last, last_info = observation, info
            observation, info = env.reset()
            info = {**info, "final_obs": last, "final_info": last_info}
        return _shared(env, observation, index, shared_memory), float(reward), bool(terminated), bool(truncated), info
    if command == "spaces":
        return env.observation_space, env.action_space
    if command == "_call":
        name, args, kwargs = data
        attribute = env.get_wrapper_attr(name)
        return attribute(*args, **kwargs) if callable(attribute) else attribute
    name, value = data
    env.set_wrapper_attr(name, value)
    return None


def _shared(env: Any, observation: Any, index: int, shared_memory: Any) -> Any:
    """Hand an observation over in shared memory, where there is some."""
    if not shared_memory:
        return observation
    write_to_shared_memory(env.observation_space, index, observation, shared_memory)
    return None
