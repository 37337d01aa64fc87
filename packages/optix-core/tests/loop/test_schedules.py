"""Hyperparameters that follow a schedule, seen from the loop: when, for how long, and what is written down."""

import pytest

from optix_core import ConfigError, RLOptimizer, VectorBatchPipeline, linear, piecewise, read_events
from optix_core.loop.budget import Budget, Progress
from optix_core.loop.controller import LoopController
from optix_core.loop.following import follow
from optix_protocol import LoopCallback


@pytest.fixture
def scheduled(skill_agent):
    class Scheduled(skill_agent):
        def __init__(self, **schedules):
            super().__init__(lambda k: min(1.0, k / 20))
            self.schedules = schedules
            self.values = dict.fromkeys(schedules)
            self.seen = []

        def follow_schedules(self, share):
            self.values = {name: schedule(share) for name, schedule in self.schedules.items()}

        def learn(self, episode_data):
            self.seen.append(self.values.get("learning_rate"))
            return super().learn(episode_data)

    return Scheduled


def make(agent, skill_env, path, **kwargs):
    pipeline = VectorBatchPipeline(lambda: skill_env(noise=0.2), agent, n_envs=10, window_size=3, seed=2)
    return RLOptimizer(agent, pipeline, checkpoint_dir=path, **{"max_env_steps": 3000, "confirm_episodes": 4, **kwargs})


class Updates(LoopCallback):
    count = 0

    def on_hyperparam_update(self, old, new):
        self.count += 1


def test_it_begins_at_the_start_and_falls_with_the_steps(scheduled, skill_env, tmp_path):
    agent, heard = scheduled(learning_rate=linear(1.0, 0.0)), Updates()
    result = make(agent, skill_env, tmp_path / "run", max_env_steps=600, callbacks=[heard]).run()
    assert agent.seen == pytest.approx([1 - 30 * k / 600 for k in range(result.train_env_steps // 30)])
    events, _ = read_events(tmp_path / "run" / "events.jsonl")
    assert events[0]["hyperparams"]["learning_rate"] == "linear(1, 0)"
    assert {e["hyperparam_version"] for e in events if e["kind"] == "window"} == {0}
    assert heard.count == 0
    assert not [e for e in events if e["kind"] == "hyperparams"]


def test_episodes_are_a_budget_too_and_the_larger_share_counts():
    budget = Budget(max_env_steps=1000, max_episodes=10)
    assert budget.share_used(Progress(num_env_steps=100, num_episodes=5)) == 0.5
    assert budget.share_used(Progress(num_env_steps=900, num_episodes=5)) == 0.9
    assert Budget(max_seconds=1.0).share_used(Progress()) is None


@pytest.mark.parametrize("budget", [{"max_env_steps": None}, {"max_env_steps": None, "max_seconds": 5.0}])
def test_without_a_budget_of_steps_or_episodes_it_is_refused(scheduled, skill_env, tmp_path, budget):
    agent = scheduled(learning_rate=linear(1.0, 0.0))
    with pytest.raises(
        ConfigError, match=r"learning_rate follows linear\(1, 0\).* pass max_env_steps= or max_episodes=\.$"
    ):
        make(agent, skill_env, tmp_path / "run", **budget)
    make(scheduled(), skill_env, tmp_path / "other", **budget)  # nothing follows anything


def test_a_verdict_at_a_small_learning_rate_says_so(scheduled, skill_env, tmp_path):
    agent = scheduled(learning_rate=piecewise((0, 1e-3), (0.1, 1e-6)))
    result = make(agent, skill_env, tmp_path / "run", max_env_steps=30 * 400).run()
    assert result.verdict == "CONVERGED"
    assert "The learning rate was at 1e-06 by its schedule piecewise((0, 0.001), (0.1, 1e-06)): " in result.why
    slow = scheduled(learning_rate=linear(1e-3, 0.0), gamma=linear(0.9, 0.99))
    assert follow(slow, Budget(max_env_steps=1000), Progress(num_env_steps=500)) == ""
    sentence = follow(slow, Budget(max_env_steps=1000), Progress(num_env_steps=950))
    assert sentence.startswith("The learning rate was at 5e-05 by its schedule linear(0.001, 0)")


def test_only_verdicts_carry_the_remark(scheduled, skill_env, tmp_path):
    agent = scheduled()
    optimizer = make(agent, skill_env, tmp_path / "run", max_env_steps=30 * 400)
    controller: LoopController = optimizer.controller
    controller.remark = "It was slow."
    assert "slow" not in controller.evidence().explanation
    result = optimizer.run()  # clears nothing: the agent follows no schedule
    assert "It was slow." not in result.why
