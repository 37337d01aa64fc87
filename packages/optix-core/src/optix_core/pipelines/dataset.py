"""Windows from a data set: batches in seeded order, and held-out rows that no batch is ever taken from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from optix_core.data.loaders import WholeLoader, shuffled, taken_apart
from optix_core.data.rows import Rows, columns_of, num_rows_of, parted, rows_of, spread, stacked
from optix_core.errors import ConfigError, real_number, whole_number
from optix_core.evaluation.held_out import HeldOutEvaluator, Metric
from optix_core.pipelines.actor import HasAgent
from optix_core.seeding import derive_seed
from optix_protocol import Array, BaseAgent, EpisodeData, StateTree, SupportsBatches

_SAMPLE_ROWS = 64
"""Rows that an agent is shown before it learns, to choose a loss and to refuse what does not fit."""

_LOADER_WINDOW_ROWS = 8192
"""Rows of a window whose batches come from a loader that can only be gone through: all are in memory at once."""


class DatasetPipeline(HasAgent):
    """Windows of batches from a data set; the score is measured on held-out rows.

    A window is an epoch unless ``window_size`` makes it smaller, and an episode is an epoch. The held-out rows are
    judged before the agent learns from a window, so that the score belongs to the model which is in the agent at that
    moment. An agent that takes batches as its framework has them (``MLAgent``) gets those; any other agent with
    the six methods gets inputs as observations ``[T, 1, *x]`` and targets as actions ``[T, 1, *y]``, and needs a
    ``metric``.

    Batches follow from seed and epoch alone, whatever the number of workers, so that a run which was killed in the
    middle of an epoch goes on with the very batch that it had not learned from.

    Args:
        data: a map-style ``Dataset``, a ``DataLoader`` or another iterable of batches, or arrays: ``(x, y)``, ``x``, a
            mapping. A batch is a tuple whose last entry is the targets, a mapping (``docs/supervised.md``), or inputs
            alone.
        agent: who learns; ``RLOptimizer`` gives its agent to a pipeline that has none.
        val_data: held-out data in one of these forms. None holds out a part of ``data``.
        val_fraction: which part, above 0 and below 1; the rows are chosen by the seed.
        batch_size: rows of a batch, at most: an epoch is cut into even ones, because a last one of a single row would
            have the weight of a whole step, and no batch statistics. A ``DataLoader`` keeps its own size and remainder.
        window_size: rows of a window, rounded up to whole batches; None: an epoch, or 8192 rows where ``data`` can only
            be iterated.
        shuffle: go through the rows in another order in each epoch; a ``DataLoader`` keeps what it does.
        drop_last: cut whole batches, and leave out the remainder; a ``DataLoader`` keeps what it does.
        num_workers: processes that load rows, where the agent's framework has such; a ``DataLoader`` keeps its own.
        metric: ``metric(outputs, targets) -> float`` over all held-out rows, higher is better, as score in place of the
            held-out loss.
        seed: of split, order and whatever the data set draws.

    Raises:
        ConfigError: no rows, arrays of different lengths, a loader without ``val_data``, or a setting out of range.
    """

    num_envs = 1

    def __init__(
        self,
        data: Any,
        agent: BaseAgent | None = None,
        *,
        val_data: Any = None,
        val_fraction: float = 0.2,
        batch_size: int | None = None,
        window_size: int | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        num_workers: int = 0,
        metric: Metric | None = None,
        seed: int = 0,
    ) -> None:
        self._seed = whole_number("seed", seed)
        self._shuffle, self._drop_last = shuffle, drop_last
        self._even = not drop_last
        self._num_workers = whole_number("num_workers", num_workers, least=0)
        self.batch_size = whole_number("batch_size", 64 if batch_size is None else batch_size, least=1)
        source = self._source(data)
        if val_data is not None:
            held_out = self._held_out(val_data)
        elif isinstance(source, Rows):
            fraction = real_number("val_fraction", val_fraction, above=0.0, below=1.0)
            source, held_out = source.split(fraction, derive_seed(self._seed, "held-out rows"))
        else:
            raise ConfigError("This loader has no rows that could be held out: pass held-out data as val_data=.")
        self._data: Rows | WholeLoader = source
        self.held_out: Rows | WholeLoader = held_out
        default = len(source) if isinstance(source, Rows) else _LOADER_WINDOW_ROWS
        self.window_size = whole_number("window_size", default if window_size is None else window_size, least=1)
        self._metric = metric
        self._versions = (0, 0)
        self._epoch = self._position = self._num_rows = self._epoch_rows = 0
        self._stream: _Stream | None = None
        self._loader_state: Any = None
        if agent is not None:
            self.agent = agent

    def _source(self, data: Any) -> Rows | WholeLoader:
        settings = taken_apart(data)
        if settings is not None:
            self.batch_size, self._shuffle = settings.batch_size, settings.shuffle
            self._drop_last, self._num_workers = settings.drop_last, settings.num_workers
            self._even = False
            rows: Rows | None = settings.rows
        else:
            rows = None if hasattr(data, "batch_sampler") else rows_of(data)
        if rows is None:
            return WholeLoader(data)
        if self._drop_last and len(rows) < self.batch_size:
            raise ConfigError(
                f"drop_last leaves nothing: the data set has {len(rows)} rows, a batch {self.batch_size}."
            )
        return rows

    def _held_out(self, data: Any) -> Rows | WholeLoader:
        settings = taken_apart(data)
        rows = settings.rows if settings is not None else None if hasattr(data, "batch_sampler") else rows_of(data)
        return WholeLoader(data) if rows is None else rows

    def _meet(self, agent: BaseAgent) -> None:
        if isinstance(agent, SupportsBatches):
            columns = columns_of(self._data.data) if isinstance(self._data, Rows) else None
            agent.meet_data(self._sample(agent), targets=None if columns is None else parted(columns)[1])
        elif self._metric is None:
            raise ConfigError(
                f"{type(agent).__name__} has no loss of its own to be judged by: pass metric=, a function of its "
                "actions and the targets."
            )
        elif not isinstance(self._data, Rows):
            raise ConfigError(f"{type(agent).__name__} takes arrays: pass a data set with rows, and no loader.")

    def evaluator(self, agent: BaseAgent) -> HeldOutEvaluator:
        """Return what measures the agent on the held-out rows: how a run judges unless it is told otherwise."""
        self.take_agent(agent)
        return HeldOutEvaluator(self.agent, self.held_out_batches, metric=self._metric)

    def held_out_batches(self) -> Iterator[Any]:
        """Go through the held-out rows in order: batches of the agent's framework, or of arrays."""
        if isinstance(self.held_out, WholeLoader):
            return self._iterate(self.held_out, derive_seed(self._seed, "held-out loader"))
        order = self.held_out.batches(max(self.batch_size, 256))
        return self._load(self.held_out, order, derive_seed(self._seed, "held-out batch"), num_workers=0)

    def windows(self) -> Iterator[EpisodeData]:
        """Yield windows without end; a later call continues where the last one stopped."""
        while True:
            yield self.collect()

    def policy_changed(self, *, policy_version: int, hyperparam_version: int) -> None:
        """Stamp coming windows with these versions."""
        self._versions = (policy_version, hyperparam_version)

    def collect(self) -> EpisodeData:
        """Return the next window: as many batches as make ``window_size`` rows, or what is left of the epoch."""
        if isinstance(self._data, WholeLoader):
            return self._collect_from_loader()
        order = self._order()
        chosen: list[Array] = []
        num_rows = 0
        for numbers in order[self._position :]:
            chosen.append(numbers)
            num_rows += len(numbers)
            if num_rows >= self.window_size:
                break
        start = self._position
        self._position += len(chosen)
        ends = self._position == len(order)
        batches = None
        arrays = _arrays_of(self._data, chosen) if not isinstance(self.agent, SupportsBatches) else None
        if arrays is None:
            batches = _Batches(self, self._epoch, start, len(chosen))
        return self._window(num_rows, ends, batches, arrays)

    def _collect_from_loader(self) -> EpisodeData:
        assert isinstance(self._data, WholeLoader)
        if self._stream is None:
            seed, state = derive_seed(self._seed, "epoch", self._epoch), self._loader_state
            batches = self._iterate(self._data, seed, skip=self._position, state=state)
            self._loader_state = None
            self._stream = _Stream(self._epoch, self._position, batches)
        chosen, num_rows = [], 0
        while num_rows < self.window_size:
            batch = self._stream.ahead()
            if batch is None:
                break
            chosen.append(self._stream.take())
            num_rows += num_rows_of(chosen[-1])
        if not chosen:
            raise ConfigError("The loader gave no batch: the data set is empty, or its iterator can be used only once.")
        self._position += len(chosen)
        self._loader_state = self._data.state()  # before looking ahead
        ends = self._stream.ahead() is None
        if ends:
            self._loader_state = None
        return self._window(num_rows, ends, chosen, None)

    def _window(
        self, num_rows: int, ends: bool, batches: Iterable[Any] | None, arrays: tuple[Array, Array] | None
    ) -> EpisodeData:
        """Pack a window, and begin the next epoch if this one has ended."""
        self._num_rows += num_rows
        self._epoch_rows += num_rows
        truncated = np.zeros((num_rows, 1), np.bool_)
        truncated[-1] = ends
        length = np.array([self._epoch_rows] if ends else [], np.int64)
        if ends:
            self._epoch, self._position, self._epoch_rows, self._stream = self._epoch + 1, 0, 0, None
        observations, actions = (np.empty((num_rows, 1, 0), np.float32),) * 2 if arrays is None else arrays
        return EpisodeData(
            observations=observations,
            actions=actions,
            rewards=np.zeros((num_rows, 1), np.float32),
            terminated=np.zeros((num_rows, 1), np.bool_),
            truncated=truncated,
            valid=np.ones((num_rows, 1), np.bool_),
            last_observation=observations[-1],
            final_observations=observations[-1:, 0] if ends else observations[:0, 0],
            episode_returns=np.zeros(len(length)),
            episode_lengths=length,
            policy_version=self._versions[0],
            hyperparam_version=self._versions[1],
            episode_id=self._epoch,
            batches=batches,
        )

    def _order(self, epoch: int | None = None) -> list[Array]:
        """Return the numbers of the rows of an epoch, batch by batch."""
        assert isinstance(self._data, Rows)
        number = self._epoch if epoch is None else epoch
        order = shuffled(len(self._data), derive_seed(self._seed, "order", number)) if self._shuffle else None
        batches = self._data.batches(self.batch_size, order, even=self._even)
        return batches[:-1] if self._drop_last and len(batches[-1]) < self.batch_size else batches

    def stream(self, epoch: int, position: int) -> _Stream:
        """Return the batches of an epoch from one on; the one in hand where it is just there."""
        if self._stream is None or not self._stream.is_at(epoch, position):
            assert isinstance(self._data, Rows)
            seed = derive_seed(self._seed, "epoch", epoch)
            order = self._order(epoch)[position:]
            batches = self._load(self._data, order, seed, num_workers=self._num_workers)
            self._stream = _Stream(epoch, position, batches)
        return self._stream

    def _load(self, rows: Rows, order: list[Array], seed: int, *, num_workers: int) -> Iterator[Any]:
        if isinstance(self.agent, SupportsBatches):
            return iter(
                self.agent.load_batches(rows.data, order, collate=rows.collate, num_workers=num_workers, seed=seed)
            )
        return (stacked(rows.data, numbers) for numbers in order)

    def _iterate(self, loader: WholeLoader, seed: int, *, skip: int = 0, state: Any = None) -> Iterator[Any]:
        def begin() -> Iterator[Any]:
            return loader.batches(skip=skip, state=state)

        if isinstance(self.agent, SupportsBatches):
            return iter(self.agent.iterate_loader(begin, seed=seed))
        return begin()

    def _sample(self, agent: SupportsBatches) -> Any:
        """Return a batch that shows what the data are like."""
        if isinstance(self._data, Rows):
            order = list(spread(self._data, _SAMPLE_ROWS))
            return next(iter(agent.load_batches(self._data.data, order, collate=self._data.collate, seed=self._seed)))
        batch = next(agent.iterate_loader(self._data.batches, seed=self._seed), None)
        if batch is None:
            raise ConfigError("The loader gave no batch: the data set is empty.")
        return batch

    def pipeline_state(self) -> StateTree:
        """Return all that the coming batches depend on: epoch, position, and the state of a loader that has one."""
        return {
            "epoch": self._epoch,
            "position": self._position,
            "epoch_rows": self._epoch_rows,
            "num_rows": self._num_rows,
            "loader": self._loader_state,
        }

    def restore_pipeline_state(self, state: StateTree) -> str | None:
        """Continue from a saved state; that is exact."""
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._epoch_rows, self._num_rows = int(state["epoch_rows"]), int(state["num_rows"])
        if isinstance(self._data, WholeLoader):
            self._stream, self._loader_state = None, state.get("loader")
        return None

    def close(self) -> None:
        """Let go of the batches in hand, and of the processes that load them."""
        self._stream = None


