"""Counts, the floor, exemptions: a report cannot look green without having looked."""

import json

import pytest

from optix_protocol.conformance import (
    CHECKS,
    MINIMUM_PASSED,
    CheckResult,
    ConformanceError,
    ConformanceReport,
    check_agent,
    example_case,
)


def report_of(passed: int, failed: int = 0, skipped: int = 0, floor: int = 2) -> ConformanceReport:
    outcomes = ["passed"] * passed + ["failed"] * failed + ["skipped"] * skipped
    results = [
        CheckResult(check=f"c{i}", group="g", subject="s", outcome=outcome, message=f"why {i}")
        for i, outcome in enumerate(outcomes)
    ]
    return ConformanceReport(subject="s", results=tuple(results), floor=floor)


def test_counts():
    report = report_of(3, 1, 2)
    assert (report.num_run, report.num_passed, report.num_failed, report.num_skipped) == (4, 3, 1, 2)
    assert [failure.check for failure in report.failures] == ["c3"]


@pytest.mark.parametrize(
    ("counts", "ok"), [((2,), True), ((2, 0, 9), True), ((9, 1), False), ((1,), False), ((0, 0, 50), False)]
)
def test_green_means_no_failure_and_enough_passes(counts, ok):
    assert report_of(*counts).ok is ok


def test_summary_tells_counts_failures_and_the_floor():
    text = report_of(1, 1, 1, floor=5).summary()
    assert "s: 2 checks ran, 1 passed, 1 failed, 1 skipped." in text
    assert "FAILED c1 (s): why 1" in text
    assert "at least 5" in text
    assert "why 2" not in text
    assert "skipped, why 2: c2 (s)" in report_of(1, 1, 1).summary(verbose=True)


def test_failures_come_first_and_what_was_skipped_stands_together_by_its_reason():
    def result(check, subject, outcome, message):
        return CheckResult(check=check, group="g", subject=subject, outcome=outcome, message=message)

    results = (
        result("a", "ppo", "skipped", "no memory"),
        result("b", "ppo", "skipped", "no memory"),
        result("c", "ppo", "skipped", "no masks"),
        result("a", "dqn", "skipped", "no memory"),
        result("d", "dqn", "failed", "wrong"),
    )
    lines = ConformanceReport(subject="s", results=results, floor=0).summary(verbose=True).splitlines()
    assert lines[1:] == [
        "  FAILED d (dqn): wrong",
        "  skipped, no memory: a, b (ppo), a (dqn)",
        "  skipped, no masks: c (ppo)",
    ]


def test_raise_if_not_ok():
    report_of(2).raise_if_not_ok()
    with pytest.raises(ConformanceError, match="why 2"):
        report_of(2, 1).raise_if_not_ok()


def test_dict_is_json():
    data = json.loads(json.dumps(report_of(2, 1, 1).to_dict()))
    assert (data["run"], data["passed"], data["failed"], data["skipped"], data["ok"]) == (3, 2, 1, 1, False)
    assert data["checks"][2] == {"check": "c2", "group": "g", "subject": "s", "outcome": "failed", "message": "why 2"}


def test_merging_adds_results_and_floors():
    merged = ConformanceReport.merge("both", [report_of(2, floor=2), report_of(3, 0, 1, floor=3)])
    assert (merged.num_run, merged.num_skipped, merged.floor, merged.ok) == (5, 1, 5, True)
    assert not ConformanceReport.merge("both", [report_of(2, floor=2), report_of(1, floor=3)]).ok


def test_exempting_everything_is_not_green(make_reference):
    case = example_case()
    report = check_agent(
        make_reference(case), case=case, exempt={check.name: "we would rather not" for check in CHECKS}
    )
    assert (report.num_run, report.num_failed, report.ok) == (0, 0, False)
    assert f"at least {MINIMUM_PASSED}" in report.summary()


def test_an_agent_that_cannot_even_be_made_fails_every_check():
    def make_agent():
        raise OSError("no GPU here")

    report = check_agent(make_agent)
    assert (report.num_passed, report.ok) == (0, False)
    assert report.num_failed > MINIMUM_PASSED
    assert "no GPU here" in report.failures[0].message


def test_exemptions_need_a_known_name_and_a_reason(make_reference):
    case = example_case()
    with pytest.raises(ValueError, match="no check is called 'act_bach'"):
        check_agent(make_reference(case), case=case, exempt={"act_bach": "typo"})
    with pytest.raises(ValueError, match="needs a reason"):
        check_agent(make_reference(case), case=case, exempt={"act_batch": " "})


def test_an_exemption_is_skipped_with_its_reason(make_reference):
    case = example_case()
    report = check_agent(make_reference(case), case=case, exempt={"learn_improves": "evolves over hundreds of windows"})
    (result,) = [result for result in report.results if result.check == "learn_improves"]
    assert (result.outcome, result.message) == ("skipped", "exempt: evolves over hundreds of windows")
    assert report.ok
