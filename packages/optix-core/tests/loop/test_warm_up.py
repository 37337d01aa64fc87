"""What an agent earns before it learns is one score of an untrained policy, and no evidence that learning fails."""

import pytest

from optix_core.convergence import ConvergenceMonitor
from optix_core.evaluation import ReturnEvaluator
from optix_core.loop.budget import Budget
from optix_core.loop.controller import LoopController


@pytest.fixture
def late_agent(skill_agent):
    """Does not learn in the first 200 windows, and knows it."""

    class Late(skill_agent):
        num_seen = 0

        @property
        def is_warming_up(self):
            return self.num_seen < 200

        def learn(self, window):
            self.num_seen += 1
            return super().learn(window)

    return Late


def test_flat_scores_before_learning_starts_do_not_end_a_run(loop, late_agent, events):
    result = loop(agent=late_agent(lambda k: min(1.0, max(0, k - 210) / 20)), max_env_steps=40 * 400).run()
    assert result.verdict != "NO_SIGNAL"
    assert result.confirmed_return["mean"] == pytest.approx(1.0, abs=0.1)
    windows = events("window")
    assert not any(window["scores"] for window in windows[:200])
    steps, score, episodes = windows[200]["scores"][0]
    assert (steps, episodes) == (40 * 200, 200 * 10)
    assert score == pytest.approx(0.0, abs=0.05)
    assert windows[200]["scores"][1][0] == 40 * 201


def test_a_budget_that_ends_before_learning_starts_is_undecided(loop, late_agent):
    result = loop(agent=late_agent(lambda k: 0.0), max_env_steps=40 * 150).run()
    assert (result.verdict, result.stop_reason) == ("UNDECIDED", "budget_env_steps")


def test_a_resumed_run_remembers_what_was_earned_before_learning(loop, late_agent):
    optimizer = loop(agent=late_agent(lambda k: 0.0), max_env_steps=40 * 150)
    optimizer.run()
    twin = LoopController(scheduler=ConvergenceMonitor(), evaluator=ReturnEvaluator(), budget=Budget())
    twin.load_state_dict(optimizer.controller.state_dict())
    assert twin.state_dict()["warm_up"] == optimizer.controller.state_dict()["warm_up"]
    assert twin.state_dict()["warm_up"]["episodes"] == 1500
