"""Networks, and how they are run: dense networks on a CPU by hand-written kernels, everything else by autograd.

Why kernels: for networks of reinforcement learning's usual size the graph costs more than the mathematics, and torch's
``tanh`` on a CPU takes ten times as long as NumPy's. A chain of dense layers needs four lines forward and six backward,
into buffers that are allocated once; that makes a PPO update about twice as fast. The parameters stay the module's own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from optix_core.policies import MLP
from optix_protocol import Array
from optix_torch._arrays import as_tensor

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}
_CHUNK_ROWS = 1024
"""Rows per forward pass outside training: activations of a larger chunk would fall out of the cache."""


# ---- building -------------------------------------------------------------------------------------------------------


def build_mlp(
    num_inputs: int,
    num_outputs: int,
    *,
    hidden_sizes: Sequence[int],
    activation: str,
    output_gain: float,
    generator: torch.Generator,
) -> nn.Sequential:
    """Build dense layers with orthogonal weights (gain sqrt 2; ``output_gain`` in the last) and zero biases."""
    layers: list[nn.Module] = []
    sizes = [num_inputs, *hidden_sizes]
    for low, high in pairwise(sizes):
        layers += [_orthogonal(nn.Linear, low, high, gain=math.sqrt(2), generator=generator)]
        layers += [_ACTIVATIONS[activation]()]
    layers += [_orthogonal(nn.Linear, sizes[-1], num_outputs, gain=output_gain, generator=generator)]
    return nn.Sequential(*layers)


def build_cnn(
    image_shape: tuple[int, ...], num_outputs: int, *, output_gain: float, generator: torch.Generator
) -> nn.Sequential:
    """Build the network of Mnih et al. 2015 for uint8 images ``[C, H, W]`` or ``[H, W, C]`` of at least 36 x 36."""
    channels_last = image_shape[2] < image_shape[0]
    height, width = image_shape[:2] if channels_last else image_shape[1:]
    channels = image_shape[2] if channels_last else image_shape[0]
    layers: list[nn.Module] = [ImageInput(channels_last=channels_last)]
    for filters, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
        layers += [_orthogonal(nn.Conv2d, channels, filters, kernel, stride, gain=math.sqrt(2), generator=generator)]
        layers += [nn.ReLU()]
        channels, height, width = filters, (height - kernel) // stride + 1, (width - kernel) // stride + 1
    layers += [nn.Flatten()]
    layers += [_orthogonal(nn.Linear, channels * height * width, 512, gain=math.sqrt(2), generator=generator)]
    layers += [nn.ReLU()]
    layers += [_orthogonal(nn.Linear, 512, num_outputs, gain=output_gain, generator=generator)]
    return nn.Sequential(*layers)


class ImageInput(nn.Module):
    """Bytes to ``[N, C, H, W]`` in 0..1."""

    def __init__(self, *, channels_last: bool) -> None:
        super().__init__()
        self.channels_last = channels_last

    def forward(self, images: Tensor) -> Tensor:
        """Scale and, where needed, move the channels to the front."""
        scaled = images.float() / 255.0
        return scaled.permute(0, 3, 1, 2) if self.channels_last else scaled


def _orthogonal(layer: Callable[..., nn.Module], *sizes: int, gain: float, generator: torch.Generator) -> nn.Module:
    # The layer initialises itself from the global random state, which is not ours to move. (``nn.utils.skip_init``
    # would avoid that, but imports torch's meta-device machinery: 1.5 s.)
    with torch.random.fork_rng(devices=[]):
        module = layer(*sizes)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the last bits of a QR decomposition depend on the threads; the weights must not
    nn.init.orthogonal_(module.weight, gain, generator=generator)  # type: ignore[arg-type]
    torch.set_num_threads(threads)
    nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return module


class NoisyLinear(nn.Module):
    """A linear layer whose weights carry learned noise (Fortunato et al. 2018, factorised Gaussian).

    ``y = (w + sigma_w * (e_out e_in^T)) x + b + sigma_b * e_out``, which needs no noisy copy of the weights. The noise
    is zero (so that the layer acts by its means) until :class:`Noise` draws it.

    Args:
        num_inputs: width of the input.
        num_outputs: width of the output.
        std_init: initial ``sigma`` times the root of ``num_inputs``.
        generator: draws the initial weights, uniform within one over that root.
    """

    def __init__(self, num_inputs: int, num_outputs: int, *, std_init: float, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(num_inputs)
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs).uniform_(-bound, bound, generator=generator))
        self.bias = nn.Parameter(torch.empty(num_outputs).uniform_(-bound, bound, generator=generator))
        self.weight_sigma = nn.Parameter(torch.full((num_outputs, num_inputs), std_init * bound))
        self.bias_sigma = nn.Parameter(torch.full((num_outputs,), std_init * bound))
        self.noise_in: Tensor
        self.noise_out: Tensor
        self.register_buffer("noise_in", torch.zeros(num_inputs), persistent=False)
        self.register_buffer("noise_out", torch.zeros(num_outputs), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, out]`` for ``[B, in]`` with the present noise."""
        mean = nn.functional.linear(x, self.weight, self.bias)
        return torch.addcmul(
            mean, nn.functional.linear(x * self.noise_in, self.weight_sigma, self.bias_sigma), self.noise_out
        )

    def arrays(self) -> tuple[Array, Array]:
        """Return weights ``[in, out]`` and biases ``[out]`` with the present noise, as NumPy copies."""
        noise_in, noise_out = self.noise_in.cpu().numpy(), self.noise_out.cpu().numpy()
        sigma, bias_sigma = self.weight_sigma.detach().cpu().numpy(), self.bias_sigma.detach().cpu().numpy()
        weight = sigma * noise_out[:, None] * noise_in + self.weight.detach().cpu().numpy()
        return weight.T, bias_sigma * noise_out + self.bias.detach().cpu().numpy()


