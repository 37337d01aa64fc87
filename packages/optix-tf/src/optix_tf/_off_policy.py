"""What off-policy agents share: many updates in one compiled call, on batches drawn beforehand."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from optix_core.agents.off_policy import OffPolicyAgent, Transitions
from optix_core.data import PrioritizedReplayBuffer, ReplayBatch
from optix_protocol import Array, StateTree
from optix_tf._compilation import compiled
from optix_tf._learned import Group, KerasNetworks, TrainState, pack, unpack
from optix_tf._runtime import tf
from optix_tf._saved_model import SavedModelExport
from optix_tf.networks import as_input

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
    """What is packed into vectors.

    Attributes:
        targets: names of the parts that have a slow copy.
        groups: the optimisers with their names.
        settings: names of the hyperparameters.
    """

    targets: tuple[str, ...]
    groups: tuple[tuple[str, Group], ...]
    settings: tuple[str, ...]

    def state(self, params: dict[str, list[Any]], packed: Any) -> TrainState:
        """Return all that is learned."""
        targets = {name: params[name] for name in self.targets}
        slots = {name: group.slots(params) for name, group in self.groups}
        return TrainState(params, *unpack(packed, (targets, slots)))


def make_updates(
    step: Callable[..., Result],
    model: Any,
    layout: Layout,
    params: dict[str, list[Any]],
    packed: Any,
    statistics: Any,
    batches: Transitions,
    count: Any,
    number: Any,
    settings: Any,
) -> tuple[dict[str, list[Any]], Any, Any, Any]:
    """Make one update on each of the first batches.

    Args:
        step: one update, ``step(model, state, statistics, batch, number, settings)``.
        model: hashable; what stays as it is.
        layout: what is in the vectors.
        params: what is learned.
        packed: slow copies and the optimisers' memory, one vector.
        statistics: ``[n]`` of the latest update before.
        batches: all first axes ``K``, then ``B``.
        count: 0-d, how many of them count.
        number: 0-d, which update of the agent's life the first one is, from 1.
        settings: the hyperparameters, one vector.

    Returns:
        Parameters, slow copies and memory packed, statistics, and errors ``[B]`` of the last update.
    """
    named = dict(zip(layout.settings, tf.unstack(settings), strict=True))

    def body(i: Any, result: Result) -> tuple[Any, Result]:
        batch = Transitions(*(column[i] for column in batches))
        return i + 1, step(model, result.state, result.statistics, batch, number + i, named)

    start = Result(layout.state(params, packed), statistics, tf.zeros_like(batches.rewards[0]))
    end = tf.while_loop(lambda i, _: i < count, body, (tf.constant(0), start))[1]
    return end.state.params, pack(end.state.targets, end.state.slots), end.statistics, end.errors


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
        self._room = 1

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

    def _noise(self, batch_size: int) -> Array:  # noqa: ARG002 - none by default
        """Draw the noise of one update from ``self._rng``."""
        return np.zeros(0, np.float32)

    # ---- updates ----------------------------------------------------------------------------------------------------

    def _sample_and_update(self, num_updates: int) -> None:
        most = 1 if isinstance(self.replay, PrioritizedReplayBuffer) else _UPDATES_PER_CALL
        while num_updates:
            first = self.replay.sample(self.hyperparams["batch_size"])
            size = first.observations.nbytes + first.next_observations.nbytes
            count = min(num_updates, most, max(1, _BYTES_PER_CALL // size))
            batches = [first, *(self.replay.sample(len(first.rewards)) for _ in range(count - 1))]
            errors = self._update([self._transitions(batch) for batch in batches])
            self._num_updates += count
            num_updates -= count
            if isinstance(self.replay, PrioritizedReplayBuffer):
                self.replay.update_priorities(first.indices, self.networks.to_host(errors))

    def _update(self, batch: list[Transitions]) -> Any:
        """Make one update on each batch and return the errors ``[B]`` of the last."""
        count = len(batch)
        while self._room < count:  # few sizes, so that few are compiled
            self._room *= 2
        filled = batch + batch[-1:] * (self._room - count)
        stacked = Transitions(*(np.stack(columns) for columns in zip(*filled, strict=True)))
        settings = {**self._settings(), "learning_rate": self.networks.learning_rate}
        update = self.compiled_updates
        with tf.device(self.networks.device):
            *state, statistics, errors = update(
                *self.networks.packed_state,
                self._statistics,
                stacked,
                np.asarray(count, np.int32),
                np.asarray(self._num_updates + 1, np.int32),
                np.array(list(settings.values()), self.networks.dtype),
            )
        self.networks.packed_state = (state[0], state[1])
        self._statistics = statistics.numpy()
        return errors

    @property
    def compiled_updates(self) -> Any:
        """The ``tf.function`` that makes the updates, shared with all agents of equal models."""
        layout = Layout(
            targets=tuple(self.networks.targets),
            groups=tuple(self.networks.groups.items()),
            settings=(*self._settings(), "learning_rate"),
        )
        return compiled(make_updates, type(self).step, self.model, layout)

    def _transitions(self, batch: ReplayBatch) -> Transitions:
        ready = self.networks.to_device(batch, self._rows)
        return Transitions(
            observations=ready.observations,
            actions=as_input(self._actions(ready.actions), self.networks.dtype),
            rewards=ready.rewards,
            next_observations=ready.next_observations,
            discounts=ready.discounts,
            weights=ready.weights,
            noise=as_input(self._noise(len(ready.rewards)), self.networks.dtype),
        )

    def _measure(self) -> dict[str, float]:
        return dict(zip(self.statistics_names, self._statistics.tolist(), strict=True))

    def restore_training_state(self, state: StateTree) -> None:
        """Continue as the agent that returned ``state`` would, bit for bit."""
        super().restore_training_state(state)
        # An update that leaves the actor alone reports the actor's latest loss.
        values = [state["diagnostics"].get(name, 0.0) for name in self.statistics_names]
        self._statistics = np.array(values, self.networks.dtype)


def follow(targets: list[Any], online: list[Any], tau: Any) -> list[Any]:
    """Move the share ``tau`` of the way towards the networks (Polyak averaging); all of it is a copy."""
    return [
        tf.where(tau < 0.5, target + tau * (new - target), new - (1.0 - tau) * (new - target))
        for target, new in zip(targets, online, strict=True)
    ]
