"""What off-policy agents share: many updates in one compiled call, on batches drawn beforehand."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from optix_core.agents.off_policy import OffPolicyAgent, Transitions
from optix_core.data import PrioritizedReplayBuffer, ReplayBatch
from optix_protocol import Array, StateTree
from optix_tf._compilation import DirectCall, compiled
from optix_tf._learned import KerasNetworks, TrainState
from optix_tf._optimizers import pack, unpack
from optix_tf._runtime import tf
from optix_tf._saved_model import SavedModelExport

_UPDATES_PER_CALL = 64
_BYTES_PER_CALL = 1 << 26
"""Batches of one call take at most about this much memory."""


class Result(NamedTuple):
    """What one update leaves behind.

    Attributes:
        state: what is learned.
        statistics: ``[n]``.
        errors: ``[B]`` temporal-difference errors, for priorities.
    """

    state: TrainState
    statistics: Any
    errors: Any


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What is where in the arrays that an update takes.

    Attributes:
        memory: the structure of all that is learned, which follows from what is compiled.
        targets: names of the parts that have a slow copy.
        shapes: of one row of each field of :class:`Transitions`; None for pictures, which have arrays of their own.
        num_statistics: how many numbers an update reports.
        settings: names of the hyperparameters.
        acting: the part whose parameters are wanted afterwards, if any.
    """

    memory: TrainState = field(compare=False)
    targets: tuple[str, ...]
    shapes: tuple[tuple[int, ...] | None, ...]
    num_statistics: int
    settings: tuple[str, ...]
    acting: str | None

    @property
    def widths(self) -> list[int]:
        """How many columns each field takes."""
        return [0 if shape is None else math.prod(shape) for shape in self.shapes]

    def transitions(
        self, columns: Sequence[Any], pictures: Sequence[Any], batch_axes: tuple[int, ...], reshape: Any
    ) -> Transitions:
        """Return all fields ``[*batch_axes, ...]``, given the columns of each and the pictures."""
        left = iter(pictures)
        fields = zip(columns, self.shapes, strict=True)
        return Transitions(
            *(next(left) if shape is None else reshape(part, (*batch_axes, *shape)) for part, shape in fields)
        )


class Batches:
    """Room for the batches of one call, side by side: each array that crosses the border costs time.

    Args:
        room: ``K``, the most batches of a call.
        like: a batch of ``B`` rows.
        layout: what is where.
        dtype: of the networks.

    Attributes:
        layout: as given.
        like: shapes of the fields of a batch.
        columns: ``[K, B, W]``.
        pictures: ``[K, B, ...]`` observations and next observations, where they are no floats.
    """

    def __init__(self, room: int, like: Transitions, layout: Layout, dtype: Any) -> None:
        self.layout, self.like, size = layout, _shapes(like), len(like.rewards)
        self.columns = np.zeros((room, size, sum(layout.widths)), dtype)
        fields = zip(like, layout.shapes, strict=True)
        self.pictures = [np.zeros((room, *array.shape), array.dtype) for array, shape in fields if shape is None]
        parts = np.split(self.columns, np.cumsum(layout.widths)[:-1], axis=2)
        self._fields = layout.transitions(parts, self.pictures, (room, size), np.reshape)

    def __setitem__(self, i: int, batch: Transitions) -> None:
        """Copy a batch to the ``i``-th place."""
        for place, array in zip(self._fields, batch, strict=True):
            place[i] = array


def _shapes(batch: Transitions) -> tuple[tuple[int, ...], ...]:
    return tuple(np.shape(array) for array in batch)


def make_updates(
    step: Callable[..., Result],
    model: Any,
    layout: Layout,
    inputs: Sequence[Any],
) -> list[Any]:
    """Make one update on each of the first batches.

    Args:
        step: one update, ``step(model, state, statistics, batch, number, settings)``.
        model: hashable; what stays as it is.
        layout: what is in the arrays.
        inputs: the variables of all that is learned; numbers (below); the columns of the batches ``[K, B, W]``;
            pictures that belong to them, ``[K, B, ...]`` each. The numbers are, in float64: how many of the batches
            count, which update of the agent's life the first one is (from 1), the statistics of the latest update
            before, and the hyperparameters.

    Returns:
        One vector: statistics, errors ``[B]`` of the last update and the parameters of ``layout.acting``.
    """
    num_variables = len(tf.nest.flatten(layout.memory))
    memory: TrainState = tf.nest.pack_sequence_as(layout.memory, inputs[:num_variables])
    numbers, columns, *pictures = inputs[num_variables:]
    room, size = columns.shape[:2]
    count, first = tf.unstack(tf.cast(numbers[:2], tf.int32))
    statistics, settings = tf.split(tf.cast(numbers[2:], columns.dtype), [layout.num_statistics, len(layout.settings)])
    named = dict(zip(layout.settings, tf.unstack(settings), strict=True))

    def update(i: Any, before: Result) -> tuple[Any, Result]:
        parts = tf.split(columns[i], layout.widths, axis=1)
        batch = layout.transitions(parts, [array[i] for array in pictures], (size,), tf.reshape)
        result = step(model, before.state.unpack(layout.targets), before.statistics, batch, first + i, named)
        return i + 1, result._replace(state=result.state.pack())

    end = Result(memory.read(), statistics, tf.zeros([size], columns.dtype))
    if room == 1:
        _, end = update(0, end)
    else:
        _, end = tf.while_loop(lambda i, _: i < count, update, (tf.constant(0), end))
    memory.assign(end.state)
    acting = [pack(end.state.params[layout.acting])] if layout.acting else []
    return [tf.concat([end.statistics, end.errors, *acting], 0)]


