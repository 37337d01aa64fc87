"""The whole suite: which worker runs what, what a worker keeps, and how large it grew."""

from __future__ import annotations

import os
import re
import resource
import sys

import pytest
from xdist.scheduler import LoadFileScheduling

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported: on a busy machine threads wait for each other

_FAMILIES = {"jax": ("jax", "brax", "gymnax"), "tf": ("tf", "keras"), "torch": ("torch", "neuroevo"), "": ()}
"""What a test needs, by the words of its id, in the order in which families are run.

What JAX and TensorFlow compile takes gigabytes: odd workers run the tests of TensorFlow, even ones those of JAX and
PyTorch. All share the rest, which comes last, so that they end together.
"""


def _family(nodeid: str) -> str:
    """Return the family of a test file, or of a test in it where the file has none."""
    path, _, test = nodeid.partition("::")
    words = set(re.split(r"[\W_]+", path))
    found = next(family for family, names in _FAMILIES.items() if not names or words.intersection(names))
    return found or (_family(test) if test else "")


def _number(worker_id: str) -> int:
    """Return the number of the worker ``gw0``, ``gw1`` ..."""
    return int(worker_id.removeprefix("gw"))


def _is_for(worker: int, family: str) -> bool:
    """Whether a worker, counted from 0, runs the tests of a family."""
    return not family or worker % 2 == (family == "tf")


def pytest_ignore_collect(collection_path, config):
    """Leave files and folders alone that other workers run: importing them takes half a gigabyte, too."""
    workers = getattr(config, "workerinput", {"workercount": 1})
    path = collection_path.as_posix().removeprefix(config.rootpath.as_posix())
    return (workers["workercount"] > 1 and not _is_for(_number(workers["workerid"]), _family(path))) or None


class _ByFamily(LoadFileScheduling):
    """Hands out files, those for several families in parts, to workers that have collected different ones."""

    def schedule(self):
        if self.collection is None:
            found = dict.fromkeys(nodeid for ids in self.registered_collections.values() for nodeid in ids)
            self.collection = sorted(found, key=lambda nodeid: list(_FAMILIES).index(_family(nodeid)))
            self.config.pluginmanager.get_plugin("session").testscollected = len(self.collection)  # for the percentage
            for nodeid in self.collection:
                self.workqueue.setdefault(self._split_scope(nodeid), {})[nodeid] = False
            for node in self.nodes:
                self._assign_work_unit(node)
        for node in self.nodes:
            self._reschedule(node)

    def _split_scope(self, nodeid):
        return f"{super()._split_scope(nodeid)} {_family(nodeid)}"

    def _assign_work_unit(self, node):
        worker, is_alone = _number(node.gateway.id), self.numnodes == 1
        known = set(self.registered_collections[node])  # ids of a wheel's tests alone do not name its family
        for scope, unit in self.workqueue.items():
            if known.issuperset(unit) and (is_alone or _is_for(worker, scope.rpartition(" ")[2])):
                self.workqueue.move_to_end(scope, last=False)
                return super()._assign_work_unit(node)
        return node.shutdown()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Let each family stay with its worker."""
    return _ByFamily(config, log)


@pytest.fixture(scope="module", autouse=True)
def _drop_compiled_code():
    """After a file, let go of what JAX and TensorFlow compiled for it: it would pile up in the worker."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    if "keras" in sys.modules:
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


_peaks: dict[str, float] = {}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Note the memory of a worker that has finished."""
    if error is None and "peak_mib" in getattr(node, "workeroutput", {}):
        _peaks[node.gateway.id] = node.workeroutput["peak_mib"]


def pytest_terminal_summary(terminalreporter):
    """Print the largest memory of each worker."""
    if _peaks:
        peaks = ", ".join(f"{worker} {peak:,.0f} MiB" for worker, peak in sorted(_peaks.items()))
        terminalreporter.write_line(f"memory of the workers: {peaks}")
