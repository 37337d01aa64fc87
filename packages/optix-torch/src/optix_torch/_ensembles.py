"""Networks of the same shape that run together: the twin critics of SAC and TD3, and actors as ensembles of one.

Dense networks are run by hand-written kernels, everything else by autograd. What the kernels bring, measured on CPUs
with 256 x 256 networks and batches of 256: the critic's weight gradients, which the actor's loss does not need, are not
computed, nor is what a row of zeros would only multiply; nothing is recorded. Where there is AVX-512, oneDNN's fused
linear layer, which torch's own ``Linear`` does not use for float32, takes half the time of the default matrix product
on AMD processors; without AVX-512 the default product is faster by a tenth to a fourth. On a GPU the members are one
batched product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import zip_longest
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from optix_core.errors import ConfigError
from optix_torch._modes import in_eval_mode
from optix_torch._plain import DenseLayer, can_write_gradients, dense_layers
from optix_torch.networks import backward_of_sum

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Of matrix products, by the hyperparameter ``precision``; parameters and losses are always float32."""


class Ensemble(Protocol):
    """Runs ``K`` networks on the same inputs; several inputs (observations, actions) are put side by side.

    ``forward`` may be followed by one ``backward``, and ``judge`` by one ``input_gradient``.
    """

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return outputs ``[K, B, out]`` float32 and remember what the parameters' gradients need."""
        ...

    def judge(self, *inputs: Tensor) -> Tensor:
        """Return outputs ``[K, B, out]`` float32, in eval mode, and remember what the input's gradient needs."""
        ...

    def infer(self, *inputs: Tensor) -> Tensor:
        """Return outputs ``[K, B, out]`` float32; what ``forward`` remembers stays."""
        ...

    def backward(self, gradient: Tensor) -> None:
        """Write the parameters' ``.grad``, given the gradient of the last outputs ``[K, B, out]``."""
        ...

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """Return the gradient of the last of the inputs, the members' added up; the parameters' stays as it is."""
        ...


def interleaved(networks: Sequence[nn.Module]) -> Iterator[nn.Parameter]:
    """Yield the parameters layer by layer, so that in one vector those of each layer lie side by side."""
    for group in zip_longest(*(network.parameters() for network in networks)):
        yield from (parameter for parameter in group if parameter is not None)


def make_ensemble(
    networks: Sequence[nn.Module],
    device: torch.device,
    precision: str = "fp32",
    *,
    beside: Sequence[nn.Module] = (),
) -> Ensemble:
    """Choose the fastest way to run networks, as they are now, whose parameters lie :func:`interleaved` in one vector.

    Args:
        networks: the networks.
        device: where they are.
        precision: of products, a name in :data:`DTYPES`.
        beside: all modules that learn together with them; none but themselves by default.

    Raises:
        ConfigError: bfloat16 on a CPU that would have to emulate it.
    """
    dtype = DTYPES[precision]
    if dtype is torch.bfloat16 and device.type == "cpu" and not has_bf16():
        raise ConfigError("This CPU has no bfloat16 arithmetic (avx512_bf16 or amx); use precision='fp32'.")
    layers = [dense_layers(network) for network in networks]
    chains = [chain for chain in layers if chain and all(layer.activation in _KERNELS for layer in chain)]
    parameters = [p for chain in chains for layer in chain for p in (layer.linear.weight, layer.linear.bias)]
    if len(chains) < len(networks) or not can_write_gradients(parameters, beside or networks):
        return ModuleEnsemble(networks, device, dtype)
    alike = all(_shapes(chain) == _shapes(chains[0]) for chain in chains)
    if device.type != "cpu" and not alike:
        return ModuleEnsemble(networks, device, dtype)
    if device.type == "cpu":
        return DenseEnsemble([_Chain(chain, dtype) for chain in chains])
    return DenseEnsemble([_BatchedChain(chains, dtype)])


def _shapes(chain: Sequence[DenseLayer]) -> list[Any]:
    return [(layer.linear.weight.shape, layer.activation) for layer in chain]


def has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 natively."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(available and torch.cpu._is_avx512_bf16_supported())


# ---- dense networks -------------------------------------------------------------------------------------------------

_KERNELS = ("identity", "relu", "tanh")

_ONEDNN_LINEAR: Callable[..., Any] | None = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
    else None
)
"""``linear(x, weight, bias, activation, [], "")``, where torch was built with oneDNN and the CPU has AVX-512."""

_WORTH_ONEDNN = 1_000_000
"""Below so many multiplications the default product, which starts sooner, is faster."""

_WORTH_SELECTING = 1_000_000
"""Below so many multiplications all rows are sooner multiplied than some selected."""

_MANY_ROWS = 0.75
"""Above this share of rows it is sooner done with all of them than with a selection."""