class ReplayAgent(OffPolicyAgent, SavedModelExport):
    """An off-policy agent on Keras models; the algorithm fills in one pure update.

    Arguments as in :class:`optix_core.agents.off_policy.OffPolicyAgent`, and ``model``, what ``step`` takes.
    """

    networks: KerasNetworks
    statistics_names: ClassVar[tuple[str, ...]]

    def __init__(self, *, model: Any, **options: Any) -> None:
        self.model = model
        super().__init__(**options)
        self._statistics = np.zeros(len(self.statistics_names), self.networks.dtype)
        self._batches: Batches | None = None
        self._call: DirectCall | None = None

    # ---- what an algorithm fills in ---------------------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def step(
        model: Any, state: TrainState, statistics: Any, batch: Transitions, number: Any, settings: Mapping[str, Any]
    ) -> Result:
        """Make one update; pure and compiled."""

    @abstractmethod
    def _settings(self) -> dict[str, float]:
        """Return the hyperparameters of ``step``."""

    @abstractmethod
    def _actions(self, actions: Array) -> Array:
        """Return stored actions ``[B, *act]`` as ``step`` takes them."""

    def _noise(self, batch_size: int) -> Array:
        """Draw the noise of one update ``[B, ...]`` from ``self._rng``."""
        return np.zeros((batch_size, 0), np.float32)

    # ---- updates ----------------------------------------------------------------------------------------------------

    def _sample_and_update(self, num_updates: int) -> None:
        most = 1 if isinstance(self.replay, PrioritizedReplayBuffer) else _UPDATES_PER_CALL
        while num_updates:
            first = self._sample(self.hyperparams["batch_size"])
            size = first.observations.nbytes + first.next_observations.nbytes
            count = min(num_updates, most, max(1, _BYTES_PER_CALL // size))
            batches = [first, *(self._sample(len(first.rewards)) for _ in range(count - 1))]
            errors = self._update([self._transitions(batch) for batch in batches])
            self._num_updates += count
            num_updates -= count
            if isinstance(self.replay, PrioritizedReplayBuffer):
                self.replay.update_priorities(first.indices, errors)

    def _update(self, batches: list[Transitions]) -> Array:
        """Make one update on each batch and return the errors ``[B]`` of the last."""
        room = self._room_for(len(batches), batches[0])
        for i, batch in enumerate(batches):
            room[i] = batch
        settings = (*self._settings().values(), self.networks.learning_rate)
        numbers = [len(batches), self._num_updates + 1, *self._statistics.tolist(), *settings]
        arrays = [np.array(numbers, float), room.columns, *room.pictures]
        with tf.device(self.networks.device):
            if self._call is None:
                self._call = DirectCall(self.compiled_updates, tf.nest.flatten(self.networks.memory), arrays)
            found: Array = self._call(arrays)[0].numpy()
        low = len(self._statistics)
        high = low + len(batches[0].rewards)
        self._statistics = found[:low]
        self.networks.was_updated(found[high:] if room.layout.acting else None)
        return found[low:high]

    def _room_for(self, count: int, like: Transitions) -> Batches:
        """Return room for so many batches; what is compiled is made for it."""
        room = len(self._batches.columns) if self._batches else 1
        if self._batches is None or room < count or self._batches.like != _shapes(like):
            while room < count:  # few sizes, so that few are compiled
                room *= 2
            self._batches = Batches(room, like, self._layout(like), self.networks.dtype)
            self._call = None
        return self._batches

    def _layout(self, like: Transitions) -> Layout:
        shapes = {name: array.shape[1:] for name, array in like._asdict().items()}
        if like.observations.dtype.kind != "f":
            shapes |= {"observations": None, "next_observations": None}
        acting, network = self.networks.acting, self.networks.acting_part.network
        return Layout(
            memory=tf.nest.map_structure(lambda _: None, self.networks.memory),
            targets=self.networks.targets,
            shapes=tuple(shapes.values()),
            num_statistics=len(self.statistics_names),
            settings=(*self._settings(), "learning_rate"),
            acting=acting if network is not None and network.layers else None,
        )

    @property
    def compiled_updates(self) -> Any:
        """The ``tf.function`` that made the latest updates, shared with all agents of equal models."""
        assert self._batches is not None, "no update has been made yet"
        return compiled(make_updates, type(self).step, self.model, self._batches.layout)

    def _transitions(self, batch: ReplayBatch) -> Transitions:
        ready = self.networks.to_device(batch, self._rows)
        return Transitions(
            observations=ready.observations,
            actions=self._actions(ready.actions),
            rewards=ready.rewards,
            next_observations=ready.next_observations,
            discounts=ready.discounts,
            weights=ready.weights,
            next_masks=ready.next_masks,
            noise=self._noise(len(ready.rewards)),
        )

    def _measure(self) -> dict[str, float]:
        return dict(zip(self.statistics_names, self._statistics.tolist(), strict=True))

    def restore_training_state(self, state: StateTree) -> None:
        """Continue as the agent that returned ``state`` would, bit for bit."""
        super().restore_training_state(state)
        # An update that leaves the actor alone reports the actor's latest loss.
        values = [state["diagnostics"].get(name, 0.0) for name in self.statistics_names]
        self._statistics = np.array(values, self.networks.dtype)


def follow(targets: Mapping[str, list[Any]], online: Mapping[str, list[Any]], tau: Any) -> dict[str, list[Any]]:
    """Move slow copies the share ``tau`` of the way towards their parts (Polyak averaging); all of it is a copy."""
    old, new = pack(targets), pack({name: online[name] for name in targets})
    moved = tf.where(tau < 0.5, old + tau * (new - old), new - (1.0 - tau) * (new - old))
    slow: dict[str, list[Any]] = unpack(moved, targets)
    return slow
