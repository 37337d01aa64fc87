"""Parameters in one vector, and the optimisers that move them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from optix_protocol import StateTree


class FlatParameters:
    """Parameters and their gradients laid out in one vector each, so that clipping and Adam take a few operations.

    The parameters stay the modules' own; their memory moves into the vector.

    Attributes:
        vector: ``[P]`` all values.
        gradient: ``[P]`` all gradients, zero at first.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        unique = list(dict.fromkeys(parameters))
        sizes = [parameter.numel() for parameter in unique]
        device = unique[0].device
        self.vector = torch.empty(sum(sizes), device=device)
        self.gradient = torch.zeros(sum(sizes), device=device)
        places = zip(unique, torch.split(self.vector, sizes), torch.split(self.gradient, sizes), strict=True)
        for parameter, value, gradient in places:
            value.copy_(parameter.data.reshape(-1))
            parameter.data = value.view(parameter.shape)
            parameter.grad = gradient.view(parameter.shape)

    def clip_gradient_(self, max_norm: float) -> Tensor:
        """Scale the gradient down to a largest norm and return the norm before, without waiting for the device."""
        norm: Tensor = torch.linalg.vector_norm(self.gradient)
        self.gradient.mul_((max_norm / (norm + 1e-6)).clamp_(max=1.0))
        return norm


class Optimizer(Protocol):
    """What an agent asks of an optimiser: a step, a learning rate, an exact memory."""

    learning_rate: float

    def step(self) -> None:
        """Move the parameters along their gradients."""
        ...

    def state(self) -> dict[str, Any]:
        """Return a copy of what it remembers, as arrays and JSON scalars."""
        ...

    def restore(self, state: StateTree) -> None:
        """Go on from what :meth:`state` returned."""
        ...


class _Moments:
    """What both forms of Adam (Kingma and Ba 2015) on one flat vector remember.

    Args:
        parameters: what to move.
        learning_rate: step size.
        betas: decay of the first and second moment.
        epsilon: added to the root of the second moment.
    """

    _num_steps: int | Tensor

    def __init__(
        self, parameters: FlatParameters, *, learning_rate: float, betas: tuple[float, float], epsilon: float
    ) -> None:
        self.learning_rate = learning_rate
        self._parameters = parameters
        self._betas = betas
        self._epsilon = epsilon
        self._first = torch.zeros_like(parameters.vector)
        self._second = torch.zeros_like(parameters.vector)

    def state(self) -> dict[str, Any]:
        """Return a copy of moments, step count and learning rate."""
        return {
            "first": self._first.cpu().numpy().copy(),
            "second": self._second.cpu().numpy().copy(),
            "num_steps": int(self._num_steps),
            "learning_rate": self.learning_rate,
        }

    def restore(self, state: StateTree) -> None:
        """Go on from what :meth:`state` returned."""
        self._first.copy_(torch.from_numpy(np.array(state["first"])))
        self._second.copy_(torch.from_numpy(np.array(state["second"])))
        self.learning_rate = state["learning_rate"]


