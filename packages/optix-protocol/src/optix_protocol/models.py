"""Capabilities of backends and agents that train models on data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from optix_protocol.types import Array, EvalMetrics

if TYPE_CHECKING:
    from optix_protocol.agent import BaseAgent

__all__ = ["SupportsBatches", "SupportsModels"]


@runtime_checkable
class SupportsBatches(Protocol):
    """Learning from a data set in batches as the agent's framework has them: ``EpisodeData.batches``.

    A pipeline that has a data set asks the agent to load its rows, so that nobody copies them on the way. Loading is a
    function of its arguments: the same rows and seed give the same batches, whatever the number of workers, for a run
    that was interrupted goes on in the middle of an epoch. Protocol 1.2.
    """

    def meet_data(self, batch: Any, *, targets: Any = None) -> None:
        """Hear what the data are like before anything is learned.

        Args:
            batch: some rows from all over the data, or a batch of a loader of the user's own.
            targets: of all rows, where the data set has them at hand.

        Raises:
            ValueError: the model or its loss does not fit them, in one line.
        """
        ...

    def load_batches(
        self,
        data: Any,
        order: Sequence[Array],
        *,
        collate: Callable[[list[Any]], Any] | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> Iterator[Any]:
        """Load rows batch by batch.

        Args:
            data: the data set: anything with ``len`` and ``[]``, or arrays (``(x, y)``, ``x``, a mapping).
            order: the numbers of the rows of each batch.
            collate: makes a batch of a list of rows, as the user's loader did; None: as the framework does.
            num_workers: processes that load, where the framework has such.
            seed: of whatever the data set draws.
        """
        ...

    def iterate_loader(self, begin: Callable[[], Iterator[Any]], *, seed: int) -> Iterator[Any]:
        """Go through a loader of the user's own.

        Args:
            begin: begins an epoch of it.
            seed: of whatever it draws from the framework's global random numbers.
        """
        ...

    def evaluate(self, batches: Iterable[Any], *, metric: Callable[[Any, Any], float] | None = None) -> EvalMetrics:
        """Judge the model as it is now, without learning: in evaluation mode, with nothing changed.

        Args:
            batches: held-out rows.
            metric: from all outputs and targets to the score; None: the score is the mean loss with its sign changed.

        Returns:
            The score, and at least ``loss`` among its metrics.
        """
        ...


@runtime_checkable
class SupportsModels(Protocol):
    """A backend that trains models of its framework on data sets. Protocol 1.2."""

    def serves_model(self, model: object) -> bool:
        """Whether this is a model of its framework; imports nothing to find out."""
        ...

    def make_model_agent(
        self,
        model: Any,
        *,
        loss: Any = "auto",
        optimizer: Any = None,
        seed: int = 0,
        device: str = "cpu",
        hyperparams: Mapping[str, Any] | None = None,
    ) -> BaseAgent:
        """Return an agent that learns by this model, with :class:`SupportsBatches`.

        Args:
            model: is trained as it is; in the end it holds the best weights.
            loss: its name, a function of outputs and targets, or ``"auto"``, which chooses by the data.
            optimizer: one of the framework's own, over the model's parameters; None takes Adam.
            seed: of everything that learning draws.
            device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
            hyperparams: values that differ from the defaults (``learning_rate`` among them).

        Raises:
            ValueError: a loss or a hyperparameter that it does not have, in one line.
        """
        ...
