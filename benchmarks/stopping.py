"""Compares stopping rules on real and simulated learning curves.

uv run python benchmarks/stopping.py                                      # table on the PPO curves
uv run python benchmarks/stopping.py --simulate 100 --frontier --write-docs
uv run python benchmarks/stopping.py --atari atari_curves.npz --write-docs   # also the Atari columns

The Atari curves (60 games x 30 runs x 199 evaluations, published with Dopamine under Apache-2.0) are not part of this
repository: an ``.npz`` file with one ``[run, evaluation]`` array per game.

Parameter searches ran on the tuning half of the tasks, all seeds. The other half was in view while constants were
settled, so it is no untouched test set; docs/convergence.md says where it mattered.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
from _stopping_data import (
    FRESH_FILE,
    LearningCurve,
    Outcome,
    Summary,
    atari_columns,
    judge,
    oracle,
    ppo_curves,
    summarise,
)
from _stopping_rules import frontier_rules, table_rules
from _stopping_simulation import rows

from optix_core.convergence import ConvergenceMonitor

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs" / "convergence.md"
IMAGE = ROOT / "docs" / "images" / "stopping_frontier.png"
CUTS = (0.06, 0.1, 0.15, 0.2, 0.3, 0.5)
HEADER = "| rule | used | mean loss | loss > 10 % | premature | verdicts |\n|---|---|---|---|---|---|"


def is_tuning_task(task: str, tasks: list[str]) -> bool:
    """The first, third, ... task of the file was searched for constants; the others were only looked at."""
    return tasks.index(task) % 2 == 0


def line(name: str, result: Summary) -> str:
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(result.verdicts.items()))
    return (
        f"| {name} | {result.used:.2f} | {result.loss:.3f} | {100 * result.large_loss:.0f} % "
        f"| {100 * result.premature:.1f} % | {verdicts} |"
    )


def run_table(curves: list[LearningCurve]) -> dict[str, list[Outcome]]:
    results = {name: [judge(rule, curve) for curve in curves] for name, rule in table_rules().items()}
    return results | {"oracle: first moment within 5 %": [oracle(curve) for curve in curves]}


def ppo_report(curves: list[LearningCurve]) -> str:
    tasks = list(dict.fromkeys(curve.task for curve in curves))
    results = run_table(curves)
    sections = ["All 8 tasks, 32 seeds each:", "", HEADER]
    sections += [line(name, summarise(outcomes)) for name, outcomes in results.items()]
    groups = {
        "tuning tasks, even seeds": (True, 0),
        "tuning tasks, odd seeds": (True, 1),
        "other tasks, even seeds": (False, 0),
        "other tasks, odd seeds": (False, 1),
    }
    sections += ["", "Our rule by group:", "", HEADER.replace("rule", "group", 1)]
    for rule in ("ours, budget known", "ours, no budget"):
        for group, (tuning, parity) in groups.items():
            picked = [o for o in results[rule] if is_tuning_task(o.task, tasks) is tuning and o.seed % 2 == parity]
            sections.append(line(f"{rule}: {group}", summarise(picked)))
    sections += ["", "Our rule with a known budget, by task:", "", HEADER.replace("rule", "task", 1)]
    for task in tasks:
        half = "tuning" if is_tuning_task(task, tasks) else "other"
        picked = [o for o in results["ours, budget known"] if o.task == task]
        sections.append(line(f"{task} ({half})", summarise(picked)))
    return "\n".join(sections)


def fresh_report(curves: list[LearningCurve]) -> str:
    """Report on tasks whose curves were made after the rule was settled (``benchmarks/fresh_curves.py``)."""
    tasks = list(dict.fromkeys(curve.task for curve in curves))
    results = run_table(curves)
    seeds = len({curve.seed for curve in curves})
    sections = [f"{len(tasks)} tasks, {seeds} seeds each:", "", HEADER]
    sections += [line(name, summarise(outcomes)) for name, outcomes in results.items()]
    for rule in ("ours, budget known", "ours, no budget"):
        sections += ["", f"{rule.capitalize()}, by task:", "", HEADER.replace("rule", "task", 1)]
        for task in tasks:
            picked = [o for o in results[rule] if o.task == task]
            sections.append(line(task, summarise(picked)))
    return "\n".join(sections)


def cut_report(curves: list[LearningCurve]) -> str:
    """Judge curves that are cut short, as if the budget ended there: CONVERGED below 95 % of what the whole reaches?"""
    rows = ["| task | cut curves | CONVERGED | below 95 % at the cut | below 95 % at the end |", "|---" * 5 + "|"]
    counts: dict[str, list[int]] = {}
    for curve in curves:
        levels, span, row = (
            np.maximum.accumulate(curve.smooth),
            curve.score_range,
            counts.setdefault(curve.task, [0] * 4),
        )
        for share in CUTS:
            n = int(len(curve.scores) * share)
            if n < ConvergenceMonitor().min_windows:
                continue
            consumed, verdict = table_rules()["ours, budget known"](curve.steps[:n], curve.scores[:n])
            row[0] += 1
            if verdict != "CONVERGED" or consumed is None:
                continue
            at_stop, at_cut = (levels[max(0, windows - curve.width)] for windows in (consumed, n))
            row[1] += 1
            row[2] += at_cut - at_stop > 0.05 * span
            row[3] += levels[-1] - at_stop > 0.05 * span
    counts["all"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    shares = ", ".join(f"{100 * share:g}" for share in CUTS)
    rows += [f"| {task} | " + " | ".join(map(str, row)) + " |" for task, row in counts.items()]
    return "\n".join([f"Cut to {shares} % of their length, at least 20 windows:", "", *rows])


def atari_report(path: Path) -> str:
    cells: dict[str, list[str]] = {}
    columns = []
    for column, curves in atari_columns(path):
        columns.append(column)
        tasks = list(dict.fromkeys(curve.task for curve in curves))
        for name, outcomes in run_table(curves).items():
            variants = {name: outcomes}
            if name.startswith("ours"):
                variants[f"{name}, other games"] = [o for o in outcomes if not is_tuning_task(o.task, tasks)]
            for variant, picked in variants.items():
                s = summarise(picked)
                cell = f"{s.used:.2f} / {s.loss:.3f} / {100 * s.premature:.1f} %"
                cells.setdefault(variant, []).append(cell)
    head = ["| rule (used / mean loss / premature) | " + " | ".join(columns) + " |", "|---" * 5 + "|"]
    return "\n".join(head + [f"| {name} | " + " | ".join(row) + " |" for name, row in cells.items()])


def simulation_report(num_curves: int) -> str:
    head = ["| curve | noise | sigma / R | budget | false CONVERGED | stopped | median stop |", "|---" * 7 + "|"]
    body = [
        f"| {curve} | {noise} | {sigma:g} | {budget} | {100 * false:.1f} % | {100 * stopped:.0f} % | "
        + (f"{median:.0f} |" if median <= 1000 else "- |")
        for curve, noise, sigma, budget, false, stopped, median in rows(num_curves)
    ]
    return "\n".join([f"{num_curves} curves of 1,000 windows per row.", "", *head, *body])


def draw_frontier(curves: list[LearningCurve], image: Path) -> str:
    """Draw loss and premature share against budget used; returns the swept points as a table."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8))
    lines = ["| family | used: mean loss (premature), from impatient to patient |", "|---|---|"]
    for family, rules in frontier_rules().items():
        points = [summarise([judge(rule, curve) for curve in curves]) for rule in rules]
        style = {"linewidth": 2.6, "zorder": 3} if family.startswith("ours") else {"linewidth": 1.2, "alpha": 0.85}
        used = [p.used for p in points]
        left.plot(used, [p.loss for p in points], "o-", markersize=4, label=family, **style)
        right.plot(used, [100 * p.premature for p in points], "o-", markersize=4, label=family, **style)
        shown = ", ".join(f"{p.used:.2f}: {p.loss:.3f} ({100 * p.premature:.0f} %)" for p in points)
        lines.append(f"| {family} | {shown} |")
    best = summarise([oracle(curve) for curve in curves])
    left.plot(best.used, best.loss, "k*", markersize=12, label="oracle")
    left.set(xlabel="share of the budget used", ylabel="mean loss (share of the range)", ylim=(0, 0.6))
    right.set(xlabel="share of the budget used", ylabel="premature stops (%)")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    left.legend(fontsize=8)
    figure.suptitle("Stopping rules on 256 real PPO curves (8 tasks x 32 seeds)")
    figure.tight_layout()
    image.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(image, dpi=110)
    plt.close(figure)
    return "\n".join(lines)