class Adam(_Moments):
    """Adam, step by step.

    The same numbers as ``torch.optim.Adam`` to rounding, without its import of the compiler stack, which takes longer
    than training on a small task. Arguments as in :class:`_Moments`.
    """

    _num_steps: int

    def __init__(
        self,
        parameters: FlatParameters,
        *,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__(parameters, learning_rate=learning_rate, betas=betas, epsilon=epsilon)
        self._num_steps = 0
        self._root = torch.empty_like(parameters.vector)

    def step(self) -> None:
        """Move the parameters along their gradients."""
        self._num_steps += 1
        beta1, beta2 = self._betas
        correction1, correction2 = 1 - beta1**self._num_steps, 1 - beta2**self._num_steps
        gradient = self._parameters.gradient
        self._first.lerp_(gradient, 1 - beta1)
        self._second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        torch.sqrt(self._second, out=self._root).mul_(1 / math.sqrt(correction2)).add_(self._epsilon)
        self._parameters.vector.addcdiv_(self._first, self._root, value=-self.learning_rate / correction1)

    def restore(self, state: StateTree) -> None:
        """Go on from what :meth:`state` returned."""
        super().restore(state)
        self._num_steps = state["num_steps"]


class FusedAdam(_Moments):
    """Adam in one pass over the vector.

    The same numbers as ``torch.optim.Adam``. Less than half the time of :class:`Adam` on vectors that do not fit into
    the processor's first cache, and without numbers of its own in Python, so that a CUDA graph can replay it. Arguments
    as in :class:`_Moments`.
    """

    _num_steps: Tensor

    def __init__(
        self,
        parameters: FlatParameters,
        *,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(parameters, learning_rate=learning_rate, betas=betas, epsilon=epsilon)
        self._num_steps = torch.zeros((), device=parameters.vector.device)

    def step(self) -> None:
        """Move the parameters along their gradients."""
        self._num_steps.add_(1)
        torch._fused_adam_(
            [self._parameters.vector],
            [self._parameters.gradient],
            [self._first],
            [self._second],
            [],
            [self._num_steps],
            lr=self.learning_rate,
            beta1=self._betas[0],
            beta2=self._betas[1],
            weight_decay=0.0,
            eps=self._epsilon,
            amsgrad=False,
            maximize=False,
        )

    def restore(self, state: StateTree) -> None:
        """Go on from what :meth:`state` returned."""
        super().restore(state)
        self._num_steps.fill_(state["num_steps"])


class ModuleOptimizer:
    """A user's own ``torch.optim.Optimizer``.

    Args:
        optimizer: over the parameters of the user's modules.
        extra: further parameters to optimise, added to it unless they are in it.
        only: parameters that :meth:`step` moves, where an algorithm takes turns with parts of them; None moves all.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        extra: Iterable[nn.Parameter],
        only: Iterable[nn.Parameter] | None = None,
    ) -> None:
        known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        missing = [parameter for parameter in extra if id(parameter) not in known]
        if missing:
            optimizer.add_param_group({"params": missing})
        self._optimizer = optimizer
        self._only = None if only is None else {id(parameter) for parameter in only}

    @property
    def learning_rate(self) -> float:
        """That of the first group; setting it sets all groups."""
        return float(self._optimizer.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = value

    def step(self) -> None:
        """Move the parameters along their gradients."""
        hidden = [] if self._only is None else [p for p in self._parameters() if id(p) not in self._only]
        gradients = [parameter.grad for parameter in hidden]
        for parameter in hidden:
            parameter.grad = None  # torch's optimisers pass over parameters without a gradient
        self._optimizer.step()
        for parameter, gradient in zip(hidden, gradients, strict=True):
            parameter.grad = gradient

    def state(self) -> dict[str, Any]:
        """Return a copy of its memory of each parameter, by position, and the learning rate."""
        memory = self._optimizer.state_dict()["state"].items()
        entries = {str(index): {name: _to_leaf(leaf) for name, leaf in entry.items()} for index, entry in memory}
        return {"entries": entries, "learning_rate": self.learning_rate}

    def restore(self, state: StateTree) -> None:
        """Go on from what :meth:`state` returned; settings other than the learning rate stay the optimiser's."""
        memory = state["entries"].items()
        entries = {int(index): {name: _from_leaf(leaf) for name, leaf in entry.items()} for index, entry in memory}
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": entries, "param_groups": groups})
        self.learning_rate = state["learning_rate"]

    def _parameters(self) -> Iterator[nn.Parameter]:
        for group in self._optimizer.param_groups:
            yield from group["params"]


def _to_leaf(value: Any) -> Any:
    return value.detach().cpu().numpy().copy() if isinstance(value, Tensor) else value


def _from_leaf(value: Any) -> Any:
    return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
