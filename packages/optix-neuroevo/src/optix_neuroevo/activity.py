"""What a graph's neurons did while it learned from a window: the evidence for growing, pruning and merging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from optix_neuroevo.compile import Program, Wiring
from optix_protocol import Array


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Moments of the neurons' outputs over the rows of a window, and the gradient of every edge that could be.

    Attributes:
        ids: ``[K]`` neurons, in the order of slots.
        mean: ``[K]``.
        mean_abs: ``[K]``.
        covariance: ``[K, K]``.
        gradient: ``[D + 1, K, K]`` gradient of the loss by the weight of an edge from one neuron to another, for delays
            of 0 to ``D`` steps, summed over an update; None where no matrices ran.
    """

    ids: Array
    mean: Array
    mean_abs: Array
    covariance: Array
    gradient: Array | None

    def index(self, neuron: int) -> int | None:
        """Return where a neuron stands, None if it was not there yet."""
        found = np.flatnonzero(self.ids == neuron)
        return int(found[0]) if len(found) else None

    def places(self, neurons: Sequence[int]) -> Array:
        """Return where neurons that were there stand."""
        order: Array = np.argsort(self.ids)
        return order[np.searchsorted(self.ids, neurons, sorter=order)]

    def mean_of(self, neuron: int) -> float:
        """Return the mean output of a neuron; 0 if it was not there yet."""
        place = self.index(neuron)
        return 0.0 if place is None else float(self.mean[place])

    def correlation(self) -> Array:
        """Return Pearson's correlations ``[K, K]``, 0 where an output does not vary."""
        deviation = np.sqrt(np.diag(self.covariance))
        scale = np.where(deviation > 1e-8, deviation, np.inf)
        correlation: Array = self.covariance / scale[:, None] / scale[None, :]
        return correlation


class Watch:
    """Collects an :class:`Activity` while an agent learns; a graph that nobody watches has none.

    Attributes:
        activity: of the latest update, None before the first.
        rows: outputs of all slots in the latest window ``[T, N, S]``, where they go on from the row before, and which
            rows count (bool ``[T, N]`` both).
    """

    def __init__(self) -> None:
        self.activity: Activity | None = None
        self.rows: tuple[Array, Array, Array] | None = None
        self._rows: Tensor | None = None
        self._gradient: Tensor | None = None

    def see_rows(self, h: Tensor, keep: Tensor, valid: Array) -> None:
        """See the outputs of all slots over a window.

        Args:
            h: ``[T, N, ...]``.
            keep: ``[T, N, 1]``, 0 where the memory begins anew before a row.
            valid: bool ``[T, N]``, the rows that count.
        """
        self._rows = h.detach()[: len(valid)]
        self.rows = self._rows.cpu().numpy(), keep[: len(valid), :, 0].cpu().numpy() > 0, valid
        self._valid = valid
        self._gradient = None

    def see_gradient(self, gradient: Tensor) -> None:
        """See the gradient of the dense vector of a step."""
        self._gradient = gradient.clone() if self._gradient is None else self._gradient.add_(gradient)

    def finish(self, program: Program, wiring: Wiring) -> None:
        """Make an activity of what was seen during an update of this graph."""
        if self._rows is None:
            return
        used = np.flatnonzero(wiring.ids >= 0)
        rows = self._rows[..., : program.num_slots].cpu().numpy()[self._valid].astype(np.float64)[:, used]
        mean = rows.mean(0)
        centred = rows - mean
        self.activity = Activity(
            ids=wiring.ids[used],
            mean=mean,
            mean_abs=np.abs(rows).mean(0),
            covariance=centred.T @ centred / len(rows),
            gradient=self._by_edge(program, used),
        )
        self._rows = self._gradient = None

    def _by_edge(self, program: Program, used: Array) -> Array | None:
        if self._gradient is None or program.is_sparse:
            return None
        S, I = program.num_slots, program.num_inputs  # noqa: E741
        inputs, now, delayed, _, _ = torch.split(self._gradient.cpu(), list(program.sizes))
        blocks = [torch.cat([inputs.view(I, S), now.view(S - I, S)]), *delayed.view(-1, S, S)]
        gradient: Array = np.stack([block.numpy()[np.ix_(used, used)] for block in blocks]).astype(np.float64)
        return gradient
