"""The whole suite: which worker runs what, what a worker keeps, and how large it grew."""

from __future__ import annotations

import re
import resource
import sys

import pytest
from xdist.scheduler import LoadFileScheduling

_FAMILIES = ("jax", "protocol", "core", "", "torch", "tf")
"""The order of the files: what needs JAX and what needs TensorFlow are furthest apart. The empty one fits all."""


def _family(path: str) -> int:
    """Place of a test file in that order, by the families that its path names: JAX before all others."""
    words = set(re.split(r"[\W_]", path))
    named = [place for place, family in enumerate(_FAMILIES) if family in words - {""}]
    return 0 if 0 in named else max(named, default=_FAMILIES.index(""))


def _worker(config) -> int | None:
    """Which of two or more workers this process is, or None."""
    name = getattr(config, "workerinput", {}).get("workerid")
    return None if name is None or int(config.workerinput["workercount"]) < 2 else int(name.removeprefix("gw"))


def pytest_ignore_collect(collection_path, config):
    """Even workers leave files of TensorFlow alone, odd ones those of JAX: importing them takes a gigabyte, too."""
    worker, path = _worker(config), collection_path.as_posix()
    if worker is not None and collection_path.suffix == ".py":
        return _family(path) == _FAMILIES.index("jax" if worker % 2 else "tf") or None
    return None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Order the files by framework, all else as it was."""
    items.sort(key=lambda item: _family(item.nodeid.split("::")[0]))


class _FromBothEnds(LoadFileScheduling):
    """Every other worker takes files from the far end, so that no worker holds what two frameworks have compiled.

    Workers know different files at their ends: each takes one that it has collected.
    """

    def schedule(self):
        if self.collection is None:
            found = dict.fromkeys(nodeid for ids in self.registered_collections.values() for nodeid in ids)
            self.collection = sorted(found, key=lambda nodeid: _family(nodeid.split("::")[0]))
            self.config.pluginmanager.get_plugin("session").testscollected = len(self.collection)  # for the percentage
            for nodeid in self.collection:
                self.workqueue.setdefault(self._split_scope(nodeid), {})[nodeid] = False
            for node in self.nodes:
                self._assign_work_unit(node)
        for node in self.nodes:
            self._reschedule(node)

    def _assign_work_unit(self, node):
        known = set(self.registered_collections[node])
        units = [scope for scope, unit in self.workqueue.items() if known.issuperset(unit)]
        if units:
            self.workqueue.move_to_end(units[-1 if self.nodes.index(node) % 2 else 0], last=False)
            super()._assign_work_unit(node)
        else:
            node.shutdown()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Let the workers begin at both ends."""
    return _FromBothEnds(config, log)


@pytest.fixture(scope="module", autouse=True)
def _drop_compiled_code(request):
    """After a file of JAX or TensorFlow, let go of what was compiled for it: it would pile up in the worker."""
    yield
    path = request.path.as_posix()
    if "optix-jax" in path and "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    if "optix-tf" in path and "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()


@pytest.fixture(params=["doubles without gradients", "another device"])
def torch_changed(request):
    """What environments that simulate in torch do to everybody: what is made without a word is of another kind."""
    import torch

    if request.param == "another device":
        torch.set_default_device("meta")  # there are no numbers on it: what is put there by mistake fails
    else:
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)


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
