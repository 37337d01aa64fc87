"""What a check is: a function of a subject with a name, a group and, sometimes, a capability it needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from optix_protocol.conformance.subject import Subject

__all__ = ["Check", "check"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check. Call it with a :class:`Subject`; it raises if the subject does not conform.

    Attributes:
        name: function name without ``check_``.
        group: what it is about.
        summary: the rule in one sentence, from the docstring.
        function: does the work.
        requires: capability without which it does not apply, or None.
    """

    name: str
    group: str
    summary: str
    function: Callable[[Subject], None]
    requires: str | None = None

    def __call__(self, subject: Subject) -> None:
        """Run it.

        Raises:
            ConformanceError: the subject breaks the rule; the message says how to mend it.
            CheckSkipped: the rule does not apply to this subject.
        """
        self.function(subject)


def check(group: str, *, requires: str | None = None) -> Callable[[Callable[[Subject], None]], Check]:
    """Turn a function ``check_<name>(subject)`` with a docstring into a :class:`Check`."""

    def decorate(function: Callable[[Subject], None]) -> Check:
        summary = inspect.cleandoc(function.__doc__ or "").splitlines()[0]
        name = function.__name__.removeprefix("check_")
        return Check(name=name, group=group, summary=summary, function=function, requires=requires)

    return decorate
