"""What a policy learns besides its network, and how its actions are judged while learning."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from optix_core.policies import Bernoulli, Categorical, DiagonalGaussian, Head, MultiCategorical, SquashedGaussian
from optix_torch import distributions, squashed
from optix_torch._precision import learning_dtype

LOG_STD = "log_std"
"""Name of the parameter that a Gaussian policy has besides its network's."""


def parameters_of(head: Head) -> dict[str, nn.Parameter]:
    """Return new parameters for what a head learns besides its network, by name."""
    if isinstance(head, DiagonalGaussian):
        return {LOG_STD: nn.Parameter(torch.tensor(head.log_std.tolist(), dtype=learning_dtype(), device="cpu"))}
    return {}


def make_distribution(
    head: Head, extra: Mapping[str, nn.Parameter], device: torch.device
) -> distributions.Distribution:
    """Return what judges actions while learning."""
    if isinstance(head, DiagonalGaussian):
        centre, scale = (torch.from_numpy(array).to(device) for array in head.affine)
        return distributions.DiagonalGaussian(extra[LOG_STD], centre, scale)
    if isinstance(head, SquashedGaussian):
        return squashed.SquashedGaussian(*(torch.from_numpy(array).to(device) for array in head.affine))
    if isinstance(head, MultiCategorical):
        return distributions.MultiCategorical(head.nvec, head.start)
    if isinstance(head, Bernoulli):
        return distributions.Bernoulli()
    assert isinstance(head, Categorical)
    return distributions.Categorical(head.start)
