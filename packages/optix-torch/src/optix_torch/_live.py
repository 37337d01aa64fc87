"""Networks that learn, run by whatever can mean what they mean now.

Users register hooks, freeze layers and put in parametrisations while a run goes on. So kernel or autograd is a choice
that is made again whenever something has changed: before acting for what changes a call, and with every window
(:meth:`optix_torch._learned.TorchModules.learning`) for what changes learning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from optix_core.policies import MLP
from optix_protocol import Array
from optix_torch._ensembles import Ensemble, make_ensemble
from optix_torch._plain import Watch
from optix_torch.networks import AutogradRunner, DenseRunner, Runner, host_mlp, make_runner

_TINY_NETWORK = 20_000
"""Below this many parameters NumPy answers a few observations sooner than torch does."""

_FEW_PRODUCTS = 100_000
"""So many multiplications of a layer are few. Beyond some 260,000 NumPy's products would start threads, too."""


class LiveRunner:
    """A network that learns; see :class:`optix_torch.networks.Runner`.

    Args:
        module: the network.
        device: where it is.
        beside: all modules that learn together with it.
        act_in_numpy: let NumPy run a tiny network for a few observations.
        make: chooses how to run it; None takes :func:`optix_torch.networks.make_runner`.

    Attributes:
        chosen: what runs it now.
        host: learns a few rows of a tiny network in NumPy; None where it is not tiny, or no kernel can mean it.
        has_seen_hooks: whether that was chosen while acting, because of hooks that may be gone by the next window.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        *,
        beside: Sequence[nn.Module] = (),
        act_in_numpy: bool = False,
        make: Callable[[], Runner] | None = None,
    ) -> None:
        self._module = module
        tiny = sum(parameter.numel() for parameter in module.parameters()) < _TINY_NETWORK
        self._in_numpy = act_in_numpy and tiny and device.type == "cpu"
        self._make = make or (lambda: make_runner(module, device, beside=beside))
        self.chosen: Runner
        self.choose()

    def choose(self) -> None:
        """Choose anew."""
        self.has_seen_hooks = False
        self._watch = Watch([self._module])
        self.chosen = self._make()
        self.forward, self.backward, self.infer = self.chosen.forward, self.chosen.backward, self.chosen.infer
        self._by_kernel = not isinstance(self.chosen, AutogradRunner)
        self.host = self.chosen.on_host() if self._in_numpy and isinstance(self.chosen, DenseRunner) else None
        self._act = _sooner(host_mlp(self._module) if self._in_numpy else None, self.chosen.act)

    def act(self, rows: Array) -> Array:
        """Return outputs as NumPy, for acting; the array may be overwritten by the next call."""
        self._see_hooks()
        return self._act(rows)

    def frozen_copy(self) -> Runner:
        """Return a runner of a copy of the network as it is now, for acting only."""
        self._see_hooks()
        return self.chosen.frozen_copy()

    def _see_hooks(self) -> None:
        if self._by_kernel and self._watch.calls_differently():
            self.choose()
            self.has_seen_hooks = True


def _sooner(host: MLP | None, otherwise: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Return what answers by NumPy where rows are few, and otherwise as always."""
    if host is None:
        return otherwise
    few = _FEW_PRODUCTS // max(weight.size for weight in host.weights)
    return lambda rows: host(rows) if len(rows) <= few else otherwise(rows)


class LiveEnsemble:
    """Networks that learn and run together; see :class:`optix_torch._ensembles.Ensemble`.

    Args:
        networks: as :func:`optix_torch._ensembles.make_ensemble` takes them, like the next two.
        device: where they are.
        precision: of products.
        beside: all modules that learn together.
    """

    def __init__(
        self, networks: Sequence[nn.Module], device: torch.device, precision: str, *, beside: Sequence[nn.Module]
    ) -> None:
        self._make: Callable[[], Ensemble] = lambda: make_ensemble(networks, device, precision, beside=beside)
        self.choose()

    def choose(self) -> None:
        """Choose anew."""
        chosen = self._make()
        self.forward, self.judge, self.infer = chosen.forward, chosen.judge, chosen.infer
        self.backward, self.input_gradient = chosen.backward, chosen.input_gradient

    has_seen_hooks = False
    forward: Callable[..., Tensor]
    judge: Callable[..., Tensor]
    infer: Callable[..., Tensor]
    backward: Callable[[Tensor], None]
    input_gradient: Callable[[Tensor], Tensor]
