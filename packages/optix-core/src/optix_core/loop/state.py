"""The exact state of a run: what has to be kept so that it can go on as if nothing had happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optix_protocol import StateTree, SupportsPipelineState, SupportsTrainingState

if TYPE_CHECKING:
    from optix_core.loop.run import Run


def can_resume_exactly(run: Run) -> bool:
    """Whether agent and pipelines give their state away."""
    pipelines = (run.pipeline, run.val_pipeline)
    return isinstance(run.agent, SupportsTrainingState) and all(
        pipeline is None or isinstance(pipeline, SupportsPipelineState) for pipeline in pipelines
    )


def run_state(run: Run) -> StateTree:
    """Return everything that the future of a run depends on, between two windows."""
    state: dict[str, Any] = {"controller": run.controller.state_dict(), "counters": run.counters()}
    assert isinstance(run.agent, SupportsTrainingState)
    state["agent"] = run.agent.training_state()
    for name, pipeline in (("pipeline", run.pipeline), ("val_pipeline", run.val_pipeline)):
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
    for name, pipeline in (("pipeline", run.pipeline), ("val_pipeline", run.val_pipeline)):
        if isinstance(pipeline, SupportsPipelineState):
            note = pipeline.restore_pipeline_state(state[name])
            if note is not None:
                notes.append(note)
    return notes