def write_section(name: str, text: str) -> None:
    """Replace the part of ``docs/convergence.md`` between the two markers of ``name``."""
    page = DOCS.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name}:start -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"{DOCS.name} has no section {name}")
    DOCS.write_text(pattern.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atari", type=Path, help="npz file of the Atari curves")
    parser.add_argument("--simulate", type=int, default=0, metavar="N", help="also simulate N curves per cell")
    parser.add_argument("--frontier", action="store_true", help=f"also draw {IMAGE.name}")
    parser.add_argument("--write-docs", action="store_true", help=f"write the results into docs/{DOCS.name}")
    options = parser.parse_args()
    curves = ppo_curves()
    sections = {"ppo": ppo_report(curves)}
    if FRESH_FILE.exists():
        fresh = ppo_curves(FRESH_FILE, min_windows=50)
        sections["fresh"], sections["cut"] = fresh_report(fresh), cut_report(fresh)
    if options.frontier:
        sections["frontier"] = draw_frontier(curves, IMAGE)
    if options.simulate:
        sections["simulated"] = simulation_report(options.simulate)
    if options.atari:
        sections["atari"] = atari_report(options.atari)
    for name, text in sections.items():
        print(f"\n## {name}\n\n{text}")
        if options.write_docs:
            write_section(name, text)


if __name__ == "__main__":
    main()
