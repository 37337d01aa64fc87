"""The pipelines of a run: whether they belong together, and how they are closed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optix_core.environments.making import told
from optix_core.errors import ConfigError, OptixError
from optix_protocol import BasePipeline


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


def stage_of(training: BasePipeline, validation: BasePipeline | None) -> BasePipeline:
    """Return the pipeline in whose environment policies are compared and confirmed.

    That is the validation's, where there is one: it is what the policy is chosen for, and may differ from what it is
    trained in (other rewards, other levels).
    """
    if validation is not None and (hasattr(validation, "make_eval_env") or hasattr(validation, "lend")):
        return validation
    return training


def require_comparable(training: Any, validation: Any) -> None:
    """Refuse a validation pipeline whose scores could not be those of the policy that trains.

    Pipelines of other makes, which do not say what they run in, are taken as they are.

    Raises:
        ConfigError: other spaces than in training, or the very environments of training.
    """
    for name in ("observation", "action"):
        ours, theirs = (getattr(pipeline, f"{name}_space", None) for pipeline in (training, validation))
        if ours is not None and theirs is not None and ours != theirs:
            raise ConfigError(
                f"The validation pipeline has another {name} space, {theirs}, than training, {ours}: give it "
                "environments in which the same policy can act."
            )
    mine, yours = (list(getattr(pipeline, "environments", tuple)()) for pipeline in (training, validation))
    if any(env is other for env in mine for other in yours):
        raise ConfigError(
            "Training and validation step the same environment object, which would mix their episodes: give each its "
            "own, or leave val_pipeline out."
        )
