"""What holds for every agent: exact resume, no tracing after the first window, policies, files, users' models."""

import random

import gymnasium as gym
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from optix_core.pipelines import VectorBatchPipeline
from optix_core.policies import policy_from_tree
from optix_protocol import HyperparamSet
from optix_protocol.conformance import Case, make_window
from optix_tf import TFAgent, TFDQNAgent, TFEvaluator, TFGaussianPPOAgent, TFPPOAgent, TFSACAgent, TFTD3Agent
from optix_tf._compilation import compiled
from optix_tf.algorithms.a2c import _gradient_step
from optix_tf.algorithms.ppo import Plan, ppo_update

SMALL = {"hidden_sizes": [8]}
ON_POLICY = {"num_epochs": 2, "minibatch_size": 16} | SMALL
OFF_POLICY = {"capacity": 200, "batch_size": 8, "learning_starts": 8, "updates_per_step": 0.25} | SMALL
AGENTS = {
    "ppo": (TFPPOAgent, "discrete", ON_POLICY),
    "gaussian ppo": (TFGaussianPPOAgent, "box", ON_POLICY | {"normalize_observations": True}),
    "a2c": (TFAgent, "multidiscrete", SMALL | {"normalize_rewards": True}),
    "dqn": (TFDQNAgent, "discrete", OFF_POLICY | {"per_alpha": 0.6, "n_step": 2}),
    "sac": (TFSACAgent, "box", OFF_POLICY),
    "td3": (TFTD3Agent, "box", OFF_POLICY),
}


@pytest.fixture(params=list(AGENTS))
def build(request, spaces_by_kind):
    agent_class, kind, hyperparams = AGENTS[request.param]

    def make(seed=0, **changes):
        return agent_class.from_spaces(*spaces_by_kind[kind], seed=seed, hyperparams=hyperparams | changes)

    make.kind = kind
    return make


def assert_same_weights(one, other):
    theirs = other.networks.weights()
    for name, array in one.networks.weights().items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def update_of(agent):
    """The compiled function that an agent's learning is."""
    if isinstance(agent, TFPPOAgent):
        return compiled(ppo_update, agent.model)
    if isinstance(agent, TFAgent):
        return compiled(_gradient_step, type(agent).loss, agent.model)
    return agent.compiled_updates


def test_learning_goes_on_bit_for_bit_from_a_training_state(build, window):
    agent, twin = build(seed=1), build(seed=2)
    for seed in range(2):
        agent.learn(window(build.kind, seed=seed))
    before = agent.networks.weights()
    twin.restore_training_state(agent.training_state())
    data = window(build.kind, seed=3)
    assert agent.learn(data) == twin.learn(data)
    assert_same_weights(agent, twin)
    assert any((array != before[name]).any() for name, array in agent.networks.weights().items())
    np.testing.assert_array_equal(agent.act(data.observations[0]), twin.act(data.observations[0]))


def test_nothing_moves_global_random_numbers(build, window):
    state, numbers = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002 - the global ones
    tf.random.set_seed(7)
    expected = tf.random.uniform([]).numpy()
    tf.random.set_seed(7)
    build().learn(window(build.kind))
    assert random.getstate() == state
    np.testing.assert_array_equal(np.random.get_state()[1], numbers)  # noqa: NPY002
    assert tf.random.uniform([]).numpy() == expected


def test_a_hundred_changes_of_hyperparameters_trace_nothing_anew(build, window):
    compiled.cache_clear()  # it is shared with the agents of other tests
    agent = build()
    for seed in range(3):  # the memory of an off-policy agent has to fill up first
        agent.learn(window(build.kind, seed=seed, num_ends=0))
    update = update_of(agent)
    traced = update.experimental_get_tracing_count()
    shapes = {"minibatch_size", "batch_size", "updates_per_step", "learning_starts"}
    bounds = {name: bound for name, bound in agent.param_bounds().items() if name not in shapes}
    rng = np.random.default_rng(0)
    for i in range(100):
        params = {}
        for name, bound in bounds.items():
            value = bound.low + rng.random() * (bound.high - bound.low)
            params[name] = int(value) if bound.integer else float(value)
        agent.set_hyperparams(HyperparamSet(params=params))
        agent.learn(window(build.kind, seed=i, num_ends=i % 5))
    assert update.experimental_get_tracing_count() == traced == 1


