"""The pipelines of a run: whether they belong together, and how they are closed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optix_core.environments.making import told
from optix_core.errors import ConfigError, OptixError
from optix_core.loop.arena import Arena
from optix_core.loop.budget import fit_updates
from optix_core.loop.capabilities import (
    FixedWindows,
    HasEnvironments,
    HasSpaces,
    HasTimeLimit,
    JoinsUpdates,
    LendsEnvs,
    MakesEvalEnvs,
    RemembersForWrappers,
)
from optix_protocol import BaseAgent, BasePipeline


class Closing:
    """Closes pipelines once; what goes wrong in that costs no result.

    Attributes:
        failed: what went wrong, in sentences.
    """

    def __init__(self, pipelines: Sequence[BasePipeline]) -> None:
        self._pipelines = list(pipelines)
        self.failed: list[str] = []

    def close(self) -> None:
        """Close what is still open."""
        while self._pipelines:
            try:
                self._pipelines.pop().close()
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                is_plain = isinstance(error, OptixError)
                self.failed.append(str(error) if is_plain else f"A pipeline could not be closed: {told(error)}.")


@contextmanager
def fitted(pipeline: BasePipeline, max_env_steps: int | None) -> Iterator[None]:
    """Let a pipeline whose windows are larger than the budget collect smaller ones, for as long as the block.

    Args:
        pipeline: one that does not say how large its windows are is left alone.
        max_env_steps: budget of the run; None fits any window.
    """
    if max_env_steps is None or not isinstance(pipeline, FixedWindows):
        yield
        return
    rows, updates = pipeline.window_size, pipeline.updates_per_window if isinstance(pipeline, JoinsUpdates) else None
    pipeline.window_size = min(rows, max(1, max_env_steps // pipeline.num_envs))
    fit_updates(pipeline, pipeline.num_envs * pipeline.window_size, max_env_steps)
    try:
        yield
    finally:
        pipeline.window_size = rows
        if updates is not None and isinstance(pipeline, JoinsUpdates):
            pipeline.updates_per_window = updates


def window_shape(pipeline: BasePipeline) -> dict[str, Any]:
    """Return ``num_envs`` and ``window_size`` of a pipeline, None where it does not say so, for ``run.json``."""
    # One by one, as in runs of release 0.1: a resumed run has to be described as it was.
    return {name: getattr(pipeline, name, None) for name in ("num_envs", "window_size")}


def require_room(pipeline: BasePipeline, max_env_steps: int | None) -> None:
    """Refuse a budget that has no room for one step of each environment.

    Raises:
        ConfigError: it is too small.
    """
    if max_env_steps is not None and isinstance(pipeline, FixedWindows) and pipeline.num_envs > max_env_steps:
        raise ConfigError(
            f"max_env_steps={max_env_steps} is less than one step of each of the {pipeline.num_envs} environments."
        )


def arena_of(
    agent: BaseAgent, training: BasePipeline, validation: BasePipeline | None, *, max_episode_steps: int | None
) -> Arena:
    """Return where the policies of a run are compared and confirmed."""
    stage = stage_of(training, validation)
    return Arena(
        agent,
        stage.make_eval_env if isinstance(stage, MakesEvalEnvs) else lambda _: None,
        lend=stage.lend if isinstance(stage, LendsEnvs) else None,
        max_episode_steps=max_episode_steps,
        time_limit=stage.max_episode_steps if isinstance(stage, HasTimeLimit) else None,
        as_in_training=training.as_in_training if isinstance(training, RemembersForWrappers) else None,
    )


def stage_of(training: BasePipeline, validation: BasePipeline | None) -> BasePipeline:
    """Return the pipeline in whose environment policies are compared and confirmed.

    That is the validation's, where there is one: it is what the policy is chosen for, and may differ from what it is
    trained in (other rewards, other levels).
    """
    if validation is not None and isinstance(validation, MakesEvalEnvs | LendsEnvs):
        return validation
    return training


def require_comparable(training: BasePipeline, validation: BasePipeline) -> None:
    """Refuse a validation pipeline whose scores could not be those of the policy that trains.

    Pipelines of other makes, which do not say what they run in, are taken as they are.

    Raises:
        ConfigError: other spaces than in training, or the very environments of training.
    """
    if isinstance(training, HasSpaces) and isinstance(validation, HasSpaces):
        for name, ours, theirs in (
            ("observation", training.observation_space, validation.observation_space),
            ("action", training.action_space, validation.action_space),
        ):
            if ours is not None and theirs is not None and ours != theirs:
                raise ConfigError(
                    f"The validation pipeline has another {name} space, {theirs}, than training, {ours}: give it "
                    "environments in which the same policy can act."
                )
    if not (isinstance(training, HasEnvironments) and isinstance(validation, HasEnvironments)):
        return
    mine, yours = training.environments(), validation.environments()
    if any(env is other for env in mine for other in yours):
        raise ConfigError(
            "Training and validation step the same environment object, which would mix their episodes: give each its "
            "own, or leave val_pipeline out."
        )
