"""What is not allowed is never done, never learned from, and never counted on."""

from dataclasses import replace

import numpy as np
import pytest

from optix_core.environments import EnvSpec
from optix_core.evaluation.rollouts import evaluate
from optix_core.pipelines import VectorBatchPipeline
from optix_core.testing.masked import MaskedChoice
from optix_jax import FlaxDQNAgent, FlaxGaussianPPOAgent, FlaxPPOAgent
from optix_protocol import SupportsActionMasks, capabilities_of

MAKERS = {
    "PPO": lambda **o: FlaxPPOAgent.from_env(MaskedChoice(start=3), seed=1, **o),
    "DQN": lambda **o: FlaxDQNAgent.from_env(
        MaskedChoice(start=3), seed=1, hyperparams={"learning_starts": 500, "capacity": 5000, **o}
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_forbidden_is_done_in_twenty_thousand_steps(name):
    agent = MAKERS[name]()
    pipe = VectorBatchPipeline(lambda: MaskedChoice(start=3), agent, n_envs=8, window_size=250, seed=2)
    for _ in range(8):
        window = pipe.collect()
        assert not window.episode_infos["forbidden"].any()
        agent.learn(window)
        for mode in ("greedy", "sample"):
            spec = EnvSpec.of(lambda: MaskedChoice(start=3))
            assert not evaluate(agent, spec, episodes=13, seed=3, mode=mode).infos["forbidden"].any()
    validation = VectorBatchPipeline(lambda: MaskedChoice(start=3), agent, n_envs=4, window_size=250, mode="sample")
    assert not validation.collect().episode_infos["forbidden"].any()


@pytest.mark.parametrize("name", MAKERS)
def test_a_row_without_a_choice_is_refused_and_nothing_drawn(name):
    agent, observations = MAKERS[name](), np.zeros((2, 32), np.float32)
    mask = np.ones((2, 16), bool)
    before = agent._rng.bit_generator.state
    for wrong, said in ((mask & np.array([[True], [False]]), "Row 1"), (mask[:, :7], r"\[2, 16\]")):
        with pytest.raises(ValueError, match=said):
            agent.act_masked(observations, wrong)
    assert agent._rng.bit_generator.state == before


def test_only_agents_with_discrete_actions_have_masks():
    from gymnasium import spaces

    box = spaces.Box(-1, 1, (2,))
    gaussian = FlaxGaussianPPOAgent.from_spaces(box, box)
    assert "action_masks" not in capabilities_of(gaussian)
    assert not isinstance(gaussian.make_policy("greedy", num_envs=1, seed=0), SupportsActionMasks)
    assert "action_masks" in capabilities_of(MAKERS["PPO"]())


@pytest.mark.parametrize("name", MAKERS)
def test_masks_reach_files_states_and_models(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    agent = MAKERS[name]()
    pipe = VectorBatchPipeline(lambda: MaskedChoice(start=3), agent, n_envs=4, window_size=200)
    agent.learn(pipe.collect())
    agent.save_weights(tmp_path / "weights")
    loaded, restored = MAKERS[name](), MAKERS[name]()
    loaded.load_weights(tmp_path / "weights")
    restored.restore_training_state(agent.training_state())
    rng = np.random.default_rng(0)
    observations, mask = rng.random((200, 32)).astype(np.float32), rng.random((200, 16)) < 0.2
    mask[:, 5] = True
    expected = agent.make_policy("greedy", num_envs=200, seed=0).act_masked(observations, mask)
    for source in (agent, loaded, restored):
        source.export_onnx(tmp_path / "model.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
        (actions,) = session.run(["action"], {"observation": observations, "action_mask": mask})
        np.testing.assert_array_equal(actions, expected)
    window = pipe.collect()
    restored.restore_training_state(agent.training_state())
    assert agent.learn(window) == restored.learn(window)
    assert agent.learn(replace(window, action_mask=None)).keys()  # somebody else's window, without masks


def test_entropies_are_those_of_the_allowed_actions():
    agent = MAKERS["PPO"]()
    found = agent.learn(VectorBatchPipeline(lambda: MaskedChoice(start=3), agent, n_envs=4, window_size=64).collect())
    assert 0.9 * np.log(4) < found["entropy"] <= np.log(4) + 1e-5  # four of sixteen are allowed
    assert found["approx_kl"] < 0.05


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
