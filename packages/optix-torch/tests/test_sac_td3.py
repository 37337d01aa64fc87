"""SAC and TD3: densities, ranges, exploration, exact state, networks and optimisers of one's own."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from optix_core.policies import policy_from_tree
from optix_protocol import HyperparamSet, capabilities_of
from optix_protocol.testing import random_window
from optix_torch import TorchSACAgent, TorchTD3Agent
from optix_torch._cuda_graphs import GraphedUpdate
from optix_torch._ensembles import has_bf16
from optix_torch.algorithms.sac import draw

LOW, HIGH = np.array([-2.0, 10.0], np.float32), np.array([2.0, 10.5], np.float32)
VECTORS = spaces.Box(-np.inf, np.inf, (4,), np.float32)
IMAGES = spaces.Box(0, 255, (40, 36, 1), np.uint8)
ACTIONS = spaces.Box(LOW, HIGH)
SMALL = {"hidden_sizes": [16, 16], "batch_size": 16, "learning_starts": 20, "capacity": 5000}


@pytest.fixture(params=[TorchSACAgent, TorchTD3Agent])
def agent_class(request):
    return request.param


def make(agent_class, observation_space=VECTORS, action_space=ACTIONS, seed=0, **hyperparams):
    return agent_class.from_spaces(observation_space, action_space, seed=seed, hyperparams=SMALL | hyperparams)


def window(seed=0, observation_space=VECTORS, action_space=ACTIONS):
    return random_window(observation_space, action_space, seed=seed, terminated=[(5, 0), (12, 1)], truncated=[(9, 1)])


def fingerprint(agent):
    return {name: array.tobytes() for name, array in agent.training_state()["weights"].items()}


# ---- the squashed Gaussian ------------------------------------------------------------------------------------------


def test_density_and_gradients_of_the_squashed_gaussian_are_those_of_autograd():
    torch.manual_seed(0)
    outputs = (0.5 * torch.randn(64, 6, dtype=torch.float64)).requires_grad_()
    noise = torch.randn(64, 3, dtype=torch.float64)
    mean, log_std = outputs.chunk(2, 1)
    unsquashed = mean + log_std.exp() * noise
    actions = torch.tanh(unsquashed)
    gaussian = -0.5 * ((unsquashed - mean) / log_std.exp()).square() - log_std - 0.5 * math.log(2 * math.pi)
    log_probs = (gaussian - torch.log(1.0 - actions.square())).sum(1)
    weight = torch.randn(64, 3, dtype=torch.float64)
    (expected,) = torch.autograd.grad((actions * weight).sum() + 0.3 * log_probs.sum(), outputs)
    drawn = draw(outputs.detach(), noise)
    torch.testing.assert_close(drawn.actions, actions.detach())
    torch.testing.assert_close(drawn.log_probs, log_probs.detach())
    torch.testing.assert_close(drawn.backward(weight, torch.tensor(0.3)), expected)


def test_saturated_actions_have_finite_densities_and_no_gradient_through_the_held_spread():
    outputs = torch.tensor([[40.0, -40.0, 9.0, -50.0]])
    drawn = draw(outputs, torch.ones(1, 2))
    gradient = drawn.backward(torch.ones(1, 2), torch.tensor(0.1))
    assert drawn.log_probs.isfinite().all()
    assert gradient.isfinite().all()
    assert gradient[0, 2:].tolist() == [0.0, 0.0]  # 9 and -50 lie outside the range of log std


# ---- acting ---------------------------------------------------------------------------------------------------------


def test_first_actions_are_uniform_over_the_real_range(agent_class):
    actions = make(agent_class).act(np.zeros((4000, 4), np.float32))
    np.testing.assert_allclose(actions.mean(0), (LOW + HIGH) / 2, atol=0.1)
    np.testing.assert_allclose(actions.std(0), (HIGH - LOW) / math.sqrt(12), rtol=0.05)
    assert ((actions >= LOW) & (actions <= HIGH)).all()


def test_later_actions_explore_around_the_greedy_one_within_the_range(agent_class):
    agent = make(agent_class)
    agent.learn(window())
    observations = np.zeros((4000, 4), np.float32)
    greedy = agent.make_policy("greedy", num_envs=4000, seed=0).act(observations)
    drawn = agent.act(observations)
    assert (greedy == greedy[0]).all()
    assert ((drawn >= LOW) & (drawn <= HIGH)).all()
    if agent_class is TorchTD3Agent:
        agent.set_hyperparams(HyperparamSet(params={"exploration_noise": 0.05, "learning_rate": 0.0}))
        agent.learn(window())
        drawn = agent.act(observations)
        np.testing.assert_allclose((drawn - greedy).std(0), 0.05 * (HIGH - LOW) / 2, rtol=0.1)
    else:
        spread = agent.action_distribution(observations[:1])
        before_tanh = np.arctanh(np.clip((drawn - (LOW + HIGH) / 2) / ((HIGH - LOW) / 2), -0.999999, 0.999999))
        np.testing.assert_allclose(before_tanh.std(0), spread.std[0] / ((HIGH - LOW) / 2), rtol=0.1)


def test_host_policy_acts_like_the_agent(agent_class):
    agent = make(agent_class)
    agent.learn(window())
    observations = window(1).observations[:, 0]
    for mode in ("greedy", "sample"):
        host = policy_from_tree(agent.host_policy(), mode=mode, seed=5).act(observations)
        own = agent.make_policy(mode, num_envs=len(observations), seed=5).act(observations)
        np.testing.assert_allclose(host, own, rtol=1e-4, atol=1e-5)


def test_has_the_capabilities_that_the_loop_looks_for(agent_class):
    agent = make(agent_class)
    assert {"policy", "training_state", "param_bounds", "action_distribution", "host_policy"} <= capabilities_of(agent)
    assert not agent.is_on_policy
    assert set(agent.param_bounds()) <= set(agent.get_hyperparams().params)


@pytest.mark.parametrize(
    ("action_space", "message"),
    [(spaces.Box(-np.inf, np.inf, (2,)), "finite bounds"), (spaces.Discrete(3), "need a Box")],
)
def test_actions_without_bounds_are_refused(agent_class, action_space, message):
    with pytest.raises(ValueError, match=message):
        make(agent_class, action_space=action_space)


# ---- learning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("observation_space", [VECTORS, IMAGES, spaces.Discrete(5)])
@pytest.mark.parametrize("action_space", [ACTIONS, spaces.Box(-1, 1, (2, 3), np.float64)])
def test_learns_from_any_observations_and_shapes_of_actions(agent_class, observation_space, action_space):
    agent = make(agent_class, observation_space, action_space, n_step=2)
    diagnostics = agent.learn(window(0, observation_space, action_space))
    assert np.isfinite(list(diagnostics.values())).all()
    assert {"critic_loss", "actor_loss", "q_mean"} < set(diagnostics)
    assert agent.act(window(0, observation_space, action_space).observations[0]).shape[1:] == action_space.shape


def test_goes_on_from_its_state_bit_for_bit(agent_class):
    agent, other = make(agent_class), make(agent_class, seed=1)
    agent.learn(window())
    agent.set_hyperparams(HyperparamSet(params={"updates_per_step": 0.7, "tau": 0.02}))
    state = agent.training_state()
    futures = []
    for one in (agent, other):
        one.restore_training_state(state)
        actions = [one.act(window(3).observations[0]) for _ in range(3)]
        diagnostics = [one.learn(window(seed)) for seed in (4, 5)]
        futures.append((np.stack(actions).tobytes(), diagnostics, fingerprint(one), one.get_hyperparams()))
    assert futures[0] == futures[1]


def test_global_random_numbers_are_left_alone(agent_class):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - the global one
    agent = make(agent_class)
    agent.learn(window())
    agent.act(np.zeros((2, 4), np.float32))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_the_temperature_holds_the_entropy_at_its_target():
    for target in (-4.0, 0.5):
        agent = make(TorchSACAgent, target_entropy=target, learning_rate=1e-2)
        entropies = [agent.learn(window())["entropy"] for _ in range(15)]
        assert np.mean(entropies[-3:]) == pytest.approx(target, abs=0.7)


def test_a_given_temperature_stays():
    agent = make(TorchSACAgent, alpha=0.2)
    assert [agent.learn(window(seed))["alpha"] for seed in range(2)] == pytest.approx([0.2, 0.2])


def test_td3_moves_actor_and_targets_only_every_policy_delay_updates():
    agent = make(TorchTD3Agent, policy_delay=3, updates_per_step=0.02, learning_starts=1)
    moved = []
    for seed in range(12):
        actor = agent._actor_parameters.vector.clone()
        critic = agent._critic_parameters.vector.clone()
        targets = agent._target_critics.parameters.vector.clone()
        before = agent._num_updates
        agent.learn(window(seed))
        assert agent._num_updates - before <= 1
        if agent._num_updates > before:
            assert not torch.equal(critic, agent._critic_parameters.vector)
            moved.append(not torch.equal(actor, agent._actor_parameters.vector))
            assert moved[-1] == (not torch.equal(targets, agent._target_critics.parameters.vector))
    assert moved == [update % 3 == 0 for update in range(1, len(moved) + 1)]
    assert sum(moved) >= 2


@pytest.mark.skipif(not has_bf16(), reason="this CPU has no bfloat16 arithmetic")
def test_bfloat16_learns_nearly_the_same(agent_class):
    exact, rough = make(agent_class), make(agent_class, precision="bf16")
    losses = [agent.learn(window())["critic_loss"] for agent in (exact, rough)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


# ---- an update that a CUDA graph can replay -------------------------------------------------------------------------


@pytest.mark.parametrize("observation_space", [VECTORS, IMAGES])
def test_an_update_never_waits_for_the_device(agent_class, observation_space, nothing_that_waits):
    agent = make(agent_class, observation_space)
    agent.learn(window(0, observation_space))
    batches = [agent.networks.to_device(agent.replay.sample(16), agent._rows) for _ in range(2)]
    with nothing_that_waits:
        for batch in batches:
            agent._update(batch)
            agent._num_updates += 1


def test_replayed_updates_are_the_plain_ones(agent_class, capture_by_calling_again):
    plain, graphed = make(agent_class), make(agent_class)
    capture = capture_by_calling_again(SMALL["batch_size"])
    graphed._step = GraphedUpdate(graphed._update_in_place, graphed.device, capture=capture)
    for seed in range(3):
        assert plain.learn(window(seed)) == graphed.learn(window(seed))
    assert len(graphed._step._graphs) == (2 if agent_class is TorchTD3Agent else 1)
    assert fingerprint(plain) == fingerprint(graphed)


# ---- the user's own networks ----------------------------------------------------------------------------------------


class OwnCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.see, self.judge = nn.Linear(4, 8), nn.Linear(8 + 2, 1)

    def forward(self, observations, actions):
        return self.judge(torch.cat([torch.tanh(self.see(observations)), actions], 1))


def own_actor(agent_class):
    if agent_class is TorchTD3Agent:
        return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2), nn.Tanh())
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.AdamW])
def test_own_modules_and_optimiser_are_trained_in_place(agent_class, optimizer_class):
    torch.manual_seed(0)
    actor, critic = own_actor(agent_class), OwnCritic()
    optimizer = optimizer_class([*actor.parameters(), *critic.parameters()], lr=0.02)
    agent = agent_class(
        actor=actor, critic=critic, action_space=ACTIONS, optimizer=optimizer, hyperparams={"learning_starts": 1}
    )
    assert agent.get_hyperparams().params["learning_rate"] == 0.02
    assert agent.critics[0] is critic
    assert not torch.equal(agent.critics[1].see.weight, critic.see.weight)
    everything = [*actor.parameters(), *agent.critics.parameters()]
    before = [parameter.detach().clone() for parameter in everything]
    agent.learn(window())
    assert all((old != new).any() for old, new in zip(before, everything, strict=True))
    state = agent.training_state()
    expected = agent.learn(window(1))
    agent.restore_training_state(state)
    assert agent.learn(window(1)) == expected


def test_networks_that_do_not_fit_are_refused_at_once(agent_class):
    critic = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    with pytest.raises(ValueError, match=r"5 outputs; these actions need"):
        agent_class(actor=nn.Linear(4, 5), critic=critic, action_space=ACTIONS)
    with pytest.raises(ValueError, match="one value"):
        agent_class(actor=own_actor(agent_class), critic=nn.Sequential(nn.Linear(6, 3)), action_space=ACTIONS)
    with pytest.raises(ValueError, match="one critic or two, not 3"):
        agent_class(actor=own_actor(agent_class), critic=[critic] * 3, action_space=ACTIONS)


def test_settings_that_come_once_and_never_again_do_not_pile_up():
    step = GraphedUpdate(lambda x: x + 1, torch.device("cpu"), capture=lambda call: (call, call()))
    for k in range(1000):
        assert step(torch.zeros(2), key=lambda k=k: k).tolist() == [1.0, 1.0]
    assert len(step._num_calls) <= 256
