"""Streams: how soon a drift is noticed, beside river's ADWIN; how many items a second; what novelty is worth.

    uv run --group examples python benchmarks/live.py drift [--series 100]
    uv run python benchmarks/live.py throughput
    uv run python benchmarks/live.py faults
    uv run python benchmarks/live.py novelty [--seeds 5] [--env-steps 100000]

``drift``: swinging autoregressive series whose pitch changes by a seeded amount. A linear forecaster learns until a
:class:`Watchdog` puts it to sleep. From then on the watchdog sees mean absolute errors of 25 items and ADWIN
each of them. Both run over the same long stretch without a change, where ADWIN's ``delta`` is set so that as many
series have a false alarm; then over the change. The watchdog wakes the forecaster, and the error after that is printed.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from optix_core import ConvergenceMonitor, LivePipeline, Reconnect, RNDPipeline, VectorBatchPipeline
from optix_core.convergence import Watchdog
from optix_protocol import HyperparamSet

WINDOW = 25
QUIET, AFTER = 8_000, 4_000
"""Items without a change after the forecaster has fallen asleep, and items after the change."""

FALSE_ALARM_EVERY = 10_000.0
"""Windows between two false alarms: the default."""


class Forecaster:
    """A linear forecast of the next value, learned by least mean squares."""

    def __init__(self) -> None:
        self.weights = np.zeros(3)

    def error(self, before: np.ndarray, value: float, *, learn: bool) -> float:
        """Return the absolute error of the forecast; learn from it if asked to."""
        error = value - float(self.weights @ before)
        if learn:
            self.weights += 0.01 * error * before
        return abs(error)


def series(seed: int) -> Iterator[tuple[np.ndarray, float]]:
    """Yield pairs of the latest values and the next one; ``send(True)`` changes the law."""
    rng = np.random.default_rng(seed)
    pitch, change = rng.uniform(0.4, 1.7), rng.uniform(0.15, 0.5) * rng.choice([-1, 1])
    change = change if pitch + change < 1.8 else -change  # beyond 1.9 it would swing ever higher
    values = np.zeros(3)
    while True:
        law = np.array([0.0, -0.9, pitch])
        value = float(law @ values + rng.normal(0, 0.1))
        changed = yield values, value
        if changed:
            pitch += change
        values = np.append(values[1:], value)


def run(seed: int) -> tuple[Watchdog, list[float], list[float], int] | None:
    """Let a forecaster settle; return its watchdog, errors of the quiet stretch and after the change, and its age."""
    stream, forecaster = series(seed), Forecaster()
    dog = Watchdog(ConvergenceMonitor(margin=0.01, baseline=-0.25), false_alarm_every=FALSE_ALARM_EVERY)
    items = 0
    before, value = next(stream)
    while not dog.is_watching:
        errors = []
        for _ in range(WINDOW):
            errors.append(forecaster.error(before, value, learn=True))
            before, value = stream.send(None)
        items += WINDOW
        dog.update(-float(np.mean(errors)), items)
        if items > 40_000:
            return None
    quiet, after = [], []
    for number in range(QUIET + AFTER):
        (quiet if number < QUIET else after).append(forecaster.error(before, value, learn=False))
        before, value = stream.send(number == QUIET - 1)
    return dog, quiet, after, items


def first_alarm(errors: list[float], dog: Watchdog, items: int) -> int | None:
    """Return after how many items a watchdog wakes."""
    for end in range(WINDOW, len(errors) + 1, WINDOW):
        before = dog.num_alarms
        dog.update(-float(np.mean(errors[end - WINDOW : end])), items + end)
        if dog.num_alarms > before:
            return end
    return None


def first_rise(errors: list[float], delta: float, seen: list[float]) -> int | None:
    """Return after how many items ADWIN says that the error has grown; ``seen`` comes first, without a say."""
    from river.drift import ADWIN

    adwin = ADWIN(delta=delta)
    for error in seen:
        adwin.update(error)
    for number, error in enumerate(errors, 1):
        level = adwin.estimation
        adwin.update(error)
        if adwin.drift_detected and adwin.estimation > level:
            return number
    return None


def drift(num_series: int) -> None:
    """Print how soon both notice."""
    import copy

    runs = [found for seed in range(num_series) if (found := run(seed)) is not None]
    print(f"{len(runs)} of {num_series} forecasters fell asleep")
    false, delays = 0, []
    for dog, quiet, after, items in runs:
        watched = copy.deepcopy(dog)
        if first_alarm(quiet, watched, items) is not None:
            false += 1
            continue
        delays.append(first_alarm(after, watched, items + len(quiet)))
    print(f"watchdog: {false} false alarms over {QUIET} items")
    rates = {}
    for delta in (1e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5):
        rates[delta] = sum(first_rise(quiet, delta, []) is not None for _, quiet, _, _ in runs)
        if rates[delta] > 2 * false + 2:
            break
    equal = min(rates, key=lambda delta: (abs(rates[delta] - false), -delta))
    theirs = [first_rise(after, equal, quiet) for _, quiet, after, _ in runs if first_rise(quiet, equal, []) is None]
    print(f"ADWIN, delta {equal}: {rates[equal]} false alarms")
    for name, found in (("watchdog", delays), ("ADWIN", theirs)):
        filled = np.array([AFTER if delay is None else delay for delay in found])
        missed = sum(delay is None for delay in found)
        print(f"{name:9} delay in items: median {np.median(filled):.0f}, mean {filled.mean():.0f}, missed {missed}")
    recovered(runs)


def recovered(runs: list) -> None:
    """Print how the error goes on for forecasters that are woken."""
    shares = []
    for seed in range(len(runs)):
        stream, forecaster = series(seed), Forecaster()
        dog = Watchdog(ConvergenceMonitor(margin=0.01, baseline=-0.25))
        before, value = next(stream)
        means = []
        for window in range(2 * 400):
            learn = not dog.is_watching
            errors = []
            for item in range(WINDOW):
                errors.append(forecaster.error(before, value, learn=learn))
                before, value = stream.send(window == 400 and item == 0)
            means.append(float(np.mean(errors)))
            dog.update(-means[-1], (window + 1) * WINDOW)
        shares.append(np.mean(means[-100:]) / np.mean(means[300:400]))
    print(f"error long after the change / before it: median {np.median(shares):.2f}, worst {max(shares):.2f}")


class Idle:
    """An agent whose act and learn cost nothing."""

    action = np.zeros(1, np.float32)

    def act(self, observation):  # noqa: ARG002
        return self.action

    def learn(self, episode_data):  # noqa: ARG002
        return {}

    def get_hyperparams(self):
        return HyperparamSet(params={})

    def set_hyperparams(self, hyperparams):
        """Nothing."""

    def save_weights(self, path):
        """Nothing."""

    def load_weights(self, path):
        """Nothing."""


def throughput(items: int = 200_000, repeats: int = 3) -> None:
    """Print items per CPU second through the pipeline."""
    observation = np.zeros(8, np.float32)
    for _ in range(repeats):
        pipeline = LivePipeline(((observation, 0.0, False, False, {}) for _ in range(items)), Idle(), window_size=1024)
        began, wall = time.process_time(), time.monotonic()
        rows = sum(window.num_env_steps for window in pipeline.windows())
        took, wall = time.process_time() - began, time.monotonic() - wall
        pipeline.close()
        assert rows == items - 1 and pipeline.counts.learned == items
        print(f"{items / took:,.0f} items per CPU second ({items / wall:,.0f} by the clock), none lost", flush=True)


class Faulty:
    """Drops its connection every so many items, repeats itself, sends NaN and bursts."""

    def __init__(self, bursts: int) -> None:
        self.next, self.last, self.sent, self.drop_at = 0, 10_000 * bursts, 0, 7_000

    def stream(self):
        for number in range(max(0, self.next - 5), self.last):
            self.next, self.sent = number + 1, self.sent + 1
            yield {"id": number, "observation": [number], "reward": 0.0}
            if number % 50 == 0:
                self.sent += 1
                yield {"observation": [np.nan]}
            if number == self.drop_at:
                self.drop_at += 7_000
                raise ConnectionError("dropped")


def faults(bursts: int = 30) -> None:
    """Print what became of the items of a faulty source, and how much memory that took."""
    source = Faulty(bursts)
    law = Reconnect(wait_initial_s=0.01, wait_max_s=0.02, jitter_s=0.0)
    pipeline = LivePipeline(source, Idle(), window_size=256, reconnect=law)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in pipeline.windows():
        pass
    pipeline.close()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    counts = pipeline.counts
    assert counts.received == source.sent and counts.waiting == 0
    assert counts.learned + counts.duplicates + counts.invalid + counts.dropped == source.sent
    print(f"sent {source.sent}: {counts.to_dict()}; memory grew by {grown:.0f} MB")


class Lock(gym.Env):
    """A combination lock: one of two actions leads on, the other back to the start; the reward is at the end."""

    def __init__(self, length: int = 18) -> None:
        self.length = length
        self.right = np.random.default_rng(7).integers(0, 2, length)
        self.observation_space, self.action_space = spaces.Box(0, 1, (length + 1,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):  # noqa: ARG002
        super().reset(seed=seed)
        self.place = self.t = 0
        return self._seen(), {}

    def step(self, action):
        self.t += 1
        self.place = self.place + 1 if action == self.right[self.place] else 0
        solved = self.place == self.length
        return self._seen(), float(solved), solved, self.t >= 2 * self.length, {}

    def _seen(self):
        shown = np.zeros(self.length + 1, np.float32)
        shown[self.place] = 1.0
        return shown


def novelty(seeds: int, env_steps: int) -> None:
    """Print what PPO earns of a combination lock with and without a bonus for what is new."""
    from optix_core import RLOptimizer, make_agent

    for kind in (VectorBatchPipeline, RNDPipeline):
        found = []
        for seed in range(seeds):
            agent = make_agent("PPO", Lock, seed=seed, hidden_sizes=(32,), learning_rate=1e-3, minibatch_size=128)
            pipeline = kind(Lock, n_envs=8, window_size=64, seed=seed)
            result = RLOptimizer(
                agent, pipeline, seed=seed, max_env_steps=env_steps, confirm_episodes=20, stall_fraction=1.0
            ).run()
            found.append(result.confirmed_return["mean"])
            print(f"{kind.__name__} seed {seed}: return {found[-1]:.2f}, {result.stop_reason}", flush=True)
        print(f"{kind.__name__}: solved {sum(mean > 0.9 for mean in found)} of {seeds}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("drift", "throughput", "faults", "novelty"))
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--env-steps", type=int, default=100_000)
    asked = parser.parse_args()
    match asked.what:
        case "drift":
            drift(asked.series)
        case "throughput":
            throughput()
        case "faults":
            faults()
        case _:
            novelty(asked.seeds, asked.env_steps)
