"""What is not allowed is never done, never learned from, and never counted on."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch

from optix_core.environments import EnvSpec
from optix_core.errors import OptixWarning
from optix_core.evaluation.rollouts import evaluate
from optix_core.pipelines import VectorBatchPipeline
from optix_core.policies.masks import mask_parts
from optix_core.testing import mask_checks
from optix_core.testing.masked import MaskedChoice
from optix_protocol import SupportsActionMasks, capabilities_of
from optix_protocol.conformance.masks import allowed_by, random_masks
from optix_torch import (
    TorchAgent,
    TorchDQNAgent,
    TorchGaussianPPOAgent,
    TorchPPOAgent,
    TorchRainbowDQNAgent,
    TorchRecurrentPPOAgent,
)
from optix_torch.algorithms.rainbow import project
from optix_torch.distributions import Categorical, only_allowed

SMALL = {"learning_starts": 500, "capacity": 5000, "batch_size": 16, "updates_per_step": 0.1, "hidden_sizes": [32]}
MAKERS = {
    "Rainbow": lambda **o: TorchRainbowDQNAgent.from_env(MaskedChoice(start=3), seed=1, hyperparams={**SMALL, **o}),
    "PPO": lambda **o: TorchPPOAgent.from_env(MaskedChoice(start=3), seed=1, **o),
    "A2C": lambda **o: TorchAgent.from_env(MaskedChoice(start=3), seed=1, **o),
    "DQN": lambda **o: TorchDQNAgent.from_env(
        MaskedChoice(start=3), seed=1, hyperparams={"learning_starts": 500, "capacity": 5000, **o}
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_forbidden_is_done_in_twenty_thousand_steps(name):
    mask_checks.check_nothing_forbidden_is_done(MAKERS[name])


@pytest.mark.parametrize("name", MAKERS)
def test_a_row_without_a_choice_is_refused_and_nothing_drawn(name):
    mask_checks.check_rows_without_a_choice_are_refused(MAKERS[name])


def test_only_agents_with_discrete_actions_have_masks():
    from gymnasium import spaces

    box = spaces.Box(-1, 1, (2,))
    gaussian = TorchGaussianPPOAgent.from_spaces(box, box)
    assert "action_masks" not in capabilities_of(gaussian)
    assert not isinstance(gaussian.make_policy("greedy", num_envs=1, seed=0), SupportsActionMasks)
    assert "action_masks" in capabilities_of(MAKERS["PPO"]())


def test_log_probabilities_and_entropies_are_those_of_the_allowed_actions():
    logits = torch.randn(5, 4, requires_grad=True)
    masks = torch.tensor([[True, True, False, True]] * 5)
    actions = torch.tensor([0, 1, 3, 3, 0])
    judged = Categorical().evaluate(only_allowed(logits.detach(), masks), actions)
    expected = torch.distributions.Categorical(logits=logits[:, [0, 1, 3]])
    log_probs, entropies = expected.log_prob(torch.tensor([0, 1, 2, 2, 0])), expected.entropy()
    torch.testing.assert_close(judged.log_probs, log_probs)
    torch.testing.assert_close(judged.entropies, entropies)
    (2.0 * log_probs.sum() - 0.5 * entropies.sum()).backward()
    torch.testing.assert_close(judged.backward(torch.full((5,), 2.0), -0.5), logits.grad)


def test_the_value_of_what_comes_next_is_that_of_an_allowed_action():
    agent = MAKERS["DQN"](double_q=False, learning_starts=1, gamma=0.5)
    pipe = VectorBatchPipeline(lambda: MaskedChoice(start=3), agent, n_envs=1, window_size=9, seed=2)
    window = pipe.collect()
    agent.replay.add(window)
    batch = agent.replay.sample(64)
    assert batch.next_masks.shape == (64, 16)
    assert (batch.next_masks.sum(axis=1) == 4).all()
    agent._update(agent.networks.to_device(batch, agent._rows))
    targets = agent._latest[2].numpy()
    values = agent._target_runner.infer(torch.from_numpy(batch.next_observations)).numpy()
    best = np.where(batch.next_masks, values, -np.inf).max(axis=1)
    np.testing.assert_allclose(targets, batch.rewards + batch.discounts * best, rtol=1e-5)
    assert (best < values.max(axis=1)).any()


@pytest.mark.parametrize("name", MAKERS)
def test_masks_reach_files_states_and_models(name, tmp_path):
    pytest.importorskip("onnxruntime", reason="an extra: onnx")
    mask_checks.check_masks_reach_files_states_and_models(MAKERS[name], tmp_path)


@pytest.mark.parametrize("double_q", [True, False])
def test_rainbow_takes_the_distribution_of_an_allowed_action(double_q):
    agent = MAKERS["Rainbow"](double_q=double_q, learning_starts=1, n_step=1, target_update_interval=1000)
    pipe = VectorBatchPipeline(lambda: MaskedChoice(start=3), agent, n_envs=1, window_size=30, seed=2)
    agent.replay.add(pipe.collect())
    batch = agent.networks.to_device(agent.replay.sample(64), agent._rows)
    only = torch.randint(16, (64,))
    agent._update(batch._replace(next_masks=torch.nn.functional.one_hot(only, 16).bool()))
    logits = agent._target_runner.infer(batch.next_observations).view(64, 16, -1)  # its noise is that of the update
    probs = logits[torch.arange(64), only].softmax(1)
    v_min, v_max = agent.hyperparams["v_min"], agent.hyperparams["v_max"]
    expected = project(probs, batch.rewards, batch.discounts, agent._support, v_min, v_max)
    torch.testing.assert_close(agent._latest[2], expected)


class Parts(gym.Env):
    """Several choices or switches at once, each with a mask of its own, told by the method ``action_masks``."""

    observation_space = gym.spaces.Box(0.0, 1.0, (4,))

    def __init__(self, action_space):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.draw(), {}

    def step(self, action):
        forbidden = not allowed_by(self.action_space, self.mask[None], np.asarray(action)[None]).all()
        self.t += 1
        return self.draw(), float(np.sum(action)), self.t >= 10, False, {"forbidden": float(forbidden)}

    def draw(self):
        forced = random_masks(self.action_space, self.np_random)
        self.mask = forced | (self.np_random.random(forced.shape) < 0.5)
        return self.np_random.random(4).astype(np.float32)

    def action_masks(self):
        return self.mask


@pytest.mark.parametrize("space", [gym.spaces.MultiDiscrete([2, 3, 4]), gym.spaces.MultiBinary((2, 2))])
def test_each_of_several_choices_and_switches_keeps_to_its_mask(space):
    make = partial(Parts, space)
    agent = TorchPPOAgent.from_env(make(), seed=1, hyperparams={"learning_rate": 3e-3})
    pipeline = VectorBatchPipeline(make, agent, n_envs=4, window_size=128, seed=2)
    found = []
    for _ in range(8):
        window = pipeline.collect()
        assert window.action_mask.shape == (128, 4, sum(mask_parts(space)))
        assert not window.episode_infos["forbidden"].any()
        assert allowed_by(space, window.action_mask, window.actions)[window.valid].all()
        found.append(agent.learn(window)["entropy"])
    for mode in ("greedy", "sample"):
        assert not evaluate(agent, EnvSpec.of(make), episodes=20, seed=3, mode=mode).infos["forbidden"].any()
    assert found[-1] < found[0]  # and within the masks it learns to choose


def test_an_agent_without_masks_is_named_and_goes_on():
    agent = TorchRecurrentPPOAgent.from_env(MaskedChoice(), seed=1)
    pipeline = VectorBatchPipeline(MaskedChoice, agent, n_envs=2, window_size=20)
    with pytest.warns(OptixWarning, match="TorchRecurrentPPOAgent takes no notice"):
        window = pipeline.collect()
    assert window.action_mask is not None
    assert np.isfinite(agent.learn(window)["loss"])


@pytest.mark.parametrize("name", ["PPO", "A2C"])
def test_entropies_are_those_of_the_allowed_actions(name):
    mask_checks.check_entropy_is_that_of_the_allowed(MAKERS[name])
    mask_checks.check_nothing_is_learned_where_there_is_no_choice(MAKERS[name])
