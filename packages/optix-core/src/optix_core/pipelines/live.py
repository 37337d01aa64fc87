"""Windows from a live stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

import numpy as np

from optix_core.environments.endings import EndingInfos
from optix_core.errors import AgentError, ConfigError, EnvError, in_one_line, real_number, whole_number
from optix_core.pipelines.actions import action_encoder
from optix_core.pipelines.actor import Actor, HasAgent, MeetsSpaces
from optix_core.pipelines.boundaries import Boundary, Episode, every_n_seconds, every_n_steps
from optix_core.pipelines.feed import END, Feed, FeedCounts, Reconnect, WhenFull, require_source
from optix_core.pipelines.items import Item, ItemReader
from optix_core.pipelines.sources import source_of
from optix_protocol import Array, BaseAgent, EpisodeData, StateTree

_ALL_INVALID = 1000
"""So many items in a row that cannot be used end the run."""


class LivePipeline(HasAgent):
    """Collects windows ``[T, 1]`` from a stream that a thread of its own reads.

    The agent acts on every observation that comes, the source receives the action, and the item after it tells the
    reward. An item ends an episode with ``terminated`` or ``truncated``, and the next begins another one; a boundary
    cuts the episode off, and the stream goes on from there. Items that hold NaN, are malformed, or have an
    ``info["id"]`` that has been seen are left out and counted.

    Args:
        data_source: has ``stream()`` (:class:`~optix_core.pipelines.feed.DataSource`); or an iterable, an
            async iterable, a ``ws://`` URL.
        agent: who acts and learns; ``RLOptimizer`` gives its agent to a pipeline that has none.
        episode_boundary_fn: cuts episodes: ``every_n_steps(100)``, ``every_n_seconds(300)``, or a function of a
            :class:`~optix_core.pipelines.boundaries.Moment`. None: the items alone end episodes.
        buffer_size: items that may wait to be acted on.
        window_size: rows of a window.
        window_seconds: give out a window after so many seconds even if it has fewer rows; None waits for all.
        when_full: what happens where the buffer is full: ``"block"`` lets the source wait, ``"drop_oldest"`` and
            ``"drop_newest"`` drop an item.
        in_step: read an item only when the action for the last one has been sent; None: where the source has
            ``send_action``, because what it says next may depend on it.
        reconnect: how often and after which waits a stream that raised is opened again (needs ``optix-core[live]``).

    Raises:
        ConfigError: no source, or a setting out of range.
    """

    num_envs = 1
    every_n_steps = staticmethod(every_n_steps)
    every_n_seconds = staticmethod(every_n_seconds)

    def __init__(
        self,
        data_source: Any,
        agent: BaseAgent | None = None,
        episode_boundary_fn: Boundary | None = None,
        buffer_size: int = 1024,
        *,
        window_size: int = 128,
        window_seconds: float | None = None,
        when_full: WhenFull = "block",
        in_step: bool | None = None,
        reconnect: Reconnect | None = None,
    ) -> None:
        self.source = source_of(data_source)
        require_source(self.source)
        if episode_boundary_fn is not None and not callable(episode_boundary_fn):
            raise ConfigError(f"episode_boundary_fn must be a function, got {episode_boundary_fn!r}.")
        if when_full not in ("block", "drop_oldest", "drop_newest"):
            raise ConfigError(f"when_full is block, drop_oldest or drop_newest, got {when_full!r}.")
        self._boundary = episode_boundary_fn
        self.window_size = whole_number("window_size", window_size, least=1)
        self._window_seconds = (
            None if window_seconds is None else real_number("window_seconds", window_seconds, above=0.0)
        )
        self.observation_space = getattr(self.source, "observation_space", None)
        self.action_space = getattr(self.source, "action_space", None)
        self._send: Callable[[Any], object] | None = getattr(self.source, "send_action", None)
        self._encode = action_encoder(self.action_space) if self.action_space is not None else None
        self._feed = Feed(
            self.source,
            buffer_size=whole_number("buffer_size", buffer_size, least=1),
            when_full=when_full,
            in_step=self._send is not None if in_step is None else in_step,
            reconnect=reconnect or Reconnect(),
        )
        self._reader = ItemReader()
        self._episode = Episode()
        self._learned = self._duplicates = self._invalid = self._in_hand = self._lost = 0
        self._invalid_in_a_row = 0
        self._earlier = FeedCounts()
        self._observation: Array | None = None
        self._memory: Any = None
        self._acted: tuple[Array, Any] | None = None
        self._num_episodes = 0
        self._versions = (0, 0)
        self._over = False
        self._give_up: Callable[[], bool] = lambda: False
        if agent is not None:
            self.agent = agent

    def _meet(self, agent: BaseAgent) -> None:
        if isinstance(agent, MeetsSpaces) and self.observation_space is not None and self.action_space is not None:
            agent.meet_spaces(self.observation_space, self.action_space)

    def give_up_when(self, condition: Callable[[], bool]) -> None:
        """Wait for no further item once this is true: the window in hand is given out as it is."""
        self._give_up = condition

    @property
    def counts(self) -> FeedCounts:
        """What became of the items, earlier sittings included."""
        feed, earlier, source = self._feed, self._earlier, self.source
        lost = int(getattr(source, "num_dropped", 0))  # by a source that has a buffer of its own
        dropped = feed.dropped + lost + self._lost  # before what was received, which is the last to change
        counts = FeedCounts(
            received=earlier.received + feed.received + lost,
            learned=earlier.learned + self._learned,
            dropped=earlier.dropped + dropped,
            duplicates=earlier.duplicates + self._duplicates,
            invalid=earlier.invalid + self._invalid,
            reconnects=earlier.reconnects + feed.reconnects,
        )
        counts.waiting = counts.received - counts.learned - counts.dropped - counts.duplicates - counts.invalid
        return counts

    def windows(self) -> Iterator[EpisodeData]:
        """Yield windows until the stream has ended, or one gives up."""
        while not self._over:
            window = self._collect()
            if window is not None:
                yield window
            elif self._over or self._give_up():
                return

    def policy_changed(self, *, policy_version: int, hyperparam_version: int) -> None:
        """Stamp coming windows with these versions."""
        self._versions = (policy_version, hyperparam_version)

    def _collect(self) -> EpisodeData | None:
        self._feed.start()
        until = None if self._window_seconds is None else time.monotonic() + self._window_seconds
        actor = self._actor()
        rows = _Rows(actor.state)
        if self._observation is not None:
            if self._acted is not None:  # on the newest observation, in a window that was given out without it
                rows, action = _Rows(self._acted[1]), self._acted[0]
            else:
                before, action = actor.state, self._act(actor, self._observation)
                self._acted = action, before
            rows.observe(self._observation, action)
        while len(rows.rewards) < self.window_size:
            item = self._next(until)
            if item is None:
                break
            if self._observation is None:
                self._observation = item.observation
                self._episode.begin()
            else:
                self._step(actor, rows, item)
                if len(rows.rewards) == self.window_size:
                    break
            if self._observation is not None:
                before, action = actor.state, self._act(actor, self._observation)
                self._acted = action, before
                rows.observe(self._observation, action)
        self._memory = actor.state
        if not rows.rewards:
            return None
        self._learned += self._in_hand
        self._in_hand = 0
        self._num_episodes += len(rows.returns)
        return rows.pack(self._observation, self._versions, self._num_episodes)

    def _step(self, actor: Actor, rows: _Rows, item: Item) -> None:
        """Write what came of the last action."""
        episode, self._acted = self._episode, None
        episode.add(item.reward)
        cut = item.truncated or (not item.terminated and self._is_boundary(item))
        rows.rewards.append(item.reward)
        rows.terminated.append(item.terminated)
        rows.truncated.append(cut)
        self._observation = item.observation
        if not (item.terminated or cut):
            return
        rows.end(item, episode)
        episode.begin()
        if not actor.forgetful:
            actor.forget(np.ones(1, np.bool_))
        if item.terminated or item.truncated:  # the next item begins another episode
            self._observation = None
            self._feed.release()

    def _is_boundary(self, item: Item) -> bool:
        if self._boundary is None:
            return False
        try:
            return bool(self._boundary(self._episode.moment(item.observation, item.reward, item.info)))
        except Exception as error:
            text = " ".join(str(error).split())
            raise ConfigError(f"episode_boundary_fn raised {type(error).__name__}: {text}") from error

    def _next(self, until: float | None) -> Item | None:
        """Return the next item that can be used; None where the stream ends or one gives up."""
        while True:
            raw = None if self._give_up() else self._feed.take(self._give_up, until)
            if raw is None:
                return None
            if raw is END:
                self._over = True
                return None
            item = self._reader.read(raw)
            if item is not None and not self._reader.is_duplicate(item):
                self._in_hand += 1
                self._invalid_in_a_row = 0
                return item
            self._feed.release()
            if item is not None:
                self._duplicates += 1
                continue
            self._invalid += 1
            self._invalid_in_a_row += 1
            if self._invalid_in_a_row == _ALL_INVALID:
                raise EnvError(
                    f"{_ALL_INVALID} items of the source in a row could not be used; of the last one, "
                    f"{in_one_line(repr(raw))}, {self._reader.problem}."
                )

    def _act(self, actor: Actor, observation: Array) -> Array:
        """Act on an observation, and let the source know."""
        if actor.forgetful:
            action = np.asarray(actor.act(observation))
        else:
            action = np.asarray(actor.act(observation[None]))[0]
        if action.dtype.kind not in "biuf" or (action.dtype.kind == "f" and not np.isfinite(action).all()):
            raise AgentError(
                "act() returned actions that are no finite numbers; lower the learning rate or check the model."
            )
        if self._send is not None:
            sent = action if self._encode is None else self._encode(action[None])[0]
            try:
                with suppress(OSError):  # the connection is gone: the stream will say so, and is opened again
                    self._send(sent)
            except Exception as error:
                raise EnvError(
                    f"send_action() raised {type(error).__name__}: {' '.join(str(error).split())}"
                ) from error
        self._feed.release()
        return action

    def _actor(self) -> Actor:
        return Actor(self.agent, None, 1, self._memory)

    def pipeline_state(self) -> StateTree:
        """Return the counts and the ids that are known; the stream itself cannot be kept."""
        return {"counts": self.counts.to_dict(), "ids": self._reader.state(), "num_episodes": self._num_episodes}

    def restore_pipeline_state(self, state: StateTree) -> str | None:
        """Count on from a saved state; what was waiting then was lost, and is counted as dropped."""
        counts = FeedCounts(**{name: int(value) for name, value in state["counts"].items()})
        counts.dropped += counts.waiting
        counts.waiting = 0
        self._earlier = counts
        self._reader.restore(list(state["ids"]))
        self._num_episodes = int(state["num_episodes"])
        return "The stream went on meanwhile: its episode in hand is another one."

    def close(self) -> None:
        """End the thread within a second; what still waits is counted as dropped. Calling it twice is harmless.

        Raises:
            EnvError: the source waits for ever and has no ``disconnect`` that ends that.
        """
        self._over = True
        ended = self._feed.stop()
        self._lost += self._feed.discard() + self._in_hand
        self._in_hand = 0
        if not ended:
            raise EnvError(
                "The source still waits in a thread of its own: give it a disconnect() that ends its stream()."
            )


class _Rows:
    """The rows of a window in the making."""

    def __init__(self, initial_state: Any) -> None:
        self._initial_state = initial_state
        self._observations: list[Array] = []
        self._actions: list[Array] = []
        self.rewards: list[float] = []
        self.terminated: list[bool] = []
        self.truncated: list[bool] = []
        self.returns: list[float] = []
        self._lengths: list[int] = []
        self._finals: list[Array] = []
        self._infos = EndingInfos()

    def observe(self, observation: Array, action: Array) -> None:
        self._observations.append(observation)
        self._actions.append(action)

    def end(self, item: Item, episode: Episode) -> None:
        self.returns.append(episode.total)
        self._lengths.append(episode.num_steps)
        self._finals.append(item.observation)
        self._infos.take_one(item.info)

    def pack(self, observation: Array | None, versions: tuple[int, int], num_episodes: int) -> EpisodeData:
        T = len(self.rewards)
        observations = np.stack(self._observations[:T])[:, None]
        last = self._finals[-1] if observation is None else observation
        return EpisodeData(
            observations=observations,
            actions=np.stack(self._actions[:T])[:, None],
            rewards=np.array(self.rewards, np.float32)[:, None],
            terminated=np.array(self.terminated)[:, None],
            truncated=np.array(self.truncated)[:, None],
            valid=np.ones((T, 1), np.bool_),
            last_observation=last[None],
            final_observations=np.stack(self._finals) if self._finals else observations[:0, 0],
            episode_returns=np.array(self.returns),
            episode_lengths=np.array(self._lengths, np.int64),
            policy_version=versions[0],
            hyperparam_version=versions[1],
            initial_state=self._initial_state,
            episode_id=num_episodes,
            episode_infos=cast(Any, self._infos.columns()),
        )
