"""The conformance checks as a pytest class: one test per check. Needs pytest; everything else in the kit does not.

class TestMyAgent(AgentConformance):
    @pytest.fixture
    def make_agent(self, case):
        return lambda seed=0: MyAgent(case.observation_space, case.action_space, seed=seed)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from optix_protocol.conformance.cases import Case, example_case
from optix_protocol.conformance.check import Check
from optix_protocol.conformance.runner import CHECKS, check_agent, check_exemptions, run_check
from optix_protocol.conformance.subject import AgentFactory

__all__ = ["AgentConformance"]


class AgentConformance:
    """Subclass it (the name must begin with ``Test``) and give it a fixture ``make_agent``.

    Override the fixture ``case`` to check on other spaces; parametrise it to check on several. A check that your agent
    cannot pass by design goes into ``exempt`` with the reason, and shows as skipped. The tests themselves cannot be
    overridden, nor skipped as a class: that is a failing test of its own.
    """

    exempt: ClassVar[Mapping[str, str]] = {}
    """Names of checks that do not apply, each with the reason."""

    _meddling: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Note which standard tests the subclass replaces, and put the test that reports it back in place."""
        super().__init_subclass__(**kwargs)
        replaced = {name for name in vars(AgentConformance) if name.startswith("test_")} & vars(cls).keys()
        marks = vars(cls).get("pytestmark", [])
        if {mark.name for mark in (marks if isinstance(marks, list) else [marks])} & {"skip", "skipif", "xfail"}:
            replaced.add("pytestmark")
        for name in replaced:
            delattr(cls, name)
        cls._meddling = (*cls._meddling, *sorted(replaced))

    @pytest.fixture
    def case(self) -> Case:
        """Spaces to check on."""
        return example_case("discrete")

    @pytest.fixture
    def make_agent(self, case: Case) -> AgentFactory:  # noqa: ARG002 - shows subclasses the signature
        """Return a factory of identical agents, with a keyword ``seed`` if possible. Subclasses must provide it."""
        pytest.fail(f"{type(self).__name__} needs a fixture make_agent(self, case) that returns a factory of agents.")

    @pytest.fixture
    def make_other(self) -> AgentFactory | None:
        """Return a factory of agents for other spaces, whose weights must be refused, or None."""
        return None

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
    def test_conforms(
        self, check: Check, make_agent: AgentFactory, make_other: AgentFactory | None, case: Case
    ) -> None:
        """Run one check."""
        exempt = check_exemptions(self.exempt)
        result = run_check(
            check, make_agent, case=case, exempt=exempt, make_other=make_other, subject=type(self).__name__
        )
        if result.outcome == "failed":
            pytest.fail(f"{result.message}\nThe rule: {check.summary}", pytrace=False)
        if result.outcome == "skipped":
            pytest.skip(result.message)

    def test_standard_tests_are_intact(self) -> None:
        """Fail if the subclass overrides or skips a standard test."""
        if self._meddling:
            pytest.fail(
                f"{type(self).__name__} replaces {', '.join(self._meddling)}: standard tests cannot be overridden; "
                "name a check in `exempt` with the reason why your agent cannot pass it.",
                pytrace=False,
            )

    def test_enough_checks_pass(self, make_agent: AgentFactory, make_other: AgentFactory | None, case: Case) -> None:
        """Fail if so much was skipped that green means nothing."""
        report = check_agent(
            make_agent, case=case, exempt=self.exempt, make_other=make_other, subject=type(self).__name__
        )
        if report.num_passed < report.floor:
            pytest.fail(report.summary(verbose=True), pytrace=False)
