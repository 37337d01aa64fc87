"""An agent that is two arrays, and ways to save it."""

from unittest import mock

import numpy as np
import pytest

from optix_core.checkpoints import CheckpointRegistry, RunDirectory, chunks, read_arrays, write_arrays
from optix_core.journal import events
from optix_protocol import BaseAgent, EvalMetrics, HyperparamSet


class ToyAgent(BaseAgent):
    """Its weights are all equal to ``value``, so that a wrong load is easy to see."""

    def __init__(self, value=0.0):
        self.set(value)

    def set(self, value):
        self.weights = np.full(37, value, dtype=np.float32)
        self.count = np.array(int(value), dtype=np.int64)

    @property
    def value(self):
        assert np.all(self.weights == self.weights[0])
        assert self.count == int(self.weights[0])
        return float(self.weights[0])

    def act(self, observation):
        return 0

    def learn(self, episode_data):
        return {}

    def get_hyperparams(self):
        return HyperparamSet(params={})

    def set_hyperparams(self, hyperparams):
        pass

    def save_weights(self, path):
        write_arrays(path, {"weights": self.weights, "count": self.count}, metadata={"kind": "toy"})

    def load_weights(self, path):
        arrays, metadata = read_arrays(path)
        assert metadata == {"kind": "toy"}
        self.weights, self.count = arrays["weights"], arrays["count"]


def keep(target, value, score=None, agent=None):
    """Save a toy agent of this value, with its value as the score unless another is given."""
    registry = target.registry if isinstance(target, RunDirectory) else target
    return registry.save(
        agent or ToyAgent(value),
        eval_metrics=EvalMetrics(primary_score=float(value if score is None else score)),
        hyperparams=HyperparamSet(params={"learning_rate": 3e-4}),
        policy_version=int(value),
    )


@pytest.fixture(scope="session")
def toy():
    return ToyAgent


@pytest.fixture(name="keep", scope="session")
def keep_fixture():
    return keep


def small_chunks():
    """Keep arrays of more than 64 bytes in chunks of that size, so that small ones do for tests."""
    return mock.patch.object(chunks, "CHUNK_BYTES", 64)


def memory_at(step):
    """A memory of five chunks, of which only the first changes."""
    memory = np.arange(40.0)
    memory[:3] = step
    return memory


@pytest.fixture(name="small_chunks", scope="session")
def small_chunks_fixture():
    return small_chunks


@pytest.fixture(name="memory_at", scope="session")
def memory_at_fixture():
    return memory_at


@pytest.fixture
def registry(tmp_path):
    with CheckpointRegistry(tmp_path / "run", max_snapshots=4) as opened:
        yield opened


@pytest.fixture(scope="session")
def make_run():
    """Write a small finished run: three snapshots, the second the best, two states, three events, a result.

    The states hold a memory in chunks of 64 bytes, of which all but the first are shared.
    """

    def make(path):
        with small_chunks(), RunDirectory.create(path, max_snapshots=4) as run:
            run.write_run({"env_id": "Toy-v0", "seed": 3})
            for value, score in ((1, 10.0), (2, 30.0), (3, 20.0)):
                keep(run, value, score)
                run.journal.append(events.Snapshot(snapshot=value, score=score, best=False))
                agent = {"weights": np.full(5, float(value)), "rng": 2**90 + value, "memory": memory_at(value)}
                run.save_state({"agent": agent, "step": value})
            run.registry.mark_best(2)
            run.write_result({"verdict": "CONVERGED", "confirmed_return": {"mean": 30.0}})
        return path

    return make
