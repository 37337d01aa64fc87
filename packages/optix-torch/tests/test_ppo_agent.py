import hashlib
import subprocess
import sys
from dataclasses import fields, replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from optix_core.pipelines import BatchPipeline, VectorBatchPipeline
from optix_core.policies import policy_from_tree
from optix_protocol import HyperparamSet, capabilities_of
from optix_protocol.testing import random_window
from optix_torch import TorchGaussianPPOAgent, TorchPPOAgent
from optix_torch._cuda_graphs import GraphedUpdate

BOX = spaces.Box(-1, 1, (3,))
SPACES = {
    "discrete": (BOX, spaces.Discrete(4, start=2)),
    "multidiscrete": (BOX, spaces.MultiDiscrete([2, 3])),
    "box": (BOX, spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))),
    "one-hot": (spaces.Discrete(5), spaces.Discrete(2)),
    "image": (spaces.Box(0, 255, (40, 36, 1), np.uint8), spaces.Discrete(3)),
}


def make(kind="discrete", **options):
    agent = TorchGaussianPPOAgent if kind == "box" else TorchPPOAgent
    hyperparams = {"num_epochs": 2, "minibatch_size": 16} | options.pop("hyperparams", {})
    return agent.from_spaces(*SPACES[kind], hyperparams=hyperparams, **options)


def window(kind="discrete", *, num_steps=12, num_envs=3, seed=0):
    return random_window(*SPACES[kind], num_steps=num_steps, num_envs=num_envs, seed=seed, ends=0.2)


def fingerprint(agent):
    digest = hashlib.sha256()
    for name, array in sorted(agent.training_state()["weights"].items()):
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()


# ---- acting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SPACES)
def test_acts_on_one_observation_and_on_batches_of_any_size(kind):
    agent = make(kind)
    observation_space, action_space = SPACES[kind]
    single = agent.act(observation_space.sample())
    assert np.shape(single) == action_space.shape
    for size in (1, 5, 70):
        batch = agent.act(np.stack([observation_space.sample() for _ in range(size)]))
        assert batch.shape == (size, *action_space.shape)
        if kind != "box":
            assert all(action in action_space for action in batch)


def test_learners_actions_are_not_clipped_but_policies_are():
    agent = make("box")
    observations = np.zeros((500, 3), np.float32)
    _, action_space = SPACES["box"]
    assert (agent.act(observations) > action_space.high).any()
    drawn = agent.make_policy("sample", num_envs=500, seed=0).act(observations)
    assert (drawn <= action_space.high).all()
    assert (drawn >= action_space.low).all()
    np.testing.assert_allclose(drawn.mean(0), [0.0, 5.0], atol=0.4)  # spans the real range around its middle


@pytest.mark.parametrize("kind", SPACES)
def test_policies_are_frozen_seeded_and_leave_the_agent_alone(kind):
    agent, twin = make(kind), make(kind)
    data = window(kind)
    observations = data.observations[:, 0]
    greedy = agent.make_policy("greedy", num_envs=12, seed=0)
    sampling = [agent.make_policy("sample", num_envs=12, seed=seed) for seed in (1, 1, 2)]
    before = greedy.act(observations)
    first, same, other = (np.stack([policy.act(observations) for _ in range(5)]) for policy in sampling)
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
    agent.learn(data)
    twin.learn(data)
    np.testing.assert_array_equal(greedy.act(observations), before)
    assert fingerprint(agent) == fingerprint(twin)
    np.testing.assert_array_equal(agent.act(observations), twin.act(observations))


@pytest.mark.parametrize("kind", ["discrete", "multidiscrete", "box", "one-hot"])
def test_exported_numpy_policy_is_the_same_policy(kind):
    agent = make(kind, hyperparams={"normalize_observations": kind == "box"})
    agent.learn(window(kind))
    observations = window(kind, seed=1).observations[:, 0]
    exported = policy_from_tree(agent.host_policy(), mode="sample", seed=3)
    own = agent.make_policy("sample", num_envs=12, seed=3)
    np.testing.assert_allclose(exported.act(observations), own.act(observations), rtol=1e-5, atol=1e-5)
    found, expected = exported.distribution(observations), agent.action_distribution(observations)
    for field in ("log_probs", "mean", "std"):
        if getattr(expected, field) is not None:
            np.testing.assert_allclose(getattr(found, field), getattr(expected, field), rtol=1e-4, atol=1e-5)


