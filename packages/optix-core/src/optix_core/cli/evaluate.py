"""``optix eval``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from optix_core.cli.console import AllowImport

if TYPE_CHECKING:
    from optix_core.checkpoints import RunDirectory
    from optix_core.environments import EnvSpec
    from optix_core.evaluation import Rollouts
    from optix_core.training import TrainPlan


_ENDINGS = ("terminated", "truncated", "cut")


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run directory, or its name within ./runs.", metavar="RUN")],
    episodes: Annotated[int, typer.Option(min=1, help="Fresh episodes to play.")] = 100,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the episodes; a fresh one by default.")] = None,
    max_episode_steps: Annotated[
        int | None, typer.Option(min=1, help="Cut episodes after so many steps; by default as the run did.")
    ] = None,
    mode: Annotated[
        Literal["greedy", "sample"], typer.Option(help="Take the best action, or draw actions as in training.")
    ] = "greedy",
    env: Annotated[
        str | None, typer.Option(metavar="ENV_ID", help="Play in this environment, of the same spaces.")
    ] = None,
    allow_import: AllowImport = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with a row for each episode.")] = False,
) -> None:
    """Play fresh episodes with the best policy of a run."""
    import secrets
    import shlex

    from optix_core.checkpoints import RunDirectory
    from optix_core.cli.console import facts, make_console, print_json, shown_path
    from optix_core.cli.runs import find_run
    from optix_core.environments.endings import means
    from optix_core.evaluation.rollouts import evaluate as play
    from optix_core.evaluation.statistics import summarise
    from optix_core.reporting.contenders import confirmed_returns
    from optix_core.reporting.text import at_the_ends, certainty, number
    from optix_core.seeding import derive_seed
    from optix_core.training import TrainPlan

    seed = secrets.randbits(31) if seed is None else seed
    with RunDirectory.open(find_run(run)) as directory:
        plan = TrainPlan.from_dict(directory.read_run(), allow_import=allow_import)
        spec = plan.eval_spec if env is None else _other_environment(plan, env)
        agent = plan.make_agent()
        snapshot_id, reported = best_snapshot(directory)
        directory.registry.load(agent, snapshot_id)
        earlier = confirmed_returns(directory.path)
        limit = max_episode_steps or (directory.read_result() or {}).get("max_episode_steps")
    outcome = play(
        agent,
        spec,
        episodes=episodes,
        seed=derive_seed(seed, "eval"),
        mode=mode,
        max_envs=plan.loop.max_eval_envs or plan.n_envs,
        max_episode_steps=limit or plan.loop.max_episode_steps,
    )
    summary = summarise(outcome.returns)
    if json:
        about = {"env_id": spec.env_id, "mode": mode, "run": shown_path(directory.path), "snapshot": snapshot_id}
        print_json({**about, "seed": seed, **summary, **_played(outcome), "reported": reported})
        return
    from rich.text import Text

    choices = (("mode", mode, "greedy"), ("env", env, None), ("max-episode-steps", max_episode_steps, None))
    chosen = [f"--{name} {shlex.quote(str(value))}" for name, value, usual in choices if value != usual]
    lines: dict[str, str | Text] = {
        "mean return": Text.assemble((number(summary["mean"]), "bold"), f"  ({certainty(summary)})"),
        "IQM": number(summary["iqm"]),
        "range": f"{number(float(outcome.returns.min()))} to {number(float(outcome.returns.max()))}",
        "episodes": f"{episodes}, {number(float(outcome.lengths.mean()))} steps each on average",
        "run reported": "nothing yet",
        "policy": f"snapshot {snapshot_id} of {shown_path(directory.path)}",
        "repeat with": " ".join([f"--seed {seed} --episodes {episodes}", *chosen]),
    }
    ends = means(outcome.infos)
    if ends:
        lines["ends"] = at_the_ends(ends)
    if reported:
        agreement = (
            _agreement(summary, outcome.returns.tolist(), reported, earlier)
            if (mode, env) == ("greedy", None)
            else f"acting greedily in {plan.eval_spec.env_id}"
        )
        lines["run reported"] = f"{number(reported['mean'])}  ({agreement})"
    if outcome.num_cut:
        lines["note"] = f"{outcome.num_cut} episodes had not ended after {outcome.lengths.max()} steps and were cut"
    if outcome.forgotten:
        lines["note "] = (
            f"wrappers that remember something ({', '.join(outcome.forgotten)}) began afresh here, and not with what "
            "they remembered in training"
        )
    make_console().print(facts(lines))


def _other_environment(plan: TrainPlan, env_id: str) -> EnvSpec:
    """Return an environment that the user named, made with the options of the run.

    Raises:
        ConfigError: the policy of the run cannot act there.
        EnvError: it cannot be made.
    """
    from optix_core.errors import ConfigError, in_one_line

    spec = plan.environment.spec(env_id)
    for kind in ("observation", "action"):
        ours, theirs = (getattr(each, f"{kind}_space") for each in (plan.env_spec, spec))
        if ours != theirs:
            raise ConfigError(
                f"The policy of this run cannot play {spec.env_id}: its {kind} space is {in_one_line(theirs)}, that of "
                f"{plan.env_id} {in_one_line(ours)}."
            )
    return spec


def _played(outcome: Rollouts) -> dict[str, Any]:
    """Return what was played, in JSON types: the spread of the returns, what it cost, and each episode."""
    import numpy as np

    from optix_core.environments.endings import means

    episodes = zip(outcome.returns.tolist(), outcome.lengths.tolist(), outcome.endings, outcome.seeds, strict=True)
    infos = [
        {name: float(values[i]) for name, values in outcome.infos.items() if np.isfinite(values[i])}
        for i in range(outcome.episodes)
    ]
    return {
        "std": float(np.std(outcome.returns, ddof=1)) if outcome.episodes > 1 else 0.0,
        "min": float(outcome.returns.min()),
        "max": float(outcome.returns.max()),
        "mean_episode_length": float(outcome.lengths.mean()),
        "eval_env_steps": outcome.num_env_steps,
        "cut_episodes": outcome.num_cut,
        "forgotten": list(outcome.forgotten),
        "infos": means(outcome.infos),
        "rows": [
            {"return": total, "length": length, **{name: end == name for name in _ENDINGS}, "seed": seed, "infos": said}
            for (total, length, end, seed), said in zip(episodes, infos, strict=True)
        ],
    }


def best_snapshot(directory: RunDirectory) -> tuple[int, dict[str, Any] | None]:
    """Return the number of the policy that the run ended with and the return that it reported for it.

    A run without a result has its highest score so far as the best and no report.

    Raises:
        RunDirectoryError: the run kept no policy.
    """
    from optix_core.errors import RunDirectoryError

    result = directory.read_result()
    chosen = result.get("best_snapshot") if result else None
    if result and isinstance(chosen, dict) and isinstance(chosen.get("id"), int):
        return chosen["id"], result.get("confirmed_return")
    best = directory.registry.best
    if best is None:
        raise RunDirectoryError(f"{str(directory.path)!a} has kept no policy yet: train longer.")
    return best.snapshot_id, None


def _agreement(now: Any, returns: Sequence[float], reported: Any, reported_returns: Sequence[float]) -> str:
    """Say whether the difference of the two means is within what both intervals allow.

    The interval of a difference is made of those of both sides (Zou and Donner 2008). Where one side never varied, its
    width of 0 means nothing: they agree if the other side differs from it no oftener than it may have missed.
    """
    if None in (now["ci_low"], reported["ci_low"]):
        return "one episode tells too little to compare"
    difference = now["mean"] - reported["mean"]
    above, below = (reported, now) if difference < 0 else (now, reported)
    room = math.hypot(above["mean"] - above["ci_low"], below["ci_high"] - below["mean"])
    if abs(difference) <= room + 1e-9 * abs(reported["mean"]):
        return "this evaluation agrees"
    if _may_have_missed(reported, returns) or _may_have_missed(now, reported_returns):
        return "this evaluation agrees"
    return f"this evaluation is {'better' if difference > 0 else 'worse'} by more than the intervals allow"


def _may_have_missed(constant: Any, returns: Sequence[float]) -> bool:
    """Whether episodes that all returned the same may just have missed the others among these returns."""
    from optix_core.evaluation.intervals import could_differ, share_interval

    if constant["ci_low"] != constant["ci_high"] or not len(returns):
        return False
    others = sum(value != constant["mean"] for value in returns)
    return share_interval(others, len(returns), 0.95)[0] <= could_differ(int(constant["episodes"]))
