"""From an environment's spaces, or a user's modules, to what an agent is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from gymnasium import spaces
from torch import nn

from optix_core.agents.base import Blueprint
from optix_core.agents.heads import num_outputs_for
from optix_core.agents.synonyms import LEARNING_RATE
from optix_core.errors import ConfigError
from optix_core.policies import Encoder, Flatten, Keep, encoder_for
from optix_core.policies.encoders import example_observations
from optix_core.policies.flat_spaces import flat_space
from optix_torch._arrays import as_tensor
from optix_torch._modes import in_eval_mode
from optix_torch._module_optimizer import check_steps, leading_rate
from optix_torch._parts import give_parts
from optix_torch._precision import learning_dtype, require_learnable
from optix_torch.networks import NoisyLinear, build_cnn, build_mlp
from optix_torch.pictures import Pictures, build_joined


def with_learning_rate_of(
    optimizer: torch.optim.Optimizer | None, hyperparams: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the settings a user gave; a user's optimiser brings the default learning rate.

    Raises:
        ConfigError: the optimiser needs a closure, or has no learning rate.
    """
    values = dict(hyperparams or {})
    if optimizer is not None:
        check_steps(optimizer)
        if values.keys().isdisjoint(LEARNING_RATE):
            values["learning_rate"] = leading_rate(optimizer)
    return values


def build_network(
    encoder: Encoder, num_outputs: int, layers: Mapping[str, Any], *, output_gain: float, generator: torch.Generator
) -> nn.Sequential:
    """Build a network that fits an encoder: that of Mnih et al. 2015 for images, an MLP for all other observations.

    Where pictures are among other parts, the network of the former sees them, and the MLP is over that and the rest.

    Args:
        encoder: makes the input.
        num_outputs: width of the last layer.
        layers: ``hidden_sizes`` and ``activation`` of dense layers.
        output_gain: of the last layer's weights.
        generator: draws the weights.
    """
    if isinstance(encoder, Keep):
        return build_cnn(encoder.shape, num_outputs, output_gain=output_gain, generator=generator)
    if isinstance(encoder, Flatten) and encoder.pictures:
        return build_joined(encoder, num_outputs, output_gain=output_gain, generator=generator, **layers)
    size = encoder.encoded_shape[0]
    return build_mlp(size, num_outputs, output_gain=output_gain, generator=generator, **layers)


def build_actor_and_critic(blueprint: Blueprint) -> dict[str, nn.Module]:
    """Build a policy's network, nearly uniform at first, and one for values."""
    generator, encoder = torch.Generator().manual_seed(blueprint.seed), blueprint.encoder
    outputs, of_actor, of_critic = num_outputs_for(blueprint.action_space), *map(blueprint.layers, ("actor", "critic"))
    return {
        "actor": build_network(encoder, outputs, of_actor, output_gain=0.01, generator=generator),
        "critic": build_network(encoder, 1, of_critic, output_gain=1.0, generator=generator),
    }


def encoder_for_module(module: nn.Module, observation_space: Any, *others: nn.Module) -> Encoder:
    """Choose the encoder for a user's own module: flat float rows if it begins with a dense layer, else raw arrays.

    Where the space is a Dict or Tuple, modules are made to take its parts (:func:`optix_torch._parts.give_parts`).

    Args:
        module: the module.
        observation_space: a single environment's space, or None.
        others: further modules that take the same observations.

    Raises:
        ConfigError: the shape of an observation cannot be told from the module.
    """
    if observation_space is not None and any(isinstance(part, Pictures) for part in module.modules()):
        return encoder_for(observation_space)  # one of ours, which takes flat rows
    if isinstance(observation_space, spaces.Dict | spaces.Tuple):
        for part in (module, *others):
            give_parts(part, observation_space)
        flat = flat_space(observation_space)
        return Flatten(shape=flat.shape or (), dtype=str(flat.dtype), parts=getattr(flat, "parts", ()))
    layers = (nn.Linear, NoisyLinear, nn.RNNCellBase, nn.Embedding, nn.modules.conv._ConvNd)
    first = next((part for part in module.modules() if isinstance(part, layers)), None)
    if observation_space is not None:
        if not isinstance(first, nn.Linear | NoisyLinear | nn.RNNCellBase):
            return Keep(shape=observation_space.shape, dtype=str(observation_space.dtype))
        encoder = encoder_for(observation_space)
        if isinstance(encoder, Flatten):
            return replace(encoder, pictures=())
        return Flatten(shape=encoder.shape, dtype=encoder.dtype) if isinstance(encoder, Keep) else encoder
    if isinstance(first, nn.Linear):
        return Flatten(shape=(first.in_features,))
    if isinstance(first, nn.RNNCellBase):
        return Flatten(shape=(first.input_size,))
    raise ConfigError("Pass observation_space=env.observation_space: the actor does not begin with a linear layer.")