def test_a_network_that_is_no_mlp_has_no_numpy_policy():
    assert make("image").host_policy() is None


# ---- learning ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SPACES)
def test_learning_reports_finite_diagnostics_and_changes_both_networks(kind):
    agent = make(kind)
    before = agent.training_state()["weights"]
    diagnostics = agent.learn(window(kind))
    assert set(diagnostics) == {
        *("loss", "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction"),
        *("explained_variance", "grad_norm", "learning_rate"),
    }
    assert all(type(value) is float and np.isfinite(value) for value in diagnostics.values())
    after = agent.training_state()["weights"]
    for part in ("actor", "critic"):
        assert any((after[name] != before[name]).any() for name in after if name.startswith(part))
    if kind == "box":
        assert (after["log_std"] != before["log_std"]).any()


def test_rows_that_are_no_transition_teach_nothing():
    agents, data = [make(), make()], window()
    garbage = {
        "observations": np.where(data.valid[..., None], data.observations, 77.0).astype(np.float32),
        "actions": np.where(data.valid, data.actions, 3),
        "rewards": np.where(data.valid, data.rewards, 1e6),
    }
    agents[0].learn(data)
    agents[1].learn(replace(data, **garbage))
    assert fingerprint(agents[0]) == fingerprint(agents[1])


def test_successors_come_from_the_same_environment_and_final_observations():
    """A permutation of the environments permutes the advantages; the observation after a reset is not a successor."""
    agent, data = make(), window(num_steps=30, num_envs=4)
    order = np.array([2, 0, 3, 1])
    columns = {
        field.name: getattr(data, field.name)[:, order]
        for field in fields(data)
        if np.shape(getattr(data, field.name))[:2] == (30, 4)
    }
    permuted = replace(data, **columns, last_observation=data.last_observation[order])
    back = {tuple(end): i for i, end in enumerate(data.ends.tolist())}
    source = [back[t, int(order[n])] for t, n in permuted.ends.tolist()]
    permuted = replace(permuted, final_observations=data.final_observations[source])

    def advantages(window):
        found = np.full(window.valid.shape, np.nan)
        found[window.valid] = agent._judge(window).advantages.numpy()
        return found

    np.testing.assert_allclose(advantages(permuted), advantages(data)[:, order], rtol=1e-4, atol=1e-5)
    moved = replace(data, final_observations=data.final_observations + 5.0)
    assert not np.allclose(advantages(moved)[data.valid], advantages(data)[data.valid])


def test_old_log_probabilities_belong_to_the_window_whatever_was_acted_in_between():
    pipeline_agent, disturbed = make_cartpole(), make_cartpole()
    data = VectorBatchPipeline("CartPole-v1", pipeline_agent, n_envs=4, window_size=32, seed=0).collect()
    first = pipeline_agent.learn(data)
    disturbed.act(np.ones((9, 4), np.float32))
    disturbed.make_policy("sample", num_envs=3, seed=0).act(np.ones((3, 4), np.float32))
    disturbed._rng = np.random.default_rng(0)
    undisturbed = make_cartpole()
    undisturbed._rng = np.random.default_rng(0)
    assert disturbed.learn(data) == undisturbed.learn(data)
    again = pipeline_agent.learn(data)  # a second run on the new weights starts from ratio 1 again
    assert abs(again["approx_kl"]) < 0.1
    assert abs(first["approx_kl"]) < 0.1


def make_cartpole(**hyperparams):
    return TorchPPOAgent.from_env(gym.make("CartPole-v1"), hyperparams={"num_epochs": 1, **hyperparams})


def test_the_first_gradient_step_starts_from_ratio_one():
    agent = make_cartpole(minibatch_size=10**6)
    data = VectorBatchPipeline("CartPole-v1", agent, n_envs=4, window_size=32, seed=0).collect()
    diagnostics = agent.learn(data)
    assert diagnostics["approx_kl"] == pytest.approx(0.0, abs=1e-6)
    assert diagnostics["clip_fraction"] == 0.0


def test_gaussian_log_probabilities_are_of_the_drawn_action_even_outside_the_range():
    agent = make("box", hyperparams={"num_epochs": 1, "minibatch_size": 10**6})
    data = window("box")
    outside = np.full_like(data.actions, 30.0)
    diagnostics = agent.learn(replace(data, actions=outside))
    assert diagnostics["approx_kl"] == pytest.approx(0.0, abs=1e-6)


