"""Windows from a stream: what is in them, what becomes of every item, and how it all ends."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces

from optix_core import ConfigError, EnvError, LivePipeline, Reconnect, RLOptimizer
from optix_core.pipelines import AsyncSource, boundaries
from optix_protocol import EvalMetrics, HyperparamSet

needs_stamina = pytest.mark.skipif(importlib.util.find_spec("stamina") is None, reason="needs optix-core[live]")
QUICK = Reconnect(wait_initial_s=0.01, wait_max_s=0.05, jitter_s=0.0)


class Idle:
    """Six methods that do nothing but remember what they saw."""

    def __init__(self):
        self.seen, self.windows = [], []

    def act(self, observation):
        self.seen.append(float(np.asarray(observation).reshape(-1)[0]))
        return np.float32(-self.seen[-1])

    def learn(self, episode_data):
        episode_data.check()
        self.windows.append(episode_data)
        return {}

    def get_hyperparams(self):
        return HyperparamSet(params={})

    def set_hyperparams(self, hyperparams):
        pass

    def save_weights(self, path):
        np.savez(open(path, "wb"), x=np.zeros(1))  # noqa: SIM115

    def load_weights(self, path):
        pass


def item(number, reward=None, terminated=False, truncated=False, **info):
    return np.array([number], np.float32), number if reward is None else reward, terminated, truncated, info


def collected(source, agent=None, **settings):
    """Run a stream to its end; return the pipeline and its windows."""
    pipeline = LivePipeline(source, agent or Idle(), **settings)
    windows = list(pipeline.windows())
    pipeline.close()
    for window in windows:
        window.check()
    return pipeline, windows


def joined(windows, name):
    return np.concatenate([getattr(window, name) for window in windows])[:, 0].reshape(-1).tolist()


def test_a_reward_belongs_to_the_action_before_it():
    pipeline, windows = collected([item(n, reward=10 * n) for n in range(7)], window_size=3)
    assert joined(windows, "observations") == [0, 1, 2, 3, 4, 5]
    assert joined(windows, "actions") == [0, -1, -2, -3, -4, -5]
    assert joined(windows, "rewards") == [10, 20, 30, 40, 50, 60]
    assert pipeline.counts.to_dict() == {
        "received": 7, "learned": 7, "dropped": 0, "duplicates": 0, "invalid": 0, "waiting": 0, "reconnects": 0
    }  # fmt: skip


def test_after_an_end_the_next_item_begins_an_episode_and_a_boundary_goes_on():
    stream = [item(0), item(1), item(2, terminated=True), item(3, reward=99), item(4), item(5, truncated=True), item(6)]
    _, windows = collected(stream)
    assert joined(windows, "observations") == [0, 1, 3, 4]
    assert joined(windows, "terminated") == [False, True, False, False]
    assert joined(windows, "truncated") == [False, False, False, True]
    assert windows[0].episode_returns.tolist() == [3, 9] and windows[0].final_observations[:, 0].tolist() == [2, 5]
    _, windows = collected([item(n) for n in range(7)], episode_boundary_fn=LivePipeline.every_n_steps(2))
    assert joined(windows, "observations") == [0, 1, 2, 3, 4, 5]
    assert joined(windows, "truncated") == [False, True] * 3
    assert windows[0].episode_returns.tolist() == [3, 7, 11]
    _, windows = collected([item(n) for n in range(7)], episode_boundary_fn=lambda moment: moment.reward == 4)
    assert windows[0].episode_lengths.tolist() == [4]


def test_a_boundary_by_time_cuts_where_the_time_is_over(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(boundaries, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def ticks():
        for number in range(20):
            now[0] += 1.0
            yield item(number)

    _, windows = collected(ticks(), episode_boundary_fn=LivePipeline.every_n_seconds(3.0), in_step=True)
    assert windows[0].episode_lengths.tolist() == [3] * 6


def test_the_source_gets_every_action_before_its_next_item_is_read():
    class Game:
        """Says back what was done last."""

        def __init__(self):
            self.actions = []

        def stream(self):
            for number in range(5):
                yield item(number, reward=len(self.actions), action=self.actions[-1] if self.actions else None)

        def send_action(self, action):
            self.actions.append(float(action))

    game = Game()
    _, windows = collected(game, window_size=2)
    assert joined(windows, "rewards") == [1, 2, 3, 4]
    assert game.actions[:4] == [0, -1, -2, -3]


@needs_stamina
def test_every_item_is_accounted_for_when_the_connection_drops_and_the_data_are_bad():
    class Bad:
        def __init__(self):
            self.openings, self.next, self.closed = 0, 0, 0

        def connect(self):
            self.openings += 1
            if self.openings == 3:
                raise ConnectionError("not yet")

        def disconnect(self):
            self.closed += 1

        def stream(self):
            for _ in range(40):
                number, self.next = self.next, self.next + 1
                yield item(number, id=number)
                if number % 5 == 0:
                    yield item(number, id=number)
                if number % 7 == 0:
                    yield item(np.nan)
                    yield "no item"
            if self.next < 200:
                raise ConnectionError("dropped")

    source = Bad()
    agent = Idle()
    pipeline, windows = collected(source, agent, reconnect=QUICK, window_size=16)
    counts = pipeline.counts
    assert counts.received == 200 + 40 + 2 * 29
    assert counts.to_dict() == {
        "received": 298, "learned": 200, "dropped": 0, "duplicates": 40, "invalid": 58, "waiting": 0,
        "reconnects": counts.reconnects,
    }  # fmt: skip
    assert counts.reconnects == 5 and joined(windows, "observations") == list(range(199))


def test_a_full_buffer_lets_the_source_wait_or_drops_and_counts():
    class Slow(Idle):
        def act(self, observation):
            time.sleep(0.0005)
            return super().act(observation)

    for when_full in ("block", "drop_oldest", "drop_newest"):
        pipeline, _ = collected([item(n) for n in range(400)], Slow(), buffer_size=8, when_full=when_full)
        counts = pipeline.counts
        assert counts.received == 400 == counts.learned + counts.dropped and counts.waiting == 0
        assert (counts.dropped == 0) == (when_full == "block")


@needs_stamina
def test_waits_between_attempts_follow_the_declared_law():
    class Down:
        def __init__(self):
            self.at = []

        def stream(self):
            self.at.append(time.monotonic())
            if len(self.at) > 1:
                raise ConnectionError("down")
            yield item(0)
            raise ConnectionError("down")

    source = Down()
    law = Reconnect(attempts=4, wait_initial_s=0.05, wait_max_s=0.15, jitter_s=0.0)
    pipeline = LivePipeline(source, Idle(), reconnect=law)
    with pytest.raises(EnvError, match=r"failed 5 times in a row, the last time: ConnectionError: down"):
        list(pipeline.windows())
    waits = np.diff(source.at)
    assert (waits >= np.array([0.05, 0.10, 0.15, 0.15]) - 0.005).all() and len(waits) == 4
    np.testing.assert_allclose(pipeline._feed.waits_s, waits, atol=0.05)
    pipeline.close()


@pytest.mark.parametrize(
    "waits_for", ["an item", pytest.param("a connection", marks=needs_stamina), "room in the buffer"]
)
def test_stop_ends_the_run_within_a_second_and_leaves_no_thread(waits_for):
    class Waits:
        def __init__(self):
            self.ended = threading.Event()

        def stream(self):
            if waits_for == "room in the buffer":
                while True:
                    yield item(0)
            yield item(0)
            if waits_for == "a connection":
                raise ConnectionError
            self.ended.wait()

        def disconnect(self):
            self.ended.set()

    class Slow(Idle):
        def act(self, observation):
            time.sleep(0.001)
            return super().act(observation)

    before = threading.active_count()
    law = Reconnect(wait_initial_s=60, wait_max_s=60)
    optimizer = RLOptimizer(Slow(), LivePipeline(Waits(), buffer_size=4, reconnect=law, window_size=10**6))
    stopped = []
    thread = threading.Timer(0.5, lambda: (stopped.append(time.monotonic()), optimizer.stop()))
    thread.start()
    result = optimizer.run()
    took = time.monotonic() - stopped[0]
    thread.join()
    assert result.stop_reason == "stopped" and took < 1.0
    assert threading.active_count() == before


def test_time_that_is_used_up_ends_a_run_whose_feed_is_silent():
    waits = threading.Event()

    class Silent:
        def stream(self):
            yield item(0)
            waits.wait()

        def disconnect(self):
            waits.set()

    result = RLOptimizer(Idle(), LivePipeline(Silent()), max_seconds=0.3).run()
    assert result.wall_seconds < 2.0


def test_a_window_of_a_slow_feed_is_given_out_in_time_and_no_action_is_sent_twice():
    class Slow:
        def __init__(self):
            self.actions = []

        def stream(self):
            for number in range(6):
                yield item(number)
                time.sleep(0.05)

        def send_action(self, action):
            self.actions.append(float(action))

    source = Slow()
    _, windows = collected(source, window_seconds=0.08)
    assert len(windows) >= 3
    assert joined(windows, "observations") == [0, 1, 2, 3, 4] and source.actions == [0, -1, -2, -3, -4, -5]


def test_async_iterables_are_sources():
    async def feed():
        for number in range(5):
            await asyncio.sleep(0)
            yield item(number)

    _, windows = collected(feed())
    assert joined(windows, "observations") == [0, 1, 2, 3]
    _, windows = collected(AsyncSource(feed))
    assert joined(windows, "observations") == [0, 1, 2, 3]


def test_a_resumed_run_counts_on_and_knows_old_items_again():
    pipeline, _ = collected([item(n, id=n) for n in range(10)])
    state = pipeline.pipeline_state()
    state["counts"]["waiting"] += 3
    state["counts"]["received"] += 3
    again = LivePipeline([item(n, id=n) for n in range(5, 15)], Idle())
    assert "went on" in again.restore_pipeline_state(state)
    list(again.windows())
    again.close()
    counts = again.counts
    assert (counts.received, counts.learned, counts.duplicates, counts.dropped, counts.waiting) == (23, 15, 5, 3, 0)


class Score:
    def score(self, episode_data, train_diagnostics):
        return EvalMetrics(primary_score=float(episode_data.rewards.mean()))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: 3, "is no source"),
        (lambda: Refuses(), "cannot be opened: ValueError: wrong key"),
        (lambda: [np.zeros(3)] * 2000, "could not be used"),
        (lambda: [item(0), item(1)], "episode_boundary_fn raised ZeroDivisionError"),
    ],
)
def test_bad_sources_are_told_in_a_line_or_two(make, told):
    with pytest.raises((EnvError, ConfigError), match=told) as error:
        RLOptimizer(Idle(), LivePipeline(make(), episode_boundary_fn=lambda moment: 1 / 0)).run()
    assert str(error.value).count("\n") <= 1
    with pytest.raises(ConfigError, match="when_full"):
        LivePipeline([], when_full="explode")


class Refuses:
    observation_space = spaces.Box(-1, 1, (1,), np.float32)

    def connect(self):
        raise ValueError("wrong key")

    def stream(self):
        yield item(0)


def test_the_counts_reconcile_after_a_kill(tmp_path):
    script = Path(__file__).with_name("killed_stream.py")
    spec = importlib.util.spec_from_file_location("killed_stream", script)
    stream = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stream)
    killed = subprocess.run([sys.executable, str(script), str(tmp_path / "run"), "12"], check=False)
    assert killed.returncode == -signal.SIGKILL
    pipeline, feed = stream.run(str(tmp_path / "run"), 11 * 20, resume=True)
    counts, earlier = pipeline.counts, pipeline._earlier
    assert earlier.learned == 11 * 20 + 1 and counts.waiting == 0
    assert counts.received == earlier.received + feed.sent
    assert counts.received == counts.learned + counts.dropped + counts.duplicates + counts.invalid
    assert counts.duplicates == max(0, earlier.learned - feed.start)  # what was repeated, as far as it had been learned
