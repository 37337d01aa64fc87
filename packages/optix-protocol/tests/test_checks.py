"""Every check passes a good agent, and catches an agent that breaks its rule."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from optix_protocol import EpisodeData
from optix_protocol.conformance import CHECKS, MINIMUM_PASSED, check_agent, example_case, run_check
from optix_protocol.conformance.recurrent_reference import RecurrentReferenceAgent
from optix_protocol.conformance.reference import ReferenceAgent
from optix_protocol.conformance.subject import Subject

CHECK_BY_NAME = {check.name: check for check in CHECKS}
OF_MEMORY = {check.name for check in CHECKS if check.requires == "recurrent_state"}
OF_MASKS = {check.name for check in CHECKS if check.requires == "action_masks"}
AHEAD = {"learning_looks_ahead_within_masks"}
NEEDS_CORE = set() if importlib.util.find_spec("optix_core") else {"host_policy_acts_as_the_agent"}
OF_EXPORT = {check.name for check in CHECKS if check.requires == "export"}


def _load_sabotage():
    """Tests are imported by path, so the package next to this one is, too."""
    spec = importlib.util.spec_from_file_location(
        "optix_protocol_sabotage", Path(__file__).with_name("sabotage") / "__init__.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


sabotage = _load_sabotage()
PAIRS = [(name, agent, kind) for name, pairs in sabotage.SABOTAGE.items() for agent, kind in pairs]


@pytest.mark.parametrize(
    ("name", "agent", "kind"), PAIRS, ids=[f"{name}-{agent.__name__}-{kind}" for name, agent, kind in PAIRS]
)
def test_check_catches_its_sabotage(name, agent, kind, make_reference):
    if name in NEEDS_CORE:
        pytest.skip("optix-core is not installed, which runs host policies")
    case, other = example_case(kind), example_case(kind, observation_size=5)
    result = run_check(
        CHECK_BY_NAME[name], make_reference(case, agent), case=case, exempt={}, make_other=make_reference(other)
    )
    assert result.outcome == "failed", result.message
    # Found by the check itself, not by an accident on the way (some sabotage is an exception, though).
    assert ("raised at" in result.message) is (agent.__name__ in {"FailsOnSomeWindows", "TearsDownOnce"})


def test_every_check_has_a_sabotage():
    assert sabotage.SABOTAGE.keys() == CHECK_BY_NAME.keys()


def test_every_check_states_its_rule_and_has_a_name_of_its_own():
    assert len(CHECK_BY_NAME) == len(CHECKS)
    for check in CHECKS:
        assert check.summary.endswith("."), check.name


def test_reference_agent_passes_everything(any_case, make_reference):
    other = example_case(any_case.kind, observation_size=5)
    report = check_agent(make_reference(any_case), case=any_case, make_other=make_reference(other))
    assert report.ok, report.summary()
    skipped = {result.check for result in report.results if result.outcome == "skipped"}
    allowed = {
        "discrete": OF_MEMORY | OF_EXPORT | AHEAD,
        "box": OF_MEMORY | OF_EXPORT | OF_MASKS,
        "multibinary": OF_MEMORY | OF_EXPORT | AHEAD,
        "multidiscrete": OF_MEMORY
        | OF_EXPORT
        | AHEAD
        | {
            "distribution_is_proper",
            "distribution_has_no_side_effects",
            "distribution_matches_greedy",
            "distribution_matches_samples",
        },
    }
    assert skipped == allowed[any_case.kind] | NEEDS_CORE


def test_recurrent_reference_agent_passes_everything(any_case, make_reference):
    other = make_reference(example_case(any_case.kind, observation_size=5), RecurrentReferenceAgent)
    report = check_agent(make_reference(any_case, RecurrentReferenceAgent), case=any_case, make_other=other)
    assert report.ok, report.summary()
    assert not OF_MEMORY & {result.check for result in report.results if result.outcome == "skipped"}


def test_recurrent_policy_with_a_correct_reset_passes(make_reference):
    case = example_case("box")
    report = check_agent(make_reference(case, sabotage.Remembers), case=case)
    failed = {result.check for result in report.failures}
    # It remembers while evaluating only; as a policy it keeps every rule.
    assert not {name for name in failed if name.startswith("policy_")}, report.summary()


class SixMethodsOnly:
    """An agent of which only the six methods can be seen."""

    inside = ReferenceAgent

    def __init__(self, **kwargs):
        agent = self.inside(**kwargs)
        for name in ("act", "learn", "get_hyperparams", "set_hyperparams", "save_weights", "load_weights"):
            setattr(self, name, getattr(agent, name))


def test_six_methods_alone_are_green(any_case, make_reference):
    report = check_agent(make_reference(any_case, SixMethodsOnly), case=any_case)
    assert report.ok, report.summary()
    assert report.num_passed >= MINIMUM_PASSED + 5
    assert report.num_skipped >= 20


CORE_GROUPS = {"acting", "learning", "bootstrapping", "hyperparameters", "weights"}
NEEDS_A_CAPABILITY = {"CountsActsInItsState", "ForgetsTheNormaliser", "LearnsInTheCriticOnly"}


@pytest.mark.parametrize(
    ("name", "agent", "kind"),
    [
        (name, agent, kind)
        for name, agent, kind in PAIRS
        if CHECK_BY_NAME[name].group in CORE_GROUPS and agent.__name__ not in NEEDS_A_CAPABILITY
    ],
)
def test_check_catches_its_sabotage_through_six_methods(name, agent, kind, make_reference):
    """Without any capability, the weight file and the actions still tell."""
    case, other = example_case(kind), example_case(kind, observation_size=5)
    bare = type("Bare", (SixMethodsOnly,), {"inside": agent})
    result = run_check(
        CHECK_BY_NAME[name], make_reference(case, bare), case=case, exempt={}, make_other=make_reference(other)
    )
    assert result.outcome == "failed", result.message


def test_messages_name_the_place_where_an_agent_raised(make_reference):
    case = example_case()
    broken = sabotage.learning.fails_on(lambda window: True)
    result = run_check(CHECK_BY_NAME["learn_returns_diagnostics"], make_reference(case, broken), case=case, exempt={})
    assert "IndexError raised at learning.py:" in result.message
    assert "index out of range" in result.message
    assert "Checked: Learn returns a dict of finite floats." in result.message


class Replays(ReferenceAgent):
    """Keeps the contract off-policy: learns from random rows of the past, after a warm-up of 200 rows."""

    is_on_policy = False
    act_masked = None
    fields = ("observations", "actions", "rewards", "next_observations", "terminated")

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._memory = {}
        self._sampler = np.random.default_rng(kwargs.get("seed", 0))

    def learn(self, episode_data):
        for name in self.fields:
            rows = episode_data.flat(getattr(episode_data, name))
            self._memory[name] = np.concatenate([self._memory[name], rows]) if name in self._memory else rows
        size = len(self._memory["rewards"])
        if size < 200 or episode_data.num_env_steps == 0:
            return {}
        index = self._sampler.integers(size, size=64)
        row = {name: array[index][None] for name, array in self._memory.items()}  # [T = 1, N = 64]
        successors, ended = row.pop("next_observations"), int(row["terminated"].sum())
        return super().learn(
            EpisodeData(
                **row,
                truncated=np.zeros_like(row["terminated"]),
                valid=np.ones_like(row["terminated"]),
                last_observation=successors[0],
                final_observations=successors[row["terminated"]],
                episode_returns=np.zeros(ended),
                episode_lengths=np.ones(ended, np.int64),
            )
        )

    def training_state(self):
        memory = {name: array.copy() for name, array in self._memory.items()}
        return {**super().training_state(), "memory": memory, "sampler": self._sampler.bit_generator.state}

    def restore_training_state(self, state):
        super().restore_training_state(state)
        self._memory = {name: array.copy() for name, array in state["memory"].items()}
        self._sampler.bit_generator.state = state["sampler"]


def test_an_off_policy_agent_passes(make_reference):
    case = example_case()
    report = check_agent(make_reference(case, Replays), case=case)
    assert report.ok, report.summary()
    skipped = {result.check for result in report.results if result.outcome == "skipped"}
    assert skipped == OF_MEMORY | OF_EXPORT | OF_MASKS | NEEDS_CORE | {
        "learn_keeps_environments_apart",
        "load_refuses_other_network",
    }


def test_an_off_policy_agent_that_forgets_its_memory_is_caught(make_reference):
    class Forgets(Replays):
        def restore_training_state(self, state):
            super().restore_training_state({**state, "memory": {}})

    case = example_case()
    report = check_agent(make_reference(case, Forgets), case=case)
    assert "state_resumes_exactly" in {result.check for result in report.failures}


def test_warm_up_is_waited_for(make_reference):
    """An agent that learns nothing before 1000 transitions is checked after them."""

    class WarmsUp(ReferenceAgent):
        seen = 0

        def learn(self, episode_data):
            self.seen += episode_data.num_env_steps
            return super().learn(episode_data) if self.seen > 1000 else {}

        training_state = restore_training_state = None

    case = example_case()
    for name in ("learn_changes_weights", "truncation_is_not_termination", "hyperparams_take_effect", "load_restores"):
        result = run_check(CHECK_BY_NAME[name], make_reference(case, WarmsUp), case=case, exempt={})
        assert result.outcome == "passed", result.message


def test_the_warm_up_is_measured_once(make_reference, monkeypatch):
    measured, measure = [], Subject._measured_warm_up
    monkeypatch.setattr(Subject, "_measured_warm_up", lambda self: measured.append(self) or measure(self))
    case = example_case()
    assert check_agent(make_reference(case, Replays), case=case).ok
    assert len(measured) == 1


def test_actions_start_where_the_space_says(make_reference):
    case = example_case()
    shifted = type(case)(
        observation_space=case.observation_space,
        action_space=type(case.action_space)(n=3, start=5),
    )
    report = check_agent(make_reference(shifted), case=shifted)
    assert report.ok, report.summary()
    assert np.isin(shifted.actions(np.random.default_rng(0), 100), [5, 6, 7]).all()
