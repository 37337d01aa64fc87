"""Callbacks that take part in a run, and so know all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from optix_core.loop.run import Run


@runtime_checkable
class JoinsRun(Protocol):
    """A callback that takes part in the run that it listens to, as an evolution does."""

    def join_run(self, run: Run) -> None:
        """Wire itself to a run that is about to begin."""
        ...
