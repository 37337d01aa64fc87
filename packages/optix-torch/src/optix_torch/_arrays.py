"""The boundary between torch and everything else: arrays, flat parameters, optimiser state as plain trees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    if not (array.flags.writeable and array.flags.c_contiguous):
        array = array.copy(order="C")
    return torch.from_numpy(array).to(device)


class FlatParameters:
    """Parameters and their gradients laid out in one vector each, so that clipping and Adam are single operations.

    The parameters stay the modules' own; their memory moves into the vector.

    Attributes:
        vector: ``[P]`` as an ``nn.Parameter`` whose ``grad`` is the flat gradient.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        unique = list(dict.fromkeys(parameters))
        sizes = [parameter.numel() for parameter in unique]
        device = unique[0].device
        self.vector = nn.Parameter(torch.empty(sum(sizes), device=device))
        self.gradient = self.vector.grad = torch.zeros(sum(sizes), device=device)
        places = zip(unique, torch.split(self.vector.data, sizes), torch.split(self.gradient, sizes), strict=True)
        for parameter, value, gradient in places:
            value.copy_(parameter.data.reshape(-1))
            parameter.data = value.view(parameter.shape)
            parameter.grad = gradient.view(parameter.shape)

    def clip_gradient_(self, max_norm: float) -> Tensor:
        """Scale the gradient down to a largest norm and return the norm before, without waiting for the device."""
        norm: Tensor = torch.linalg.vector_norm(self.gradient)
        self.gradient.mul_((max_norm / (norm + 1e-6)).clamp_(max=1.0))
        return norm


def optimizer_tree(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return what an optimiser remembers of each parameter as arrays and JSON scalars; settings stay out."""
    return {
        str(index): {name: _to_leaf(value) for name, value in entries.items()}
        for index, entries in optimizer.state_dict()["state"].items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tree: Mapping[str, Any]) -> None:
    """Make an optimiser of the same kind remember what :func:`optimizer_tree` returned."""
    state = {
        int(index): {name: _from_leaf(value) for name, value in entries.items()} for index, entries in tree.items()
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _to_leaf(value: Any) -> Any:
    return value.detach().cpu().numpy().copy() if isinstance(value, Tensor) else value


def _from_leaf(value: Any) -> Any:
    return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
