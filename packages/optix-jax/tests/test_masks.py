"""What is not allowed is never done, never learned from, and never counted on."""

import numpy as np
import pytest

from optix_core.pipelines import VectorBatchPipeline
from optix_core.testing import mask_checks
from optix_core.testing.masked import MaskedChoice
from optix_jax import FlaxAgent, FlaxDQNAgent, FlaxGaussianPPOAgent, FlaxPPOAgent
from optix_protocol import SupportsActionMasks, capabilities_of

MAKERS = {
    "PPO": lambda **o: FlaxPPOAgent.from_env(MaskedChoice(start=3), seed=1, **o),
    "A2C": lambda **o: FlaxAgent.from_env(MaskedChoice(start=3), seed=1, **o),
    "DQN": lambda **o: FlaxDQNAgent.from_env(
        MaskedChoice(start=3), seed=1, hyperparams={"learning_starts": 500, "capacity": 5000, **o}
    ),
}
NAMES = ["PPO", "DQN", pytest.param("A2C", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_forbidden_is_done_in_twenty_thousand_steps(name):
    mask_checks.check_nothing_forbidden_is_done(MAKERS[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_row_without_a_choice_is_refused_and_nothing_drawn(name):
    mask_checks.check_rows_without_a_choice_are_refused(MAKERS[name])


def test_only_agents_with_discrete_actions_have_masks():
    from gymnasium import spaces

    box = spaces.Box(-1, 1, (2,))
    gaussian = FlaxGaussianPPOAgent.from_spaces(box, box)
    assert "action_masks" not in capabilities_of(gaussian)
    assert not isinstance(gaussian.make_policy("greedy", num_envs=1, seed=0), SupportsActionMasks)
    assert "action_masks" in capabilities_of(MAKERS["PPO"]())


@pytest.mark.parametrize("name", NAMES)
def test_masks_reach_files_states_and_models(name, tmp_path):
    pytest.importorskip("onnxruntime", reason="an extra: onnx")
    mask_checks.check_masks_reach_files_states_and_models(MAKERS[name], tmp_path)


@pytest.mark.parametrize("name", ["PPO", "A2C"])
def test_entropies_are_those_of_the_allowed_actions(name):
    mask_checks.check_entropy_is_that_of_the_allowed(MAKERS[name])
    mask_checks.check_nothing_is_learned_where_there_is_no_choice(MAKERS[name])


@pytest.mark.parametrize("double_q", [True, False])
def test_the_value_of_what_comes_next_is_that_of_an_allowed_action(double_q):
    agent = MAKERS["DQN"](double_q=double_q, learning_starts=1, gamma=0.5)
    pipe = VectorBatchPipeline(lambda: MaskedChoice(start=3), agent, n_envs=1, window_size=9, seed=2)
    agent.replay.add(pipe.collect())
    before = agent.replay._rng.bit_generator.state
    batch = agent.replay.sample(agent.hyperparams["batch_size"])
    agent.replay._rng.bit_generator.state = before
    values = agent.networks.act(batch.next_observations)
    best = np.where(batch.next_masks, values, -np.inf).max(axis=1)
    agent._sample_and_update(1)
    assert agent._measure()["q_mean"] == pytest.approx((batch.rewards + batch.discounts * best).mean(), rel=1e-4)
    assert (best < values.max(axis=1)).any()
