"""What a conformance run found, and when it counts as green."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["CheckResult", "ConformanceError", "ConformanceReport", "Outcome"]

Outcome: TypeAlias = Literal["passed", "failed", "skipped"]
"""What came of a check."""


class ConformanceError(AssertionError):
    """The subject breaks the contract; the message says what was seen and how to mend it."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """Outcome of one check on one subject.

    Attributes:
        check: name of the check, ``"act_batch"``.
        group: what it is about, ``"acting"``.
        subject: what was checked, ``"ppo on discrete actions"``.
        outcome: ``"passed"``, ``"failed"`` or ``"skipped"``.
        message: how to mend a failure, why a check was skipped; empty if it passed.
    """

    check: str
    group: str
    subject: str
    outcome: Outcome
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class ConformanceReport:
    """Outcomes of all checks, with a floor: a report that skipped nearly everything is not green.

    Attributes:
        subject: what was checked.
        results: one entry per check.
        floor: how many checks must have passed.
    """

    subject: str
    results: tuple[CheckResult, ...]
    floor: int

    def _count(self, *outcomes: Outcome) -> int:
        return sum(result.outcome in outcomes for result in self.results)

    @property
    def num_run(self) -> int:
        """Checks that ran: passed or failed."""
        return self._count("passed", "failed")

    @property
    def num_passed(self) -> int:
        """Checks that passed."""
        return self._count("passed")

    @property
    def num_failed(self) -> int:
        """Checks that failed."""
        return self._count("failed")

    @property
    def num_skipped(self) -> int:
        """Checks that did not apply, or that were exempted with a reason."""
        return self._count("skipped")

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The failed checks."""
        return tuple(result for result in self.results if result.outcome == "failed")

    @property
    def skipped_by_reason(self) -> Mapping[str, list[str]]:
        """What was skipped, by the reason: ``{"no capability 'export'": ["a, b (ppo on box actions, dqn)"]}``."""
        checks: dict[tuple[str, str], list[str]] = {}
        for result in self.results:
            if result.outcome == "skipped":
                checks.setdefault((result.message, result.subject), []).append(result.check)
        subjects: dict[tuple[str, str], list[str]] = {}
        for (reason, subject), names in checks.items():
            subjects.setdefault((reason, ", ".join(names)), []).append(subject)
        by_reason: dict[str, list[str]] = {}
        for (reason, joined), where in subjects.items():
            by_reason.setdefault(reason, []).append(f"{joined} ({', '.join(where)})")
        return by_reason

    @property
    def ok(self) -> bool:
        """Whether nothing failed and at least ``floor`` checks passed."""
        return self.num_failed == 0 and self.num_passed >= self.floor

    def summary(self, *, verbose: bool = False) -> str:
        """Return the counts and every failure as text; ``verbose`` adds what was skipped and why."""
        lines = [
            f"{self.subject}: {self.num_run} checks ran, {self.num_passed} passed, "
            f"{self.num_failed} failed, {self.num_skipped} skipped."
        ]
        if self.num_passed < self.floor:
            lines.append(f"  Too few checks passed: at least {self.floor} are needed for a green report.")
        lines += [f"  FAILED {result.check} ({result.subject}): {result.message}" for result in self.failures]
        if verbose:
            lines += [f"  skipped, {reason}: {', '.join(names)}" for reason, names in self.skipped_by_reason.items()]
        return "\n".join(lines)

    def raise_if_not_ok(self) -> None:
        """Raise :class:`ConformanceError` with the summary unless the report is green."""
        if not self.ok:
            raise ConformanceError(self.summary())

    def to_dict(self) -> Mapping[str, Any]:
        """Return everything as JSON values."""
        return {
            "subject": self.subject,
            "ok": self.ok,
            "run": self.num_run,
            "passed": self.num_passed,
            "failed": self.num_failed,
            "skipped": self.num_skipped,
            "floor": self.floor,
            "checks": [vars(result).copy() for result in self.results],
        }

    @classmethod
    def merge(cls, subject: str, reports: Iterable[ConformanceReport]) -> ConformanceReport:
        """Join reports: all results, and the sum of the floors."""
        reports = tuple(reports)
        return cls(
            subject=subject,
            results=tuple(result for report in reports for result in report.results),
            floor=sum(report.floor for report in reports),
        )
