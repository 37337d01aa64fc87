"""The whole suite: workers keep what they need, and say in the end how large they grew."""

from __future__ import annotations

import resource
import sys

import pytest


@pytest.fixture(scope="module", autouse=True)
def _drop_compiled_code(request):
    """After a file of JAX or TensorFlow, let go of what was compiled for it: it would pile up in the worker."""
    yield
    path = request.path.as_posix()
    if "optix-jax" in path and "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    if "optix-tf" in path and "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()


def _peak_mib() -> float:
    """Most memory that this process has had, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """A worker tells the process that started it how large it grew."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak_mib"] = _peak_mib()


_peaks: list[float] = []


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Note the memory of a worker that has finished."""
    if error is None and "peak_mib" in getattr(node, "workeroutput", {}):
        _peaks.append(node.workeroutput["peak_mib"])


def pytest_terminal_summary(terminalreporter):
    """Print the largest memory of each worker."""
    if _peaks:
        terminalreporter.write_line("memory of the workers: " + ", ".join(f"{peak:,.0f} MiB" for peak in _peaks))
