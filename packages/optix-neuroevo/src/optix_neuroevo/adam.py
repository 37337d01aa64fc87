"""Adam whose memory follows neurons and edges through changes of a graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optix_neuroevo.parameters import GraphParameters, owner_of
from optix_protocol import Array

Params = Iterable[Tensor] | Iterable[dict[str, Any]]


class TopologyAwareAdam(torch.optim.Optimizer):
    """Adam (Kingma and Ba 2015), with a step count for each number.

    A new weight under an old step count would leap 2.5 to 5 times the rate: its second moment is taken for a long
    average when it has seen one gradient. Here every weight, bias and gate counts its own steps, and what is remembered
    of it follows its id when rows move.

    Args:
        params: a graph's ``parameters()``, and any others.
        lr: step size.
        betas: decay of the first and second moment.
        eps: added to the root of the second moment.
    """

    def __init__(
        self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})
        self._ids: dict[str, Array] = {}
        self._versions: dict[GraphParameters, int] = {}
        self._look()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the parameters along their gradients; changes of their graph are noticed."""
        if closure is not None:
            raise TypeError("TopologyAwareAdam takes no closure.")
        if any(graph.version != version for graph, version in self._versions.items()):
            self.notify_topology_change()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None or not parameter.requires_grad:
                    continue
                memory = self._memory(parameter)
                first, second, steps = memory["exp_avg"], memory["exp_avg_sq"], memory["step"]
                steps.add_(1.0)
                first.lerp_(parameter.grad, 1.0 - beta1)
                second.mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1.0 - beta2)
                root = (second / -torch.expm1(steps * math.log(beta2))).sqrt_().add_(group["eps"])
                rate = first / -torch.expm1(steps * math.log(beta1))
                parameter.addcdiv_(rate, root, value=-float(group["lr"]))

    def notify_topology_change(self, params: Iterable[Tensor] | None = None) -> None:
        """Take over a graph's parameters as they are now, and carry what is remembered to where their ids are.

        Args:
            params: all parameters to move from now on; None asks the graphs that they belong to.
        """
        old, new = self.param_groups[0]["params"], list(params or ())
        if not new:
            graphs = list(self._versions)
            mine = {id(parameter) for graph in graphs for parameter in graph.parameters()}
            stay = [p for p in old if id(p) in mine or owner_of(p) is None]
            added = [p for graph in graphs for p in graph.parameters() if all(p is not other for other in stay)]
            new = [*added, *stay]
        remembered = [(p, self._key(p), self.state.pop(p)) for p in old if p in self.state]
        by_key = {key: (self._ids.get(key), memory) for _, key, memory in remembered}
        self.param_groups[0]["params"] = new
        for parameter in new:
            ids, memory = by_key.get(self._key(parameter), (None, None))
            owner = owner_of(parameter)
            if memory is None:
                continue
            if owner is None or ids is None:
                self.state[parameter] = memory
            else:
                graph, name = owner
                self.state[parameter] = _moved(memory, ids, graph.ids_of_parameters()[name], parameter)
        self._look()

    def _memory(self, parameter: Tensor) -> dict[str, Tensor]:
        memory: dict[str, Tensor] = self.state[parameter]
        if not memory:
            for name in ("step", "exp_avg", "exp_avg_sq"):
                memory[name] = torch.zeros_like(parameter)
        return memory

    def _key(self, parameter: Tensor) -> str:
        owner = owner_of(parameter)
        return f"{id(parameter)}" if owner is None else f"{id(owner[0])}.{owner[1]}"

    def _look(self) -> None:
        self._ids, self._versions = {}, {}
        for group in self.param_groups:
            for parameter in group["params"]:
                owner = owner_of(parameter)
                if owner is not None:
                    graph, name = owner
                    self._versions[graph] = graph.version
                    self._ids[self._key(parameter)] = graph.ids_of_parameters()[name]


def _moved(memory: Mapping[str, Tensor], before: Array, now: Array, parameter: Tensor) -> dict[str, Tensor]:
    """Return what is remembered of each id, in the present order; 0 for new ids."""
    row_of = {int(i): row for row, i in enumerate(_column(before)) if i >= 0}
    rows = [(row, row_of[int(i)]) for row, i in enumerate(_column(now)) if int(i) in row_of]
    columns = (torch.tensor(part, dtype=torch.long, device="cpu") for part in zip(*rows, strict=True))
    here, there = columns if rows else (None, None)
    moved = {}
    for name, tensor in memory.items():
        moved[name] = torch.zeros_like(parameter)
        if here is None or there is None:
            continue
        if tensor.ndim == 1:
            moved[name][here] = tensor[there]
        else:
            width = min(tensor.shape[1], parameter.shape[1])
            moved[name][here, :width] = tensor[there, :width]
    return moved


def _column(ids: Array) -> Array:
    """Return the ids of rows."""
    column: Array = ids if ids.ndim == 1 else ids[:, 0] if ids.shape[1] else np.full(len(ids), -1)
    return column
