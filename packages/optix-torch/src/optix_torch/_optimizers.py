"""Parameters in one vector, and the optimisers of our own that move them."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, groupby
from operator import attrgetter, is_
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from optix_protocol import StateTree
from optix_torch._precision import learning_dtype, require_learnable

_REQUIRES_GRAD, _GRADIENT = attrgetter("requires_grad"), attrgetter("grad")


_READ_AT_ONCE = frozenset({"cpu"})
"""Kinds of device whose numbers can be read without waiting."""


class FlatParameters:
    """Parameters and their gradients laid out in one vector each, so that clipping and Adam take a few operations.

    The parameters stay the modules' own; their memory moves into the vector.

    Raises:
        ConfigError: parameters that are not float32.

    Attributes:
        parameters: each once, in the order of the vector.
        trained: of each, whether it is; as :meth:`hold` found it.
        vector: ``[P]`` all values.
        gradient: ``[P]`` all gradients, zero at first.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = tuple(dict.fromkeys(parameters))
        for parameter in self.parameters:
            require_learnable(parameter)
        self.sizes = [parameter.numel() for parameter in self.parameters]
        device = self.parameters[0].device
        self.vector = torch.empty(sum(self.sizes), dtype=learning_dtype(), device=device)
        self.gradient = torch.zeros(sum(self.sizes), dtype=learning_dtype(), device=device)
        flat = zip(torch.split(self.vector, self.sizes), torch.split(self.gradient, self.sizes), strict=True)
        self._places = [
            (parameter, value.view(parameter.shape), gradient.view(parameter.shape))
            for parameter, (value, gradient) in zip(self.parameters, flat, strict=True)
        ]
        self._know_places()
        self.trained: tuple[bool, ...] = ()
        self.hold()

    @classmethod
    def pair(
        cls, first: Iterable[nn.Parameter], second: Iterable[nn.Parameter]
    ) -> tuple[FlatParameters, FlatParameters]:
        """Lay out two sets; what is in both has one place in memory, at the first's end and the second's start."""
        first, second = tuple(dict.fromkeys(first)), tuple(dict.fromkeys(second))
        common = set(first) & set(second)
        if not common:
            return cls(first), cls(second)
        parts = [[p for p in first if p not in common], [p for p in first if p in common]]
        parts += [[p for p in second if p not in common]]
        whole = cls(chain(*parts))
        alone, shared = len(parts[0]), len(parts[1])
        return whole._part(0, alone + shared), whole._part(alone, len(whole.parameters))

    def hold(self) -> None:
        """See which parameters are trained, and take back memory and gradients that somebody has replaced.

        ``optimizer.zero_grad()`` drops gradients, and assigning to ``.data`` moves a parameter.
        """
        if not self._holds():
            for parameter, value, gradient in self._places:
                if parameter.grad is not gradient:
                    parameter.grad = gradient
                if parameter.data_ptr() != value.data_ptr():
                    value.copy_(parameter.data)
                    parameter.data = value
        trained = tuple(map(_REQUIRES_GRAD, self.parameters))
        if trained != self.trained:
            self.trained = trained

    def _holds(self) -> bool:
        """Whether everything is in its place; asked before each update."""
        moved = list(map(Tensor.data_ptr, self.parameters)) != self._addresses
        return not moved and all(map(is_, map(_GRADIENT, self.parameters), self._gradients))

    def clip_gradient_(self, max_norm: float) -> Tensor:
        """Scale the gradient down to a largest norm and return the norm before, without waiting for the device."""
        norm: Tensor = torch.linalg.vector_norm(self.gradient)
        if norm.device.type in _READ_AT_ONCE:  # a number is cheaper than five operations on a tensor of one
            if not norm.item() + 1e-6 <= max_norm:
                self.gradient.mul_(max_norm / (norm + 1e-6))
        else:
            self.gradient.mul_((max_norm / (norm + 1e-6)).clamp_(max=1.0))
        return norm

    def _part(self, start: int, stop: int) -> FlatParameters:
        """Return some of these parameters, which follow each other, on the same memory."""
        part = copy.copy(self)
        place = slice(sum(self.sizes[:start]), sum(self.sizes[:stop]))
        part.parameters, part.sizes = self.parameters[start:stop], self.sizes[start:stop]
        part.vector, part.gradient = self.vector[place], self.gradient[place]
        part._places, part.trained = self._places[start:stop], self.trained[start:stop]
        part._know_places()
        return part

    def _know_places(self) -> None:
        self._addresses = [value.data_ptr() for _, value, _ in self._places]
        self._gradients = [gradient for *_, gradient in self._places]


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
        """Continue from what :meth:`state` returned."""
        ...


class _Run(NamedTuple):
    """Parameters that follow each other in the vector, are trained, and have been moved equally often."""

    members: range
    vector: Tensor
    gradient: Tensor
    first: Tensor
    second: Tensor


