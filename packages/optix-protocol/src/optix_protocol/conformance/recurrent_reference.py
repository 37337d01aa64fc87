"""The reference agent with a memory: what an agent with the capability "recurrent_state" has to do, in plain NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from optix_protocol.capabilities import PolicyMode
from optix_protocol.conformance.reference import ReferenceAgent, ReferencePolicy, linear_features
from optix_protocol.types import Array, EpisodeData, RecurrentState, StateTree

__all__ = ["RecurrentReferenceAgent"]


class RecurrentReferenceAgent(ReferenceAgent):
    """Advantage actor-critic on an echo-state network (Jaeger 2001).

    ``h <- tanh(x A + h B)`` with fixed random matrices. Actor and critic are linear in ``(x, h)``, so nothing has to be
    differentiated through time. Arguments as in :class:`ReferenceAgent`.
    """

    _num_memories = 8
    act_masked = None  # type: ignore[assignment]  # an agent that remembers acts through act_with_state

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        num_inputs = len(self._weights["critic"]) - self._num_memories
        draw = np.random.default_rng(options.get("seed", 0)).normal
        self._weights["inputs"] = draw(0.0, 0.5, (num_inputs, self._num_memories))
        self._weights["echo"] = draw(0.0, 0.3, (self._num_memories, self._num_memories))

    def initial_state(self, num_envs: int) -> RecurrentState:
        """Return a memory of nothing, ``{"h": [N, 8]}``."""
        return {"h": np.zeros((num_envs, self._num_memories))}

    def act_with_state(self, observations: Array, state: RecurrentState) -> tuple[Array, RecurrentState]:
        """Sample actions ``[N, *act]`` and remember the observations ``[N, *obs]``."""
        seen = with_memory(linear_features(observations, self._weights), state["h"], self._weights)
        return self._head.sample(seen @ self._weights["actor"], self._rng), {"h": seen[:, -self._num_memories :]}

    def make_policy(self, mode: PolicyMode, *, num_envs: int, seed: int) -> RecurrentReferencePolicy:
        """Return a frozen copy of the current policy with a memory of its own."""
        return RecurrentReferencePolicy(self._head, self._weights, mode, seed, self.initial_state(num_envs))

    def host_policy(self) -> StateTree | None:
        """Return None: it is no network that ``optix_core.policies`` can run."""
        return None

    def _outputs(self, observations: Array) -> Array:
        h = self.initial_state(len(observations))["h"]
        outputs: Array = (
            with_memory(linear_features(observations, self._weights), h, self._weights) @ self._weights["actor"]
        )
        return outputs

    def _window_features(self, window: EpisodeData) -> tuple[Array, Array]:
        """Remember through the window as acting did: from its initial state, anew where an episode starts."""
        if window.initial_state is None:
            raise ValueError(
                "the window has no initial_state: collect it with a pipeline that knows of recurrent state."
            )
        x, next_x = super()._window_features(window)
        seen, h = [], window.initial_state["h"]
        for t in range(window.num_steps):
            h = np.where(window.episode_starts[t, :, None], 0.0, h)
            seen.append(with_memory(x[t], h, self._weights))
            h = seen[-1][:, -self._num_memories :]
        rows = np.stack(seen)
        return rows, with_memory(next_x, rows[..., -self._num_memories :], self._weights)


class RecurrentReferencePolicy(ReferencePolicy):
    """A frozen copy of the actor, its random numbers and its memory; the memory can be handed in, too."""

    act_masked = None  # type: ignore[assignment]

    def __init__(
        self, head: Any, weights: Mapping[str, Array], mode: PolicyMode, seed: int, state: RecurrentState
    ) -> None:
        super().__init__(head, weights, mode, seed)
        self._state = state

    def act(self, observations: Array) -> Array:
        """Choose one action ``[N, *act]`` per observation ``[N, *obs]`` and remember it."""
        actions, self._state = self.act_with_state(observations, self._state)
        return actions

    def reset(self, done: Array | None = None) -> None:
        """Forget the environments that are done, or all."""
        h = self._state["h"]
        self._state = {"h": np.where(np.ones(len(h), np.bool_)[:, None] if done is None else done[:, None], 0.0, h)}

    def initial_state(self, num_envs: int) -> RecurrentState:
        """Return a memory of nothing."""
        return {"h": np.zeros((num_envs, self._state["h"].shape[1]))}

    def act_with_state(self, observations: Array, state: RecurrentState) -> tuple[Array, RecurrentState]:
        """Act with the memory that is handed in, and return what is remembered afterwards."""
        seen = with_memory(linear_features(observations, self._weights), state["h"], self._weights)
        outputs = seen @ self._weights["actor"]
        actions = self._head.greedy(outputs) if self._mode == "greedy" else self._head.sample(outputs, self._rng)
        return actions, {"h": seen[:, -state["h"].shape[1] :]}


def with_memory(x: Array, h: Array, weights: Mapping[str, Array]) -> Array:
    """Return ``(x, tanh(x A + h B))`` side by side, ``[..., D + 1 + 8]``."""
    return np.concatenate([x, np.tanh(x @ weights["inputs"] + h @ weights["echo"])], axis=-1)
