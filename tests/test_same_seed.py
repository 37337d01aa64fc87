"""Same seed, same run: two processes end with the same training state, whatever the algorithm."""

import json
import os
import subprocess
import sys

import pytest

from optix_core import list_backends, load_backend

ENVS = {"discrete": "CartPole-v1", "box": "Pendulum-v1"}

# Every algorithm of every installed backend, in one process: a few windows of learning, then a hash of all that the
# future depends on.
TRAIN = """
import hashlib, itertools, json, sys, tempfile
from pathlib import Path
from optix_core import VectorBatchPipeline, make_agent
from optix_core.checkpoints import save_tree

digests = {}
for backend, algorithm, env_id, hyperparams in json.load(sys.stdin):
    agent = make_agent(env_id, framework=backend, algorithm=algorithm, seed=3, hyperparams=hyperparams)
    pipeline = VectorBatchPipeline(env_id, agent, n_envs=2, window_size=64, seed=4)
    for number, window in enumerate(itertools.islice(pipeline.windows(), 4), start=1):
        agent.learn(window)
        pipeline.policy_changed(policy_version=number, hyperparam_version=0)
    pipeline.close()
    with tempfile.TemporaryDirectory() as folder:
        save_tree(Path(folder) / "state", {"agent": agent.training_state(), "pipeline": pipeline.pipeline_state()})
        data = b"".join(file.read_bytes() for file in sorted((Path(folder) / "state").iterdir()))
    digests["/".join([backend, algorithm, env_id])] = hashlib.sha256(data).hexdigest()
print(json.dumps(digests))
"""


def cases(backend):
    """Return backend, algorithm, environment, and settings that let it learn within a few hundred steps."""
    found = []
    for name, info in load_backend(backend).algorithms().items():
        soon = {"learning_starts": 64, "updates_per_step": 0.125, "capacity": 2000, "batch_size": 32}
        hyperparams = {key: value for key, value in soon.items() if key in info.default_hyperparams}
        found += [(backend, name, ENVS[kind], hyperparams) for kind in sorted(info.action_kinds & ENVS.keys())]
    return found


def digests(found, hash_seed):
    variables = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", TRAIN]
    process = subprocess.run(
        command, input=json.dumps(found), capture_output=True, text=True, env=variables, check=False
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.parametrize("backend", ["torch", *(pytest.param(name, marks=pytest.mark.slow) for name in ("jax", "tf"))])
def test_two_processes_end_with_the_same_training_state(backend):
    if backend not in {listing.name for listing in list_backends()}:
        pytest.skip(f"{backend} is not installed")
    found = cases(backend)
    first = digests(found, "1")
    assert len(set(first.values())) == len(found)
    assert digests(found, "2") == first
