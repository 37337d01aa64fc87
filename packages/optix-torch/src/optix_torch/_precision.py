"""The precision that agents learn in, whatever an environment makes torch's default."""

from __future__ import annotations

import torch

from optix_core.errors import ConfigError

PRECISION = torch.float32
"""Tests that compare frameworks to the last digits learn in float64."""


def learning_dtype() -> torch.dtype:
    """Return the type of parameters, gradients and statistics."""
    return PRECISION


def require_learnable(parameter: torch.Tensor) -> None:
    """Raise ``ConfigError`` unless a parameter has the type that agents learn in, and can have a gradient."""
    if parameter.is_inference():
        raise ConfigError(
            "The networks were made in torch.inference_mode(), where nothing can be learned: leave it before (an "
            "environment may have entered it for all that comes after)."
        )
    if parameter.dtype is not PRECISION:
        raise ConfigError(
            f"The networks have parameters of {parameter.dtype}, and agents learn in "
            f"{str(PRECISION).removeprefix('torch.')}: call network.float() first."
        )
