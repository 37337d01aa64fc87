"""Optimisers as pure functions: parameters, gradients and memory in, parameters and memory out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from optix_core.errors import ConfigError
from optix_tf._runtime import keras, tf


class Optimizer(Protocol):
    """What a compiled update asks of an optimiser; equal ones share compiled code."""

    def slots(self, parameters: Sequence[Any]) -> Any:
        """Return the initial memory for these parameters."""
        ...

    def step(
        self, parameters: Sequence[Any], gradients: Sequence[Any], slots: Any, learning_rate: Any
    ) -> tuple[list[Any], Any]:
        """Return the parameters after one step, and the memory."""
        ...


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1): ``theta -= lr m' / (sqrt(v') + epsilon)`` with corrected moments.

    Keras adds its epsilon to the root of the uncorrected moment, which makes another optimiser of small gradients.

    Attributes:
        epsilon: added to the root of the second moment.
        betas: decay of the first and second moment.
    """

    epsilon: float
    betas: tuple[float, float] = (0.9, 0.999)

    def slots(self, parameters: Sequence[Any]) -> Any:
        """Return the number of steps, and both moments of all parameters, one vector each."""
        zeros = tf.zeros_like(pack(parameters))
        return {"num_steps": tf.zeros([], zeros.dtype), "first": zeros, "second": zeros}

    def step(
        self, parameters: Sequence[Any], gradients: Sequence[Any], slots: Any, learning_rate: Any
    ) -> tuple[list[Any], Any]:
        """Return the parameters after one step, and the memory."""
        beta1, beta2 = self.betas
        num_steps = slots["num_steps"] + 1
        rate = learning_rate / (1 - beta1**num_steps)
        root_correction = tf.math.rsqrt(1 - beta2**num_steps)
        gradient = pack(gradients)
        first = slots["first"] + (1 - beta1) * (gradient - slots["first"])
        second = beta2 * slots["second"] + (1 - beta2) * gradient * gradient
        change = rate * first / (tf.sqrt(second) * root_correction + self.epsilon)
        moved = [p - c for p, c in zip(parameters, unpack(change, list(parameters)), strict=True)]
        return moved, {"num_steps": num_steps, "first": first, "second": second}


class KerasOptimizer:
    """A Keras optimiser, whose memory stays in its own variables.

    Args:
        optimizer: the user's.
        variables: ``tf.Variable`` of each parameter.
        share: its learning rate, as a multiple of the agent's.

    Raises:
        ConfigError: its learning rate follows a schedule.
    """

    def __init__(self, optimizer: Any, variables: Sequence[Any], share: float = 1.0) -> None:
        if isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            raise ConfigError("The learning rate is optix's to set: build the optimizer with a number, not a schedule.")
        self.optimizer = optimizer
        self._variables, self._share = list(variables), share
        optimizer.build(self._variables)

    def slots(self, parameters: Sequence[Any]) -> Any:  # noqa: ARG002 - it knows its variables
        """Return nothing: see :attr:`variables`."""
        return {}

    @property
    def variables(self) -> list[Any]:
        """``tf.Variable`` of all that it remembers."""
        return [variable.value for variable in self.optimizer.variables]

    def step(
        self, parameters: Sequence[Any], gradients: Sequence[Any], slots: Any, learning_rate: Any
    ) -> tuple[list[Any], Any]:
        """Move the variables, within a ``tf.function``, and return their values."""
        for variable, parameter in zip(self._variables, parameters, strict=True):
            variable.assign(parameter)
        self.optimizer.learning_rate = learning_rate * self._share
        self.optimizer.apply(list(gradients), self._variables)
        return [variable.read_value() for variable in self._variables], slots


class JoinedOptimizer(KerasOptimizer):
    """Several Keras optimisers as one, each over parameters of its own.

    Args:
        members: in the order of the parameters.
    """

    def __init__(self, members: Sequence[KerasOptimizer]) -> None:
        self._members = list(members)

    @property
    def variables(self) -> list[Any]:
        """``tf.Variable`` of all that they remember."""
        return [variable for member in self._members for variable in member.variables]

    def part(self, count: int) -> JoinedOptimizer:
        """Return the first ``count`` members as one, or the last if it is negative."""
        return JoinedOptimizer(self._members[:count] if count > 0 else self._members[count:])

    def step(
        self, parameters: Sequence[Any], gradients: Sequence[Any], slots: Any, learning_rate: Any
    ) -> tuple[list[Any], Any]:
        """Move the variables of all, within a ``tf.function``, and return their values."""
        moved: list[Any] = []
        for member in self._members:
            own = slice(len(moved), len(moved) + len(member._variables))
            moved += member.step(parameters[own], gradients[own], slots, learning_rate)[0]
        return moved, slots


def rate_of(*optimizers: Any) -> float | None:
    """Return the learning rate of the first optimiser that is there."""
    return next((float(optimizer.learning_rate) for optimizer in optimizers if optimizer is not None), None)


def joined(parts: Sequence[tuple[Any, Sequence[Any]]]) -> JoinedOptimizer:
    """Return optimisers as one, with the ratio of their learning rates; Adam takes the place of one that is missing.

    Args:
        parts: each optimiser and its ``tf.Variable``; one of them is there.
    """
    leading = rate_of(*(optimizer for optimizer, _ in parts)) or 0.0
    members = []
    for optimizer, variables in parts:
        chosen = optimizer or keras.optimizers.Adam(leading, epsilon=1e-5)
        share = float(chosen.learning_rate) / leading if leading > 0 else 1.0
        members.append(KerasOptimizer(chosen, variables, share))
    return JoinedOptimizer(members)


def pack(structure: Any) -> Any:
    """Return all tensors of a nested structure in one vector."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tf.nest.flatten(structure)], 0)


def unpack(vector: Any, like: Any) -> Any:
    """Return the structure whose tensors :func:`pack` put into a vector; ``like`` has its shapes."""
    flat = tf.nest.flatten(like)
    parts = tf.split(vector, [tensor.shape.num_elements() for tensor in flat])
    return tf.nest.pack_sequence_as(
        like, [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, flat, strict=True)]
    )


def clip_by_norm(gradients: Sequence[Any], max_norm: Any) -> tuple[list[Any], Any]:
    """Scale gradients down to a largest norm over all of them; also return the norm before."""
    vector = pack(gradients)
    norm = tf.sqrt(tf.reduce_sum(tf.square(vector)))
    factor = tf.minimum(tf.ones_like(norm), max_norm / (norm + 1e-6))
    return unpack(vector * factor, list(gradients)), norm
