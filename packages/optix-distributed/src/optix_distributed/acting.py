"""The policy that acts beside the learner: plain NumPy, with the log-probability of everything it does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from optix_core.data import ObsNormalizer
from optix_core.errors import AgentError
from optix_core.policies import MLP, DiagonalGaussian, Encoder, Head, RecurrentNetwork
from optix_core.policies.encoders import encoded
from optix_core.policies.heads import MaskableHead
from optix_core.policies.log_probs import log_probs_of
from optix_core.policies.masks import checked_mask
from optix_core.policies.network import parts_from_tree
from optix_protocol import Array, RecurrentState, StateTree


class HostActor:
    """Draws actions by whatever weights it was last given, and can say how probable they were.

    A pipeline takes it for an agent: it has ``act`` and ``act_masked``.

    Args:
        policy: what an agent's ``host_policy()`` returns, with the weights of the moment.
        seed: of exploration.
        on_act: called before every step.

    Attributes:
        acting_s: seconds spent in acting so far.
        wants_infos: whether windows shall hold what environments say in their ``info``, which a pipeline asks for.
    """

    wants_infos = False

    encoder: Encoder
    normalizer: ObsNormalizer | None
    head: Head

    def __init__(self, policy: StateTree, *, seed: int, on_act: Callable[[], None] = lambda: None) -> None:
        self._rng = np.random.default_rng(seed)
        self._on_act = on_act
        self.acting_s = 0.0
        self.take(policy)

    def take(self, policy: StateTree) -> None:
        """Act by these weights from now on; the arrays are used as they are."""
        self.encoder, self.normalizer, self.network, head = parts_from_tree(policy)
        # A learner judges what was drawn; the environment's border is where actions are clipped.
        self.head = replace(head, clip=False) if isinstance(head, DiagonalGaussian) else head
        self._outputs: list[Array] = []
        self._masks: list[Array | None] = []

    def act(self, observations: Array) -> Array:
        """Draw actions ``[N, *act]`` for observations ``[N, *obs]``."""
        return self._draw(observations, None)

    def act_masked(self, observations: Array, mask: Array) -> Array:
        """Draw actions among those that a mask ``[N, A]`` allows."""
        return self._draw(observations, mask)

    def _draw(self, observations: Array, mask: Array | None) -> Array:
        began = time.perf_counter()
        self._on_act()
        assert isinstance(self.network, MLP)
        actions = self._note(self.network(self._rows(observations)), mask)
        self.acting_s += time.perf_counter() - began
        return actions

    def _rows(self, observations: Array) -> Array:
        return encoded(self.encoder, self.normalizer, observations)

    def _note(self, outputs: Array, mask: Array | None) -> Array:
        if mask is None:
            actions = self.head.sample(outputs, self._rng)
        else:
            assert isinstance(self.head, MaskableHead)
            mask = checked_mask(mask, len(outputs), self.head.parts(outputs))
            actions = self.head.sample(outputs, self._rng, mask)
        self._outputs.append(outputs)
        self._masks.append(mask)
        return actions

    def log_probs(self, actions: Array) -> Array:
        """Return the log-probabilities ``[T, N]`` of all actions ``[T, N, *act]`` since the last :meth:`take`."""
        T, N = actions.shape[:2]
        outputs = np.concatenate(self._outputs)
        mask = None
        if any(known is not None for known in self._masks):
            like = next(known for known in self._masks if known is not None)
            mask = np.concatenate([np.ones_like(like) if known is None else known for known in self._masks])
        found = log_probs_of(self.head, outputs, actions.reshape(T * N, *actions.shape[2:]), mask)
        return found.reshape(T, N).astype(np.float32)


class RecurrentHostActor(HostActor):
    """The same with a memory, which the pipeline keeps; see :class:`optix_protocol.SupportsRecurrentState`."""

    act_masked = None  # type: ignore[assignment]  # recurrent policies take no masks

    def initial_state(self, num_envs: int) -> RecurrentState:
        """Return the memory of episodes that have just begun."""
        assert isinstance(self.network, RecurrentNetwork)
        return self.network.initial_state(num_envs)

    def act_with_state(self, observations: Array, state: RecurrentState) -> tuple[Array, RecurrentState]:
        """Draw actions ``[N, *act]``, and return what is remembered now."""
        began = time.perf_counter()
        self._on_act()
        assert isinstance(self.network, RecurrentNetwork)
        outputs, state = self.network(self._rows(observations), state)
        actions = self._note(outputs, None)
        self.acting_s += time.perf_counter() - began
        return actions, state


def make_actor(policy: StateTree, *, seed: int, on_act: Callable[[], None] = lambda: None) -> HostActor:
    """Return what acts by a policy.

    Raises:
        AgentError: it is none of a stochastic policy.
    """
    kind = parts_from_tree(policy)[3]
    if not isinstance(kind, DiagonalGaussian) and kind.tree()["kind"] in ("epsilon_greedy", "squashed_gaussian"):
        raise AgentError(f"Actors draw from a policy with log-probabilities; this one ends in {kind.tree()['kind']}.")
    remembers = isinstance(parts_from_tree(policy)[2], RecurrentNetwork)
    return (RecurrentHostActor if remembers else HostActor)(policy, seed=seed, on_act=on_act)