def test_exported_policies_are_the_same_policy(build, window, tmp_path):
    agent = build()
    for seed in range(2):
        agent.learn(window(build.kind, seed=seed))
    observations = window(build.kind, seed=9).observations[:, 0]
    expected = agent.make_policy("greedy", num_envs=12, seed=0).act(observations)
    in_numpy = policy_from_tree(agent.host_policy()).act(observations)
    np.testing.assert_allclose(in_numpy, expected, rtol=1e-5, atol=1e-6)
    agent.export_saved_model(tmp_path / "model")
    saved = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    found = saved(observation=tf.constant(observations.astype(np.float32)))["action"].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("agent_class", "kind"),
    [(TFPPOAgent, "two axes"), (TFPPOAgent, "number"), (TFAgent, "multibinary"), (TFSACAgent, "whole")],
)  # fmt: skip
def test_every_kind_of_action_is_learned_from_and_exported(agent_class, kind, window, spaces_by_kind, tmp_path):
    settings = OFF_POLICY if agent_class is TFSACAgent else SMALL
    agent = agent_class.from_spaces(*spaces_by_kind[kind], hyperparams=settings)
    before = agent.networks.weights()
    for seed in range(2):
        agent.learn(window(kind, seed=seed))
    assert any((before[name] != array).any() for name, array in agent.networks.weights().items())
    observations = 9 * window(kind, seed=9).observations[:, 0]
    expected = agent.make_policy("greedy", num_envs=12, seed=0).act(observations)
    assert all(spaces_by_kind[kind][1].contains(np.asarray(action)) for action in expected)
    agent.export_saved_model(tmp_path / "model")
    saved = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    found = saved(observation=tf.constant(observations.astype(np.float32)))["action"].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_weight_files_bring_the_policy_back(build, window, tmp_path):
    agent, other = build(seed=1), build(seed=2)
    for seed in range(2):
        agent.learn(window(build.kind, seed=seed))
    agent.save_weights(tmp_path / "weights")
    other.load_weights(tmp_path / "weights")
    assert_same_weights(agent, other)


# ---- images ---------------------------------------------------------------------------------------------------------


def test_images_are_learned_from_and_exported(window, spaces_by_kind, tmp_path):
    agent = TFPPOAgent.from_spaces(*spaces_by_kind["image"], hyperparams={"num_epochs": 1, "minibatch_size": 4})
    data = window("image", T=3, N=2, num_ends=1)
    before = agent.networks.weights()
    agent.learn(data)
    assert any((array != before[name]).any() for name, array in agent.networks.weights().items())
    assert agent.host_policy() is None
    expected = agent.make_policy("greedy", num_envs=2, seed=0).act(data.last_observation)
    agent.export_saved_model(tmp_path / "model")
    saved = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    np.testing.assert_array_equal(saved(observation=tf.constant(data.last_observation))["action"].numpy(), expected)
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    agent.export_onnx(tmp_path / "policy.onnx")
    (action, *_) = runtime.InferenceSession(tmp_path / "policy.onnx").run(None, {"observation": data.last_observation})
    np.testing.assert_array_equal(action, expected)


# ---- users' models and optimisers -----------------------------------------------------------------------------------


class Residual(keras.Model):
    """A network of the user's own, which is no chain of layers."""

    def __init__(self, num_outputs):
        super().__init__()
        self.inside = keras.layers.Dense(8, activation="gelu", kernel_initializer=keras.initializers.HeNormal(seed=1))
        self.last = keras.layers.Dense(num_outputs, kernel_initializer=keras.initializers.HeNormal(seed=2))

    def call(self, x):
        return self.last(keras.ops.concatenate([x, self.inside(x)], axis=1))


def test_any_keras_model_and_optimizer_learn_and_resume_exactly(window, spaces_by_kind):
    observation_space, action_space = spaces_by_kind["discrete"]

    def make():
        agent = TFPPOAgent(
            actor=Residual(4),
            critic=Residual(1),
            optimizer=keras.optimizers.AdamW(2e-3, weight_decay=0.01),
            hyperparams={"num_epochs": 2, "minibatch_size": 16},
            observation_space=observation_space,
            action_space=action_space,
        )
        assert agent.get_hyperparams().params["learning_rate"] == pytest.approx(2e-3)
        return agent

    agent, twin = make(), make()
    data = window()
    first, second = agent.learn(data), agent.learn(data)
    assert second["value_loss"] < first["value_loss"]
    twin.restore_training_state(agent.training_state())
    assert agent.learn(data) == twin.learn(data)
    assert_same_weights(agent, twin)
    assert int(agent.model.group.optimizer.optimizer.iterations) == 3 * 2 * 2


