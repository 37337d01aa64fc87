"""Streams of interaction in which every observation can be recognised."""

import numpy as np
import pytest

from optix_protocol import EpisodeData


def make_stream(T, N, *, seed=0, end_rate=0.2, next_step_reset=False):
    """One long window in which every observation is a number of its own; actions repeat the number."""
    rng = np.random.default_rng(seed)
    numbers = iter(range(1, 10**6))
    rows = {name: np.zeros((T, N)) for name in ("observations", "rewards", "terminated", "truncated", "valid")}
    present = [float(next(numbers)) for _ in range(N)]
    resets = [False] * N
    finals = []
    for t in range(T):
        for n in range(N):
            rows["observations"][t, n], rows["valid"][t, n] = present[n], not resets[n]
            after = float(next(numbers))
            if resets[n]:
                present[n], resets[n] = after, False
                continue
            rows["rewards"][t, n] = rng.normal()
            ends = rng.random(2) < end_rate
            rows["terminated"][t, n], rows["truncated"][t, n] = ends
            if ends.any():
                finals.append(after)
                if next_step_reset:
                    resets[n] = True
                else:
                    after = float(next(numbers))
            present[n] = after
    flags = {name: rows.pop(name).astype(bool) for name in ("terminated", "truncated", "valid")}
    return EpisodeData(
        observations=rows["observations"].astype(np.float32)[..., None],
        actions=rows["observations"].astype(np.int64),
        rewards=rows["rewards"].astype(np.float32),
        **flags,
        last_observation=np.array(present, np.float32)[:, None],
        final_observations=np.array(finals, np.float32).reshape(-1, 1),
        episode_returns=np.zeros(len(finals)),
        episode_lengths=np.zeros(len(finals)),
    )


def cut(window, sizes):
    """Cut a window along time; ``sizes`` is repeated as often as needed."""
    start, index = 0, 0
    while start < window.num_steps:
        stop = min(window.num_steps, start + sizes[index % len(sizes)])
        index += 1
        inside = (window.ends[:, 0] >= start) & (window.ends[:, 0] < stop)
        names = ("observations", "actions", "rewards", "terminated", "truncated", "valid")
        piece = EpisodeData(
            **{name: getattr(window, name)[start:stop] for name in names},
            last_observation=window.observations[stop] if stop < window.num_steps else window.last_observation,
            final_observations=window.final_observations[inside],
            episode_returns=window.episode_returns[inside],
            episode_lengths=window.episode_lengths[inside],
        )
        piece.check()
        yield piece
        start = stop


@pytest.fixture(scope="session")
def stream():
    return make_stream


@pytest.fixture(scope="session")
def pieces():
    return cut
