"""Making and closing environments that somebody else wrote: failures become one line, and none stays open unnoticed."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import ref

from optix_core.errors import EnvError, OptixError

if TYPE_CHECKING:
    import gymnasium as gym

MAX_MESSAGE = 400
"""Characters of somebody else's message that are shown."""

# What was made only to look at it and may be somebody else's: handed out by the next call of the same function, closed
# when it is in the way.
_waiting: list[tuple[Callable[[], Any], gym.Env[Any, Any]]] = []


def told(error: BaseException) -> str:
    """Return an exception as one line of plain text, ``RuntimeError: port 5005 is in use``."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception may fail to describe itself
        text = ""
    text = text.encode("utf-8", "replace").decode()  # a lone surrogate can stand in no file and on no terminal
    if len(text) > MAX_MESSAGE:
        text = text[:MAX_MESSAGE] + " ..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def environment_failed(error: BaseException, doing: str) -> OptixError:
    """Return the error to raise for whatever an environment raised.

    Args:
        error: what it raised, ``SystemExit`` included. One with a message for the user is returned as it is.
        doing: when that was, such as ``"after 6 steps"`` or ``"in reset()"``.

    Raises:
        KeyboardInterrupt: that is the user's, not the environment's.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, OptixError):
        return error
    name, _, text = told(error).partition(": ")
    hint = _reset_hint(error, text) if "reset" in doing else ""
    if isinstance(error, EOFError | BrokenPipeError | ConnectionResetError):
        hint = ". A process that it needs has probably died: killed for lack of memory, or crashed."
    return EnvError(f"The environment raised {name} {doing}{': ' if text else ''}{text}{hint}")


def _reset_hint(error: BaseException, text: str) -> str:
    """Return what is usually meant by these exceptions of ``reset``."""
    if isinstance(error, TypeError) and "unexpected keyword argument" in text:
        return ". Gymnasium's signature is reset(self, *, seed=None, options=None)."
    if isinstance(error, ValueError | TypeError) and "unpack" in text:
        return ". It must return two things, (observation, info)."
    return ""


class blaming_environment:  # noqa: N801 - as contextlib names them
    """Turn whatever is raised inside the block into an error in one line; see :func:`environment_failed`.

    Args:
        doing: when that is.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None:
            raise environment_failed(error, self._doing) from error


def close_quietly(env: Any, **arguments: Any) -> str | None:
    """Close an environment; return what went wrong in a sentence, None if nothing did."""
    try:
        env.close(**arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"An environment could not be closed: {told(error)}."
    return None


def call_factory(factory: Callable[[], gym.Env[Any, Any]], name: str) -> gym.Env[Any, Any]:
    """Return a user's environment from the function that makes it.

    One that :func:`inspected` had to leave open is handed out first. Where making fails while others of those are
    open, they are closed and it is tried once more: there are simulators of which only one can live.

    Raises:
        EnvError: the function raised, or returned something else.
    """
    import gymnasium as gym

    env: Any = _take(factory)
    if env is None:
        try:
            env = factory()
        except BaseException as error:
            failed = _not_made(error, name)
            if not _close_waiting():
                raise failed from error
            try:
                env = factory()
            except BaseException as again:
                raise _not_made(again, name) from again
    if not isinstance(env, gym.Env):
        raise EnvError(f"{name} returned {type(env).__name__}; it must return a gymnasium.Env.")
    return env


def _not_made(error: BaseException, name: str) -> OptixError:
    failed = environment_failed(error, "")
    return failed if failed is error else EnvError(f"{name} could not make an environment: {told(error)}")


@contextmanager
def inspected(make: Callable[[], gym.Env[Any, Any]], factory: Any = None) -> Iterator[gym.Env[Any, Any]]:
    """Make an environment only to look at it, and close it afterwards if nobody else can have it.

    A function may return a new environment or one that it keeps. One that did not exist before the call, and that
    nothing else refers to, is new. One that is new and referred to (by a list of its class, by a cache) is left open
    and comes from the next call of the same function.

    Args:
        make: makes it.
        factory: the user's function behind ``make``, or None if what it makes is always new.
    """
    older = _environments() if factory is not None else []
    env = make()
    is_new = factory is None or all(layer is not old for layer in layers(env) for old in older)
    is_ours = is_new and (factory is None or isinstance(factory, type) or _only_here([env]))
    try:
        yield env
    finally:
        if is_ours:
            close_quietly(env)
        elif is_new:
            _set_aside(factory, env)


def layers(env: Any) -> list[Any]:
    """Return an environment's wrappers, outermost first, and at last the environment itself."""
    import gymnasium as gym

    found = [env]
    while isinstance(found[-1], gym.Wrapper | gym.vector.VectorWrapper):
        found.append(found[-1].env)
    return found


