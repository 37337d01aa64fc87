import numpy as np
import pytest

from optix_core import VectorBatchPipeline
from optix_core.loop.scoring import ScoreHistory, ScoreJoiner, ScorePoint, time_slices


class Random:
    def __init__(self):
        self.rng = np.random.default_rng(0)

    def act(self, observation):
        return self.rng.integers(2, size=len(observation))


@pytest.mark.parametrize("env_steps", [1, 50, 333, 1000, 10**6])
def test_time_slices_partition_a_window(env_steps):
    window = VectorBatchPipeline("CartPole-v1", Random(), n_envs=4, window_size=250).collect()
    pieces = list(time_slices(window, env_steps))
    for piece in pieces:
        piece.check()
    for name in ("observations", "rewards", "valid", "episode_returns", "final_observations", "episode_lengths"):
        joined = np.concatenate([getattr(piece, name) for piece in pieces])
        np.testing.assert_array_equal(joined, getattr(window, name))
    successors = np.concatenate([piece.next_observations for piece in pieces])
    np.testing.assert_array_equal(successors, window.next_observations)
    sizes = [piece.valid.size for piece in pieces]
    assert max(sizes) <= max(1.5 * env_steps + 4, 4)


def test_short_windows_are_joined_until_they_say_enough():
    joiner = ScoreJoiner(100)
    assert joiner.add(60, 10.0, 1) is None
    twin = ScoreJoiner(100)
    twin.load_state_dict(joiner.state_dict())
    for each in (joiner, twin):
        assert each.add(60, 40.0, 2) == (30.0, 3)
        assert each.add(80, None, 1) is None
        assert each.add(80, None, 1) is None  # steps enough, but no episode has ended
        assert each.add(5, 7.0, 1) == (7.0, 1)
    assert ScoreJoiner().add(1, 0.1, 3) == (0.1, 3)
    assert ScoreJoiner().add(10**6, None, 1) is None


def test_history_stays_small_and_pools_exactly():
    rng = np.random.default_rng(1)
    history = ScoreHistory(limit=50)
    everything = []
    for version in range(1000):
        returns = rng.normal(version, 3.0, size=rng.integers(2, 9))
        everything.append(returns)
        history.add(
            ScorePoint(
                policy_version=version,
                num_env_steps=version + 1,
                score=returns.mean(),
                episodes=len(returns),
                return_std=returns.std(ddof=1),
            )
        )
    assert len(history.state_dict()) <= 100
    points = history.points(keep=set(), at_most=1)
    assert len(points) == 1
    pooled = np.concatenate(everything)
    assert points[0].episodes == len(pooled)
    assert points[0].score == pytest.approx(pooled.mean())
    assert points[0].return_std == pytest.approx(pooled.std(ddof=1))


def test_kept_policies_stay_single_points():
    history = ScoreHistory()
    for version in range(100):
        history.add(
            ScorePoint(policy_version=version, num_env_steps=version + 1, score=version, episodes=1, return_std=0.0)
        )
    assert [len(history.points(keep=set(), at_most=most)) for most in (100, 99)] == [100, 50]
    points = history.points(keep={17, 18, 60}, at_most=5)
    assert {p.policy_version: p.score for p in points if p.policy_version in (17, 18, 60)} == {17: 17, 18: 18, 60: 60}
    assert [p.num_env_steps for p in points] == sorted(p.num_env_steps for p in points)
