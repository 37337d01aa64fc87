"""Old import paths of modules that moved into a room: ``optix_core.backends`` is ``optix_core.agents.backends``.

The old name gives the very same module, so that a class imported by either path is one class.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "optix_core.atari": "optix_core.environments.atari",
    "optix_core.backends": "optix_core.agents.backends",
    "optix_core.checkpoints.arrays": "optix_core.storage.arrays",
    "optix_core.checkpoints.chunks": "optix_core.storage.chunks",
    "optix_core.checkpoints.damage": "optix_core.storage.damage",
    "optix_core.checkpoints.documents": "optix_core.storage.documents",
    "optix_core.checkpoints.files": "optix_core.storage.files",
    "optix_core.checkpoints.journal": "optix_core.journal.journal",
    "optix_core.checkpoints.lock": "optix_core.storage.lock",
    "optix_core.checkpoints.tree": "optix_core.storage.tree",
    "optix_core.checkpoints.writer": "optix_core.storage.writer",
    "optix_core.defaults": "optix_core.training.defaults",
    "optix_core.flattening": "optix_core.environments.flattening",
    "optix_core.probes": "optix_core.testing.probes",
    "optix_core.seeds": "optix_core.training.seeds",
}
"""Where a module of an earlier release is now; kept until the next major version."""


class _Forward(MetaPathFinder, Loader):
    """Finds the modules of ``MOVED`` under their old names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        # The import system returns what stands in sys.modules, which is the module at its new place.
        sys.modules[module.__name__] = importlib.import_module(MOVED[module.__name__])


def install() -> None:
    """Let the old paths be imported; calling it twice changes nothing."""
    if not any(isinstance(finder, _Forward) for finder in sys.meta_path):
        sys.meta_path.append(_Forward())
