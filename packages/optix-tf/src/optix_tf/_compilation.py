"""Compiled functions, shared by all agents whose models are equal."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from optix_tf._runtime import tf


@lru_cache(maxsize=64)
def compiled(function: Callable[..., Any], *static: Any, xla: bool = True) -> Any:
    """Return a pure function as a ``tf.function``; the same one for equal arguments.

    ``experimental_get_tracing_count()`` of what is returned says how often Python has gone through the function: once
    for every combination of shapes, however often values change.

    Args:
        function: takes ``static`` and then tensors.
        static: hashable; what the machine code is made for.
        xla: compile with XLA, which takes seconds and makes loops over small matrices several times as fast.
    """
    return tf.function(partial(function, *static), autograph=False, jit_compile=xla)
