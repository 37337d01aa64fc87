"""Finding the checks, running them, counting the outcomes."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optix_protocol.capabilities import capabilities_of
from optix_protocol.conformance import checks
from optix_protocol.conformance.cases import Case, example_case
from optix_protocol.conformance.check import Check
from optix_protocol.conformance.report import CheckResult, ConformanceError, ConformanceReport, Outcome
from optix_protocol.conformance.subject import AgentFactory, CheckSkipped, Subject

__all__ = ["CHECKS", "MINIMUM_PASSED", "check_agent", "check_exemptions", "describe", "run_check"]

CHECKS: tuple[Check, ...] = tuple(
    value for module in checks.MODULES for value in vars(module).values() if isinstance(value, Check)
)
"""Every check of an agent, in the order in which they run."""

MINIMUM_PASSED = 24
"""Floor of a report on one agent: six methods alone pass more than this, so a green report has looked."""


def check_agent(
    make_agent: AgentFactory,
    *,
    case: Case | None = None,
    exempt: Mapping[str, str] | None = None,
    make_other: AgentFactory | None = None,
    subject: str | None = None,
) -> ConformanceReport:
    """Run every check that applies to the agent; which capabilities it has is found out by looking.

    Args:
        make_agent: returns a new agent; called again, an identical one (pin the seed). If it accepts a keyword
            ``seed``, the checks of seeding run as well: ``lambda seed=0: MyAgent(seed=seed)``.
        case: spaces the agent is made for; default :func:`example_case` with three discrete actions.
        exempt: names of checks that this agent cannot pass by design, each with the reason
            (``{"truncation_is_not_termination": "no value function"}``). They are reported as skipped.
        make_other: returns an agent for other spaces; its weights must be refused.
        subject: name in the report; default the agent's class.

    Returns:
        The report; ``report.ok`` is False when a check failed or too few passed.

    Raises:
        ValueError: an exemption for a check that does not exist, or without a reason.
    """
    case = case or example_case()
    name = subject or _class_name(make_agent)
    exempt = check_exemptions(exempt or {})
    known: dict[str, Any] = {}
    results = [_run(check, make_agent, case, exempt, make_other, name, known) for check in CHECKS]
    return ConformanceReport(subject=name, results=tuple(results), floor=MINIMUM_PASSED)


def check_exemptions(exempt: Mapping[str, str]) -> Mapping[str, str]:
    """Return the exemptions, or raise ``ValueError`` for an unknown name or an empty reason."""
    known = {check.name for check in CHECKS}
    for name, reason in exempt.items():
        if name not in known:
            raise ValueError(f"no check is called {name!r}; the names are {', '.join(sorted(known))}.")
        if not reason.strip():
            raise ValueError(f"the exemption from {name} needs a reason.")
    return exempt


def run_check(
    check: Check,
    make_agent: AgentFactory,
    *,
    case: Case,
    exempt: Mapping[str, str],
    make_other: AgentFactory | None = None,
    subject: str = "agent",
) -> CheckResult:
    """Run one check on fresh agents and return what came of it; nothing but KeyboardInterrupt escapes."""
    return _run(check, make_agent, case, exempt, make_other, subject, {})


def _run(
    check: Check,
    make_agent: AgentFactory,
    case: Case,
    exempt: Mapping[str, str],
    make_other: AgentFactory | None,
    subject: str,
    known: dict[str, Any],
) -> CheckResult:
    def result(outcome: Outcome, message: str = "") -> CheckResult:
        return CheckResult(check=check.name, group=check.group, subject=subject, outcome=outcome, message=message)

    if check.name in exempt:
        return result("skipped", f"exempt: {exempt[check.name]}")
    try:
        with tempfile.TemporaryDirectory(prefix="optix-conformance-") as directory:
            if check.requires and check.requires not in capabilities_of(make_agent()):
                return result("skipped", f"the agent has no capability {check.requires!r}")
            check(Subject(make_agent, case, Path(directory), make_other, known))
    except CheckSkipped as reason:
        return result("skipped", str(reason))
    except ConformanceError as problem:
        return result("failed", str(problem))
    except Exception as error:
        return result("failed", f"{describe(error)} Checked: {check.summary}")
    return result("passed")


def _class_name(make_agent: AgentFactory) -> str:
    try:
        return type(make_agent()).__name__
    except Exception:  # every check will say so
        return "agent"


def describe(error: Exception) -> str:
    """Say what was raised and where, outside this package if possible."""
    here = str(Path(__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if not frame.filename.startswith(here)] or list(frames)
    place = f"{Path(outside[-1].filename).name}:{outside[-1].lineno}" if outside else "an unknown place"
    return f"{type(error).__name__} raised at {place}: {error}."
