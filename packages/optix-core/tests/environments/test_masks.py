"""Masks of allowed actions, from wherever environments tell them, reach whoever acts, learns and evaluates."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from optix_core.environments import EnvSpec
from optix_core.errors import EnvError, OptixWarning
from optix_core.evaluation.rollouts import evaluate
from optix_core.pipelines import BatchPipeline, VectorBatchPipeline
from optix_core.testing.masked import MaskedChoice

WAYS = ["info", "observation", "method"]


class Obedient:
    """Does the first thing that is allowed, and remembers the masks it was given."""

    def __init__(self, start=0):
        self.start, self.masks = start, []

    def act(self, observation):
        raise AssertionError("the environment has masks")

    def act_masked(self, observations, mask):
        assert mask.dtype == np.bool_
        assert mask.any(axis=1).all()
        self.masks.append(mask.copy())
        return mask.argmax(axis=1) + self.start


class Careless:
    def act(self, observation):
        return np.zeros(len(observation), np.int64)


def pipeline(kind, tell, agent, **options):
    make = partial(MaskedChoice, tell=tell)
    ready = {
        "next step": partial(SyncVectorEnv, [make] * 3),
        "same step": partial(SyncVectorEnv, [make] * 3, autoreset_mode=AutoresetMode.SAME_STEP),
        "async": partial(AsyncVectorEnv, [make] * 3),
    }
    if kind == "single":
        return BatchPipeline(make, agent, 64)
    if kind in ready:
        return VectorBatchPipeline(ready[kind](), agent, window_size=64)
    return VectorBatchPipeline(make, agent, n_envs=3, window_size=64, async_envs=kind == "workers", **options)


@pytest.mark.parametrize("tell", WAYS)
@pytest.mark.parametrize("kind", ["single", "ours", "next step", "same step"])
def test_masks_are_heeded_and_kept(tell, kind):
    pipe = pipeline(kind, tell, Obedient())
    for _ in range(3):
        window = pipe.collect()
        window.check()
        chosen = np.take_along_axis(window.action_mask, window.actions[..., None], axis=2)[..., 0]
        assert chosen[window.valid].all()
        assert (window.action_mask.sum(axis=2)[window.valid] == 4).all()
        assert not window.episode_infos["forbidden"].any()
        np.testing.assert_array_equal(window.next_action_mask[:-1][window.valid[1:]], _after(window))
    pipe.close()


def _after(window):
    """What is allowed one row later, everything where an episode ended: a game that is over allows nothing."""
    later = window.action_mask[1:].copy()
    later[window.done[:-1]] = True
    return later[window.valid[1:]]


@pytest.mark.parametrize(("kind", "tell"), [("workers", "method"), ("async", "method"), ("async", "observation")])
def test_masks_of_environments_in_other_processes(kind, tell):
    pipe = pipeline(kind, tell, Obedient())
    window = pipe.collect()
    pipe.close()
    assert len(window.episode_infos["forbidden"])
    assert not window.episode_infos["forbidden"].any()
    assert (window.action_mask.sum(axis=2)[window.valid] == 4).all()


@pytest.mark.parametrize("tell", WAYS)
def test_evaluation_heeds_masks_and_tells_the_infos(tell):
    found = evaluate(Obedient(), EnvSpec.of(partial(MaskedChoice, tell=tell)), episodes=7, seed=1, batched_act=True)
    assert found.infos["forbidden"].tolist() == [0.0] * 7
    assert set(found.infos["is_success"]) <= {0.0, 1.0}
    assert (found.lengths == 10).all()


def test_evaluation_side_by_side_pairs_infos_with_episodes():
    from optix_core.evaluation.rollouts import policy_factory, rollout

    envs = gym.wrappers.vector.RecordEpisodeStatistics(SyncVectorEnv([MaskedChoice] * 3))
    played = rollout(policy_factory(Obedient(), batched_act=True), envs, episodes=5, seed=0)
    assert played.infos["forbidden"].tolist() == [0.0] * 5
    assert "episode" not in played.infos


def test_a_truncated_episode_keeps_the_mask_of_its_last_observation():
    class Endless(MaskedChoice):
        def __init__(self):
            super().__init__(length=10**9)

    def make():
        return gym.wrappers.TimeLimit(Endless(), 5)

    for envs in ([make] * 2, SyncVectorEnv([make] * 2)):
        window = VectorBatchPipeline(envs, Obedient(), window_size=30).collect()
        assert (window.final_action_masks.sum(axis=1) == 4).all()
        assert window.truncated.any()


def test_a_row_that_allows_nothing_is_refused_before_anybody_acts():
    class Stuck(MaskedChoice):
        def _info(self):
            return {"action_mask": np.zeros(16, bool) if self._t == 3 else self._mask.copy()}

    agent = Obedient()
    with pytest.raises(EnvError, match="Environment 0 allows no action"):
        VectorBatchPipeline(Stuck, agent, n_envs=2, window_size=20).collect()
    assert len(agent.masks) == 3
    with pytest.raises(EnvError, match="allows no action"):
        evaluate(agent, EnvSpec.of(Stuck), episodes=3, seed=0, batched_act=True)


def test_a_mask_of_another_size_is_refused_in_a_line():
    class Short(MaskedChoice):
        def _info(self):
            return {"action_mask": self._mask[:7].copy()}

    with pytest.raises(EnvError, match=r"7 entries; Discrete\(16\) needs 16") as caught:
        VectorBatchPipeline(Short, Obedient(), n_envs=2, window_size=20).collect()
    assert "\n" not in str(caught.value)


def test_an_agent_that_takes_no_notice_is_named():
    pipe = VectorBatchPipeline(MaskedChoice, Careless(), n_envs=2, window_size=20)
    with pytest.warns(OptixWarning, match="Careless takes no notice"):
        window = pipe.collect()
    assert window.action_mask is not None


def test_masks_of_several_actions_stand_side_by_side():
    class Pair(gym.Env):
        observation_space = gym.spaces.Box(0, 1, (1,))
        action_space = gym.spaces.MultiDiscrete([2, 3])

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(1, np.float32), {}

        def step(self, action):
            assert tuple(action) == (1, 2)
            return np.zeros(1, np.float32), 0.0, False, False, {}

        def action_masks(self):
            return [np.array([False, True]), [0, 0, 1]]

    class Picks(Obedient):
        def act_masked(self, observations, mask):
            assert mask.shape == (1, 5)
            return np.array([[1, 2]])

    window = BatchPipeline(Pair(), Picks(), 5).collect()
    assert window.action_mask.shape == (5, 1, 5)

    class OneIsStuck(Pair):
        def action_masks(self):
            return np.array([1, 1, 0, 0, 0])

    with pytest.raises(EnvError, match="allows no action"):
        BatchPipeline(OneIsStuck(), Picks(), 5).collect()


def test_a_resumed_collection_goes_on_with_the_mask_in_hand():
    agent = Obedient()
    whole = VectorBatchPipeline(MaskedChoice, agent, n_envs=2, window_size=13, seed=3)
    whole.collect()
    state, expected = whole.pipeline_state(), whole.collect()
    other = VectorBatchPipeline(MaskedChoice, agent, n_envs=2, window_size=13, seed=3)
    assert other.restore_pipeline_state(state) is None
    np.testing.assert_array_equal(other.collect().action_mask, expected.action_mask)


def test_pieces_of_a_window_keep_their_own_masks_and_infos():
    from optix_core.evaluation.evaluators import ReturnEvaluator
    from optix_core.loop.scoring import time_slices

    window = pipeline("ours", "info", Obedient()).collect()
    pieces = list(time_slices(window, 50))
    assert len(pieces) == 4
    for piece in pieces:
        piece.check()
        assert ReturnEvaluator().score(piece, {}).metrics["forbidden"] == 0.0
    np.testing.assert_array_equal(np.concatenate([p.next_action_mask for p in pieces]), window.next_action_mask)
