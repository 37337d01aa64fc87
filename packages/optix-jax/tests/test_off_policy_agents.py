"""DQN, SAC and TD3: many updates in one call, what is traced, exact state, exploration, networks of one's own."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from gymnasium import spaces

from optix_core.data import PrioritizedReplayBuffer, ReplayBuffer
from optix_core.policies import policy_from_tree
from optix_jax import FlaxDQNAgent, FlaxSACAgent, FlaxTD3Agent
from optix_jax._off_policy import run_updates
from optix_jax.algorithms.sac import draw
from optix_protocol import HyperparamSet, capabilities_of
from optix_protocol.testing import random_window

LOW, HIGH = np.array([-2.0, 10.0], np.float32), np.array([2.0, 10.5], np.float32)
VECTORS = spaces.Box(-np.inf, np.inf, (4,), np.float32)
ACTIONS = {FlaxDQNAgent: spaces.Discrete(4, start=2), FlaxSACAgent: spaces.Box(LOW, HIGH)}
ACTIONS[FlaxTD3Agent] = ACTIONS[FlaxSACAgent]
SMALL = {"hidden_sizes": [16, 16], "batch_size": 16, "learning_starts": 20, "capacity": 5000}


@pytest.fixture(params=ACTIONS, ids=lambda agent_class: agent_class.__name__)
def agent_class(request):
    return request.param


@pytest.fixture(params=[FlaxSACAgent, FlaxTD3Agent], ids=lambda agent_class: agent_class.__name__)
def twin_class(request):
    return request.param


def make(agent_class, observation_space=VECTORS, action_space=None, seed=0, **hyperparams):
    action_space = action_space or ACTIONS[agent_class]
    return agent_class.from_spaces(observation_space, action_space, seed=seed, hyperparams=SMALL | hyperparams)


def window(agent_class, seed=0, observation_space=VECTORS, action_space=None):
    action_space = action_space or ACTIONS[agent_class]
    return random_window(observation_space, action_space, seed=seed, terminated=[(5, 0), (12, 1)], truncated=[(9, 1)])


def fingerprint(agent):
    state = agent.training_state()
    return jax.tree.map(lambda leaf: np.asarray(leaf).tobytes(), (state["weights"], state["networks"]))


def set_params(agent, **params):
    agent.set_hyperparams(HyperparamSet(params=params))


# ---- what is compiled -----------------------------------------------------------------------------------------------


def test_a_hundred_changes_of_hyperparameters_trace_nothing(agent_class):
    agent = make(agent_class, updates_per_step=0.25)
    agent.learn(window(agent_class))
    before = run_updates.num_traces
    rng = np.random.default_rng(0)
    for seed in range(100):
        changes = {"learning_rate": rng.uniform(1e-5, 1e-2), "gamma": rng.uniform(0.9, 1.0), "tau": rng.uniform(0, 1)}
        if agent_class is FlaxDQNAgent:
            changes |= {"double_q": bool(seed % 2), "max_grad_norm": rng.uniform(1, 9), "target_update_interval": 5}
        elif agent_class is FlaxSACAgent:
            changes |= {"alpha": None if seed % 2 else 0.2, "target_entropy": None if seed % 3 else -1.0}
        else:
            changes |= {"policy_delay": 1 + seed % 3, "target_noise": rng.uniform(0, 0.5), "target_noise_clip": 0.3}
        set_params(agent, **changes)
        agent.learn(window(agent_class, seed % 3))
    assert run_updates.num_traces == before


def test_numbers_of_updates_share_compiled_code():
    agent = make(FlaxDQNAgent, batch_size=13)
    agent.replay.add(window(FlaxDQNAgent))
    before = run_updates.num_traces
    for number in (3, 4, 20, 19):
        agent._sample_and_update(number)
    assert agent._num_updates == 46
    assert run_updates.num_traces - before == 2  # for up to 4 and up to 16 updates in a call


def test_equal_networks_share_compiled_code(agent_class):
    make(agent_class).learn(window(agent_class))
    before = run_updates.num_traces
    make(agent_class, seed=1, learning_rate=0.01).learn(window(agent_class))
    assert run_updates.num_traces == before


def test_updates_in_one_call_are_the_updates_one_by_one(agent_class):
    """Five updates are made in a call for eight; the surplus must change nothing."""
    hyperparams = {"target_update_interval": 2} if agent_class is FlaxDQNAgent else {}
    together, single = make(agent_class, **hyperparams), make(agent_class, **hyperparams)
    for agent in (together, single):
        agent.replay.add(window(agent_class))
    batch = together.networks.to_device(together.replay.sample(8 * 16), together._rows)
    prepared = together._prepare(batch)
    together._prepare = single._prepare = lambda part: part
    together._run(prepared, num_updates=5, size=8)
    for i in range(5):
        single._update(jax.tree.map(lambda rows, i=i: rows[16 * i : 16 * (i + 1)], prepared))
        single._num_updates += 1
    found, expected = together.networks.weights(), single.networks.weights()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-6, err_msg=name)
    assert together._measure() == pytest.approx(single._measure(), rel=1e-4, abs=1e-5)


# ---- state ----------------------------------------------------------------------------------------------------------


def test_goes_on_from_its_state_bit_for_bit(agent_class):
    agent, other = make(agent_class, n_step=3), make(agent_class, seed=1, n_step=3)
    agent.learn(window(agent_class))
    set_params(agent, updates_per_step=0.7, tau=0.02)
    state = agent.training_state()
    futures = []
    for one in (agent, other):
        one.restore_training_state(state)
        actions = [one.act(window(agent_class, 3).observations[0]) for _ in range(3)]
        diagnostics = [one.learn(window(agent_class, seed)) for seed in (4, 5)]
        futures.append((np.stack(actions).tobytes(), diagnostics, fingerprint(one), one.get_hyperparams()))
    assert futures[0] == futures[1]


def test_a_copied_state_does_not_change_with_the_agent(agent_class):
    agent = make(agent_class)
    agent.learn(window(agent_class))
    state, policy = agent.training_state(), agent.make_policy("greedy", num_envs=8, seed=0)
    arrays = jax.tree.map(np.copy, (state["weights"], state["networks"]))
    observations = window(agent_class, 1).observations[:, 0]
    actions = policy.act(observations)
    agent.learn(window(agent_class, 1))
    jax.tree.map(np.testing.assert_array_equal, arrays, (state["weights"], state["networks"]))
    np.testing.assert_array_equal(policy.act(observations), actions)


def test_weights_that_are_loaded_become_the_slow_copies_too(agent_class, tmp_path):
    trained, agent = make(agent_class), make(agent_class, seed=9)
    trained.learn(window(agent_class))
    trained.save_weights(tmp_path / "weights")
    agent.load_weights(tmp_path / "weights")
    state = agent.networks.train_state
    for name, slow in state.targets.items():
        jax.tree.map(np.testing.assert_array_equal, slow, state.params[name])
        jax.tree.map(np.testing.assert_array_equal, slow, trained.networks.train_state.params[name])
    agent.learn(window(agent_class))  # nothing shares its memory with what an update overwrites


def test_priorities_follow_the_errors_where_asked_for():
    assert type(make(FlaxDQNAgent).replay) is ReplayBuffer
    agent = make(FlaxDQNAgent, per_alpha=0.6, n_step=3)
    assert isinstance(agent.replay, PrioritizedReplayBuffer)
    agent.learn(window(FlaxDQNAgent))
    assert len(set(agent.replay.state()["priorities"])) > 10


# ---- the mathematics that parity with torch does not see ------------------------------------------------------------


def test_saturated_actions_have_finite_densities_and_no_gradient_through_the_held_spread():
    outputs, noise = jnp.array([[40.0, -40.0, 9.0, -50.0]]), jnp.ones((1, 2))
    _, log_probs = draw(outputs, noise)
    gradient = jax.grad(lambda o: draw(o, noise)[0].sum() + 0.1 * draw(o, noise)[1].sum())(outputs)
    assert jnp.isfinite(log_probs).all()
    assert jnp.isfinite(gradient).all()
    assert gradient[0, 2:].tolist() == [0.0, 0.0]  # 9 and -50 lie outside the range of log std


def test_td3_moves_actor_and_targets_only_every_policy_delay_updates():
    agent = make(FlaxTD3Agent, policy_delay=3)
    agent.replay.add(window(FlaxTD3Agent))
    moved = []
    for _ in range(7):
        before = jax.tree.map(np.array, agent.networks.train_state)
        agent._sample_and_update(1)
        after = agent.networks.train_state
        changes = [
            (before.params["critic"], after.params["critic"]),
            (before.params["actor"], after.params["actor"]),
            (before.targets, after.targets),
        ]
        critic, actor, slow = (any(jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), *c))) for c in changes)
        assert critic
        assert actor == slow
        moved.append(actor)
    assert moved == [update % 3 == 0 for update in range(1, 8)]


def test_the_temperature_holds_the_entropy_at_its_target():
    for target in (-4.0, 0.5):
        agent = make(FlaxSACAgent, target_entropy=target, learning_rate=1e-2)
        entropies = [agent.learn(window(FlaxSACAgent))["entropy"] for _ in range(15)]
        assert np.mean(entropies[-3:]) == pytest.approx(target, abs=0.7)


# ---- acting ---------------------------------------------------------------------------------------------------------


def test_first_actions_are_uniform_then_they_explore_around_the_greedy_one(twin_class):
    agent, observations = make(twin_class), np.zeros((4000, 4), np.float32)
    actions = agent.act(observations)
    np.testing.assert_allclose(actions.mean(0), (LOW + HIGH) / 2, atol=0.1)
    np.testing.assert_allclose(actions.std(0), (HIGH - LOW) / math.sqrt(12), rtol=0.05)
    if twin_class is FlaxTD3Agent:
        set_params(agent, exploration_noise=0.05, learning_rate=0.0)
    agent.learn(window(twin_class))
    drawn = agent.act(observations)
    greedy = agent.make_policy("greedy", num_envs=4000, seed=0).act(observations)
    assert (greedy == greedy[0]).all()
    assert ((drawn >= LOW) & (drawn <= HIGH)).all()
    assert (drawn.std(0) > 0).all()
    if twin_class is FlaxTD3Agent:
        np.testing.assert_allclose((drawn - greedy).std(0), 0.05 * (HIGH - LOW) / 2, rtol=0.1)


def test_epsilon_falls_on_a_straight_line():
    agent = make(FlaxDQNAgent, epsilon_start=0.9, epsilon_end=0.1, epsilon_decay_steps=100_000)
    first = window(FlaxDQNAgent)
    for _ in range(2):
        agent.learn(first)
    assert agent._head.epsilon == pytest.approx(0.9 - 0.8 * 2 * first.num_env_steps / 100_000)


def test_numpy_acts_like_the_network(agent_class):
    agent = make(agent_class)
    agent.learn(window(agent_class))
    observations = window(agent_class, 1).observations[:, 0]
    params = agent.networks.train_state.params["q_network" if agent_class is FlaxDQNAgent else "actor"]
    network = agent.model.q_network if agent_class is FlaxDQNAgent else agent.model.actor
    np.testing.assert_allclose(agent.networks.act(observations), network(params, observations), rtol=1e-4, atol=1e-5)
    for mode in ("greedy", "sample"):
        host = policy_from_tree(agent.host_policy(), mode=mode, seed=5).act(observations)
        own = agent.make_policy(mode, num_envs=len(observations), seed=5).act(observations)
        np.testing.assert_allclose(host, own, rtol=1e-4, atol=1e-5)


def test_has_the_capabilities_that_the_loop_looks_for(agent_class):
    agent = make(agent_class)
    assert {"policy", "training_state", "param_bounds", "action_distribution", "host_policy"} <= capabilities_of(agent)
    assert not agent.is_on_policy


# ---- any observations, any networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "observation_space", [spaces.Box(0, 255, (40, 36, 1), np.uint8), spaces.Discrete(5), spaces.Box(-1, 1, (2, 2))]
)
def test_learns_from_any_observations(agent_class, observation_space):
    agent = make(agent_class, observation_space, batch_size=4, updates_per_step=0.05)
    before = agent.networks.weights()
    data = window(agent_class, 0, observation_space)
    assert np.isfinite(list(agent.learn(data).values())).all()
    after = agent.networks.weights()
    assert {name.split(".")[0] for name in after} == {
        name.split(".")[0] for name, array in after.items() if (array != before[name]).any()
    }
    assert agent.act(data.observations[0]).shape[1:] == ACTIONS[agent_class].shape


class OwnCritic(linen.Module):
    @linen.compact
    def __call__(self, observations, actions):
        return linen.Dense(1)(jnp.concatenate([linen.tanh(linen.Dense(8)(observations)), actions], axis=1))


class NNXNetwork(nnx.Module):
    def __init__(self, num_inputs, num_outputs, rngs):
        self.hidden, self.out = nnx.Linear(num_inputs, 8, rngs=rngs), nnx.Linear(8, num_outputs, rngs=rngs)

    def __call__(self, *inputs):
        return self.out(jnp.tanh(self.hidden(jnp.concatenate(inputs, axis=1))))


def own_networks(agent_class, kind):
    rngs = nnx.Rngs(0)
    num_outputs = 2 if agent_class is FlaxTD3Agent else 4
    network = NNXNetwork(4, num_outputs, rngs)
    if kind == "linen":
        network = linen.Sequential([linen.Dense(8), linen.gelu, linen.Dense(num_outputs)])
    if agent_class is FlaxDQNAgent:
        return {"q_network": network}
    critics = OwnCritic() if kind == "linen" else [NNXNetwork(6, 1, rngs), NNXNetwork(6, 1, rngs)]
    return {"actor": network, "critic": critics}


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_own_networks_and_optimiser(agent_class, kind):
    optimizer = optax.inject_hyperparams(optax.adamw)(learning_rate=0.5)
    options = {"observation_space": VECTORS, "action_space": ACTIONS[agent_class]}
    settings = {"learning_starts": 1, "learning_rate": 0.0}
    agent = agent_class(**own_networks(agent_class, kind), optimizer=optimizer, hyperparams=settings, **options)
    if agent_class is not FlaxDQNAgent:
        first, second = agent.networks.train_state.params["critic"]
        assert any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), first, second)))
    before = agent.networks.weights()
    agent.learn(window(agent_class))
    assert all((before[name] == array).all() for name, array in agent.networks.weights().items())
    set_params(agent, learning_rate=0.01)
    agent.learn(window(agent_class, 1))
    assert all((before[name] != array).any() for name, array in agent.networks.weights().items())
    state = agent.training_state()
    expected = agent.learn(window(agent_class, 2))
    agent.restore_training_state(state)
    assert agent.learn(window(agent_class, 2)) == expected


def test_what_cannot_work_is_said_in_one_line(agent_class):
    networks = own_networks(agent_class, "linen")
    options = {"observation_space": VECTORS, "action_space": ACTIONS[agent_class]}
    fixed = agent_class(**networks, optimizer=optax.sgd(0.1), **options)
    with pytest.raises(ValueError, match="inject_hyperparams"):
        set_params(fixed, learning_rate=0.7)
    with pytest.raises(ValueError, match=r"must return \[B, \d\], not \[1, 7\]"):
        agent_class(**networks | {next(iter(networks)): linen.Dense(7)}, **options)
    if agent_class is not FlaxDQNAgent:
        with pytest.raises(ValueError, match="finite bounds"):
            make(agent_class, action_space=spaces.Box(-np.inf, np.inf, (2,)))
        with pytest.raises(ValueError, match="a pair of critics"):
            agent_class(actor=networks["actor"], critic=NNXNetwork(6, 1, nnx.Rngs(0)), **options)
