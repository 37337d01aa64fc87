"""The last thing that ``optix train`` says: what was reached, why it stopped, what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optix_core.cli.console import VERDICT_STYLES, facts, next_command
from optix_core.loop.budget import StopReason
from optix_core.reporting.story import plain_reason
from optix_core.reporting.text import at_the_ends, certainty, duration, number, steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from rich.panel import Panel

    from optix_core.loop.result import RunResult
    from optix_core.training import TrainPlan


def result_panel(result: RunResult, plan: TrainPlan, directory: str, console: Console) -> Panel:
    """Return the panel that ends a run."""
    from rich.panel import Panel
    from rich.text import Text

    lines: dict[str, str | Text] = {"return": Text(return_line(result.confirmed_return), style="bold")}
    if result.confirmed_infos:
        lines["ends"] = Text(at_the_ends(result.confirmed_infos))
    threshold = plan.env_spec.reward_threshold
    if threshold is not None and result.confirmed_return is not None:
        lines["goal"] = threshold_line(plan.env_id, threshold, result.confirmed_return["mean"])
    lines["verdict"] = Text(result.verdict, style=f"bold {VERDICT_STYLES.get(result.verdict, '')}")
    lines["stopped"] = plain_reason(result.why)
    if result.greedy_gap is not None:
        hint = "its policy needs its randomness: acting greedily it earns less; play it with optix eval --mode sample"
        lines["hint"] = Text(hint, style="yellow")
    if result.verdict == "NO_SIGNAL":
        lines["advice"] = Text(advice(plan), style="yellow")
    budget = f" of {steps(plan.max_env_steps)}" if plan.max_env_steps else ""
    search = f", {steps(result.search_env_steps)} for comparing hyperparameters" if result.search_env_steps else ""
    lines["steps"] = (
        f"{steps(result.train_env_steps)}{budget} for training{search}, {steps(result.eval_env_steps)} for evaluation"
    )
    for position, note in enumerate(result.notes):
        lines["note" + " " * position] = note  # labels are stripped when they are shown
    lines["time"] = f"{duration(result.wall_seconds)}, {steps(result.env_steps_per_second)} steps/s"
    policy = f", policy in {result.best_snapshot['path']}" if result.best_snapshot else ""
    lines["run"] = f"{directory}{policy}"
    commands = [next_command(command, directory, plan) for command in ("explain", "eval")]
    if result.greedy_gap is not None:
        commands[-1] += " --mode sample"
    lines["next"] = Text("\n".join(commands), style="cyan")
    title = f"{result.env_id}, {result.algorithm} ({result.backend}), seed {result.seed}"
    good = result.stop_reason == StopReason.CONVERGED
    border = "green" if good else ("red" if result.verdict in ("NO_SIGNAL", "DEGRADING") else "yellow")
    return Panel(
        facts(lines), title=Text(title), title_align="left", border_style=border, width=min(console.width, 100)
    )


def return_line(confirmed: Mapping[str, Any] | None) -> str:
    """Say what the policy earns, with the uncertainty of it."""
    if confirmed is None:
        return "not confirmed: no policy was kept, or there was no environment to play it in"
    return f"{number(confirmed['mean'])} mean of {confirmed['episodes']:.0f} fresh episodes ({certainty(confirmed)})"


def threshold_line(env_id: str, threshold: float, mean: float) -> str:
    """Compare with the return at which the environment's registration calls it solved."""
    reached = "reached" if mean >= threshold else "not reached"
    return f"{number(threshold)}, where {env_id.rpartition(':')[2]} counts as solved: {reached}"


def advice(plan: TrainPlan) -> str:
    """Say what to try when nothing was learned."""
    from optix_core.agents.backends import load_backend

    known = load_backend(plan.backend).algorithms()[plan.algorithm].default_hyperparams
    entropy_coef = max(0.01, 2 * float(plan.hyperparams.get("entropy_coef", known.get("entropy_coef", 0.0))))
    ideas = [
        f"--set entropy_coef={entropy_coef:g} (more exploration)" if "entropy_coef" in known else "",
        f"--max-env-steps {3 * plan.max_env_steps} (more time)" if plan.max_env_steps else "",
        f"--seed {plan.seed + 1}",
        "a wrapper whose reward tells progress from standstill",
    ]
    return f"Nothing was learned. Try {', '.join(idea for idea in ideas[:-1] if idea)}, or {ideas[-1]}."
