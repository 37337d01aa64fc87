"""Compiled functions, shared by all agents whose models are equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

from optix_protocol import Array
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


class DirectCall:
    """A compiled function, called as one operation.

    ``tf.function`` binds and checks every argument in Python at each call, which takes longer than an update of a small
    network; here that happens once.

    Args:
        function: what :func:`compiled` returned; it takes one list, ``[*variables, *tensors]``, and returns another.
        variables: what it reads and assigns; the same ones in every call.
        arrays: examples of the other inputs, of the shapes and types that they have in every call.
    """

    def __init__(self, function: Any, variables: Sequence[Any], arrays: Sequence[Array]) -> None:
        # XLA compiles a function that is called from another one, but not one that is an operation.
        self._concrete = compiled(function, xla=False).get_concrete_function([*variables, *map(tf.constant, arrays)])
        self._handles = [variable.handle for variable in {id(variable): variable for variable in variables}.values()]
        self._captured = self._concrete.captured_inputs
        self._types = [tensor.dtype for tensor in self._concrete.outputs]

    def __call__(self, arrays: Sequence[Array]) -> list[Any]:
        """Return the list of tensors that the function returns."""
        arguments = [*self._handles, *arrays, *self._captured]
        found: list[Any] = tf.raw_ops.StatefulPartitionedCall(args=arguments, Tout=self._types, f=self._concrete)
        return found
