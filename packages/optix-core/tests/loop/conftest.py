"""Loops around toys, and what they wrote down."""

import pytest

from optix_core import RLOptimizer, VectorBatchPipeline, read_events
from optix_core.journal import read_journal


@pytest.fixture
def loop(skill_env, skill_agent, tmp_path):
    """Make a loop around a toy agent whose score follows a known curve; 40 environment steps per window."""

    def make(curve=lambda k: min(1.0, k / 20), *, agent=None, noise=0.05, n_envs=10, **kwargs):
        agent = agent or skill_agent(curve)
        pipeline = VectorBatchPipeline(lambda: skill_env(noise=noise), agent, n_envs=n_envs, window_size=4)
        kwargs.setdefault("max_env_steps", 40 * 400)
        kwargs.setdefault("checkpoint_dir", tmp_path / "run")
        return RLOptimizer(agent, pipeline, **kwargs)

    return make


@pytest.fixture
def events(tmp_path):
    """Read the journal of the run that ``loop`` made, or its events of one kind."""

    def read(kind=None):
        found, problems = read_events(tmp_path / "run" / "events.jsonl")
        assert not problems
        return [event for event in found if kind in (None, event["kind"])]

    return read


@pytest.fixture
def entries(tmp_path):
    """Read the journal of the run that ``loop`` made as records."""

    def read():
        found, problems = read_journal(tmp_path / "run" / "events.jsonl")
        assert not problems
        return found

    return read