class Noise:
    """The noise of all :class:`NoisyLinear` layers of a network, in one vector.

    Args:
        network: its layers' noise becomes a view on the vector.
    """

    def __init__(self, network: nn.Module) -> None:
        layers = [part for part in network.modules() if isinstance(part, NoisyLinear)]
        sizes = [size for layer in layers for size in (layer.noise_in.numel(), layer.noise_out.numel())]
        device = next(network.parameters()).device
        self.vector = torch.zeros(sum(sizes), device=device)
        views = iter(torch.split(self.vector, sizes))
        for layer in layers:
            layer.noise_in, layer.noise_out = next(views), next(views)

    def draw(self, rng: np.random.Generator) -> None:
        """Draw anew: ``sign(x) sqrt(|x|)`` of standard normal numbers ``x``."""
        numbers = rng.standard_normal(len(self.vector), dtype=np.float32)
        self.vector.copy_(torch.from_numpy(np.sign(numbers) * np.sqrt(np.abs(numbers))))


# ---- running --------------------------------------------------------------------------------------------------------


class Runner(Protocol):
    """Runs a network forward and backward. ``forward`` may return a buffer that its next call overwrites."""

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs ``[B, out]`` and remember what ``backward`` needs."""
        ...

    def backward(self, gradient: Tensor) -> None:
        """Put the parameters' gradients into ``.grad``, given that of the last outputs ``[B, out]``.

        ``.grad`` must be zero before; it is then exact whether a runner writes or adds.
        """
        ...

    def infer(self, x: Tensor) -> Tensor:
        """Return fresh outputs ``[B, out]`` without remembering anything."""
        ...

    def act(self, rows: Array) -> Array:
        """Return outputs as NumPy, for acting; the array may be overwritten by the next call."""
        ...

    def frozen_copy(self) -> Runner:
        """Return a runner of a copy of the network as it is now, for acting only."""
        ...


class DenseLayer(NamedTuple):
    """A linear layer and the name of the activation after it."""

    linear: nn.Linear
    activation: str


def dense_layers(module: nn.Module) -> list[DenseLayer] | None:
    """Return the layers of an ``nn.Sequential`` of linear layers and activations, None if it is anything else."""
    if not isinstance(module, nn.Sequential):
        return None
    layers: list[DenseLayer] = []
    names = {kind: name for name, kind in _ACTIVATIONS.items()}
    for part in module:
        if type(part) is nn.Linear and part.bias is not None:
            layers.append(DenseLayer(part, "identity"))
        elif type(part) in names and layers and layers[-1].activation == "identity":
            if isinstance(part, nn.ELU) and part.alpha != 1.0:
                return None
            layers[-1] = DenseLayer(layers[-1].linear, names[type(part)])
        else:
            return None
    return layers or None


def host_mlp(module: nn.Module) -> MLP | None:
    """Return a dense network as NumPy, its arrays views on the parameters where they are in main memory."""
    layers = dense_layers(module)
    if layers is None:
        return None
    return MLP(
        weights=[layer.linear.weight.detach().cpu().numpy().T for layer in layers],
        biases=[layer.linear.bias.detach().cpu().numpy() for layer in layers],
        activations=[layer.activation for layer in layers],
    )


def make_runner(module: nn.Module, device: torch.device) -> Runner:
    """Choose the fastest way to run a network whose gradients have been allocated."""
    layers = dense_layers(module)
    if device.type == "cpu" and layers and all(_has_kernel(layer) for layer in layers):
        return DenseRunner(
            weights=[layer.linear.weight.detach() for layer in layers],
            biases=[layer.linear.bias.detach() for layer in layers],
            activations=[layer.activation for layer in layers],
            gradients=[(layer.linear.weight.grad, layer.linear.bias.grad) for layer in layers],
        )
    return AutogradRunner(module, device)


def _has_kernel(layer: DenseLayer) -> bool:
    return layer.activation in ("identity", "tanh", "relu") and layer.linear.weight.dtype == torch.float32


class DenseRunner:
    """Dense layers on a CPU; the parameters and gradients are views on the module's own.

    Args:
        weights: ``[out, in]`` of each layer.
        biases: ``[out]`` of each layer.
        activations: ``"tanh"``, ``"relu"`` or ``"identity"`` after each layer.
        gradients: where the gradients of weight and bias of each layer go; empty for acting only.
    """

    def __init__(
        self,
        *,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        activations: Sequence[str],
        gradients: Sequence[tuple[Tensor | None, Tensor | None]] = (),
    ) -> None:
        self._weights, self._biases, self._activations = list(weights), list(biases), list(activations)
        self._transposed = [weight.t() for weight in weights]
        self._gradients = list(gradients)
        self._buffers: dict[int, _Buffers] = {}
        self._input: Tensor | None = None
        self._used: _Buffers | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs ``[B, out]`` in a buffer."""
        self._input, self._used = x, self._buffers_for(x.shape[0])
        for layer, (output, array) in enumerate(self._used.outputs):
            torch.addmm(self._biases[layer], x, self._transposed[layer], out=output)
            if self._activations[layer] == "tanh":
                np.tanh(array, out=array)
            elif self._activations[layer] == "relu":
                output.relu_()
            x = output
        return x

    def backward(self, gradient: Tensor) -> None:
        """Write gradients, by the chain rule from the last layer to the first."""
        used, inputs = self._used, self._input
        assert used is not None and inputs is not None
        for layer in reversed(range(len(self._weights))):
            output = used.outputs[layer][0]
            if self._activations[layer] == "tanh":
                torch.ops.aten.tanh_backward.grad_input(gradient, output, grad_input=gradient)
            elif self._activations[layer] == "relu":
                torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)
            weight_gradient, bias_gradient = self._gradients[layer]
            below = used.outputs[layer - 1][0] if layer else inputs
            torch.mm(gradient.t(), below, out=weight_gradient)
            torch.sum(gradient, 0, out=bias_gradient)
            if layer:
                gradient = torch.mm(gradient, self._weights[layer], out=used.gradients[layer])

    def infer(self, x: Tensor) -> Tensor:
        """Return fresh outputs ``[B, out]``, chunk by chunk."""
        if x.shape[0] <= _CHUNK_ROWS:
            return self.forward(x).clone()
        outputs = torch.empty(len(x), len(self._biases[-1]))
        for start in range(0, len(x), _CHUNK_ROWS):
            outputs[start : start + _CHUNK_ROWS] = self.forward(x[start : start + _CHUNK_ROWS])
        return outputs

    def act(self, rows: Array) -> Array:
        """Return outputs ``[N, out]`` in a buffer."""
        return self.forward(torch.from_numpy(rows)).numpy()

    def frozen_copy(self) -> DenseRunner:
        """Return a copy for acting."""
        return DenseRunner(
            weights=[weight.clone() for weight in self._weights],
            biases=[bias.clone() for bias in self._biases],
            activations=self._activations,
        )

    def _buffers_for(self, num_rows: int) -> _Buffers:
        buffers = self._buffers.get(num_rows)
        if buffers is None:
            if len(self._buffers) >= 8:  # ever-changing batch sizes must not pile up
                self._buffers.clear()
            buffers = self._buffers[num_rows] = _Buffers(self._weights, num_rows)
        return buffers


