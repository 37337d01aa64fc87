"""Flax networks, whose they may be: how they are called, initialised, and exported to NumPy."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from optix_core import policies
from optix_core.agents.base import Blueprint
from optix_core.agents.initial_weights import orthogonal
from optix_core.errors import ConfigError
from optix_core.policies import Bits, Encoder, Flatten, Keep, OneHot, encoder_for
from optix_protocol import Array

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": nn.tanh,
    "relu": nn.relu,
    "elu": nn.elu,
    "silu": nn.silu,
    "sigmoid": nn.sigmoid,
    "identity": lambda x: x,
    "celu": nn.celu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "leaky_relu": nn.leaky_relu,
    "mish": jax.nn.mish,
    "selu": nn.selu,
    "softplus": nn.softplus,
    "softsign": nn.soft_sign,
    "relu6": nn.relu6,
    "hard_sigmoid": nn.hard_sigmoid,
    "hard_silu": nn.hard_silu,
    "hard_tanh": nn.hard_tanh,
    "log_sigmoid": nn.log_sigmoid,
    "sparse_plus": jax.nn.sparse_plus,
    "sparse_sigmoid": jax.nn.sparse_sigmoid,
    "squareplus": jax.nn.squareplus,
}
"""JAX's activations by our names; policies in NumPy know them, too (:data:`optix_core.policies.ACTIVATIONS`)."""


@jax.custom_vjp
def _columns(rows: jax.Array) -> jax.Array:
    """Turn ``[B, D]`` into ``[D, B]`` for good: folded into the products that follow, it would be paid in each."""
    columns: jax.Array = jax.lax.optimization_barrier(rows.T)  # type: ignore[no-untyped-call]
    return columns


_columns.defvjp(lambda rows: (_columns(rows), None), lambda _, columns: (columns.T,))


