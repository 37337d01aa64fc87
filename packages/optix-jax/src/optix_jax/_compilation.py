"""Compiled functions: how often they were traced, and where the machine code is kept between processes."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

CACHE_VARIABLE = "OPTIX_JAX_CACHE"
"""Environment variable: ``off`` keeps no compiled code on disk, a path keeps it there."""


MOST_PROGRAMS = 16
"""Programs that a compiled function keeps in memory, some megabytes each, before it forgets them all."""


class Compiled:
    """``jax.jit`` that counts its traces: arguments that are traced may change as often as they like without one.

    Static ones make a program of their own: a population or an evolution that moves ``minibatch_size`` would fill the
    memory, and so programs are forgotten once there are too many. One that is needed again comes from the disk.

    Args:
        function: pure.
        options: of ``jax.jit``.

    Attributes:
        num_traces: how often Python has gone through the function.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self.num_traces = 0
        self._forgot_at = 0

        @functools.wraps(function)
        def traced(*args: Any, **kwargs: Any) -> Any:
            self.num_traces += 1
            return function(*args, **kwargs)

        self._call: Any = jax.jit(traced, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the compiled function."""
        found = self._call(*args, **kwargs)
        if self.num_traces - self._forgot_at >= MOST_PROGRAMS:
            self._call.clear_cache()
            self._forgot_at = self.num_traces
        return found


@functools.cache
def use_persistent_cache() -> Path | None:
    """Let JAX keep compiled code in the user's cache directory, so that only the first process has to compile.

    ``OPTIX_JAX_CACHE=off`` turns it off and ``OPTIX_JAX_CACHE=<directory>`` moves it; a directory that JAX was given in
    another way (``JAX_COMPILATION_CACHE_DIR``) stays as it is. A directory that cannot be written, or that belongs to
    somebody else, is not used.

    Returns:
        The directory, or None if nothing is kept.
    """
    wanted = os.environ.get(CACHE_VARIABLE, "")
    if wanted.lower() in ("off", "0", "false", "no"):
        return None
    settings: Any = jax.config  # its members carry no types
    if settings.jax_compilation_cache_dir:
        return Path(settings.jax_compilation_cache_dir)
    directory = (Path(wanted).expanduser() if wanted else _user_cache() / "optix" / "jax") / _machine()
    if not _is_ours(directory):
        return None
    settings.update("jax_compilation_cache_dir", str(directory))
    settings.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return directory


def _user_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    return Path(os.environ.get(variable) or Path.home() / ".cache")


def _machine() -> str:
    """Name what compiled code depends on beyond JAX's own key: in a shared home, another processor may run it."""
    features = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features += next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    except OSError:
        features += platform.processor()
    return hashlib.sha256(features.encode()).hexdigest()[:12]


def _is_ours(directory: Path) -> bool:
    """Whether the directory can be written, and by nobody else: code in it is executed."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=directory):
            pass
        return not hasattr(os, "getuid") or directory.stat().st_uid == os.getuid()
    except OSError:
        return False