def test_the_learning_rate_of_a_users_optimizer_follows_the_hyperparameter(window, spaces_by_kind):
    actor = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    optimizer = keras.optimizers.SGD(0.5)
    agent = TFAgent(actor=actor, optimizer=optimizer, action_space=spaces_by_kind["discrete"][1])
    agent.set_hyperparams(HyperparamSet(params={"learning_rate": 0.0}))
    before = agent.networks.weights()
    agent.learn(window())
    for name, array in agent.networks.weights().items():
        np.testing.assert_array_equal(array, before[name])


def test_one_critic_gets_a_twin_with_weights_of_its_own_and_takes_two_inputs():
    observations, actions = keras.Input((3,)), keras.Input((2,))
    merged = keras.layers.Concatenate()([keras.layers.Dense(4)(observations), actions])
    critic = keras.Model([observations, actions], keras.layers.Dense(1)(merged))
    actor = keras.Sequential([keras.layers.Dense(4)])
    space = {"observation_space": spaces.Box(-1, 1, (3,)), "action_space": spaces.Box(-1, 1, (2,))}
    agents = [TFSACAgent(actor=actor, critic=critic, seed=seed, **space) for seed in (0, 0, 1)]
    twins = [agent.critics[1].get_weights()[0] for agent in agents]
    assert (critic.get_weights()[0] != twins[0]).any()
    np.testing.assert_array_equal(twins[0], twins[1])
    assert (twins[0] != twins[2]).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"actor": keras.Sequential([keras.layers.Dense(2)])}, "Pass observation_space"),
        ({"actor": keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), "action_dim": 5}, "2 outputs"),
        ({"actor": lambda x: x, "observation_space": spaces.Box(-1, 1, (3,))}, "no Keras model"),
    ],
)
def test_models_that_do_not_fit_are_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        TFPPOAgent(**arguments)
    assert "\n" not in str(error.value)


# ---- the plan of a PPO update, and the evaluator --------------------------------------------------------------------


def test_a_plan_visits_every_row_once_per_epoch_in_even_minibatches():
    plan = Plan.draw(29, 36, minibatch_size=8, num_epochs=3, rng=np.random.default_rng(0))
    assert plan.rows.shape[1] == 8
    assert int(plan.num_steps) == 3 * int(plan.steps_per_epoch) == 12
    for epoch in range(3):
        steps = range(epoch * 4, epoch * 4 + 4)
        visited = np.concatenate([plan.rows[step][: plan.counts[step]] for step in steps])
        np.testing.assert_array_equal(np.sort(visited), np.arange(29))
        assert {int(plan.counts[step]) for step in steps} == {7, 8}


def test_target_kl_ends_an_update_early(window, spaces_by_kind):
    def kl(target):
        settings = ON_POLICY | {"learning_rate": 0.05, "num_epochs": 20, "target_kl": target}
        agent = TFPPOAgent.from_spaces(*spaces_by_kind["discrete"], hyperparams=settings)
        return agent.learn(window())["approx_kl"]

    assert kl(0.01) < 0.5 * kl(None)


def test_the_evaluator_keeps_the_diagnostics_of_learning(window):
    data = window()
    found = TFEvaluator().score(data, {"loss": 0.5, "entropy": float("nan")})
    assert found.primary_score == pytest.approx(data.episode_returns.mean())
    assert found.metrics["train/loss"] == 0.5
    assert "train/entropy" not in found.metrics


def test_ppo_learns_cartpole_a_little():
    agent = TFPPOAgent.from_env(gym.make("CartPole-v1"), hyperparams={"learning_rate": 2e-3, "minibatch_size": 128})
    pipeline = VectorBatchPipeline("CartPole-v1", agent, n_envs=8, window_size=128, seed=0)
    returns = []
    for data, _ in zip(pipeline.windows(), range(25), strict=False):
        agent.learn(data)
        returns += data.episode_returns.tolist()
    assert np.mean(returns[-20:]) > 3 * np.mean(returns[:20])


def test_networks_that_share_a_layer_are_refused_and_frozen_layers_stay():
    def net(outputs, first):
        return keras.Sequential([first, keras.layers.Dense(outputs)])

    space = {"observation_space": spaces.Box(-1, 1, (3,)), "action_space": spaces.Discrete(2)}
    shared = keras.layers.Dense(4, activation="tanh")
    with pytest.raises(ValueError, match="actor and critic share"):
        TFPPOAgent(actor=net(2, shared), critic=net(1, shared), **space)

    frozen = keras.layers.Dense(4, activation="tanh", trainable=False)
    agent = TFPPOAgent(actor=net(2, frozen), critic=net(1, keras.layers.Dense(4)), **space)
    before = frozen.kernel.numpy()
    agent.learn(make_window(Case(**space)))
    np.testing.assert_array_equal(frozen.kernel.numpy(), before)
