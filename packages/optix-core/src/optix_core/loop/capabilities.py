"""What the loop makes use of where an agent has it, beyond the capabilities of :mod:`optix_protocol`."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from optix_protocol import StateTree


@runtime_checkable
class SupportsWarmUp(Protocol):
    """An agent that first gathers experience without learning from it, as off-policy agents do."""

    @property
    def is_warming_up(self) -> bool:
        """Whether ``learn`` has only remembered so far: what the agent earned until now says nothing of learning."""
        ...


@runtime_checkable
class SupportsLearnedState(Protocol):
    """An agent whose exact state is much larger than what acting by other weights changes: one with a memory."""

    def learned_state(self) -> StateTree:
        """Return copies of all that ``load_weights`` and acting change, and of nothing else."""
        ...

    def restore_learned_state(self, state: StateTree) -> None:
        """Be again as when :meth:`learned_state` returned this; nothing was learned in between."""
        ...
