"""The end of a policy network: what its outputs mean for an action space, while acting and while learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from optix_core.errors import ConfigError
from optix_core.policies import Categorical, DiagonalGaussian, Head, MultiCategorical
from optix_protocol import Array
from optix_torch import distributions

LOG_STD = "log_std"
"""Name of the parameter that a Gaussian policy has besides its network's."""


def num_outputs_for(action_space: Any) -> int:
    """Return how many outputs a network needs for the actions of a space: logits, or one mean per dimension."""
    if hasattr(action_space, "n"):
        return int(action_space.n)
    return int(np.sum(action_space.nvec)) if hasattr(action_space, "nvec") else int(np.prod(action_space.shape))


def make_head(
    action_space: Any, num_outputs: int, *, log_std_init: float, continuous: bool = False
) -> tuple[Head, dict[str, nn.Parameter]]:
    """Return the head for an action space, and the parameters that it learns, by name.

    Args:
        action_space: of a single environment; None stands for discrete actions from 0, or for continuous ones in units
            of their own.
        num_outputs: width of the network's outputs.
        log_std_init: first logarithm of a Gaussian's deviations.
        continuous: which of the two None stands for.

    Raises:
        ConfigError: the network has another number of outputs than the space needs.
    """
    if action_space is not None and num_outputs_for(action_space) != num_outputs:
        raise ConfigError(f"The actor has {num_outputs} outputs, {action_space} needs another number.")
    if action_space is None and not continuous:
        return Categorical(), {}
    if hasattr(action_space, "nvec"):
        nvec, start = action_space.nvec.reshape(-1), action_space.start.reshape(-1)
        return MultiCategorical(nvec=tuple(map(int, nvec)), start=tuple(map(int, start))), {}
    if hasattr(action_space, "n"):
        return Categorical(start=int(action_space.start)), {}
    unbounded = np.full(num_outputs, np.inf, np.float32)
    low, high, shape = -unbounded, unbounded, (num_outputs,)
    if action_space is not None:
        low, high, shape = action_space.low.reshape(-1), action_space.high.reshape(-1), action_space.shape
    log_std = nn.Parameter(torch.full((num_outputs,), log_std_init))
    return DiagonalGaussian(low=low, high=high, shape=shape, log_std=_host(log_std)), {LOG_STD: log_std}


def live_head(head: Head, extra: Mapping[str, nn.Parameter]) -> Head:
    """Return the head for acting while learning: on the parameters as they are, without clipping."""
    if isinstance(head, DiagonalGaussian):
        return replace(head, log_std=_host(extra[LOG_STD]), clip=False)
    return head


def frozen_head(head: Head, extra: Mapping[str, nn.Parameter]) -> Head:
    """Return the head of policies for others: on a copy of the parameters."""
    if isinstance(head, DiagonalGaussian):
        return replace(head, log_std=_host(extra[LOG_STD]).copy())
    return head


def make_distribution(
    head: Head, extra: Mapping[str, nn.Parameter], device: torch.device
) -> distributions.Distribution:
    """Return what judges actions while learning."""
    if isinstance(head, DiagonalGaussian):
        centre, scale = (torch.from_numpy(array).to(device) for array in head.affine)
        return distributions.DiagonalGaussian(extra[LOG_STD], centre, scale)
    if isinstance(head, MultiCategorical):
        return distributions.MultiCategorical(head.nvec, head.start)
    assert isinstance(head, Categorical)
    return distributions.Categorical(head.start)


def _host(parameter: nn.Parameter) -> Array:
    """Return a parameter as NumPy: a view in main memory, a copy from a device."""
    array: Array = parameter.detach().cpu().numpy()
    return array
