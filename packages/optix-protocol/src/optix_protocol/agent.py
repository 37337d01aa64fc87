"""The contract of an agent: six methods, nothing else."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any, Protocol, runtime_checkable

from optix_protocol.types import Array, EpisodeData, HyperparamSet

__all__ = ["BaseAgent"]


@runtime_checkable
class BaseAgent(Protocol):
    """Anything that can act and learn.

    Inherit from it or just provide the six methods; the loop asks for no more. Everything beyond is an optional
    capability (the ``Supports...`` protocols) that the loop probes for. An agent that learns from older windows, too,
    says so in an attribute ``is_on_policy = False``.

    Acting is not learning: ``act`` may draw random numbers, but records nothing that ``learn`` depends on.
    """

    @abstractmethod
    def act(self, observation: Array) -> Any:
        """Choose an action while exploring.

        Args:
            observation: one observation ``[*obs]`` from a single environment, or a batch ``[N, *obs]`` from a vector
                pipeline.

        Returns:
            One action, or a batch ``[N, *act]``, in the units of the environment's action space. Continuous actions
            may leave its bounds: the pipeline clips them for the environment and keeps them as they are for ``learn``.
        """
        ...

    @abstractmethod
    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Learn from one window of interaction.

        Args:
            episode_data: arrays ``[T, N, ...]``; ``N`` is 1 for a single environment. A window without a valid row
                changes nothing.

        Returns:
            Diagnostics by name, such as ``{"loss": 0.3, "entropy": 0.6}``.
        """
        ...

    @abstractmethod
    def get_hyperparams(self) -> HyperparamSet:
        """Return the hyperparameters that the next ``learn`` will use."""
        ...

    @abstractmethod
    def set_hyperparams(self, hyperparams: HyperparamSet) -> None:
        """Use these hyperparameters from the next ``learn`` on.

        Args:
            hyperparams: new values by name; names that are missing keep their values.

        Raises:
            ValueError: an unknown name, or a value that the agent cannot take; then nothing at all is changed.
        """
        ...

    @abstractmethod
    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write everything that acting needs (normaliser statistics too) to exactly this path, as one file.

        Never a pickle: safetensors or ``numpy.savez`` on an open file are good choices.
        """
        ...

    @abstractmethod
    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Act as the agent did that wrote this file.

        Raises:
            ValueError: the file belongs to another network or is damaged; then nothing is changed.
            OSError: the file cannot be read.
        """
        ...
