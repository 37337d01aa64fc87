"""Conformance kit: does an agent, or a whole backend, keep the contract? Needs no pytest.

    report = check_agent(lambda seed=0: MyAgent(seed=seed), case=example_case("discrete"))
    print(report.summary())

With pytest, subclass :class:`optix_protocol.conformance.pytest_suite.AgentConformance`.
"""

from optix_protocol.conformance.backend import check_backend
from optix_protocol.conformance.cases import Case, action_kind, example_case, make_window, reorder_environments
from optix_protocol.conformance.check import Check
from optix_protocol.conformance.report import CheckResult, ConformanceError, ConformanceReport, Outcome
from optix_protocol.conformance.runner import CHECKS, MINIMUM_PASSED, check_agent, run_check
from optix_protocol.conformance.subject import AgentFactory

__all__ = [
    "CHECKS",
    "MINIMUM_PASSED",
    "AgentFactory",
    "Case",
    "Check",
    "CheckResult",
    "ConformanceError",
    "ConformanceReport",
    "Outcome",
    "action_kind",
    "check_agent",
    "check_backend",
    "example_case",
    "make_window",
    "reorder_environments",
    "run_check",
]
