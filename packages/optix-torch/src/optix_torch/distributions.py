"""Log-probabilities and entropies of actions, each with its gradient written beside it.

The gradients are what autograd would find (a test holds them to it), in a fifth of its time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

_LOG_2PI = math.log(2 * math.pi)


FORBIDDEN = -1e8
"""Logit of what is not allowed: its probability is exactly 0, its term of the entropy finite, its gradient 0."""


def only_allowed(outputs: Tensor, masks: Tensor | None) -> Tensor:
    """Return logits or values ``[B, A]`` with :data:`FORBIDDEN` where bool masks ``[B, A]`` are False.

    Masks ``[B, 0]``, and None, allow everything. Those of switches are ``[B, 2 A]``, off and on of each side by side: a
    single position that is left has log-odds of that size.
    """
    if masks is None or not masks.shape[1]:
        return outputs
    if masks.shape[1] == outputs.shape[1]:
        return outputs.masked_fill(~masks, FORBIDDEN)
    off, on = masks[:, ::2], masks[:, 1::2]
    return outputs.masked_fill(~off, -FORBIDDEN).masked_fill(~on, FORBIDDEN)


class Evaluation(NamedTuple):
    """Actions judged by a policy.

    Attributes:
        log_probs: ``[B]``.
        entropies: ``[B]``.
        backward: from the loss's gradient with respect to each log-probability ``[B]`` and to every entropy (one
            number) to that of the network's outputs ``[B, out]``; gradients of the distribution's own parameters are
            put into their ``.grad``.
    """

    log_probs: Tensor
    entropies: Tensor
    backward: Callable[[Tensor, float], Tensor]


class Distribution(Protocol):
    """A family of distributions over actions, parametrised by a network's outputs."""

    def evaluate(self, outputs: Tensor, actions: Tensor) -> Evaluation:
        """Judge actions as they are stored in a window, flat: ``[B]`` or ``[B, D]``."""
        ...

    def judge(self, outputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies ``[B]`` as :meth:`evaluate` does, for autograd to differentiate."""
        ...


class Categorical:
    """One discrete action by its logits.

    Args:
        start: the smallest action.
    """

    def __init__(self, start: int = 0) -> None:
        self._start = start

    def evaluate(self, outputs: Tensor, actions: Tensor) -> Evaluation:
        """Judge actions ``[B]`` or ``[B, 1]`` by logits ``[B, A]``.

        ``d log p(a) / d logits = onehot(a) - p`` and ``d H / d logits = -p (log p + H)``.
        """
        index = actions.reshape(-1, 1) - self._start if self._start else actions.reshape(-1, 1)
        log_probs = outputs.log_softmax(1)
        probs = log_probs.exp()
        entropies = (probs * log_probs).sum(1).neg_()

        def backward(d_log_prob: Tensor, d_entropy: float) -> Tensor:
            column = d_log_prob.unsqueeze(1)
            factor = (log_probs + entropies.unsqueeze(1)).mul_(d_entropy).add_(column)
            return factor.mul_(probs).neg_().scatter_add_(1, index, column)

        return Evaluation(log_probs.gather(1, index).squeeze(1), entropies, backward)

    def judge(self, outputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies for autograd."""
        return self.evaluate(outputs, actions)[:2]


class MultiCategorical:
    """Several independent discrete actions, their logits side by side.

    Args:
        nvec: number of choices of each.
        start: smallest value of each.
    """

    def __init__(self, nvec: tuple[int, ...], start: tuple[int, ...]) -> None:
        self._nvec = nvec
        self._parts = [Categorical(low) for low in start]

    def evaluate(self, outputs: Tensor, actions: Tensor) -> Evaluation:
        """Judge actions ``[B, len(nvec)]`` by logits ``[B, sum(nvec)]``: log-probabilities and entropies add up."""
        logits = torch.split(outputs, list(self._nvec), dim=1)
        parts = [part.evaluate(logits[i], actions[:, i]) for i, part in enumerate(self._parts)]

        def backward(d_log_prob: Tensor, d_entropy: float) -> Tensor:
            return torch.cat([part.backward(d_log_prob, d_entropy) for part in parts], dim=1)

        log_probs = torch.stack([part.log_probs for part in parts]).sum(0)
        return Evaluation(log_probs, torch.stack([part.entropies for part in parts]).sum(0), backward)

    def judge(self, outputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies for autograd."""
        return self.evaluate(outputs, actions)[:2]


class Bernoulli:
    """Independent switches, each on (1) or off (0), by their log-odds."""

    def evaluate(self, outputs: Tensor, actions: Tensor) -> Evaluation:
        """Judge actions ``[B, D]`` by logits ``[B, D]``: log-probabilities and entropies add up.

        With ``p = sigmoid(x)``: ``log p(a) = a x - softplus(x)``, ``d log p(a) / d x = a - p``,
        ``H = softplus(x) - p x`` and ``d H / d x = -x p (1 - p)``.
        """
        chosen = actions.reshape(outputs.shape).to(outputs.dtype)
        probs = outputs.sigmoid()
        normaliser = torch.nn.functional.softplus(outputs)

        def backward(d_log_prob: Tensor, d_entropy: float) -> Tensor:
            from_entropy = (probs * (1 - probs)).mul_(outputs).mul_(-d_entropy)
            return (chosen - probs).mul_(d_log_prob.unsqueeze(1)).add_(from_entropy)

        log_probs = (chosen * outputs - normaliser).sum(1)
        return Evaluation(log_probs, (normaliser - probs * outputs).sum(1), backward)

    def judge(self, outputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies for autograd."""
        return self.evaluate(outputs, actions)[:2]


class DiagonalGaussian:
    """Continuous actions: independent Gaussians whose spread does not depend on the observation.

    Densities are those of ``(action - centre) / scale``; the constant factor to the action's own units cancels in every
    ratio.

    Args:
        log_std: ``[D]`` parameter, with ``.grad`` allocated before ``backward`` is called.
        centre: ``[D]`` action that an output of 0 means.
        scale: ``[D]`` length of one unit of output in units of the action.
    """

    def __init__(self, log_std: nn.Parameter, centre: Tensor, scale: Tensor) -> None:
        self._log_std = log_std
        self._centre = centre
        self._scale = scale

    def evaluate(self, outputs: Tensor, actions: Tensor) -> Evaluation:
        """Judge actions ``[B, D]``, or ``[B]`` of one number (unclipped, as drawn) by means ``[B, D]``.

        With ``z = (a - mean) / std``: ``d log p / d mean = z / std``, ``d log p / d log_std = z^2 - 1``,
        ``d H / d log_std = 1``.
        """
        log_std = self._log_std.detach()
        inverse_std = (-log_std).exp()
        z = ((actions.reshape(outputs.shape) - self._centre) / self._scale - outputs) * inverse_std

        def backward(d_log_prob: Tensor, d_entropy: float) -> Tensor:
            column = d_log_prob.unsqueeze(1)
            if self._log_std.requires_grad:
                assert self._log_std.grad is not None
                torch.sum(column * (z.square() - 1), 0, out=self._log_std.grad)
                self._log_std.grad.add_(d_entropy * len(outputs))
            return column * z * inverse_std

        return Evaluation(*self._densities(z, log_std), backward)

    def judge(self, outputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies for autograd."""
        z = ((actions.reshape(outputs.shape) - self._centre) / self._scale - outputs) * (-self._log_std).exp()
        return self._densities(z, self._log_std)

    @staticmethod
    def _densities(z: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        log_probs = z.square().sum(1).mul_(-0.5).sub_(log_std.sum() + 0.5 * _LOG_2PI * len(log_std))
        entropy = log_std.sum() + 0.5 * (1 + _LOG_2PI) * len(log_std)
        return log_probs, entropy.expand(len(z))
