"""What a run shows while it trains: a live display on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import TYPE_CHECKING

from optix_core.cli.console import VERDICT_STYLES
from optix_core.reporting.text import duration, number, short_steps, steps
from optix_protocol import EvalMetrics, LoopCallback

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from optix_core.loop.rl_optimizer import RLOptimizer
    from optix_core.training import TrainPlan

LINE_EVERY_S = 5.0
REFRESH_PER_S = 2.0
_BARS = "▁▂▃▄▅▆▇█"


class TrainProgress(LoopCallback):
    """Shows steps, speed, smoothed score, verdict, the bound on the remaining gain, and time.

    Args:
        console: where to write.
        plan: what is trained.
        optimizer: the loop, whose state is read at each refresh.
        directory: the run directory, as it is shown.
    """

    def __init__(self, console: Console, plan: TrainPlan, optimizer: RLOptimizer, directory: str) -> None:
        self.console = console
        self.plan = plan
        self.optimizer = optimizer
        self.directory = directory
        self._started = self._last_line = time.monotonic()
        self._speed = _Speed()
        self._levels: list[tuple[int, float]] = []
        self._live: Live | None = None

    def __enter__(self) -> TrainProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    # -------------------------------------------------------------- what the loop says

    def on_loop_start(self) -> None:
        """Show the head, and start the live display on a terminal."""
        self._started = self._last_line = time.monotonic()
        if not self.console.is_terminal:
            self.console.print(f"{self._head()}  ->  {self.directory}", soft_wrap=True, markup=False)
            return
        from rich.live import Live

        self._live = Live(
            get_renderable=self.render, console=self.console, refresh_per_second=REFRESH_PER_S, transient=True
        )
        self._live.start()

    def on_episode_end(self, episode_id: int, eval_metrics: EvalMetrics) -> None:  # noqa: ARG002
        """Remember the smoothed score; elsewhere than on a terminal, print a line every few seconds."""
        self._levels.append((self.optimizer.progress.num_env_steps, self.optimizer.controller.level))
        if len(self._levels) >= 2000:
            del self._levels[1::2]
        if self._live is None and time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            self.console.print(self.line(), soft_wrap=True, markup=False)

    def on_note(self, message: str) -> None:
        """Say at once what one has to know about this run; the last word repeats it."""
        self.console.print(f"note: {message}", soft_wrap=True, markup=False, style="yellow")

    # -------------------------------------------------------------- what is shown

    def line(self) -> str:
        """Return everything in one line of plain text."""
        progress = self.optimizer.progress
        elapsed = time.monotonic() - self._started
        budget = self.plan.max_env_steps
        share = f"/{short_steps(budget)}" if budget else ""
        return (
            f"{duration(elapsed):>9}  {short_steps(progress.num_env_steps)}{share} steps  "
            f"{short_steps(self._speed.update(progress.num_env_steps, elapsed))}/s  "
            f"score {number(self.optimizer.controller.level)}  {self._verdict()}  {self._bound(short=True)}"
        )

    def render(self) -> RenderableType:
        """Return the live display: head, progress bar, score with its curve, verdict with its bound."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        progress = self.optimizer.progress
        elapsed = time.monotonic() - self._started
        speed = self._speed.update(progress.num_env_steps, elapsed)
        budget = self.plan.max_env_steps
        total = f" / {steps(budget)}" if budget else ""
        bar = Table.grid(padding=(0, 2), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        bar.add_row(
            ProgressBar(total=budget or 1, completed=min(progress.num_env_steps, budget or 0)),
            f"{steps(progress.num_env_steps)}{total} steps",
        )
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="dim", no_wrap=True)
        facts.add_column(no_wrap=True)
        facts.add_row("score", Text.assemble((number(self.optimizer.controller.level), "bold"), f"  {self._curve()}"))
        verdict = self._verdict()
        facts.add_row("verdict", Text.assemble((verdict, VERDICT_STYLES.get(verdict, "")), f"  {self._bound()}"))
        facts.add_row(
            "time", f"{duration(elapsed)}, {steps(speed)} steps/s  [dim](Ctrl-C ends it and keeps the best policy)[/]"
        )
        if self._is_measuring():
            facts.add_row("", Text("choosing the best policy and confirming it on fresh episodes", style="italic"))
        title = Text(self._head(), style="bold", no_wrap=True, overflow="ellipsis")
        return Group(title, bar, facts)

    def _head(self) -> str:
        plan = self.plan
        dot = " · " if "utf" in self.console.encoding else ", "
        where = f" ({plan.backend}, {plan.device})"
        environments = f"{plan.n_envs} environments{' fused with learning on the device' if plan.loop.fused else ''}"
        return dot.join([plan.env_id, plan.algorithm + where, f"seed {plan.seed}", environments])

    def _verdict(self) -> str:
        return self.optimizer.controller.assessment.verdict.value

    def _bound(self, *, short: bool = False) -> str:
        assessment = self.optimizer.controller.assessment
        if not math.isfinite(assessment.upper_gain):
            return "" if short else "no look at the evidence yet"
        gain = f"gain <= {number(max(assessment.upper_gain, 0.0), 3)}"
        return gain if short else f"{gain} over the next {short_steps(assessment.horizon_env_steps)} steps"

    def _curve(self, width: int = 40) -> str:
        """Return the smoothed score so far as a row of small bars."""
        if len(self._levels) < 2 or "utf" not in self.console.encoding:
            return ""
        last = self._levels[-1][0]
        buckets: dict[int, float] = {}
        for num_env_steps, level in list(self._levels):
            if math.isfinite(level):
                buckets[min(width - 1, num_env_steps * width // max(last, 1))] = level
        if not buckets:
            return ""
        low, high = min(buckets.values()), max(buckets.values())
        scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
        return "".join(_BARS[round((buckets[i] - low) * scale)] for i in sorted(buckets))

    def _is_measuring(self) -> bool:
        """Whether training is over and the final policy is being chosen."""
        controller = self.optimizer.controller
        if not controller.progress.num_windows:
            return False
        return controller.assessment.should_stop or controller.budget.exceeded(controller.progress) is not None


class _Speed:
    """Steps per second over the last ten seconds or so."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = [(0.0, 0)]
        self.per_second = 0.0

    def update(self, num_env_steps: int, elapsed_s: float) -> float:
        if num_env_steps > self._points[-1][1]:
            self._points.append((elapsed_s, num_env_steps))
            while len(self._points) > 2 and self._points[1][0] < elapsed_s - 10:
                self._points.pop(0)
            (start, before) = self._points[0]
            self.per_second = (num_env_steps - before) / max(elapsed_s - start, 1e-9)
        return self.per_second
