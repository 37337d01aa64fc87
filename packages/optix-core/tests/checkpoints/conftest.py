"""An agent that is two arrays, and ways to save it."""

import numpy as np
import pytest

from optix_core.checkpoints import CheckpointRegistry, RunDirectory, read_arrays, write_arrays
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


@pytest.fixture
def registry(tmp_path):
    with CheckpointRegistry(tmp_path / "run", max_snapshots=4) as opened:
        yield opened


@pytest.fixture(scope="session")
def make_run():
    """Write a small finished run: three snapshots, the second the best, two states, three events, a result."""

    def make(path):
        with RunDirectory.create(path, max_snapshots=4) as run:
            run.write_run({"env_id": "Toy-v0", "seed": 3})
            for value, score in ((1, 10.0), (2, 30.0), (3, 20.0)):
                keep(run, value, score)
                run.journal.append("snapshot", score=score)
                run.save_state({"agent": {"weights": np.full(5, float(value)), "rng": 2**90 + value}, "step": value})
            run.registry.mark_best(2)
            run.write_result({"verdict": "CONVERGED", "confirmed_return": {"mean": 30.0}})
        return path

    return make