class DenseEnsemble:
    """Members run one after another (CPU), or all at once as one chain of batched products (GPU).

    Args:
        chains: a chain for each member, or one batched chain for all.
    """

    def __init__(self, chains: Sequence[_Chain]) -> None:
        self._chains = chains
        self._batched = isinstance(chains[0], _BatchedChain)
        self._last_width = 0

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return outputs ``[K, B, out]``."""
        x = self._side_by_side(inputs)
        self._last_width = inputs[-1].shape[1]
        return self._together([chain.forward(x) for chain in self._chains])

    def judge(self, *inputs: Tensor) -> Tensor:
        """Return outputs ``[K, B, out]``."""
        return self.forward(*inputs)

    def infer(self, *inputs: Tensor) -> Tensor:
        """Return outputs ``[K, B, out]``."""
        x = self._side_by_side(inputs)
        return self._together([chain.infer(x)[-1] for chain in self._chains])

    def backward(self, gradient: Tensor) -> None:
        """Write the parameters' gradients."""
        for chain, part in zip(self._chains, self._apart(gradient), strict=True):
            chain.backward(part)

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """Return ``[B, in]`` of the last input."""
        pairs = zip(self._chains, self._apart(gradient), strict=True)
        parts = [chain.input_gradient(part)[..., -self._last_width :] for chain, part in pairs]
        return self._together(parts).sum(0)

    @staticmethod
    def _side_by_side(inputs: tuple[Tensor, ...]) -> Tensor:
        return torch.cat(inputs, 1) if len(inputs) > 1 else inputs[0]

    def _together(self, outputs: list[Tensor]) -> Tensor:
        return (outputs[0] if self._batched else torch.stack(outputs)).float()

    def _apart(self, gradient: Tensor) -> Sequence[Tensor]:
        return [gradient] if self._batched else gradient.unbind(0)


