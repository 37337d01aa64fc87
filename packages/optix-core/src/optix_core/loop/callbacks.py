"""Telling callbacks, in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from optix_protocol import EvalMetrics, HyperparamSet, LoopCallback, LoopState, PolicySnapshot


class CallbackList(LoopCallback):
    """Several callbacks as one. What one raises stops the run, with the run saved."""

    def __init__(self, callbacks: Iterable[LoopCallback] = ()) -> None:
        self.callbacks = list(callbacks)

    def on_loop_start(self) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_loop_start()

    def on_loop_stop(self) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_loop_stop()

    def on_episode_end(self, episode_id: int, eval_metrics: EvalMetrics) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_episode_end(episode_id, eval_metrics)

    def on_window(  # noqa: D102
        self, progress: Mapping[str, float], eval_metrics: EvalMetrics | None, diagnostics: Mapping[str, float]
    ) -> None:
        for callback in self.callbacks:
            callback.on_window(progress, eval_metrics, diagnostics)

    def on_improvement(self, snapshot: PolicySnapshot) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_improvement(snapshot)

    def on_plateau(self, episode_id: int, state: LoopState) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_plateau(episode_id, state)

    def on_dormant(self, episode_id: int) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_dormant(episode_id)

    def on_degradation(self, episode_id: int, eval_metrics: EvalMetrics) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_degradation(episode_id, eval_metrics)

    def on_hyperparam_update(self, old: HyperparamSet, new: HyperparamSet) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_hyperparam_update(old, new)

    def on_note(self, message: str) -> None:  # noqa: D102
        for callback in self.callbacks:
            callback.on_note(message)
