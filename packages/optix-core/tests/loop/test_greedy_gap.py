"""A policy that needs its randomness is said to need it, and by how much."""

from types import SimpleNamespace

import numpy as np
import pytest

from optix_core import read_events
from optix_core.evaluation import Rollouts, summarise
from optix_core.loop.greedy_gap import GAP_EPISODES, gap_sentence, greedy_gap

HISTORY = SimpleNamespace(points=lambda keep: [SimpleNamespace(score=score) for score in (0.0, 40.0, np.inf, 100.0)])


class Arena:
    """Sampled episodes with these returns."""

    def __init__(self, returns):
        self.returns, self.asked = np.asarray(returns, float), []
        self.agent = SimpleNamespace(make_policy=lambda mode, num_envs, seed: None)

    def play(self, episodes, seed, *, mode="greedy"):
        self.asked.append((episodes, mode))
        returns = np.resize(self.returns, episodes)
        return Rollouts(returns=returns, lengths=np.ones(episodes, np.int64))


def gap(arena, greedy, *, trained):
    arena = arena if isinstance(arena, Arena) else Arena(arena)
    return greedy_gap(arena, summarise(greedy), trained=trained, history=HISTORY, seed=0)


def test_a_gap_is_measured_and_told():
    arena = Arena([80.0, 90.0, 100.0])
    found = gap(arena, [10.0, 20.0, 30.0] * 20, trained=85.0)
    assert arena.asked == [(GAP_EPISODES, "sample")]
    assert (found["sampled"], found["greedy"], found["gap"], found["episodes"]) == (90, 20, 70, 30)
    ours, theirs = summarise([80.0, 90.0, 100.0] * 10), summarise([10.0, 20.0, 30.0] * 20)
    reach = np.hypot(90 - ours["ci_low"], theirs["ci_high"] - 20)
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((70 - reach, 70 + reach))
    assert gap_sentence(found).startswith("Sampling its actions the policy returned 90 over 30 episodes, 70 more than")


def test_nothing_is_played_without_reason():
    for trained in (20.0, 24.9, np.nan, -np.inf):  # 5 % of the range of scores is 5
        arena = Arena([90.0])
        assert gap(arena, [20.0] * 50, trained=trained) is None
        assert not arena.asked
    arena = Arena([90.0, 80.0])
    assert gap(arena, [20.0], trained=90.0) is None  # one greedy episode says too little
    arena.agent = SimpleNamespace(act=None)
    assert gap(arena, [20.0] * 50, trained=90.0) is None
    assert not arena.asked


def test_a_gap_that_may_be_luck_or_is_small_is_not_told():
    assert gap([0.0, 60.0, 30.0], [0.0, 50.0, 16.0] * 3, trained=90.0) is None
    assert gap([24.0, 24.2], [20.0] * 50, trained=90.0) is None
    assert gap([26.0, 26.2], [20.0] * 50, trained=90.0)["gap"] == pytest.approx(6.1)


def test_result_and_journal_tell_of_it(loop, events, skill_agent, tmp_path):
    class Random(skill_agent):
        """Explores at its skill, and is stuck when it acts greedily."""

        def make_policy(self, mode, *, num_envs, seed):
            action = self.skill if mode == "sample" else -1.0
            return SimpleNamespace(act=lambda seen: np.full((len(seen), 1), action), reset=lambda done=None: None)

    result = loop(agent=Random(lambda k: min(1.0, k / 20)), max_env_steps=40 * 60).run()
    assert result.confirmed_return["mean"] == pytest.approx(-1, abs=0.1)
    assert result.greedy_gap["gap"] == pytest.approx(2, abs=0.2)
    assert result.why.endswith('more than acting greedily: play it in mode "sample".')
    assert [event["gap"] for event in events("greedy_gap")] == [result.greedy_gap["gap"]]
    plain = loop(max_env_steps=40 * 60, checkpoint_dir=tmp_path / "plain").run()
    assert plain.greedy_gap is None and "acting greedily" not in plain.why
    assert not any(event["kind"] == "greedy_gap" for event in read_events(tmp_path / "plain" / "events.jsonl")[0])
