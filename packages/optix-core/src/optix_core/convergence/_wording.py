"""The one sentence that an assessment says to its reader."""

from __future__ import annotations

from optix_protocol import Verdict

from .assessment import Assessment

_BECAUSE = {
    "still-rising": "the score still rises",
    "falling": "the score is falling",
    "bound-too-wide": "too uncertain to decide",
    "plateau-too-young": "but the plateau is still young compared with the rise before it",
    "budget-ends-first": "so far a plateau, but the budget ends before a second look can confirm it",
    "plateau-too-early": "but a plateau this early in the budget is often a deceptive one",
}


def explain(assessment: Assessment, *, alpha: float, confirm_at: float | None) -> str:
    """Return the evidence and the verdict of ``assessment`` in plain English.

    Args:
        assessment: The assessment, its explanation still empty.
        alpha: Error probability of the whole run.
        confirm_at: Environment steps of the confirming look, if one is pending.
    """
    if assessment.verdict is Verdict.NO_SIGNAL:
        advice = (
            "stopping; try more exploration, a denser reward, another algorithm or a larger budget"
            if assessment.should_stop
            else "going on"
        )
        return (
            f"The score {assessment.level:.4g} has not risen above the untrained level "
            f"{assessment.baseline:.4g}: nothing was learned, which is not convergence; {advice}."
        )
    share = ""
    if assessment.score_range > 0:
        percent = 100 * assessment.fraction_of_range
        share = f", {percent:.1f} % of the range {assessment.score_range:.4g}"
    bound = (
        f"If the present trend goes on, the next {assessment.horizon_env_steps} steps add at most "
        f"{_gain(assessment)} ({100 * (1 - alpha):g} % upper bound{share})"
    )
    if assessment.should_stop:
        return f"{bound}, for the second time: converged, stopping."
    if assessment.verdict is Verdict.CONVERGED:
        return f"{bound}: converged, to be confirmed at {confirm_at or 0:.0f} steps."
    return f"{bound}: {_BECAUSE[assessment.reason]}."


def _gain(assessment: Assessment) -> str:
    """Return the bound in three digits; what only rounding has left of nothing is 0."""
    negligible = abs(assessment.upper_gain) < 1e-9 * assessment.score_range
    return "0" if negligible else f"{assessment.upper_gain:.3g}"