def _arrays_of(rows: Rows, order: list[Array]) -> tuple[Array, Array]:
    """Return inputs and targets of rows ``[T, 1, ...]``, for an agent that takes arrays."""
    inputs, targets = parted(stacked(rows.data, np.concatenate(order)))
    if not isinstance(inputs, np.ndarray):
        raise ConfigError("An agent with the six methods takes one array of inputs: join the inputs of the data set.")
    return inputs[:, None], np.empty((len(inputs), 1, 0)) if targets is None else np.asarray(targets)[:, None]


class _Stream:
    """The batches of an epoch in the order in which they are loaded.

    Args:
        epoch: which.
        position: number of the next batch.
        batches: from there on.
    """

    def __init__(self, epoch: int, position: int, batches: Iterator[Any]) -> None:
        self._epoch, self._position, self._batches = epoch, position, batches
        self._ahead: list[Any] = []

    def is_at(self, epoch: int, position: int) -> bool:
        return (self._epoch, self._position) == (epoch, position)

    def ahead(self) -> Any:
        """Return the next batch without taking it, None at the end."""
        if not self._ahead:
            self._ahead = list(islice(self._batches, 1))
        return self._ahead[0] if self._ahead else None

    def take(self) -> Any:
        batch = self._ahead.pop() if self._ahead else next(self._batches)
        self._position += 1
        return batch


class _Batches:
    """The batches of a window, loaded as they are asked for; they can be gone through again."""

    def __init__(self, pipeline: DatasetPipeline, epoch: int, start: int, count: int) -> None:
        self._pipeline, self._epoch, self._start, self._count = pipeline, epoch, start, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        stream = self._pipeline.stream(self._epoch, self._start)
        for _ in range(self._count):
            yield stream.take()
