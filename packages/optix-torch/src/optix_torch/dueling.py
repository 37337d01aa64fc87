"""The network of Rainbow: value and advantage streams whose layers carry noise, and how it runs on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from optix_core.agents import HyperparamStore
from optix_core.policies import MLP, Encoder, Keep
from optix_torch._construction import build_network
from optix_torch._plain import can_write_gradients, dense_layers, is_plain
from optix_torch._precision import learning_dtype
from optix_torch.networks import AutogradRunner, DenseRunner, NoisyLinear, Runner, build_cnn


class RainbowNetwork(nn.Module):
    """Logits of the distributions over values, from a torso and two noisy streams.

    Args:
        torso: module from observations ``[B, ...]`` to features ``[B, F]``.
        value: module from features to ``[B, Z]``.
        advantage: module from features to ``[B, A Z]``.
        num_actions: ``A``.
    """

    never_modal = True

    def __init__(self, *, torso: nn.Module, value: nn.Module, advantage: nn.Module, num_actions: int) -> None:
        super().__init__()
        self.torso = torso
        self.value = value
        self.advantage = advantage
        self.num_actions = num_actions

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, A Z]``: value plus advantage, the latter centred over the actions."""
        features = self.torso(x)
        advantage = self.advantage(features).unflatten(1, (self.num_actions, -1))
        logits: Tensor = self.value(features).unsqueeze(1) + advantage - advantage.mean(1, keepdim=True)
        return logits.flatten(1)


def build_rainbow_network(encoder: Encoder, num_actions: int, settings: HyperparamStore, seed: int) -> RainbowNetwork:
    """Build the network for an encoder: images get the convolutions of Mnih et al. 2015, all others dense layers.

    The last hidden layer is noisy, one for each stream (512 wide for images).
    """
    generator = torch.Generator().manual_seed(seed)
    activation, std_init = settings["activation"], settings["noise_std_init"]
    if isinstance(encoder, Keep):
        torso = build_cnn(encoder.shape, 1, output_gain=1.0, generator=generator)[:-3]  # without the dense layers
        with torch.no_grad():
            num_features, width = (
                torso(torch.zeros(1, *encoder.shape, dtype=learning_dtype(), device="cpu")).shape[1],
                512,
            )
    else:
        *sizes, width = settings["hidden_sizes"]
        dense = build_network(
            encoder, 1, {"hidden_sizes": sizes, "activation": activation}, output_gain=1.0, generator=generator
        )
        torso, num_features = dense[:-1], dense[-1].in_features

    def stream(num_outputs: int) -> nn.Sequential:
        return nn.Sequential(
            NoisyLinear(num_features, width, std_init=std_init, generator=generator),
            nn.ReLU(),
            NoisyLinear(width, num_outputs, std_init=std_init, generator=generator),
        )

    num_atoms = settings["num_atoms"]
    return RainbowNetwork(
        torso=torso, value=stream(num_atoms), advantage=stream(num_actions * num_atoms), num_actions=num_actions
    )


def make_dueling_runner(network: nn.Module, device: torch.device) -> Runner:
    """Choose the fastest way to run a network of :func:`build_rainbow_network`, or any other, as it is now."""
    if device.type == "cpu" and is_plain(network, RainbowNetwork) and isinstance(network, RainbowNetwork):
        streams = [_noisy_layers(stream) for stream in (network.value, network.advantage)]
        empty = is_plain(network.torso, nn.Sequential) and not len(list(network.torso.children()))
        torso = [] if empty else dense_layers(network.torso)
        fits = torso is not None and all(layer.activation in ("relu", "tanh") for layer in torso) and all(streams)
        if fits and can_write_gradients(network.parameters(), [network]):
            return DuelingRunner(network, streams[0], streams[1])
    return AutogradRunner(network, device)


