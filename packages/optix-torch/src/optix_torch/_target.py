"""Slow copies of networks."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from optix_torch._modes import copies_of
from optix_torch._optimizers import FlatParameters


class Target:
    """Copies of networks that follow them, for stable value targets; they judge only, in eval mode.

    Args:
        networks: what to copy; copies share what the networks share.
        parameters: all parameters of these networks, and of no others, in one vector.
    """

    def __init__(self, networks: list[nn.Module], parameters: FlatParameters) -> None:
        self._networks = networks
        self.networks = [network.requires_grad_(False).eval() for network in copies_of(networks)]
        copies = dict(zip(parameters_of(networks), parameters_of(self.networks), strict=True))
        self.parameters = FlatParameters(copies[parameter] for parameter in parameters.parameters)
        self._online = parameters
        self._has_buffers = bool(_buffers(networks))  # slow to find out; none can come later

    def copy(self) -> None:
        """Become equal to the networks."""
        self.parameters.vector.copy_(self._online.vector)
        self._copy_buffers()

    def follow(self, tau: float) -> None:
        """Move the share ``tau`` of the way towards the networks (Polyak averaging).

        Buffers, a BatchNorm's statistics say, are averages themselves and become equal.
        """
        self.parameters.vector.lerp_(self._online.vector, tau)
        self._copy_buffers()

    def buffers(self) -> dict[str, Tensor]:
        """Return the buffers that belong to the state of the copies, by name."""
        return _buffers(self.networks)

    def _copy_buffers(self) -> None:
        if self._has_buffers:
            for name, buffer in _buffers(self._networks).items():
                self.buffers()[name].copy_(buffer)


def parameters_of(modules: Iterable[nn.Module]) -> Iterable[nn.Parameter]:
    """Return the parameters of modules, each once."""
    return dict.fromkeys(parameter for module in modules for parameter in module.parameters())


def _buffers(modules: Iterable[nn.Module]) -> dict[str, Tensor]:
    """Return what belongs to the state of modules besides their parameters, by name."""
    return {
        f"{number}.{name}": tensor
        for number, module in enumerate(modules)
        for name, tensor in module.state_dict(keep_vars=True).items()
        if isinstance(tensor, Tensor) and not isinstance(tensor, nn.Parameter)
    }