def test_target_kl_stops_the_epochs_early():
    data = window()
    free, held = make(hyperparams={"learning_rate": 0.01, "num_epochs": 20}), None
    free.learn(data)
    held = make(hyperparams={"learning_rate": 0.01, "num_epochs": 20, "target_kl": 1e-4})
    held.learn(data)
    steps = [agent.training_state()["networks"]["optimizers"]["optimizer"]["num_steps"] for agent in (free, held)]
    assert steps[1] < steps[0]


@pytest.mark.parametrize(("target", "direction"), [(1e-9, -1), (1e3, 1)])
def test_adaptive_learning_rate_follows_the_kl(target, direction):
    agent = make(hyperparams={"adaptive_kl": target})
    rates = [agent.learn(window())["learning_rate"] for _ in range(3)]
    assert np.sign(np.diff(rates)).tolist() == [direction] * 2
    assert agent.get_hyperparams().params["learning_rate"] == 3e-4  # the setting is the user's
    agent.set_hyperparams(HyperparamSet(params={"learning_rate": 5e-3}))
    assert agent.learn(window())["learning_rate"] == 5e-3


def test_reward_normalisation_makes_learning_independent_of_the_reward_s_unit():
    losses = []
    for factor in (1.0, 1e4):
        agent = make(hyperparams={"normalize_rewards": True})
        data = window()
        losses.append(agent.learn(replace(data, rewards=data.rewards * np.float32(factor))))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3, abs=1e-5)


def test_observation_statistics_travel_with_the_weights(tmp_path):
    agent, other = (make(hyperparams={"normalize_observations": True}, seed=seed) for seed in (0, 1))
    data = window()
    shifted = replace(data, observations=data.observations * 50 + 1000)
    for _ in range(3):
        agent.learn(shifted)
    agent.save_weights(tmp_path / "w")
    other.load_weights(tmp_path / "w")
    observations = shifted.observations[:, 0]
    expected = agent.action_distribution(observations).log_probs
    np.testing.assert_array_equal(other.action_distribution(observations).log_probs, expected)
    assert np.ptp(expected, axis=0).max() > 0  # the inputs are told apart


def test_images_are_not_normalised_twice():
    with pytest.raises(ValueError, match="flat observations"):
        make("image", hyperparams={"normalize_observations": True})


# ---- files, state, seeds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SPACES)
def test_weights_make_another_agent_act_alike(kind, tmp_path):
    agent, other = make(kind, seed=0), make(kind, seed=1)
    agent.learn(window(kind))
    agent.save_weights(tmp_path / "any name")
    other.load_weights(tmp_path / "any name")
    assert fingerprint(agent) == fingerprint(other)
    observations = window(kind, seed=1).observations[:, 0]
    policies = [one.make_policy("sample", num_envs=12, seed=5) for one in (agent, other)]
    np.testing.assert_array_equal(*(policy.act(observations) for policy in policies))
    np.testing.assert_array_equal(agent.act(observations).shape, other.act(observations).shape)


def test_weights_of_another_network_are_refused(tmp_path):
    make("discrete").save_weights(tmp_path / "w")
    for kind, options in (("box", {}), ("discrete", {"hyperparams": {"hidden_sizes": [8]}})):
        agent = make(kind, **options)
        before = fingerprint(agent)
        with pytest.raises(ValueError, match=r"w (holds|belongs)"):
            agent.load_weights(tmp_path / "w")
        assert fingerprint(agent) == before


@pytest.mark.parametrize("kind", SPACES)
def test_training_goes_on_from_its_state_bit_for_bit(kind):
    options = {"normalize_observations": kind != "image", "normalize_rewards": True, "adaptive_kl": 0.01}
    agent, other = (make(kind, hyperparams=options, seed=seed) for seed in (0, 1))
    agent.learn(window(kind))
    agent.set_hyperparams(HyperparamSet(params={"clip_range": 0.17}))
    state = agent.training_state()
    futures = []
    for one in (agent, other):
        one.restore_training_state(state)
        actions = [one.act(window(kind, seed=3).observations[0]) for _ in range(3)]
        diagnostics = [one.learn(window(kind, seed=seed)) for seed in (4, 5)]
        futures.append((np.stack(actions).tobytes(), diagnostics, fingerprint(one), one.get_hyperparams()))
    assert futures[0] == futures[1]