class DuelingRunner:
    """A dense :class:`RainbowNetwork` on a CPU, as one chain of dense layers without noise of its own.

    The streams' hidden layers become one twice as wide, and value plus centred advantage one linear map;
    :meth:`refresh` writes the noisy weights into this chain.

    Args:
        network: its parameters are run; their gradients must have been allocated for :meth:`backward`.
        value: the two layers of its value stream.
        advantage: the two layers of its advantage stream.
    """

    def __init__(self, network: RainbowNetwork, value: Sequence[NoisyLinear], advantage: Sequence[NoisyLinear]) -> None:
        torso = dense_layers(network.torso) or []
        self._network = network
        self._hidden, self._outputs = (value[0], advantage[0]), (value[1], advantage[1])
        self._outer: dict[NoisyLinear, Tensor] = {}
        width, num_features = value[0].weight.shape
        num_outputs = len(advantage[1].bias)
        shapes = [(2 * width, num_features), (num_outputs, 2 * width)]
        self._weights, self._weight_gradients = (
            [torch.zeros(shape, dtype=torch.float32, device="cpu") for shape in shapes] for _ in range(2)
        )
        self._biases, self._bias_gradients = (
            [torch.zeros(shape[0], dtype=torch.float32, device="cpu") for shape in shapes] for _ in range(2)
        )
        self._grid = (network.num_actions, num_outputs // network.num_actions, 2, width)
        self._activations = [*(layer.activation for layer in torso), "relu", "identity"]
        self._chain_weights = [*(layer.linear.weight.detach() for layer in torso), *self._weights]
        self._chain_biases = [*(layer.linear.bias.detach() for layer in torso), *self._biases]
        torso_gradients = [(layer.linear.weight.grad, layer.linear.bias.grad) for layer in torso]
        own_gradients = zip(self._weight_gradients, self._bias_gradients, strict=True)
        self._chain = DenseRunner(
            weights=self._chain_weights,
            biases=self._chain_biases,
            activations=self._activations,
            gradients=[*torso_gradients, *own_gradients],
        )
        self.forward, self.infer, self.act = self._chain.forward, self._chain.infer, self._chain.act
        self.refresh()

    def refresh(self) -> None:
        """Take over the present parameters and noise; call it after either has changed."""
        halves = zip(self._hidden, self._weights[0].chunk(2), self._biases[0].chunk(2), strict=True)
        for layer, weight, bias in halves:
            self._noisy(layer, weight, bias)
        (value, value_bias), (advantage, advantage_bias) = (self._noisy(layer) for layer in self._outputs)
        num_actions, num_atoms, _, width = self._grid
        weights = self._weights[1].view(self._grid)
        weights[:, :, 0] = value
        parts, bias_parts = advantage.view(num_actions, num_atoms, width), advantage_bias.view(num_actions, num_atoms)
        torch.sub(parts, parts.mean(0), out=weights[:, :, 1])
        self._biases[1].view(num_actions, num_atoms).copy_(value_bias + bias_parts - bias_parts.mean(0))

    def backward(self, gradient: Tensor) -> None:
        """Write gradients: the chain's, and from them those of the noisy layers."""
        self._chain.backward(gradient)
        halves = zip(self._hidden, self._weight_gradients[0].chunk(2), self._bias_gradients[0].chunk(2), strict=True)
        for layer, weight, bias in halves:
            self._give(layer, weight, bias)
        weights = self._weight_gradients[1].view(self._grid)
        biases = self._bias_gradients[1].view(self._grid[:2])
        value, advantage = self._outputs
        self._give(value, weights[:, :, 0].sum(0), biases.sum(0))
        centred = weights[:, :, 1] - weights[:, :, 1].mean(0)
        self._give(advantage, centred.flatten(0, 1), (biases - biases.mean(0)).flatten())

    def frozen_copy(self) -> DenseRunner:
        """Return a copy for acting, with the weights of the last refresh."""
        return self._chain.frozen_copy()

    def mlp(self) -> MLP:
        """Return a copy as NumPy, with the weights of the last refresh."""
        return MLP(
            weights=[weight.t().numpy().copy() for weight in self._chain_weights],
            biases=[bias.numpy().copy() for bias in self._chain_biases],
            activations=self._activations,
        )

    def _noisy(self, layer: NoisyLinear, weight: Tensor | None = None, bias: Tensor | None = None) -> list[Tensor]:
        """Return a layer's weights and biases with its noise, written into these tensors where they are given."""
        outer = self._outer[layer] = torch.outer(layer.noise_out, layer.noise_in)
        return [
            torch.addcmul(layer.weight.data, layer.weight_sigma.data, outer, out=weight),
            torch.addcmul(layer.bias.data, layer.bias_sigma.data, layer.noise_out, out=bias),
        ]

    def _give(self, layer: NoisyLinear, weight_gradient: Tensor, bias_gradient: Tensor) -> None:
        """Write a layer's gradients, given those of its noisy weights and biases."""
        torch.mul(weight_gradient, self._outer[layer], out=layer.weight_sigma.grad)
        torch.mul(bias_gradient, layer.noise_out, out=layer.bias_sigma.grad)
        for parameter, found in ((layer.weight, weight_gradient), (layer.bias, bias_gradient)):
            assert parameter.grad is not None
            parameter.grad.copy_(found)


def _noisy_layers(stream: nn.Module) -> list[NoisyLinear]:
    """Return the two layers of a stream of :func:`build_rainbow_network`, none if it is another."""
    parts = list(stream) if is_plain(stream, nn.Sequential) else []  # type: ignore[call-overload]
    layers = [part for part in parts if is_plain(part, NoisyLinear)]
    return layers if len(parts) == 3 and len(layers) == 2 and is_plain(parts[1], nn.ReLU) else []
