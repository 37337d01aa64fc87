"""What agents ask of their networks, in whatever framework these are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from optix_core.policies import MLP
from optix_protocol import Array, StateTree

if TYPE_CHECKING:
    from optix_core.policies.onnx_export import PolicyGraph


class Networks(Protocol):
    """The learned part of an agent, in whatever framework: parameters, their slow copies, their optimisers."""

    def act(self, rows: Array) -> Array:
        """Return the acting network's outputs ``[N, out]`` for encoded observations ``[N, ...]``, as it is now."""
        ...

    def frozen_act(self) -> Callable[[Array], Array]:
        """Return ``act`` on a copy of the parameters."""
        ...

    def mlp(self) -> MLP | None:
        """Return the acting network in NumPy, None if it is no chain of dense layers."""
        ...

    def weights(self) -> dict[str, Array]:
        """Return copies of all that is learned, by name."""
        ...

    def load(self, weights: Mapping[str, Array]) -> None:
        """Take over what :meth:`weights` returned; slow copies and optimisers stay as they are."""
        ...

    def align(self) -> None:
        """Make the slow copies, if any, equal to what they follow."""
        ...

    def state(self) -> dict[str, Any]:
        """Return copies of the slow copies and of what the optimisers remember."""
        ...

    def restore(self, state: StateTree) -> None:
        """Continue from what :meth:`state` returned."""
        ...

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use this step size from the next update on."""
        ...


@runtime_checkable
class WritesOnnx(Protocol):
    """Networks that can say in ONNX what they compute, where :meth:`Networks.mlp` cannot say it in NumPy."""

    def write_onnx(self, graph: PolicyGraph) -> str:
        """Add the acting network's operators to a graph, from ``graph.rows``, and return the name of its outputs."""
        ...


@runtime_checkable
class FollowsScheduler(Protocol):
    """Networks whose learning rate may be changed by somebody else: by a scheduler on a user's own optimiser."""

    def notice_learning_rate(self) -> float | None:
        """Return the learning rate if somebody else has changed it since the last call, else None."""
        ...
