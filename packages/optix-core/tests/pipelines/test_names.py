"""Pipelines by the names that users know, without an agent where the loop has one, and what is refused."""

import numpy as np
import pytest

from optix_core import (
    BaseAgent,
    BaseEvaluator,
    BaseOptimizer,
    BasePipeline,
    BatchPipeline,
    CheckpointRegistry,
    ConfigError,
    EvalMetrics,
    HyperparamSet,
    RLOptimizer,
    TrainConfig,
    TrainPlan,
    VectorBatchPipeline,
    make_agent,
)


def test_one_environment_by_every_name(skill_env, skill_agent):
    agent = skill_agent()
    for pipeline in (
        BatchPipeline(env=skill_env(), agent=agent, window_size=8),
        BatchPipeline(skill_env, agent, n_steps=8),
        VectorBatchPipeline(env_fns=[skill_env, skill_env], agent=agent, n_steps=8),
        VectorBatchPipeline(env=skill_env, agent=agent, num_envs=2, window_size=8),
    ):
        assert pipeline.collect().num_steps == 8
    assert BatchPipeline(env_id="CartPole-v1").window_size == 2048
    assert VectorBatchPipeline(env_id="CartPole-v1").num_envs == 8


def test_the_loop_gives_its_agent_to_pipelines_that_have_none(skill_env, skill_agent):
    agent, validation = skill_agent(), BatchPipeline(skill_env, n_steps=8)
    pipeline = BatchPipeline(skill_env, n_steps=8)
    result = RLOptimizer(agent, pipeline, val_pipeline=validation, max_env_steps=64, confirm_episodes=2).run()
    assert result.train_env_steps == 64
    assert pipeline.agent is validation.agent is agent


def test_windows_say_how_many_episodes_were_finished(skill_env, skill_agent):
    pipeline = BatchPipeline(lambda: skill_env(length=4), skill_agent(), n_steps=6)
    assert [pipeline.collect().episode_id for _ in range(4)] == [1, 3, 4, 6]
    other = BatchPipeline(lambda: skill_env(length=4), skill_agent(), n_steps=6)
    other.restore_pipeline_state(pipeline.pipeline_state())
    assert other.collect().episode_id == 7


def test_a_registry_takes_agent_score_and_hyperparameters_in_order(skill_agent, tmp_path):
    agent = skill_agent()
    agent.skill = 0.7
    with CheckpointRegistry(checkpoint_dir=tmp_path / "run", max_snapshots=4) as registry:
        registry.save(agent, EvalMetrics(primary_score=np.array([2.0])), {"rate": 1.0})
        registry.save(agent, EvalMetrics(primary_score=1.0), HyperparamSet(params={"rate": 2.0}))
        agent.skill = 0.0
        best = registry.load_best(agent)
    assert best.hyperparams["rate"] == 1.0
    assert best.eval_metrics.primary_score == 2.0
    assert agent.skill == 0.7


def test_everything_can_be_subclassed_with_little():
    class Score(BaseEvaluator):
        def score(self, episode_data, train_diagnostics):
            return EvalMetrics(primary_score=1.0)

    class Tuner(BaseOptimizer):
        def suggest(self, hyperparams, eval_metrics):
            return None

    class Source(BasePipeline):
        def windows(self):
            return iter(())

    one, two = EvalMetrics(primary_score=1.0), EvalMetrics(primary_score=3.0)
    assert Score().combine(one, two).generalization_gap == -2.0
    assert Score().combine(one, None) is one
    assert Score().compare(two, one) == 2.0
    assert Tuner().is_probing() is False
    assert Source().close() is None
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (BaseAgent,), {"act": lambda self, observation: 0})()


def plan(**overrides):
    algorithm = overrides.pop("algorithm", "ppo")
    return TrainPlan.of(TrainConfig(env_id="CartPole-v1", backend="torch", algorithm=algorithm, overrides=overrides))


def test_overrides_by_other_names():
    pytest.importorskip("optix_torch")
    chosen = plan(n_steps=64, clip_ratio=0.1)
    assert (chosen.loop.window_size, chosen.hyperparams["clip_range"]) == (64, 0.1)
    chosen = plan(algorithm="dqn", n_steps=3, epsilon_decay=0.99)
    assert chosen.hyperparams["n_step"] == 3
    chosen.make_agent()


WRONG = {
    "no environment": (lambda agent: BatchPipeline(agent=agent), "needs one environment, as env= or env_id=; got none"),
    "two environments": (lambda agent: BatchPipeline("CartPole-v1", agent, env_id="CartPole-v1"), "got env and env_id"),
    "two lengths": (lambda agent: BatchPipeline("CartPole-v1", agent, 8, n_steps=9), "window_size and n_steps are one"),
    "two widths": (
        lambda agent: VectorBatchPipeline("CartPole-v1", n_envs=2, num_envs=3),
        "n_envs and num_envs are one",
    ),
    "no agent": (lambda agent: BatchPipeline("CartPole-v1").collect(), "has no agent"),
    "no policy": (lambda agent: RLOptimizer(agent, BatchPipeline("CartPole-v1", mode="greedy")).run(), "make_policy"),
    "unknown setting": (lambda agent: RLOptimizer(agent, BatchPipeline("CartPole-v1"), noise_kk=2.0), "'noise_k'"),
    "unknown name": (lambda agent: make_agent("CartPole-v1", clip_rato=0.1), "clip_ratio"),
    "two names": (lambda agent: make_agent("CartPole-v1", clip_ratio=0.1, clip_range=0.2), "two values of one setting"),
    "foreign name": (lambda agent: make_agent("CartPole-v1", total_timesteps=10), r"RLOptimizer\(.*max_env_steps"),
    "two lengths in a plan": (lambda agent: plan(n_steps=64, window_size=32), "give one of them"),
    "foreign key": (lambda agent: plan(exploration_fraction=0.1), "counted in steps here"),
}


@pytest.mark.parametrize("wrong", sorted(WRONG))
def test_wrong_uses_are_refused_in_a_line(wrong, skill_agent):
    pytest.importorskip("optix_torch")
    use, said = WRONG[wrong]
    with pytest.raises(ConfigError, match=said) as refused:
        use(skill_agent())
    assert "\n" not in str(refused.value)
