from __future__ import annotations

import copy

import gymnasium as gym
import numpy as np
import pytest

from optix_core import RLOptimizer, VectorBatchPipeline, reporting
from optix_core.journal import Entry, read_events
from optix_core.journal import events as events_module
from optix_protocol.conformance.reference import ReferenceAgent


class Lever(gym.Env):
    """Ten steps; action 1 pays 1."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), float(action), self.t == 10, False, {}


def train(path, *, agent=None, **limits):
    agent = agent or ReferenceAgent(
        observation_space=Lever.observation_space, action_space=Lever.action_space, hyperparams={"learning_rate": 1.0}
    )
    pipeline = VectorBatchPipeline(Lever, agent, n_envs=8, window_size=64)
    RLOptimizer(agent, pipeline, checkpoint_dir=path, rollback_on_degradation=True, **limits).run()
    return read_events(path / "events.jsonl")[0]


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    return train(tmp_path_factory.mktemp("run") / "run", max_env_steps=100_000)


@pytest.fixture
def events(journal):
    return copy.deepcopy(journal)


def told(events, problems=()):
    return reporting.render_story([Entry.from_dict(event) for event in events], problems)


def replay_decisions(events):
    return reporting.replay_decisions([Entry.from_dict(event) for event in events])


def text_of(sections):
    parts = []
    for section in sections:
        rows = section.table.rows if section.table else ()
        parts += [section.title, *section.sentences, *(" | ".join(row) for row in rows)]
    return "\n".join(parts)


def window_event(num_env_steps, verdict, *, looked=True, level=0.0, time=0.0, seq=1):
    """A window whose decision is to go on."""
    evidence = {
        "num_windows": num_env_steps, "num_env_steps": num_env_steps, "num_episodes": 1, "window_env_steps": 1,
        "verdict": verdict, "should_stop": False, "explanation": "", "snapshot_due": False, "tuning_due": False,
        "damage": None, "degradation": None, "can_roll_back": False, "stop_request": None, "budget_exceeded": None,
    }  # fmt: skip
    return {
        "kind": "window", "seq": seq, "time": time, "evidence": evidence, "looked": looked, "level": level,
        "decision": {"action": "continue", "checkpoint": False, "learn": True}, "stop_reason": None,
        "score": level, "scores": [(num_env_steps, level, 1)],
        "upper_gain": "Infinity", "horizon_env_steps": 10, "margin": 1.0,
    }  # fmt: skip


def started(**budget):
    limits = {"max_env_steps": None, "max_episodes": None, "max_seconds": None, **budget}
    about = {"env_id": "Lever-v0", "backend": "b", "algorithm": "a", "seed": 7, "hyperparams": {"gamma": 0.5}}
    return {"kind": "run_started", "seq": 0, "time": 100.0, "budget": limits, **about}


# ------------------------------------------------------------------------------------------------------------ replay


def test_every_decision_of_a_run_is_replayed_from_its_evidence(events):
    replay = replay_decisions(events)
    windows = [event for event in events if event["kind"] == "window"]
    assert replay.num_decisions == len(windows) > 30
    assert replay.identical
    assert replay.sentence == f"All {len(windows):,} decisions replayed from the evidence: identical."


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("should_stop", True, "stop (converged)"),
        ("snapshot_due", None, "keep the policy"),
        ("damage", "NaN", "rollback"),
    ],
)
def test_a_decision_that_does_not_follow_from_its_evidence_is_shown(events, field, value, words):
    window = [event for event in events if event["kind"] == "window"][5]
    evidence = window["evidence"]
    evidence[field] = (not evidence[field]) if value is None else value
    replay = replay_decisions(events)
    assert not replay.identical and [mismatch.seq for mismatch in replay.mismatches] == [window["seq"]]
    assert words in replay.mismatches[0].replayed + replay.mismatches[0].logged
    story = text_of(told(events))
    assert "1 of " in story and "come out differently" in story and replay.mismatches[0].replayed in story


def test_no_decision_depends_on_the_clock():
    stop = window_event(3, "UNDECIDED", time=110.5, seq=3)
    stop |= {"decision": {"action": "stop", "checkpoint": False, "learn": True}, "stop_reason": "budget_seconds"}
    stop["evidence"]["budget_exceeded"] = "budget_seconds"
    assert replay_decisions([started(max_seconds=10.0), stop]).identical
    assert replay_decisions([{**stop, "time": 0.0}]).identical


def test_damage_after_learning_is_decided_again():
    window = window_event(2, "UNDECIDED", time=101.0)
    damage = {"kind": "damage", "seq": 2, "time": 102.0, "message": "loss is NaN", "action": "stop"}
    assert replay_decisions([started(), window, damage]).identical
    assert len(replay_decisions([started(), window, {**damage, "action": "rollback"}]).mismatches) == 1
    window["evidence"]["can_roll_back"] = True
    assert replay_decisions([started(), window, {**damage, "action": "rollback"}]).identical


# ------------------------------------------------------------------------------------------------------------- story


def test_the_story_of_a_run_has_its_numbers(events):
    story = text_of(told(events))
    result = events[-1]
    confirmed = result["confirmed_return"]
    assert "with seed 0" in story and "a budget of 100,000 environment steps" in story
    assert "learning_rate 1" in story
    assert f"It converged. {result['why']}" in story
    assert f"returned {confirmed['mean']:g} on average over 100 greedy episodes" in story
    assert f"snapshot {result['best_snapshot']['id']} was chosen" in story.lower()
    assert "decisions replayed from the evidence: identical" in story


def test_milestones_are_the_first_steps_at_each_level():
    curve = [0.0, 10.0, 40.0, 55.0, 50.0, 100.0]
    windows = [window_event(i + 1, "UNDECIDED", level=level, time=100.0 + i) for i, level in enumerate(curve)]
    score = next(section for section in told([started(), *windows]) if section.title == "The score")
    assert [row[2] for row in score.table.rows] == ["3", "4", "6", "6", "6", "6"]
    assert score.table.rows[0] == ("25% of the way", "25", "3", "2.0 s")


def test_equal_verdicts_in_a_row_are_one_line():
    verdicts = ["UNDECIDED"] * 20 + ["IMPROVING"] * 30 + ["CONVERGED"] * 10
    windows = [window_event(i + 1, verdict) for i, verdict in enumerate(verdicts)]
    judgement = next(section for section in told([started(), *windows]) if section.title == "The judgement")
    assert [(row[0], row[1], row[2]) for row in judgement.table.rows] == [
        ("1 - 20", "20", "UNDECIDED"), ("21 - 50", "30", "IMPROVING"), ("51 - 60", "10", "CONVERGED"),
    ]  # fmt: skip
    assert "60 times; its verdict changed twice" in judgement.sentences[0]


def test_a_table_that_is_too_long_keeps_its_ends():
    windows = [window_event(i + 1, ("UNDECIDED", "IMPROVING")[i % 2]) for i in range(60)]
    judgement = next(section for section in told([started(), *windows]) if section.title == "The judgement")
    rows = judgement.table.rows
    assert len(rows) == 13 and rows[6][0] == "(48 more)" and rows[0][0] == "1" and rows[-1][0] == "60"


def test_incidents_are_told_in_order():
    events = [
        started(),
        window_event(50, "UNDECIDED"),
        {
            "kind": "symptom",
            "symptom": "entropy_collapse",
            "severity": "warning",
            "message": "Entropy fell.",
            "time": 0.0,
        },
        {
            "kind": "degradation_test",
            "drop": 40.0,
            "p_value": 0.001,
            "degraded": True,
            "message": "The best snapshot is 40 better.",
            "time": 0.0,
        },
        {"kind": "rollback", "snapshot": 4, "exact": True, "message": "", "time": 0.0},
        {"kind": "not_saved", "message": "The disk is full.", "time": 0.0},
        {"kind": "resumed", "num_env_steps": 40, "notes": [], "budget": {"max_env_steps": 9}, "time": 0.0},
        {"kind": "hyperparams", "changed": {"learning_rate": 0.001}, "version": 1, "time": 0.0},
    ]
    sections = {section.title: section for section in told(events)}
    assert sections["Incidents"].table.rows == (
        ("50", "entropy collapse", "Entropy fell."),
        ("50", "degradation test", "The best snapshot is 40 better."),
        ("50", "rollback", "Back to snapshot 4 with its exact training state."),
        ("50", "not saved", "The disk is full."),
        ("40", "resumed", "Exactly where it had been."),
    )
    assert sections["Hyperparameter changes"].table.rows == (("50", "changed", "learning_rate 0.001"),)


def test_a_journal_that_breaks_off_is_told_as_far_as_it_goes(events):
    cut = text_of(told(events[:30], ["line 31 was cut off by a crash; skipped"]))
    assert "without a stop" in cut and "cut off by a crash" in cut and "identical" in cut


def test_a_journal_without_its_beginning_says_what_is_missing(events):
    story = text_of(told(events[1:], ["line 1 is damaged; skipped"]))
    assert "has lost its beginning" in story and "identical" in story
    assert "It converged." in story


@pytest.mark.parametrize("kept", ["run_started", "window", "snapshot", "selection", "confirmed", "run_finished"])
def test_any_kind_of_event_alone_can_be_told(events, kept):
    assert told([event for event in events if event["kind"] == kept])


def test_every_beginning_of_a_journal_can_be_told(events):
    for length in range(0, len(events), 17):
        assert told(events[:length])


@pytest.mark.parametrize("kind", events_module.ALL, ids=lambda kind: kind.__name__)
def test_no_event_is_written_that_the_story_leaves_out(kind, example_event):
    def told(*records):
        entries = [Entry(i, float(i), record) for i, record in enumerate(records)]
        return [section for section in reporting.render_story(entries) if section.title != "The record"]

    before = [example_event(k) for k in (events_module.RunStarted, events_module.Selection) if k is not kind]
    after = sorted([*before, example_event(kind)], key=lambda record: not isinstance(record, events_module.RunStarted))
    assert told(*after) != told(*before)
