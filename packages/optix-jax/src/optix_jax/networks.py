"""Flax networks, whose they may be: how they are called, initialised, and exported to NumPy."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from optix_jax.modules import ACTIVATIONS as ACTIVATIONS
from optix_jax.modules import CNN as CNN
from optix_jax.modules import MLP as MLP
from optix_jax.modules import OWN as OWN
from optix_jax.modules import ImageCritic as ImageCritic
from optix_jax.modules import Joined as Joined
from optix_jax.modules import NoCritic as NoCritic
from optix_jax.modules import is_channels_last as is_channels_last
from optix_protocol import Array


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
    if isinstance(module, Joined):
        networks, join = module.parts()
        own = {
            f"see_{i}": _orthogonal(network, size, rng)
            for i, (network, (_, size)) in enumerate(zip(networks, module.pictures, strict=True))
        }
        joined = module.num_joined() + (action_dim or 0)
        return Network(module=module), {**own, "join": _orthogonal(join, (joined,), rng)}
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
) -> MLP | CNN | Joined:
    """Build a network that fits an encoder: that of Mnih et al. 2015 for images, an MLP for all other observations.

    Where pictures are among other parts, the network of the former sees them, and the MLP is over that and the rest.

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
    if isinstance(encoder, Flatten) and encoder.pictures:
        return Joined(
            pictures=encoder.pictures,
            width=encoder.encoded_shape[0],
            hidden_sizes=tuple(hidden_sizes),
            num_outputs=num_outputs,
            activation=activation,
            **output,
        )
    return MLP(hidden_sizes=tuple(hidden_sizes), num_outputs=num_outputs, activation=activation, **output)


def build_networks(blueprint: Blueprint, num_outputs: int) -> dict[str, nn.Module]:
    """Build separate actor (output gain 0.01) and critic (output gain 1)."""
    encoder = blueprint.encoder
    return {
        "actor": build_network(encoder, num_outputs, **blueprint.layers("actor"), output_gain=0.01),
        "critic": build_network(encoder, 1, **blueprint.layers("critic")),
    }


def encoder_for_module(observation_space: Any) -> Encoder:
    """Return the encoder for a user's own module: images and arrays of several axes as they are, others as flat rows.

    Raises:
        ConfigError: there is no space to tell the shape from.
    """
    if observation_space is None:
        raise ConfigError("Pass observation_space=env.observation_space: a flax module does not tell its input.")
    encoder = encoder_for(observation_space)
    many_axes = isinstance(encoder, Flatten) and len(encoder.shape) > 1
    if many_axes:
        return Keep(shape=encoder.shape)
    return replace(encoder, pictures=()) if isinstance(encoder, Flatten) else encoder


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