SCRIPT = """
import sys, torch
from optix_core.agents.backends import make_agent
from optix_core.pipelines import VectorBatchPipeline
torch.manual_seed(int(sys.argv[1]))
agent = make_agent("ppo", "CartPole-v1", framework="torch", seed=7, num_epochs=2)
pipeline = VectorBatchPipeline("CartPole-v1", agent, n_envs=4, window_size=64, seed=7)
for _ in range(3):
    agent.learn(pipeline.collect())
weights = agent.training_state()["weights"]["actor.2.weight"].tobytes()
print(weights.hex())
"""


def test_the_seed_alone_decides_in_any_process_and_global_random_numbers_are_left_alone(monkeypatch):
    command = [sys.executable, "-c", SCRIPT, "1"]
    elsewhere = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.setattr(sys, "argv", ["", "2"])
    here = {}
    exec(SCRIPT, here)
    assert here["weights"].hex() == elsewhere != ""
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - the global one
    agent = make("box")
    agent.learn(window("box"))
    agent.act(np.zeros((2, 3), np.float32))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


# ---- hyperparameters --------------------------------------------------------------------------------------------


def test_hyperparameters_round_trip_and_unknown_ones_are_named():
    agent = make()
    agent.set_hyperparams(agent.get_hyperparams())
    agent.set_hyperparams(HyperparamSet(params={"entropy_coef": 0.5}))
    assert agent.get_hyperparams().params["entropy_coef"] == 0.5
    assert set(agent.param_bounds()) <= set(agent.get_hyperparams().params)
    for params, message in (
        ({"entropy_coeff": 0.1}, "Did you mean 'entropy_coef'"),
        ({"gamma": 1.5}, "gamma must be a number of at least 0 and at most 1"),
        ({"normalize_rewards": True}, "fixed once the agent is built"),
    ):
        with pytest.raises(ValueError, match=message):
            agent.set_hyperparams(HyperparamSet(params=params))


def test_hyperparameters_take_effect_in_the_next_learn():
    still, moving = make(), make()
    still.set_hyperparams(HyperparamSet(params={"learning_rate": 0.0}))
    before = fingerprint(still)
    still.learn(window())
    moving.learn(window())
    assert fingerprint(still) == before != fingerprint(moving)


def test_has_the_capabilities_that_the_loop_looks_for():
    expected = {"policy", "training_state", "param_bounds", "action_distribution", "host_policy"}
    assert expected <= capabilities_of(make())
    assert make().is_on_policy


def test_single_environment_pipeline_works_too():
    agent = make_cartpole()
    data = BatchPipeline("CartPole-v1", agent, window_size=64, seed=0).collect()
    assert np.isfinite(agent.learn(data)["loss"])


# ---- a step that a CUDA graph can replay ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SPACES)
def test_a_step_never_waits_for_the_device(kind, nothing_that_waits):
    agent = make(kind)
    (_, minibatch), *_ = agent._minibatches(agent._judge(window(kind)))
    with nothing_that_waits:
        agent._step_in_place(*minibatch)


@pytest.mark.parametrize("kind", SPACES)
def test_replayed_steps_are_the_plain_ones(kind, capture_by_calling_again):
    plain, graphed = (make(kind, hyperparams={"num_epochs": 6, "adaptive_kl": 1e-3}) for _ in range(2))
    graphed._step = GraphedUpdate(graphed._step_in_place, graphed.device, capture=capture_by_calling_again(6))
    rates = set()
    for seed in range(3):
        rates.add(graphed.networks.optimizer.learning_rate)
        assert plain.learn(window(kind, seed=seed)) == graphed.learn(window(kind, seed=seed))
    assert len(rates) > 1, "the learning rate never changed, and with it the graph"
    assert len(graphed._step._graphs) >= len(rates)
    for name, values in plain.networks.weights().items():
        np.testing.assert_array_equal(values, graphed.networks.weights()[name])


def test_what_cannot_be_captured_runs_step_by_step():
    def refuse(update):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    plain, graphed = (make(hyperparams={"num_epochs": 6}) for _ in range(2))
    graphed._step = GraphedUpdate(graphed._step_in_place, graphed.device, capture=refuse)
    expected = plain.learn(window())
    with pytest.warns(UserWarning, match="No CUDA graph of these networks.*capturing$"):
        assert graphed.learn(window()) == expected
