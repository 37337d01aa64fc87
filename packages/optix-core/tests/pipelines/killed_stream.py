"""Learns from a stream and kills itself after some windows: python killed_stream.py RUN_DIRECTORY KILL_AFTER."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
from gymnasium import spaces

from optix_core import LivePipeline, LoopCallback, RLOptimizer
from optix_core.loop.saving import StateSaver
from optix_protocol.conformance.reference import ReferenceAgent

ITEMS = 1_000


def save_each_window(self: StateSaver) -> None:
    """Have the exact state on the disk before each window, however long that takes."""
    self.save()
    self.run_dir.flush()


StateSaver.save_if_due = save_each_window


class Kills(LoopCallback):
    def __init__(self, after: int) -> None:
        self.left = after

    def on_window(self, progress, eval_metrics, diagnostics):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Feed:
    """Numbered items; a new connection sends the last fifty once more."""

    observation_space, action_space = spaces.Box(-1, 1, (1,), np.float32), spaces.Discrete(2)

    def __init__(self, start: int) -> None:
        self.start, self.sent = max(0, start - 50), 0

    def stream(self):
        for number in range(self.start, ITEMS):
            self.sent += 1
            yield {"id": number, "observation": np.array([number / ITEMS], np.float32), "reward": 1.0}
            if number % 100 == 0:
                self.sent += 1
                yield {"observation": np.array([np.nan], np.float32)}


def run(directory: str, start: int, kill_after: int = 0, *, resume: bool) -> tuple[LivePipeline, Feed]:
    feed = Feed(start)
    agent = ReferenceAgent(observation_space=feed.observation_space, action_space=feed.action_space)
    pipeline = LivePipeline(feed, agent, LivePipeline.every_n_steps(10), window_size=20)
    RLOptimizer(
        agent, pipeline, checkpoint_dir=directory, resume=resume, state_interval_s=0, callbacks=Kills(kill_after)
    ).run()
    return pipeline, feed


if __name__ == "__main__":
    run(sys.argv[1], 0, int(sys.argv[2]), resume=False)