class _Moments(ABC):
    """What both forms of Adam (Kingma and Ba 2015) on one flat vector remember.

    A parameter that is frozen stays where it is, with its moments, and counts no step, as under ``torch.optim.Adam``
    where it has no gradient. Usually all are trained, and are one run.

    Args:
        parameters: what to move.
        learning_rate: step size.
        betas: decay of the first and second moment.
        epsilon: added to the root of the second moment.
    """

    def __init__(
        self, parameters: FlatParameters, *, learning_rate: float, betas: tuple[float, float], epsilon: float
    ) -> None:
        self.learning_rate = learning_rate
        self._parameters = parameters
        self._betas = betas
        self._epsilon = epsilon
        self._first = torch.zeros_like(parameters.vector)
        self._second = torch.zeros_like(parameters.vector)
        self._arrange([0] * len(parameters.parameters))

    def state(self) -> dict[str, Any]:
        """Return a copy of moments, step counts (one number where all are equal) and learning rate."""
        counts = self._counts()
        return {
            "first": self._first.cpu().numpy().copy(),
            "second": self._second.cpu().numpy().copy(),
            "num_steps": counts[0] if len(set(counts)) == 1 else np.array(counts),
            "learning_rate": self.learning_rate,
        }

    def restore(self, state: StateTree) -> None:
        """Continue from what :meth:`state` returned."""
        self._first.copy_(torch.from_numpy(np.array(state["first"])))
        self._second.copy_(torch.from_numpy(np.array(state["second"])))
        self.learning_rate = state["learning_rate"]
        counts = np.broadcast_to(np.asarray(state["num_steps"]), len(self._parameters.parameters))
        self._arrange(counts.tolist())

    def _arrange(self, counts: list[int]) -> None:
        """Cut the vector into runs, given how often each parameter has been moved."""
        self._trained, self._known_counts = self._parameters.trained, counts
        self._runs, start, place = [], 0, 0
        for (trained, count), group in groupby(zip(self._trained, counts, strict=True)):
            stop = start + len(list(group))
            size = sum(self._parameters.sizes[start:stop])
            vectors = (self._parameters.vector, self._parameters.gradient, self._first, self._second)
            if trained:
                run = _Run(range(start, stop), *(vector[place : place + size] for vector in vectors))
                self._runs.append((run, self._counter(count, run)))
            start, place = stop, place + size

    def _follow_freezing(self) -> None:
        if self._parameters.trained is not self._trained:
            self._arrange(self._counts())

    def _counts(self) -> list[int]:
        """Return how often each parameter has been moved."""
        counts = list(self._known_counts)
        for run, counter in self._runs:
            counts[run.members.start : run.members.stop] = [self._count(counter)] * len(run.members)
        return counts

    _runs: list[tuple[_Run, Any]]

    @abstractmethod
    def _counter(self, count: int, run: _Run) -> Any:
        """Return what counts the steps of a run."""

    @abstractmethod
    def _count(self, counter: Any) -> int:
        """Return what it has counted."""


class Adam(_Moments):
    """Adam, step by step.

    The same numbers as ``torch.optim.Adam`` to rounding, without its import of the compiler stack, which takes longer
    than training on a small task. Arguments as in :class:`_Moments`.
    """

    def __init__(
        self,
        parameters: FlatParameters,
        *,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__(parameters, learning_rate=learning_rate, betas=betas, epsilon=epsilon)

    def step(self) -> None:
        """Move the parameters along their gradients."""
        self._follow_freezing()
        beta1, beta2 = self._betas
        for (_, vector, gradient, first, second), counter in self._runs:
            counter.num_steps += 1
            correction1, correction2 = 1 - beta1**counter.num_steps, 1 - beta2**counter.num_steps
            first.lerp_(gradient, 1 - beta1)
            second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            torch.sqrt(second, out=counter.root).mul_(1 / math.sqrt(correction2)).add_(self._epsilon)
            vector.addcdiv_(first, counter.root, value=-self.learning_rate / correction1)

    def _counter(self, count: int, run: _Run) -> _Counter:
        return _Counter(count, torch.empty_like(run.vector))

    def _count(self, counter: _Counter) -> int:
        return counter.num_steps


@dataclass
class _Counter:
    """How often a run has been moved, and memory for a root."""

    num_steps: int
    root: Tensor


class FusedAdam(_Moments):
    """Adam in one pass over the vector.

    The same numbers as ``torch.optim.Adam``. Less than half the time of :class:`Adam` on vectors that do not fit into
    the processor's first cache, and without numbers of its own in Python, so that a CUDA graph can replay it. Arguments
    as in :class:`_Moments`.
    """

    def __init__(
        self,
        parameters: FlatParameters,
        *,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(parameters, learning_rate=learning_rate, betas=betas, epsilon=epsilon)

    def step(self) -> None:
        """Move the parameters along their gradients."""
        self._follow_freezing()
        for (_, vector, gradient, first, second), num_steps in self._runs:
            num_steps.add_(1)
            torch._fused_adam_(
                [vector],
                [gradient],
                [first],
                [second],
                [],
                [num_steps],
                lr=self.learning_rate,
                beta1=self._betas[0],
                beta2=self._betas[1],
                weight_decay=0.0,
                eps=self._epsilon,
                amsgrad=False,
                maximize=False,
            )

    def _counter(self, count: int, run: _Run) -> Tensor:
        return torch.full((), float(count), dtype=learning_dtype(), device=run.vector.device)

    def _count(self, counter: Tensor) -> int:
        return int(counter)
