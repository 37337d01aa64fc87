"""The boundary between torch and NumPy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from optix_core.errors import ConfigError
from optix_protocol import Array


def resolve_device(name: str) -> torch.device:
    """Return the device for ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"auto"`` (a GPU if there is one).

    Raises:
        ConfigError: unknown, or not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"Unknown device '{name}'; use cpu, cuda or auto.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("There is no CUDA device here; use device='cpu' or 'auto'.")
    return device


def as_tensor(array: Array, device: torch.device) -> Tensor:
    """Return an array as a tensor, sharing memory where possible; float64 becomes float32."""
    if array.dtype.char == "d":
        array = array.astype(np.float32)
    if not array.flags.carray:
        array = array.copy(order="C")
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.to(device)