class _Buffers:
    """Memory for one batch size: the output of each layer (as tensor and as NumPy view) and gradients between them."""

    def __init__(self, weights: Iterable[Tensor], num_rows: int) -> None:
        outputs = [torch.empty(num_rows, weight.shape[0]) for weight in weights]
        self.outputs = [(output, output.numpy()) for output in outputs]
        self.gradients = [torch.empty(num_rows, weight.shape[1]) for weight in weights]


class AutogradRunner:
    """Any module on any device."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._module = module
        self._device = device
        self._outputs: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs ``[B, out]``, detached; the graph is kept for ``backward``."""
        self._outputs = self._module(x)
        assert self._outputs is not None
        return self._outputs.detach()

    def backward(self, gradient: Tensor) -> None:
        """Add gradients by autograd."""
        assert self._outputs is not None
        self._outputs.backward(gradient)  # type: ignore[no-untyped-call]
        self._outputs = None

    @torch.no_grad()
    def infer(self, x: Tensor) -> Tensor:
        """Return fresh outputs ``[B, out]``, chunk by chunk."""
        return torch.cat([self._module(chunk) for chunk in torch.split(x, _CHUNK_ROWS)])

    @torch.inference_mode()
    def act(self, rows: Array) -> Array:
        """Return outputs ``[N, out]``."""
        outputs: Array = self._module(as_tensor(rows, self._device)).cpu().numpy()
        return outputs

    def frozen_copy(self) -> AutogradRunner:
        """Return a copy for acting."""
        return AutogradRunner(copy.deepcopy(self._module).requires_grad_(False).eval(), self._device)
