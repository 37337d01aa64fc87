"""Actions of a Gaussian through tanh, judged from where they lie in their range: for PPO and its kin.

SAC draws its actions anew and lets gradients flow through the draw (:func:`optix_torch.algorithms.sac.draw`); here the
actions are those that a window holds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from optix_core.policies.heads import LOG_STD_RANGE
from optix_core.policies.squashing import EDGE, quadrature
from optix_torch.distributions import Evaluation

_LOG_2PI = math.log(2 * math.pi)


class _Judged(NamedTuple):
    """What log-probabilities, entropies and their gradients are made of, ``[B, D]`` each; ``points`` ``[B, D, K]``."""

    z: Tensor
    mean: Tensor
    raw_log_std: Tensor
    log_std: Tensor
    std: Tensor
    points: Tensor
    log_slope: Tensor


class SquashedGaussian:
    """Continuous actions: a Gaussian through tanh, whose means and deviations the network gives.

    Densities are those of ``(action - centre) / scale``, which lies within -1 to 1; see
    :mod:`optix_core.policies.squashing`.

    Args:
        centre: ``[D]`` middle of the range.
        scale: ``[D]`` half its width.
    """

    def __init__(self, centre: Tensor, scale: Tensor) -> None:
        self._centre, self._scale = centre, scale
        self._z, self._weights = (torch.from_numpy(array).to(centre.device) for array in quadrature())

    def evaluate(self, outputs: Tensor, actions: Tensor) -> Evaluation:
        """Judge actions ``[B, D]`` by outputs ``[B, 2 D]``: means, then logarithms of standard deviations.

        With ``u = artanh(a)`` and ``z = (u - mean) / std``: ``d log p / d mean = z / std`` and
        ``d log p / d log_std = z^2 - 1``. With quadrature points ``u_k = mean + std z_k`` and weights ``w_k``:
        ``d H / d mean = -2 sum w_k tanh(u_k)`` and ``d H / d log_std = 1 - 2 sum w_k tanh(u_k) std z_k``.
        """
        judged = self._judge(outputs, actions)

        def backward(d_log_prob: Tensor, d_entropy: float) -> Tensor:
            column = d_log_prob.unsqueeze(1)
            slopes = judged.points.tanh().mul_(self._weights * (-2.0 * d_entropy))
            d_mean = column * judged.z / judged.std + slopes.sum(2)
            d_log_std = column * (judged.z.square() - 1) + (d_entropy + (slopes * self._z).sum(2) * judged.std)
            return torch.cat([d_mean, d_log_std * (judged.raw_log_std == judged.log_std)], dim=1)

        return Evaluation(*self._densities(judged), backward)

    def judge(self, outputs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies ``[B]`` for autograd."""
        return self._densities(self._judge(outputs, actions))

    def _judge(self, outputs: Tensor, actions: Tensor) -> _Judged:
        mean, raw_log_std = outputs.chunk(2, dim=1)
        log_std = raw_log_std.clamp(*LOG_STD_RANGE)
        std = log_std.exp()
        unit = ((actions - self._centre) / self._scale).clamp(EDGE - 1.0, 1.0 - EDGE)
        z = (unit.atanh() - mean) / std
        points = mean.unsqueeze(2) + std.unsqueeze(2) * self._z
        return _Judged(z, mean, raw_log_std, log_std, std, points, torch.log1p(-unit.square()))

    def _densities(self, judged: _Judged) -> tuple[Tensor, Tensor]:
        log_probs = -0.5 * judged.z.square() - judged.log_std - (0.5 * _LOG_2PI) - judged.log_slope
        expected = (
            2.0 * (math.log(2.0) - judged.points - nn.functional.softplus(-2.0 * judged.points))
        ) @ self._weights
        entropies = judged.log_std + 0.5 * (1.0 + _LOG_2PI) + expected
        return log_probs.sum(1), entropies.sum(1)
