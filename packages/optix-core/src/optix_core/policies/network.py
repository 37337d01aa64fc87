"""A policy put together from an encoder, a normaliser, a network and a head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from optix_core.data.normalizers import ObsNormalizer
from optix_core.policies.encoders import Encoder, encoded, encoder_from_tree
from optix_core.policies.heads import Head, MaskableHead, head_from_tree
from optix_core.policies.masks import checked_mask
from optix_core.policies.mlp import MLP
from optix_core.policies.recurrent import RecurrentNetwork, RecurrentPolicy
from optix_protocol import ActionDistribution, Array, PolicyMode, StateTree

_FORMAT = 1
_RECURRENT_FORMAT = 2


class NetworkPolicy:
    """Acts through a feed-forward network, whatever computes it (NumPy, or a framework behind a function).

    Args:
        encoder: turns observations into rows.
        network: maps rows ``[N, D]`` float32 to outputs ``[N, out]``.
        head: turns outputs into actions.
        normalizer: applied to the rows, or None.
        mode: ``"greedy"`` or ``"sample"``.
        rng: random numbers for sampling.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        network: Callable[[Array], Array],
        head: Head,
        normalizer: ObsNormalizer | None = None,
        mode: PolicyMode,
        rng: np.random.Generator,
    ) -> None:
        self._encoder = encoder
        self._network = network
        self._head = head
        self._normalizer = normalizer
        self._mode = mode
        self._rng = rng

    def act(self, observations: Array) -> Array:
        """Choose one action ``[N, *act]`` for each observation ``[N, *obs]``."""
        outputs = self.outputs(observations)
        return self._head.greedy(outputs) if self._mode == "greedy" else self._head.sample(outputs, self._rng)

    def reset(self, done: Array | None = None) -> None:
        """Do nothing: the policy remembers nothing."""

    def outputs(self, observations: Array) -> Array:
        """Return the network's outputs ``[N, out]`` for observations ``[N, *obs]``."""
        return self._network(encoded(self._encoder, self._normalizer, observations))

    def distribution(self, observations: Array) -> ActionDistribution:
        """Return the distribution over actions for observations ``[N, *obs]``."""
        return self._head.distribution(self.outputs(observations))


class MaskablePolicy(NetworkPolicy):
    """A policy of discrete actions, of which some may be forbidden (:class:`optix_protocol.SupportsActionMasks`)."""

    _head: MaskableHead

    def act_masked(self, observations: Array, mask: Array) -> Array:
        """Choose one action ``[N, *act]`` for each observation ``[N, *obs]``, of those that the mask allows.

        Args:
            observations: ``[N, *obs]``.
            mask: bool ``[N, A]``.

        Raises:
            ConfigError: (a ``ValueError``) a mask of another shape, or a row that allows nothing.
        """
        outputs = self.outputs(observations)
        mask = checked_mask(mask, len(outputs), self._head.parts(outputs))
        if self._mode == "greedy":
            return self._head.greedy(outputs, mask)
        return self._head.sample(outputs, self._rng, mask)


def network_policy(**parts: Any) -> NetworkPolicy:
    """Return a feed-forward policy, one that takes masks where its actions are discrete."""
    is_discrete = isinstance(parts["head"], MaskableHead)
    return MaskablePolicy(**parts) if is_discrete else NetworkPolicy(**parts)


def policy_tree(
    encoder: Encoder, network: MLP | RecurrentNetwork, head: Head, normalizer: ObsNormalizer | None
) -> dict[str, Any]:
    """Return a policy as arrays and JSON scalars, what an agent's ``host_policy()`` gives out.

    The network's input is ``clip((rows - mean) / sqrt(var + epsilon), -clip, clip)`` where there is a normaliser.
    """
    tree: dict[str, Any] = {"format": _FORMAT, "encoder": encoder.tree(), "layers": network.tree(), "head": head.tree()}
    if isinstance(network, RecurrentNetwork):
        tree["format"] = _RECURRENT_FORMAT
    if normalizer is not None:
        settings = {"clip": normalizer.clip, "epsilon": normalizer.epsilon}
        tree["normalizer"] = {**normalizer.state(), **settings}
    return tree


def policy_from_tree(tree: StateTree, *, mode: PolicyMode = "greedy", seed: int = 0) -> NetworkPolicy | RecurrentPolicy:
    """Return the policy whose :func:`policy_tree` this is, in plain NumPy.

    Raises:
        ValueError: written by a newer version, or damaged.
    """
    encoder, normalizer, network, head = parts_from_tree(tree)
    rng = np.random.default_rng(seed)
    if isinstance(network, MLP):
        return network_policy(encoder=encoder, network=network, head=head, normalizer=normalizer, mode=mode, rng=rng)
    return RecurrentPolicy(encoder=encoder, network=network, head=head, normalizer=normalizer, mode=mode, rng=rng)


def parts_from_tree(tree: StateTree) -> tuple[Encoder, ObsNormalizer | None, MLP | RecurrentNetwork, Head]:
    """Return what a policy is made of, given its :func:`policy_tree`.

    Raises:
        ValueError: written by a newer version, or damaged.
    """
    if tree.get("format") not in (_FORMAT, _RECURRENT_FORMAT):
        raise ValueError(f"Policy format {tree.get('format')} is none of 1 and 2; update optix-core.")
    normalizer = None
    if "normalizer" in tree:
        stored = tree["normalizer"]
        normalizer = ObsNormalizer(stored["mean"].shape, clip=stored["clip"], epsilon=stored["epsilon"])
        normalizer.restore(stored)
    kind = RecurrentNetwork if tree["format"] == _RECURRENT_FORMAT else MLP
    network = kind.from_tree(tree["layers"])
    return encoder_from_tree(tree["encoder"]), normalizer, network, head_from_tree(tree["head"])