@jax.custom_vjp
def _affine(columns: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Return ``[out, B]`` for ``[in, B]``, a kernel ``[in, out]`` and a bias ``[out]``."""
    return jax.lax.dot_general(kernel, columns, (((0,), (0,)), ((), ()))) + bias[:, None]


def _affine_gradients(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, ...]:
    columns, kernel = kept
    for_kernel = jax.lax.dot_general(columns, gradient, (((1,), (1,)), ((), ())))
    # A sum over a batch as a product with ones costs half.
    return kernel @ gradient, for_kernel, gradient @ jnp.ones(gradient.shape[1], gradient.dtype)


_affine.defvjp(lambda columns, kernel, bias: (_affine(columns, kernel, bias), (columns, kernel)), _affine_gradients)


class Dense(nn.Module):
    """A dense layer on columns, with the parameters of ``nn.Dense``.

    With the batch as the second axis the gradient of the kernel is a product along rows, for which XLA's code for CPUs
    is up to a third faster than for one along columns.

    Attributes:
        features: width of the output.
    """

    features: int

    @nn.compact
    def __call__(self, columns: jax.Array) -> jax.Array:
        """Return ``[features, B]`` for ``[in, B]``."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (len(columns), self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        outputs: jax.Array = _affine(columns, kernel, bias)
        return outputs


class MLP(nn.Module):
    """Dense layers with an activation between them.

    Attributes:
        hidden_sizes: widths of the hidden layers.
        num_outputs: width of the last layer.
        activation: a key of :data:`ACTIVATIONS`.
        output_gain: gain of the last layer's orthogonal weights; the others have sqrt 2.
        output_activation: after the last layer.
    """

    hidden_sizes: tuple[int, ...]
    num_outputs: int
    activation: str = "tanh"
    output_gain: float = 1.0
    output_activation: str = "identity"

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """Return ``[B, num_outputs]`` for rows ``[B, D]``; several inputs are taken side by side."""
        x = _columns(inputs[0] if len(inputs) == 1 else jnp.concatenate(inputs, axis=1))
        for size in self.hidden_sizes:
            x = ACTIVATIONS[self.activation](Dense(size)(x))
        return ACTIVATIONS[self.output_activation](Dense(self.num_outputs)(x)).T


class CNN(nn.Module):
    """The network of Mnih et al. 2015 for uint8 images of at least 36 x 36.

    Attributes:
        num_outputs: width of the last layer.
        channels_last: images are ``[H, W, C]``, not ``[C, H, W]``.
        output_gain: gain of the last layer's orthogonal weights; the others have sqrt 2.
        output_activation: after the last layer.
    """

    num_outputs: int
    channels_last: bool = False
    output_gain: float = 1.0
    output_activation: str = "identity"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Return ``[B, num_outputs]`` for images ``[B, ...]``."""
        x = images.astype(jnp.float32) / 255.0
        x = x if self.channels_last else jnp.moveaxis(x, 1, -1)
        for filters, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = nn.relu(nn.Conv(filters, (kernel, kernel), (stride, stride), padding="VALID")(x))
        x = nn.relu(nn.Dense(512)(x.reshape(len(x), -1)))
        return ACTIVATIONS[self.output_activation](nn.Dense(self.num_outputs)(x))


class ImageCritic(nn.Module):
    """The value of an action in view of an image: the network of Mnih et al. 2015, then an MLP over both.

    Attributes:
        hidden_sizes: of the MLP.
        activation: of the MLP.
        channels_last: images are ``[H, W, C]``, not ``[C, H, W]``.
    """

    hidden_sizes: tuple[int, ...]
    activation: str = "relu"
    channels_last: bool = False

    @nn.nowrap
    def parts(self) -> tuple[CNN, MLP]:
        """Return what sees and what judges."""
        features = self.hidden_sizes[0] if self.hidden_sizes else 256
        see = CNN(
            num_outputs=features, channels_last=self.channels_last, output_gain=math.sqrt(2), output_activation="relu"
        )
        return see, MLP(hidden_sizes=self.hidden_sizes, num_outputs=1, activation=self.activation)

    def setup(self) -> None:
        """Name the parts."""
        self.see, self.judge = self.parts()

    def __call__(self, images: jax.Array, actions: jax.Array) -> jax.Array:
        """Return values ``[B, 1]`` for images ``[B, ...]`` and actions ``[B, D]``."""
        values: jax.Array = self.judge(self.see(images), actions)
        return values


class NoCritic(nn.Module):
    """Values that are always 0, for learning without a critic."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return ``[B, 1]`` zeros."""
        return jnp.zeros((len(x), 1))


@dataclass(frozen=True, kw_only=True)
class Network:
    """A module as a pure function. Equal modules make equal networks, so that they share their compiled code.

    Attributes:
        module: a ``flax.linen`` module, or the graph definition of a ``flax.nnx`` one.
    """

    module: Any

    def __hash__(self) -> int:
        """Hash the module, or know it by identity where it holds lists, as ``linen.Sequential`` does."""
        try:
            return hash(self.module)
        except (TypeError, ValueError):
            return id(self.module)

    def __call__(self, params: Any, *inputs: jax.Array) -> jax.Array:
        """Return outputs ``[B, out]`` for inputs ``[B, ...]``."""
        if isinstance(self.module, nn.Module):
            outputs: jax.Array = self.module.apply({"params": params}, *inputs)  # type: ignore[assignment]
            return outputs
        from flax import nnx

        module_outputs: jax.Array = nnx.merge(self.module, params)(*inputs)
        return module_outputs


def network_of(
    module: Any, shape: tuple[int, ...], rng: np.random.Generator, *, action_dim: int | None = None
) -> tuple[Network, Any]:
    """Return a user's module as a pure function, and its parameters.

    Args:
        module: ``flax.linen``, initialised here, or ``flax.nnx``, which has its parameters already.
        shape: of one encoded observation.
        rng: draws the initial parameters.
        action_dim: width of the actions that a critic takes as its second input.

    Raises:
        ConfigError: it is neither, or keeps more than parameters (batch statistics, dropout).
    """
    if isinstance(module, MLP | CNN):
        return Network(module=module), _orthogonal(module, (shape[0] + action_dim,) if action_dim else shape, rng)
    if isinstance(module, ImageCritic):
        see, judge = module.parts()
        seen = (see.num_outputs + (action_dim or 0),)
        params = {"see": _orthogonal(see, shape, rng), "judge": _orthogonal(judge, seen, rng)}
        return Network(module=module), params
    if isinstance(module, NoCritic):
        return Network(module=module), {}
    if isinstance(module, nn.Module):
        key = jax.random.key(int(rng.integers(2**31)))
        inputs = [jnp.zeros((1, *shape))] + ([] if action_dim is None else [jnp.zeros((1, action_dim))])
        variables = jax.jit(module.init)(key, *inputs)
        if set(variables) != {"params"}:
            raise ConfigError("Networks with more than parameters (batch statistics, dropout) are not supported.")
        return Network(module=module), dict(variables["params"])
    from flax import nnx

    if not isinstance(module, nnx.Module):
        raise ConfigError(f"{type(module).__name__} is no flax module: pass a flax.linen or flax.nnx module.")
    definition, params, rest = nnx.split(module, nnx.Param, ...)  # type: ignore[misc]
    if jax.tree.leaves(rest):
        raise ConfigError("Networks with more than parameters (batch statistics, dropout) are not supported.")
    return Network(module=definition), nnx.to_pure_dict(params)  # type: ignore[arg-type]


def refuse_shared(*modules: Any) -> None:
    """Refuse modules that share a layer: their parameters are copied, and each would train a copy of its own.

    Args:
        modules: ``flax.nnx`` modules; those of ``flax.linen`` hold no parameters.

    Raises:
        ConfigError: two of them hold the same variable.
    """
    if all(module is None or isinstance(module, nn.Module) for module in modules):
        return
    from flax import nnx

    held: set[int] = set()
    for module in (module for module in modules if isinstance(module, nnx.Module)):
        own = {id(node) for _, node in nnx.iter_graph(module) if isinstance(node, nnx.Variable)}
        if held & own:
            raise ConfigError(
                "Two networks share a layer, of which each would train a copy: give each network layers of its own, or "
                "use optix-torch, whose networks may share."
            )
        held |= own


def build_network(
    encoder: Encoder, num_outputs: int, *, hidden_sizes: tuple[int, ...], activation: str, **output: Any
) -> MLP | CNN:
    """Build a network that fits an encoder: that of Mnih et al. 2015 for images, an MLP for all other observations.

    Args:
        encoder: makes the input.
        num_outputs: width of the last layer.
        hidden_sizes: of an MLP.
        activation: of an MLP.
        output: ``output_gain`` and ``output_activation``, if not 1 and none.

    Raises:
        ConfigError: jax has no such activation.
    """
    if activation not in ACTIVATIONS:
        raise ConfigError(f"jax has no activation '{activation}'. It has: {', '.join(ACTIVATIONS)}.")
    if isinstance(encoder, Keep):
        return CNN(num_outputs=num_outputs, channels_last=is_channels_last(encoder.shape), **output)
    return MLP(hidden_sizes=tuple(hidden_sizes), num_outputs=num_outputs, activation=activation, **output)


def build_networks(blueprint: Blueprint, num_outputs: int) -> dict[str, nn.Module]:
    """Build separate actor (output gain 0.01) and critic (output gain 1)."""
    encoder = blueprint.encoder
    return {
        "actor": build_network(encoder, num_outputs, **blueprint.layers("actor"), output_gain=0.01),
        "critic": build_network(encoder, 1, **blueprint.layers("critic")),
    }


def is_channels_last(image_shape: tuple[int, ...]) -> bool:
    """Whether images are ``[H, W, C]``, not ``[C, H, W]``."""
    return image_shape[2] < image_shape[0]


def encoder_for_module(observation_space: Any) -> Encoder:
    """Return the encoder for a user's own module: images and arrays of several axes as they are, others as flat rows.

    Raises:
        ConfigError: there is no space to tell the shape from.
    """
    if observation_space is None:
        raise ConfigError("Pass observation_space=env.observation_space: a flax module does not tell its input.")
    encoder = encoder_for(observation_space)
    many_axes = isinstance(encoder, Flatten) and len(encoder.shape) > 1
    return Keep(shape=encoder.shape) if many_axes else encoder


def width_of(network: Network, params: Any, shape: tuple[int, ...], *, part: str) -> int:
    """Return how many outputs a network gives for inputs ``[B, *shape]``.

    Raises:
        ConfigError: it gives something else than ``[B, width]``.
    """
    row = jax.ShapeDtypeStruct((1, *shape), jnp.float32)  # type: ignore[no-untyped-call]
    found = jax.eval_shape(network, params, row).shape
    if len(found) != 2 or found[0] != 1:
        raise ConfigError(f"The {part} must return [B, outputs], not {list(found)} for one observation.")
    return int(found[1])


def check_width(network: Network, params: Any, *shapes: tuple[int, ...], width: int, part: str) -> None:
    """Refuse a network that does not return ``[B, width]`` for inputs ``[B, *shape]``.

    Raises:
        ConfigError: what it returns instead.
    """
    rows = [jax.ShapeDtypeStruct((1, *shape), jnp.float32) for shape in shapes]  # type: ignore[no-untyped-call]
    found = jax.eval_shape(network, params, *rows).shape
    if found != (1, width):
        raise ConfigError(f"The {part} must return [B, {width}], not {list(found)} for one observation.")


def encode(encoder: Encoder, observations: jax.Array) -> jax.Array:
    """Return observations ``[B, *obs]`` on the device as networks take them, the same as the encoder in NumPy."""
    if isinstance(encoder, Keep):
        return observations
    if isinstance(encoder, OneHot):
        columns = observations.reshape(len(observations), -1)
        parts = [
            jax.nn.one_hot(columns[:, i] - low, size)
            for i, (size, low) in enumerate(zip(encoder.nvec, encoder.start, strict=True))
        ]
        return jnp.concatenate(parts, axis=1)
    if isinstance(encoder, Bits):
        components, bits = np.array(encoder.places).T
        choices = observations.reshape(len(observations), -1) - jnp.array(encoder.start)
        places: jax.Array = choices[:, components] >> bits & 1
        return places.astype(jnp.float32)
    return observations.reshape(len(observations), -1).astype(jnp.float32)


def host_mlp(network: Network, params: Mapping[str, Any]) -> policies.MLP | None:
    """Return a dense network of this package as NumPy, on copies of its parameters; None if it is anything else."""
    module = network.module
    if not isinstance(module, MLP):
        return None
    layers = [params[f"Dense_{i}"] for i in range(len(module.hidden_sizes) + 1)]
    return policies.MLP(
        weights=[np.array(layer["kernel"]) for layer in layers],
        biases=[np.array(layer["bias"]) for layer in layers],
        activations=[module.activation] * len(module.hidden_sizes) + [module.output_activation],
    )


def named_arrays(tree: Any) -> dict[str, Array]:
    """Return copies of a tree's leaves by their path, ``actor.Dense_0.kernel``."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.array(leaf) for path, leaf in leaves}


def from_named_arrays(tree: Any, arrays: Mapping[str, Array]) -> Any:
    """Return a tree like ``tree`` with copies of the leaves that :func:`named_arrays` gave out."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.array(arrays[jax.tree_util.keystr(path, simple=True, separator=".")], leaf.dtype), tree
    )


@functools.lru_cache(maxsize=64)
def _parameter_shapes(module: MLP | CNN, shape: tuple[int, ...]) -> Any:
    rows = jax.ShapeDtypeStruct((1, *shape), jnp.float32)  # type: ignore[no-untyped-call]
    return jax.eval_shape(module.init, jax.random.key(0), rows)["params"]


def _orthogonal(module: MLP | CNN, shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Draw orthogonal weights and zero biases; in NumPy, because compiling an initialisation takes a second."""
    shapes = _parameter_shapes(module, shape)
    last = f"Dense_{sum(name.startswith('Dense') for name in shapes) - 1}"
    params = {}
    for name, layer in shapes.items():
        gain = module.output_gain if name == last else math.sqrt(2)
        params[name] = {
            "kernel": orthogonal(layer["kernel"].shape, gain, rng),
            "bias": np.zeros(layer["bias"].shape, np.float32),
        }
    return params
