import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optix_core import Action, Budget, ConfigError, Evidence, Progress, StopReason, decide
from optix_protocol import Verdict

evidences = st.builds(
    Evidence,
    progress=st.builds(
        Progress,
        num_windows=st.integers(1, 1000),
        num_env_steps=st.integers(0, 10**6),
        num_episodes=st.integers(0, 10**4),
        elapsed_s=st.floats(0, 1e4),
        window_env_steps=st.integers(1, 5000),
    ),
    budget_exceeded=st.none() | st.sampled_from([StopReason.BUDGET_ENV_STEPS, StopReason.BUDGET_SECONDS]),
    verdict=st.sampled_from(list(Verdict)),
    should_stop=st.booleans(),
    snapshot_due=st.booleans(),
    tuning_due=st.booleans(),
    damage=st.none() | st.just("NaN"),
    degradation=st.none() | st.just("worse"),
    can_roll_back=st.booleans(),
    stop_request=st.none() | st.sampled_from([StopReason.STOPPED, StopReason.INTERRUPTED]),
)


@given(evidences)
def test_a_decision_can_be_replayed_from_its_journal_entry(evidence):
    entry = json.loads(json.dumps(evidence.to_dict()))
    assert decide(Evidence.from_dict(entry)) == decide(evidence)


@given(evidences)
def test_what_must_always_hold(evidence):
    decision = decide(evidence)
    assert (decision.action is Action.STOP) == (decision.stop_reason is not None)
    if decision.action is Action.ROLLBACK:
        assert evidence.can_roll_back
        assert not decision.learn
    if evidence.damage:
        assert not decision.checkpoint, "a damaged policy must never be kept"
        assert not decision.learn
    if decision.stop_reason is StopReason.CONVERGED:
        assert evidence.should_stop
        assert evidence.verdict is not Verdict.NO_SIGNAL
    if evidence.stop_request or evidence.budget_exceeded:
        assert decision.action in (Action.STOP, Action.ROLLBACK)


def progress(**changes):
    return Progress(**{"num_windows": 10, "num_env_steps": 900, "window_env_steps": 100, **changes})


@pytest.mark.parametrize(
    ("budget", "now", "reason"),
    [
        (Budget(max_env_steps=1000), progress(num_env_steps=900), None),
        (Budget(max_env_steps=1000), progress(num_env_steps=901), StopReason.BUDGET_ENV_STEPS),
        (Budget(max_episodes=5), progress(num_episodes=4), None),
        (Budget(max_episodes=5), progress(num_episodes=5), StopReason.BUDGET_EPISODES),
        (Budget(max_seconds=2.0), progress(elapsed_s=1.9), None),
        (Budget(max_seconds=2.0), progress(elapsed_s=2.0), StopReason.BUDGET_SECONDS),
        (Budget(), progress(num_env_steps=10**12), None),
    ],
)
def test_budgets(budget, now, reason):
    assert budget.exceeded(now) is reason


def test_the_window_that_uses_up_a_budget_is_still_learned_from():
    decision = decide(Evidence(progress=progress(), budget_exceeded=StopReason.BUDGET_ENV_STEPS))
    assert decision.action is Action.STOP
    assert decision.learn


def test_a_proof_outranks_the_budget():
    evidence = Evidence(
        progress=progress(),
        budget_exceeded=StopReason.BUDGET_ENV_STEPS,
        verdict=Verdict.CONVERGED,
        should_stop=True,
    )
    assert decide(evidence).stop_reason is StopReason.CONVERGED


def test_no_signal_is_never_called_convergence():
    evidence = Evidence(progress=progress(), verdict=Verdict.NO_SIGNAL, should_stop=True)
    assert decide(evidence).stop_reason is StopReason.NO_SIGNAL


def test_budgets_must_be_positive():
    with pytest.raises(ConfigError, match="max_env_steps must be positive"):
        Budget(max_env_steps=0)
