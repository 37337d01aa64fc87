"""Runs whose evaluation has no environment of its own."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from optix_core import BatchPipeline, RLOptimizer, VectorBatchPipeline


@pytest.fixture
def counted(skill_env):
    """The toy environment, which counts how many of it are open."""

    class Counted(skill_env):
        made = live = peak = 0
        most = 1000

        def __init__(self):
            super().__init__(noise=0.05)
            kind = type(self)
            if kind.live >= kind.most:
                raise RuntimeError("only one simulator can live")
            kind.made, kind.live = kind.made + 1, kind.live + 1
            kind.peak = max(kind.peak, kind.live)

        def close(self):
            type(self).live -= 1

    return Counted


@pytest.mark.parametrize("kind", ["object", "function", "simulator that is alone", "ready vector", "kept object"])
def test_there_is_a_confirmed_return_whatever_the_environment_came_as(counted, skill_agent, kind):
    agent = skill_agent()
    if kind == "ready vector":
        pipeline = VectorBatchPipeline(SyncVectorEnv([counted] * 2), agent, window_size=20)
    else:
        counted.most = 1 if kind == "simulator that is alone" else 1000
        kept = [counted()] if "object" in kind else []
        source = {"object": lambda: kept[0], "kept object": lambda: lambda: kept[0]}.get(kind, lambda: counted)()
        pipeline = BatchPipeline(source, agent, 40)
    result = RLOptimizer(agent, pipeline, max_env_steps=4000).run()
    assert result.confirmed_return["mean"] == pytest.approx(1.0, abs=0.05)
    assert counted.live == 0
    assert counted.peak <= 2
    in_turns = any("take turns" in note for note in result.notes)
    assert in_turns == (kind != "function")


def test_a_paired_test_in_the_environment_of_training_leaves_the_run_whole(counted, skill_agent):
    agent = skill_agent(lambda k: 1.0 if k < 60 else 0.2)
    pipeline = VectorBatchPipeline(SyncVectorEnv([counted] * 10), agent, window_size=4)
    result = RLOptimizer(agent, pipeline, max_env_steps=40 * 300, rollback_on_degradation=True).run()
    assert result.confirmed_return["mean"] == pytest.approx(1.0, abs=0.05)


def test_a_result_that_is_known_is_returned_when_only_closing_fails(skill_env, skill_agent):
    class Stuck(skill_env):
        def close(self):
            raise OSError("the simulator does not answer")

    agent = skill_agent()
    result = RLOptimizer(agent, VectorBatchPipeline(Stuck, agent, n_envs=2, window_size=20), max_env_steps=2000).run()
    assert result.confirmed_return is not None
    assert any("could not be closed: OSError: the simulator does not answer" in note for note in result.notes)
    assert result.error is None


def test_an_evaluation_that_fails_is_told_in_one_line(skill_env, skill_agent):
    class Broken(skill_env):
        made = 0

        def __init__(self):
            super().__init__()
            Broken.made += 1
            self.fails = Broken.made > 1

        def reset(self, **kwargs):
            if self.fails:
                raise SystemExit("no licence")
            return super().reset(**kwargs)

    agent = skill_agent()
    with pytest.raises(Exception, match=r"raised SystemExit in reset\(\) of an evaluation episode: no licence"):
        RLOptimizer(agent, BatchPipeline(Broken, agent, 40), max_env_steps=2000).run()
    assert agent.skill == pytest.approx(1.0, abs=0.1)


def test_training_and_validation_in_the_same_object_are_refused(skill_env, skill_agent):
    env, agent = skill_env(), skill_agent()
    training, validation = (BatchPipeline(env, agent, 40) for _ in range(2))
    with pytest.raises(Exception, match="the same environment object"):
        RLOptimizer(agent, training, val_pipeline=validation)


def test_a_validation_of_other_spaces_is_refused(skill_env, skill_agent):
    class Other(skill_env):
        def __init__(self):
            super().__init__()
            self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)

    agent = skill_agent()
    training, validation = (BatchPipeline(env, agent, 40) for env in (skill_env, Other))
    with pytest.raises(Exception, match=r"validation pipeline .*observation.*\(3,\).*\(2,\)"):
        RLOptimizer(agent, training, val_pipeline=validation)
