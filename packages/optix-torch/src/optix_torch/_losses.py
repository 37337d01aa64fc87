"""The losses of models that are trained on data sets, each a mean over the rows of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

TEMPERATURE = 0.5
"""Of the contrastive loss, as in Chen et al. 2020 for CIFAR-10."""


def last_layer(model: nn.Module) -> nn.Module:
    """Return the last layer of a sequence of layers, or the model itself."""
    while isinstance(model, nn.Sequential) and len(model):
        model = model[-1]
    return model


def loss_function(name: str, model: nn.Module) -> Callable[[Any, Any], Tensor]:
    """Return ``loss(outputs, targets)`` by name.

    Models whose last layer is a softmax, a log-softmax or a sigmoid have the loss of probabilities, not of logits.
    """
    last = last_layer(model)
    if name == "cross_entropy" and isinstance(last, nn.LogSoftmax):
        return lambda outputs, targets: functional.nll_loss(outputs, targets.long())
    if name == "cross_entropy" and isinstance(last, nn.Softmax):
        return lambda outputs, targets: functional.nll_loss(outputs.clamp_min(1e-12).log(), targets.long())
    if name == "bce" and isinstance(last, nn.Sigmoid):
        return lambda outputs, targets: functional.binary_cross_entropy(*aligned(outputs, targets))
    return _BY_NAME[name]


def aligned(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in the shape of the targets: ``[B, 1]`` beside ``[B]`` would be taken for ``[B, B]``."""
    if outputs.shape != targets.shape:
        outputs = outputs.reshape(targets.shape)
    return outputs, targets.to(outputs.dtype)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of logits ``[B, C, *]`` with classes ``[B, *]`` or probabilities ``[B, C, *]``."""
    return functional.cross_entropy(outputs, targets if targets.is_floating_point() else targets.long())


def vae(outputs: tuple[Tensor, Tensor, Tensor], inputs: Tensor) -> Tensor:
    """Return the negative evidence lower bound with a Gaussian likelihood of unit variance, constants left out.

    Kingma and Welling 2014, equation 10: half the squared error of the reconstruction plus
    ``-1/2 sum(1 + log sigma^2 - mu^2 - sigma^2)``, both summed over a row.

    Args:
        outputs: reconstruction as the inputs, mean ``[B, Z]``, logarithm of the variance ``[B, Z]``.
        inputs: ``[B, *x]``.
    """
    reconstruction, mean, log_variance = outputs
    error = (reconstruction - inputs.reshape(reconstruction.shape)).square().flatten(1).sum(1) / 2
    divergence = -(1 + log_variance - mean.square() - log_variance.exp()).flatten(1).sum(1) / 2
    return (error + divergence).mean()


def contrastive(views: Tensor, others: Tensor) -> Tensor:
    """Return NT-Xent of two views ``[B, Z]`` of the same things (Chen et al. 2020, equation 1)."""
    rows = functional.normalize(torch.cat([views, others]).flatten(1), dim=1)
    similarity = rows @ rows.T / TEMPERATURE
    similarity.fill_diagonal_(-torch.inf)
    partner = torch.arange(len(rows), device=rows.device).roll(len(views))
    return functional.cross_entropy(similarity, partner)


_BY_NAME: Mapping[str, Callable[[Any, Any], Tensor]] = {
    "cross_entropy": cross_entropy,
    "bce": lambda outputs, targets: functional.binary_cross_entropy_with_logits(*aligned(outputs, targets)),
    "mse": lambda outputs, targets: functional.mse_loss(*aligned(outputs, targets)),
    "mae": lambda outputs, targets: functional.l1_loss(*aligned(outputs, targets)),
    "huber": lambda outputs, targets: functional.huber_loss(*aligned(outputs, targets)),
    "reconstruction": lambda outputs, inputs: functional.mse_loss(outputs, inputs),
    "vae": vae,
    "contrastive": contrastive,
}


def correct(name: str, model: nn.Module, outputs: Tensor, targets: Tensor) -> float | None:
    """Return the share of rows whose class the model knows, None where targets are no classes."""
    if name == "cross_entropy":
        known = targets.argmax(1) if targets.is_floating_point() else targets
        return (outputs.argmax(1) == known).float().mean().item()
    if name == "bce":
        outputs, targets = aligned(outputs, targets)
        threshold = 0.5 if isinstance(last_layer(model), nn.Sigmoid) else 0.0
        return ((outputs > threshold) == (targets > 0.5)).float().mean().item()
    return None