class _Chain:
    """One dense network.

    The parameters and their gradients are the module's own; products are made in ``dtype``.
    """

    def __init__(self, layers: Sequence[DenseLayer], dtype: torch.dtype) -> None:
        self._activations = [layer.activation for layer in layers]
        self._weights = [layer.linear.weight.data for layer in layers]
        self._biases = [layer.linear.bias.data for layer in layers]
        self._gradients = [(_gradient(layer.linear.weight), _gradient(layer.linear.bias)) for layer in layers]
        self._dtype = dtype
        self._values: list[Tensor] = []
        self._transpose()

    def forward(self, x: Tensor) -> Tensor:
        self._values = self.infer(x)
        return self._values[-1]

    def infer(self, x: Tensor) -> list[Tensor]:
        """Return the input and every layer's output."""
        values = [self._cast(x)]
        for transposed, bias, activation in zip(self._transposed, self._biases, self._activations, strict=True):
            values.append(self._affine(values[-1], self._cast(transposed), self._cast(bias), activation))
        return values

    def backward(self, gradient: Tensor) -> None:
        for layer, inner in self._going_down(gradient, self._values):
            weight_gradient, bias_gradient = self._gradients[layer]
            self._product(inner.mT, self._values[layer], out=weight_gradient)
            torch.sum(inner, -2, dtype=torch.float32, out=bias_gradient)

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """Return ``[B, in]``; rows that are zero, as those that the other critic judges, are not multiplied."""
        if len(gradient) * max(weight.numel() for weight in self._weights) < _WORTH_SELECTING:
            return self._input_gradient(gradient, self._values)
        rows = gradient.any(1).nonzero().squeeze(1)
        if len(rows) > _MANY_ROWS * len(gradient):
            return self._input_gradient(gradient, self._values)
        some = self._input_gradient(gradient[rows], [self._values[0], *(value[rows] for value in self._values[1:])])
        return some.new_zeros(len(gradient), some.shape[1]).index_copy_(0, rows, some)

    def _input_gradient(self, gradient: Tensor, values: Sequence[Tensor]) -> Tensor:
        *_, (_, first) = self._going_down(gradient, values)
        return self._product(first, self._cast(self._weights[0]))

    def _going_down(self, gradient: Tensor, values: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Yield each layer from the last to the first with the gradient of what it adds up, before its activation."""
        gradient = self._cast(gradient)
        for layer in reversed(range(len(self._weights))):
            if self._activations[layer] == "relu":
                gradient = torch.ops.aten.threshold_backward(gradient, values[layer + 1], 0)
            elif self._activations[layer] == "tanh":
                gradient = torch.ops.aten.tanh_backward(gradient, values[layer + 1])
            yield layer, gradient
            if layer:
                gradient = self._product(gradient, self._cast(self._weights[layer]))

    def _cast(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.dtype is self._dtype else tensor.to(self._dtype)

    def _affine(self, x: Tensor, transposed: Tensor, bias: Tensor, activation: str) -> Tensor:
        """Return ``activation(x transposed + bias)`` for ``[B, in]``, ``[in, out]``, ``[out]``."""
        if _ONEDNN_LINEAR is None or not self._is_worth_onednn(x, transposed):
            return _activate(torch.addmm(bias, x, transposed), activation)
        name = "none" if activation == "identity" else activation
        fused: Tensor = _ONEDNN_LINEAR(x, transposed.mT, bias, name, [], "")
        return fused

    def _product(self, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``a b`` for ``[m, k]`` and ``[k, n]``; ``out`` takes it in float32."""
        if _ONEDNN_LINEAR is not None and self._is_worth_onednn(a, b):
            product: Tensor = _ONEDNN_LINEAR(a, b.mT, None, "none", [], "")
        elif out is not None and out.dtype is self._dtype:
            return self._multiply(a, b, out=out)
        else:
            product = self._multiply(a, b)
        return product if out is None else out.copy_(product)

    _multiply: Callable[..., Tensor] = staticmethod(torch.mm)

    def _is_worth_onednn(self, a: Tensor, b: Tensor) -> bool:
        return a.shape[0] * b.numel() >= _WORTH_ONEDNN

    def _transpose(self) -> None:
        """Make the views that a forward pass needs once: there are a dozen of them in an update."""
        self._transposed = [weight.mT for weight in self._weights]


class _BatchedChain(_Chain):
    """Several dense networks as one, with a leading axis ``[K, ...]`` on everything."""

    def __init__(self, chains: Sequence[Sequence[DenseLayer]], dtype: torch.dtype) -> None:
        super().__init__(chains[0], dtype)
        size = len(chains)
        self._weights = [_stacked(weight, size) for weight in self._weights]
        self._biases = [_stacked(bias, size) for bias in self._biases]
        self._gradients = [(_stacked(weight, size), _stacked(bias, size)) for weight, bias in self._gradients]
        self._transpose()
        assert all(
            weight[k].data_ptr() == chain[i].linear.weight.data_ptr()
            for i, weight in enumerate(self._weights)
            for k, chain in enumerate(chains)
        )

    def infer(self, x: Tensor) -> list[Tensor]:
        return super().infer(x.expand(len(self._weights[0]), *x.shape))

    def _affine(self, x: Tensor, transposed: Tensor, bias: Tensor, activation: str) -> Tensor:
        return _activate(torch.baddbmm(bias.unsqueeze(1), x, transposed), activation)

    def input_gradient(self, gradient: Tensor) -> Tensor:
        return self._input_gradient(gradient, self._values)

    _multiply = staticmethod(torch.bmm)

    def _is_worth_onednn(self, a: Tensor, b: Tensor) -> bool:  # noqa: ARG002
        return False


def _activate(x: Tensor, activation: str) -> Tensor:
    return x.relu_() if activation == "relu" else x.tanh_() if activation == "tanh" else x


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, "Lay the parameters out in FlatParameters first."
    return parameter.grad


def _stacked(first: Tensor, size: int) -> Tensor:
    """Return ``[size, *shape]``: this tensor and those that follow it in memory."""
    return first.as_strided((size, *first.shape), (first.numel(), *first.stride()))


# ---- any module -----------------------------------------------------------------------------------------------------


class ModuleEnsemble:
    """Any modules, by autograd; with bfloat16 under autocast. They judge in eval mode, and learn in their own modes.

    An ``nn.Sequential`` gets several inputs side by side, any other module as several arguments.
    """

    def __init__(self, networks: Sequence[nn.Module], device: torch.device, dtype: torch.dtype) -> None:
        self._networks = networks
        self._parameters = list(dict.fromkeys(interleaved(networks)))
        self._device = device
        self._dtype = dtype
        self._outputs: Tensor | None = None
        self._last_input: Tensor | None = None

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return outputs ``[K, B, out]``; the graph is kept for the gradients."""
        with torch.enable_grad():
            self._outputs = self._run(*inputs)
        return self._outputs.detach()

    def judge(self, *inputs: Tensor) -> Tensor:
        """Return outputs ``[K, B, out]``; the graph is kept for the gradient of the last input."""
        self._last_input = inputs[-1].detach().requires_grad_()
        with in_eval_mode(*self._networks):
            return self.forward(*inputs[:-1], self._last_input)

    @torch.no_grad()
    def infer(self, *inputs: Tensor) -> Tensor:
        """Return outputs ``[K, B, out]``."""
        with in_eval_mode(*self._networks):
            return self._run(*inputs)

    @torch.enable_grad()
    def backward(self, gradient: Tensor) -> None:
        """Write the parameters' gradients."""
        assert self._outputs is not None
        for parameter in self._parameters:
            assert parameter.grad is not None
            parameter.grad.zero_()
        backward_of_sum([(self._outputs * gradient).sum()])
        self._outputs = None

    @torch.enable_grad()
    def input_gradient(self, gradient: Tensor) -> Tensor:
        """Return ``[B, in]`` of the last input."""
        assert self._outputs is not None
        assert self._last_input is not None
        (found,) = torch.autograd.grad((self._outputs * gradient).sum(), self._last_input)
        self._outputs = None
        return found

    def _run(self, *inputs: Tensor) -> Tensor:
        with self._autocast():
            outputs = [
                network(torch.cat(inputs, 1)) if isinstance(network, nn.Sequential) else network(*inputs)
                for network in self._networks
            ]
        return torch.stack(outputs).float()

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype is not torch.float32)
