"""The pytest suite, run as a third party would run it."""

import importlib.util
import textwrap

import pytest

from optix_protocol.conformance import CHECKS

pytest_plugins = "pytester"

HEADER = """
import pytest
from optix_protocol.conformance import example_case
from optix_protocol.conformance.pytest_suite import AgentConformance
from optix_protocol.conformance.reference import ReferenceAgent

class Complete(AgentConformance):
    @pytest.fixture
    def make_agent(self, case):
        def make_agent(seed=0):
            return ReferenceAgent(
                observation_space=case.observation_space, action_space=case.action_space, seed=seed
            )
        return make_agent
"""


@pytest.fixture
def run_suite(pytester):
    """``run_suite(body, *options)`` runs a test file that begins with the header; returns counts and the output."""

    def run(body, *options):
        pytester.makepyfile(test_agent=HEADER + textwrap.dedent(body))
        done = pytester.runpytest_inprocess("-rs", "-p", "no:cacheprovider", *options)
        counts = {word: count for word, count in done.parseoutcomes().items() if word not in ("warnings", "deselected")}
        return counts, done.stdout.str()

    return run


def test_one_test_per_check_and_two_that_guard_them(run_suite):
    counts, output = run_suite("class TestReference(Complete): pass")
    lacks = sum(check.requires in ("recurrent_state", "export") for check in CHECKS)
    without_core = importlib.util.find_spec("optix_core") is None  # nobody to run the host policy
    skipped = 2 + lacks + without_core  # no make_other, no looking ahead on-policy, no memory, no export
    assert counts == {"passed": len(CHECKS) - skipped + 2, "skipped": skipped}, output
    assert "no make_other was given" in output


def test_spaces_can_be_changed(run_suite):
    counts, output = run_suite(
        """
        class TestReference(Complete):
            @pytest.fixture(params=["multidiscrete", "box"])
            def case(self, request):
                return example_case(request.param)
        """,
    )
    assert counts["passed"] + counts["skipped"] == 2 * (len(CHECKS) + 1) + 1, output


@pytest.mark.parametrize(
    "body",
    [
        "class TestReference(Complete):\n    test_conforms = None",
        "class TestReference(Complete):\n    def test_enough_checks_pass(self): pass",
        "class TestReference(Complete):\n    test_standard_tests_are_intact = None",
        "class TestReference(Complete):\n    pytestmark = pytest.mark.skip",
        "class TestReference(Complete):\n    pytestmark = [pytest.mark.xfail]",
        "class Between(Complete):\n    test_conforms = None\nclass TestReference(Between): pass",
    ],
)
def test_replacing_a_standard_test_is_a_failing_test(run_suite, body):
    counts, output = run_suite(body, "-k", "act_batch or intact")
    assert counts == {"failed": 1, "passed": 1}, output  # the standard tests run nevertheless
    assert "standard tests cannot be overridden" in output


def test_other_marks_are_welcome(run_suite):
    body = "class TestReference(Complete):\n    pytestmark = pytest.mark.filterwarnings('error')"
    counts, output = run_suite(body, "-k", "load or intact")
    assert "failed" not in counts, output


def test_a_broken_agent_fails_with_the_lesson_and_no_traceback(run_suite):
    counts, output = run_suite(
        """
        class TestReference(Complete):
            @pytest.fixture
            def make_agent(self, case):
                class Broken(ReferenceAgent):
                    def learn(self, episode_data):
                        episode_data.rewards[:] = 0.0
                        return super().learn(episode_data)
                return lambda: Broken(
                    observation_space=case.observation_space, action_space=case.action_space
                )
        """,
    )
    assert counts["failed"] >= 1
    assert "learn changed episode_data.rewards in place" in output
    assert "The rule: Learn does not write into the window's arrays." in output
    assert "Traceback" not in output


def test_exempting_nearly_everything_fails(run_suite):
    counts, output = run_suite(
        """
        from optix_protocol.conformance import CHECKS
        class TestReference(Complete):
            exempt = {check.name: "not today" for check in CHECKS}
        """,
    )
    assert counts == {"failed": 1, "passed": 1, "skipped": len(CHECKS)}, output
    assert "Too few checks passed" in output


def test_a_forgotten_fixture_says_so(run_suite):
    counts, output = run_suite("class TestNothing(AgentConformance): pass")
    assert "passed" in output
    assert counts["passed"] == 1
    assert "TestNothing needs a fixture make_agent(self, case)" in output