def autoreset_mode(vector_env: Any) -> Any:
    """Return when a vector environment begins the next episode, as its own object knows it.

    Its metadata may not: Gymnasium's vector environments write into the metadata of the environment's class, which all
    that are made of it share, so that the latest one decides for all.
    """
    from gymnasium.vector import AutoresetMode

    own = getattr(layers(vector_env)[-1], "autoreset_mode", None)
    return own if own is not None else vector_env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)


def time_limit(vector_env: Any) -> int | None:
    """Return after how many steps the environments end an episode themselves, as far as their wrappers tell."""
    from gymnasium.wrappers import TimeLimit

    outer = layers(vector_env)
    first = next(iter(getattr(outer[-1], "envs", ())), None)
    for layer in [*outer, *layers(first)]:
        if isinstance(layer, TimeLimit):
            return int(layer._max_episode_steps)
        spec = getattr(layer, "spec", None)
        if spec is not None and spec.max_episode_steps is not None:
            return int(spec.max_episode_steps)
    return None


def make_many(
    factories: Sequence[Callable[[], gym.Env[Any, Any]]], *, at_least: int | None = None
) -> list[gym.Env[Any, Any]]:
    """Make environments that are really different ones; what was made is closed if the rest fails.

    Args:
        factories: one for each.
        at_least: settle for so many if there cannot be more.

    Raises:
        EnvError: one cannot be made, or the same object came twice.
    """
    enough = len(factories) if at_least is None else at_least
    made: list[gym.Env[Any, Any]] = []
    for factory in factories:
        try:
            env = factory()
        except BaseException as error:
            if len(made) >= enough and isinstance(error, EnvError):
                return made
            for other in made:
                close_quietly(other)
            if made and isinstance(error, EnvError):
                raise EnvError(f"Only {len(made)} of {len(factories)} environments can be made. {error}") from error
            raise
        if any(env.unwrapped is other.unwrapped for other in made):
            if len(made) >= enough:
                return made
            raise EnvError(
                f"The same environment object was returned for several of {len(factories)} environments, which would "
                "step it in turns: return a new one from each call, or use one environment (n_envs=1)."
            )
        made.append(env)
    return made


def _environments() -> list[Any]:
    """Return every environment that exists; holding them keeps their ids from being used again."""
    import gymnasium as gym

    return [thing for thing in gc.get_objects() if issubclass(type(thing), gym.Env)]


def _only_here(held: list[Any]) -> bool:
    """Whether nothing refers to an environment, or to what it wraps, but this list and one variable of the caller."""
    import gymnasium as gym

    alone: gym.Env[Any, Any] = gym.Wrapper(gym.Env())
    outer, inner = _references([alone])
    counts = _references(held)
    return counts[0] <= outer and all(count <= inner for count in counts[1:])


def _references(held: list[Any]) -> list[int]:
    return [sys.getrefcount(layer) for layer in layers(held[0])]


def _set_aside(factory: Any, env: gym.Env[Any, Any]) -> None:
    try:
        _waiting.append((ref(factory), env))
    except TypeError:  # a kind of function that cannot be referred to weakly
        _waiting.append((lambda: None, env))


def _take(factory: Any) -> gym.Env[Any, Any] | None:
    for position, (its_factory, env) in enumerate(_waiting):
        if its_factory() is factory:
            del _waiting[position]
            return env
    return None


def _close_waiting() -> bool:
    """Close what waits to be handed out; return whether there was anything."""
    found = [env for _, env in _waiting]
    _waiting.clear()
    for env in found:
        close_quietly(env)
    return bool(found)
