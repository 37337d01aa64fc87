"""Whether an environment that was given as an object can be made again from its registration."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import numpy as np

from optix_core.environments.making import close_quietly, layers, told

if TYPE_CHECKING:
    import gymnasium as gym

MAX_DEPTH = 8
"""Objects nested deeper than this are taken to differ."""


def why_not_remade(env: gym.Env[Any, Any]) -> str | None:
    """Return why ``gymnasium.make(env.spec)`` would give another environment than this one; None if it would not.

    Both are reset with the same seed and compared layer by layer, in everything that they hold: what was set on the
    object after it was made, and what its wrappers remember, is then seen. The episode in hand ends.
    """
    import gymnasium as gym

    if env.spec is None or env.spec.entry_point is None:
        return "it is not registered"
    try:
        twin = gym.make(env.spec)
    except Exception as error:
        return f"making another one fails with {told(error)}"
    try:
        return _difference(env, twin)
    except Exception as error:
        return f"comparing it with another one fails with {told(error)}"
    finally:
        close_quietly(twin)


def _difference(env: gym.Env[Any, Any], twin: gym.Env[Any, Any]) -> str | None:
    mine, theirs = layers(env), layers(twin)
    if [type(layer) for layer in mine] != [type(layer) for layer in theirs]:
        return "it has other wrappers than its registration"
    if not _same(env.reset(seed=0)[0], twin.reset(seed=0)[0], set(), 0):
        return "it begins other episodes than its registration"
    pairs = {(id(a), id(b)) for a, b in zip(mine, theirs, strict=True)}
    for a, b in zip(mine, theirs, strict=True):
        names = vars(a).keys() | vars(b).keys()
        for name in sorted(names - {"env", "spec", "_cached_spec"}):
            if name not in vars(a) or name not in vars(b) or not _same(vars(a)[name], vars(b)[name], set(pairs), 0):
                return f"its {name} ({type(a).__name__}) is not as registered"
    return None


def same(a: Any, b: Any) -> bool:
    """Whether two things hold the same values, as deep as one can look; what cannot be told is taken to differ."""
    try:
        return _same(a, b, set(), 0)
    except Exception:
        return False


def _same(a: Any, b: Any, seen: set[tuple[int, int]], depth: int) -> bool:
    """Whether two things hold the same values; what cannot be told is taken to differ."""
    if a is b or (id(a), id(b)) in seen:
        return True
    if type(a) is not type(b) or depth > MAX_DEPTH:
        return False
    seen.add((id(a), id(b)))
    if isinstance(a, np.ndarray):
        equal_nan = a.dtype.kind in "fc"
        return a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=equal_nan))
    if isinstance(a, bool | int | float | str | bytes | np.generic):
        return bool(a == b) or bool(a != a and b != b)
    if isinstance(a, np.random.Generator):
        return bool(a.bit_generator.state == b.bit_generator.state)
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(_same(a[key], b[key], seen, depth + 1) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_same(x, y, seen, depth + 1) for x, y in zip(a, b, strict=True))
    if isinstance(a, FunctionType):
        mine, theirs = ([cell.cell_contents for cell in function.__closure__ or ()] for function in (a, b))
        return a.__code__ == b.__code__ and _same(mine, theirs, seen, depth + 1)
    if isinstance(a, MethodType):
        return a.__func__ is b.__func__ and _same(a.__self__, b.__self__, seen, depth + 1)
    if isinstance(a, type | BuiltinFunctionType):
        return bool(a == b)
    if hasattr(a, "__dict__"):
        return _same(vars(a), vars(b), seen, depth + 1)
    return pickle.dumps(a) == pickle.dumps(b)  # written and compared, never read
