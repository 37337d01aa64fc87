"""Networks, and how they are run: dense networks on a CPU by hand-written kernels, everything else by autograd.

Why kernels: for networks of reinforcement learning's usual size the graph costs more than the mathematics, and torch's
``tanh`` on a CPU takes ten times as long as NumPy's. A chain of dense layers needs four lines forward and six backward,
into buffers that are allocated once; that makes a PPO update about twice as fast. The parameters stay the module's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from optix_core.policies import MLP
from optix_protocol import Array
from optix_torch._arrays import as_tensor
from optix_torch._host import HostChain
from optix_torch._modes import copy_of, in_eval_mode
from optix_torch._plain import DenseLayer, can_write_gradients, dense_layers, make_activation
from optix_torch._precision import learning_dtype

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
        layers += [make_activation(activation)]
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

    never_modal = True

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
        module = layer(*sizes, dtype=learning_dtype(), device="cpu")
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

    never_modal = True

    def __init__(self, num_inputs: int, num_outputs: int, *, std_init: float, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(num_inputs)
        weight, bias = (
            torch.empty(shape, dtype=learning_dtype(), device="cpu")
            for shape in ((num_outputs, num_inputs), (num_outputs,))
        )
        self.weight = nn.Parameter(weight.uniform_(-bound, bound, generator=generator))
        self.bias = nn.Parameter(bias.uniform_(-bound, bound, generator=generator))
        self.weight_sigma = nn.Parameter(torch.full_like(weight, std_init * bound))
        self.bias_sigma = nn.Parameter(torch.full_like(bias, std_init * bound))
        self.noise_in: Tensor
        self.noise_out: Tensor
        self.register_buffer(
            "noise_in", torch.zeros(num_inputs, dtype=learning_dtype(), device="cpu"), persistent=False
        )
        self.register_buffer(
            "noise_out", torch.zeros(num_outputs, dtype=learning_dtype(), device="cpu"), persistent=False
        )

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
        self.vector = torch.zeros(sum(sizes), dtype=learning_dtype(), device=device)
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


def make_runner(module: nn.Module, device: torch.device, *, beside: Sequence[nn.Module] = ()) -> Runner:
    """Choose the fastest way to run a network, as it is now, whose gradients have been allocated.

    Args:
        module: the network.
        device: where it is.
        beside: all modules that learn together with it; none but itself by default.
    """
    return dense_runner(module, device, beside=beside) or AutogradRunner(module, device)


def dense_runner(module: nn.Module, device: torch.device, *, beside: Sequence[nn.Module] = ()) -> DenseRunner | None:
    """Return a runner of a network by kernels, None if they cannot mean what it means."""
    layers = dense_layers(module)
    if device.type != "cpu" or not layers or not all(_has_kernel(layer) for layer in layers):
        return None
    parameters = [parameter for layer in layers for parameter in (layer.linear.weight, layer.linear.bias)]
    if not can_write_gradients(parameters, beside or [module]):
        return None
    return DenseRunner(
        weights=[layer.linear.weight.detach() for layer in layers],
        biases=[layer.linear.bias.detach() for layer in layers],
        activations=[layer.activation for layer in layers],
        gradients=[(layer.linear.weight.grad, layer.linear.bias.grad) for layer in layers]
        if parameters[0].requires_grad
        else (),
    )


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
        if not self._gradients:  # nothing here is trained
            return
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
        outputs = torch.empty(len(x), len(self._biases[-1]), dtype=torch.float32, device="cpu")
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

    def on_host(self) -> HostChain | None:
        """Return what learns by NumPy on the same memory; None if nothing here is trained."""
        gradients = [(weight, bias) for weight, bias in self._gradients if weight is not None and bias is not None]
        if not gradients:
            return None
        return HostChain(weights=self._weights, biases=self._biases, activations=self._activations, gradients=gradients)

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
        outputs = [torch.empty(num_rows, weight.shape[0], dtype=torch.float32, device="cpu") for weight in weights]
        self.outputs = [(output, output.numpy()) for output in outputs]
        self.gradients = [
            torch.empty(num_rows, weight.shape[1], dtype=torch.float32, device="cpu") for weight in weights
        ]


class AutogradRunner:
    """Any module on any device: it acts and judges in eval mode, and learns in the modes that it is in."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._module = module
        self._device = device
        self._outputs: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs ``[B, out]``, detached; the graph is kept for ``backward``."""
        alone = len(x) == 1  # a BatchNorm refuses to make statistics of one row
        with in_eval_mode(self._module) if alone else nullcontext():
            self._outputs = self._module(x)
        assert self._outputs is not None
        return self._outputs.detach()

    def backward(self, gradient: Tensor) -> None:
        """Add gradients by autograd."""
        backward_together([(self, gradient)])

    def take_outputs(self) -> Tensor:
        """Return the outputs with their graph, and forget them."""
        outputs, self._outputs = self._outputs, None
        assert outputs is not None
        return outputs

    @torch.no_grad()
    def infer(self, x: Tensor) -> Tensor:
        """Return fresh outputs ``[B, out]``, chunk by chunk."""
        with in_eval_mode(self._module):
            return torch.cat([self._module(chunk) for chunk in torch.split(x, _CHUNK_ROWS)])

    @torch.inference_mode()
    def act(self, rows: Array) -> Array:
        """Return outputs ``[N, out]``."""
        with in_eval_mode(self._module):
            outputs: Array = self._module(as_tensor(rows, self._device)).cpu().numpy()
        return outputs

    def frozen_copy(self) -> AutogradRunner:
        """Return a copy for acting."""
        return AutogradRunner(copy_of(self._module).requires_grad_(False).eval(), self._device)


def backward_together(pairs: Iterable[tuple[Runner, Tensor]]) -> None:
    """Put the gradients of several networks' parameters into ``.grad``, given those of their last outputs.

    Autograd goes back through all of them at once, so that hooks on what they share see the whole gradient.
    """
    products = []
    for runner, gradient in pairs:
        if isinstance(runner, AutogradRunner):
            products.append((runner.take_outputs() * gradient).sum())
        else:
            runner.backward(gradient)
    backward_of_sum(products)


def backward_of_sum(terms: Sequence[Tensor]) -> None:
    """Add the gradients of a sum of 0-d tensors to the parameters'; those that nothing trained leads to are left out.

    A sum of products with given gradients has these gradients. Given them itself, ``torch.autograd.backward`` would
    import the compiler stack.
    """
    total = sum(term for term in terms if term.requires_grad)
    if isinstance(total, Tensor):
        total.backward()  # type: ignore[no-untyped-call]
