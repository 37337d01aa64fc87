"""What agents that train a model on a data set share, whatever the framework."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from optix_core.agents.files import load_weights, save_weights
from optix_core.agents.hyperparams import Hyperparam, HyperparamStore
from optix_core.agents.model_losses import Sample, check_loss, choose_loss, require_fitting
from optix_core.data.rows import parted, stacked
from optix_core.errors import AgentError, ConfigError, whole_number
from optix_core.seeding import derive_seed
from optix_protocol import Array, BaseAgent, EpisodeData, EvalMetrics, HyperparamSet, ParamBound, StateTree

MODEL_HYPERPARAMS: Mapping[str, Hyperparam] = {
    "learning_rate": Hyperparam(
        default=1e-3, low=0.0, synonyms=("lr",), bound=ParamBound(low=1e-5, high=1e-1, log=True)
    ),
    "weight_decay": Hyperparam(default=0.0, low=0.0),
    "max_grad_norm": Hyperparam(default=None, low=0.0, open_low=True, optional=True),
}
"""Hyperparameters of a model agent: Adam's step, decoupled weight decay, clipping of the gradient's norm."""


class ModelAgent(BaseAgent, ABC):
    """Trains a model on batches, and judges it on held-out ones.

    A framework fills in how a batch is loaded, run, learned from and kept.

    Args:
        loss: its name, a function, or ``"auto"``: :func:`~optix_core.agents.model_losses.choose_loss`.
        seed: of everything that learning draws; it follows from the seed and the number of windows learned.
        hyperparams: values that differ from the defaults.
    """

    algorithm = "supervised"
    kind: str
    """Of weight files, such as ``"torch/supervised"``."""

    def __init__(self, *, loss: Any, seed: int, hyperparams: Mapping[str, Any]) -> None:
        self._asked_loss = check_loss(loss)
        self._loss: Any = None if self._asked_loss == "auto" else self._asked_loss
        self._seed = whole_number("seed", seed)
        self._num_updates = 0
        self.hyperparams = HyperparamStore(MODEL_HYPERPARAMS, hyperparams)

    @property
    def loss(self) -> Any:
        """The loss by name, or the user's function; ``"auto"`` until the data are known."""
        return self._asked_loss if self._loss is None else self._loss

    def meet_data(self, batch: Any, *, targets: Any = None) -> None:
        """Choose the loss where it is ``"auto"``, and refuse data that do not fit it.

        Args:
            batch: some rows.
            targets: of all rows, where they are known.

        Raises:
            ConfigError: in one line.
        """
        inputs, of_batch = parted(batch)
        sample = self._sample(inputs, of_batch)
        if targets is not None:
            sample = replace(sample, all_targets=np.asarray(targets))
        if self._loss is None:
            self._loss = choose_loss(sample)
        if isinstance(self._loss, str):
            require_fitting(self._loss, sample)

    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Take a step along the gradient of each batch.

        Args:
            episode_data: a window with ``batches``, from a :class:`~optix_core.DatasetPipeline`.

        Returns:
            ``loss``: its mean over the rows; ``learning_rate``.

        Raises:
            AgentError: the window has no batches.
        """
        if episode_data.batches is None:
            raise AgentError(f"{type(self).__name__} learns from batches of a data set: give it a DatasetPipeline.")
        if self._loss is None:
            raise AgentError("The loss is not chosen yet: give the agent to a DatasetPipeline, or name a loss.")
        if not episode_data.num_env_steps:
            return {}
        seed = derive_seed(self._seed, "learn", self._num_updates)
        loss = self._fit(episode_data.batches, seed)
        self._num_updates += 1
        return {"loss": loss, "learning_rate": float(self.hyperparams["learning_rate"])}

    def evaluate(self, batches: Iterable[Any], *, metric: Callable[[Any, Any], float] | None = None) -> EvalMetrics:
        """Judge the model in evaluation mode, without learning.

        Args:
            batches: held-out rows.
            metric: ``metric(outputs, targets)`` over all of them as score, in place of the loss.

        Returns:
            The score, and among its metrics ``loss``, and ``accuracy`` where targets are classes.

        Raises:
            AgentError: there are no rows.
        """
        found = self._judge(batches, metric, derive_seed(self._seed, "held out"))
        if "loss" not in found:
            raise AgentError("There are no held-out rows to judge the model by.")
        score = found.pop("score", -found["loss"])
        return EvalMetrics(primary_score=score, metrics=found)

    def get_hyperparams(self) -> HyperparamSet:
        """Return the hyperparameters that the next ``learn`` will use."""
        return self.hyperparams.to_set()

    def set_hyperparams(self, hyperparams: HyperparamSet) -> None:
        """Use these from the next ``learn`` on.

        Raises:
            ConfigError: an unknown name or a value out of range; then nothing is changed.
        """
        self.hyperparams.update(hyperparams.params)
        self._apply_hyperparams()

    def param_bounds(self) -> Mapping[str, ParamBound]:
        """Return the default search space."""
        return self.hyperparams.bounds()

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write parameters and buffers as one safetensors file."""
        save_weights(path, self._arrays(), kind=self.kind)

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Take parameters and buffers from a file.

        Raises:
            ValueError: of another model, or damaged; then nothing is changed.
        """
        self._take_arrays(load_weights(path, kind=self.kind, like=self._arrays()))

    def training_state(self) -> StateTree:
        """Return weights, optimiser and counters."""
        return {
            "weights": {name: np.array(array) for name, array in self._arrays().items()},
            "optimizer": self._optimizer_state(),
            "num_updates": self._num_updates,
            "loss": self._loss if isinstance(self._loss, str) else None,
            **self.hyperparams.state(),
        }

    def restore_training_state(self, state: StateTree) -> None:
        """Go on as if nothing had happened since :meth:`training_state`.

        Raises:
            ValueError: the state is of another model.
        """
        own = self._arrays()
        weights = {name: np.asarray(array) for name, array in state["weights"].items()}
        if {name: array.shape for name, array in weights.items()} != {n: a.shape for n, a in own.items()}:
            raise ConfigError("The saved state is of another model.")
        self._take_arrays(weights)
        self.hyperparams.restore(state)
        self._apply_hyperparams()
        self._restore_optimizer(state["optimizer"])
        self._num_updates = int(state["num_updates"])
        if self._loss is None and state["loss"] is not None:
            self._loss = str(state["loss"])

    def iterate_loader(self, begin: Callable[[], Iterator[Any]], *, seed: int) -> Iterator[Any]:
        """Go through a loader of the user's own."""
        del seed
        return begin()

    def load_batches(
        self,
        data: Any,
        order: Sequence[Array],
        *,
        collate: Callable[[list[Any]], Any] | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> Iterator[Any]:
        """Load rows batch by batch as NumPy arrays; see :class:`optix_protocol.SupportsBatches`."""
        del num_workers, seed
        for numbers in order:
            yield stacked(data, numbers) if collate is None else collate([data[int(number)] for number in numbers])

    # --- what a framework fills in ------------------------------------------------------------------------------------

    @abstractmethod
    def _sample(self, inputs: Any, targets: Any) -> Sample:
        """Say what the model makes of some rows, changing nothing."""

    @abstractmethod
    def _fit(self, batches: Iterable[Any], seed: int) -> float:
        """Take a step for each batch; return the mean loss over the rows."""

    @abstractmethod
    def _judge(self, batches: Iterable[Any], metric: Callable[[Any, Any], float] | None, seed: int) -> dict[str, float]:
        """Return ``loss``, ``accuracy`` where targets are classes, and ``score`` with a metric; empty without rows."""

    @abstractmethod
    def _arrays(self) -> dict[str, Array]:
        """Return parameters and buffers by name."""

    @abstractmethod
    def _take_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Take over parameters and buffers."""

    @abstractmethod
    def _optimizer_state(self) -> StateTree:
        """Return a copy of what the optimiser remembers."""

    @abstractmethod
    def _restore_optimizer(self, state: StateTree) -> None:
        """Take over what the optimiser remembered."""

    @abstractmethod
    def _apply_hyperparams(self) -> None:
        """Use the present hyperparameters."""


class Means:
    """Means over rows, of batches of different sizes."""

    def __init__(self) -> None:
        self._totals: dict[str, float] = {}
        self._rows = 0

    def add(self, rows: int, **values: float) -> None:
        """Take in the means of a batch."""
        self._rows += rows
        for name, value in values.items():
            self._totals[name] = self._totals.get(name, 0.0) + rows * value

    def result(self) -> dict[str, float]:
        """Return them; empty if there was no row."""
        return {name: total / self._rows if self._rows else math.nan for name, total in self._totals.items()}
