"""The exact state of a run: what has to be kept so that it can go on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from optix_protocol import StateTree, SupportsPipelineState, SupportsTrainingState

if TYPE_CHECKING:
    from optix_core.loop.run import Run


def branch(state: StateTree) -> dict[str, Any]:
    """Return a copy of a training state that shares nothing with it, from which another run may go on.

    ``child.restore_training_state(branch(parent.training_state()))`` makes an agent continue where its parent is; with
    ``set_hyperparams`` after it, a sibling that learns differently. Neither ever touches the parent or its other
    branches, and branches with the same hyperparameters that see the same windows stay bit-identical.

    Args:
        state: of an agent (``training_state()``), a pipeline (``pipeline_state()``) or a whole run
            (``RunDirectory.load_state().tree``).

    Raises:
        TypeError: a leaf that no training state may have, and that could be shared.
    """
    return {key: _copy(value) for key, value in state.items()}


def _copy(value: Any) -> Any:
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return value.copy(order="K")  # sums run in memory order
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        return value
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_copy(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    raise TypeError(f"a training state holds arrays, numbers, strings and None, but not a {type(value).__name__}")


def can_resume_exactly(run: Run) -> bool:
    """Whether agent and pipelines give their state away."""
    pipelines = (run.pipeline, run.validation.pipeline)
    return isinstance(run.agent, SupportsTrainingState) and all(
        pipeline is None or isinstance(pipeline, SupportsPipelineState) for pipeline in pipelines
    )


def run_state(run: Run) -> StateTree:
    """Return everything that the future of a run depends on, between two windows."""
    state: dict[str, Any] = {"controller": run.controller.state_dict(), "counters": run.counters()}
    assert isinstance(run.agent, SupportsTrainingState)
    state["agent"] = run.agent.training_state()
    for name, pipeline in (("pipeline", run.pipeline), ("val_pipeline", run.validation.pipeline)):
        if isinstance(pipeline, SupportsPipelineState):
            state[name] = pipeline.pipeline_state()
    if run.optimizer is not None and hasattr(run.optimizer, "state_dict"):
        state["optimizer"] = run.optimizer.state_dict()
    state["safe_state"] = run.safe_state
    return state


def restore_run_state(run: Run, state: StateTree) -> list[str]:
    """Bring a freshly made run to a saved state.

    Returns:
        What could not be brought back exactly, in sentences; empty if everything was.
    """
    run.controller.load_state_dict(state["controller"])
    run.restore_counters(state["counters"])
    assert isinstance(run.agent, SupportsTrainingState)
    run.agent.restore_training_state(state["agent"])
    run.safe_state = state["safe_state"]
    if run.optimizer is not None and "optimizer" in state:
        run.optimizer.load_state_dict(state["optimizer"])  # type: ignore[attr-defined]
    notes: list[str] = []
    for name, pipeline in (("pipeline", run.pipeline), ("val_pipeline", run.validation.pipeline)):
        if isinstance(pipeline, SupportsPipelineState):
            note = pipeline.restore_pipeline_state(state[name])
            if note is not None:
                notes.append(note)
    return notes