def num_outputs_of(module: nn.Module, otherwise: int | None = None) -> int:
    """Return the width of a module's last linear layer; without one, what the user says.

    Raises:
        ConfigError: it has none, and the user says nothing.
    """
    linears = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if not linears and otherwise is None:
        raise ConfigError("Pass action_dim=: the actor has no linear layer to tell it from.")
    return linears[-1].out_features if linears else int(otherwise or 0)


def check_module(module: nn.Module, encoder: Encoder, num_outputs: int, part: str) -> None:
    """Run a user's module once on two observations of zeros, in evaluation mode.

    Args:
        module: from encoded observations ``[B, ...]`` to ``[B, num_outputs]``.
        encoder: whose rows it will be given.
        num_outputs: the width that it must have.
        part: what to call it in errors.

    Raises:
        ConfigError: it does not take such observations, or gives something else.
    """
    shape = measure_module(module, encoder, part)
    if shape != [2, num_outputs]:
        raise ConfigError(f"The {part} must give [B, {num_outputs}]; for B = 2 it gives {shape}.")


def num_outputs_given(module: nn.Module, encoder: Encoder, part: str = "actor") -> int:
    """Return how many outputs a module has, found by running it once on two observations of zeros.

    Raises:
        ConfigError: it does not take such observations, or gives something else than ``[B, out]``.
    """
    shape = measure_module(module, encoder, part)
    if len(shape) != 2 or shape[0] != 2:
        raise ConfigError(f"The {part} must give [B, outputs]; for B = 2 it gives {shape}.")
    return shape[1]


@torch.inference_mode(False)
def measure_module(module: nn.Module, encoder: Encoder, part: str) -> list[int]:
    """Run a module once on two observations of zeros, in evaluation mode, and return the shape of what it gives.

    Raises:
        ConfigError: it does not take such observations, gives no float32 tensor, or one that no gradient leads back
            from, although it has something to learn.
    """
    like = next(module.parameters(), torch.empty(0, dtype=learning_dtype(), device="cpu"))
    require_learnable(like)
    rows = as_tensor(encoder(example_observations(encoder, 2)), like.device)
    rows = rows.to(like.dtype) if rows.is_floating_point() else rows
    try:
        with in_eval_mode(module):
            outputs = module(rows)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"The {part} fails on observations {list(rows.shape)}: {reason}") from error
    if not isinstance(outputs, torch.Tensor):
        raise ConfigError(
            f"The {part} must give one tensor [B, outputs], not a {type(outputs).__name__}: pass networks for policy "
            "and values apart, as actor= and critic=."
        )
    if outputs.dtype is not learning_dtype():
        raise ConfigError(f"The {part} must give float32, not {outputs.dtype}: end its forward() with .float().")
    if not outputs.requires_grad and any(parameter.requires_grad for parameter in module.parameters()):
        raise ConfigError(
            f"No gradient leads from what the {part} gives to its parameters: leave torch.no_grad() and detach() out "
            "of its forward()."
        )
    return list(outputs.shape)
