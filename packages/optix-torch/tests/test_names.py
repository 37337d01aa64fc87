"""Agents built by the names that users of other libraries know, from networks and optimisers of their own."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from optix_core import BatchPipeline, ConfigError, HyperparamSet, RewardNormalizer, VectorBatchPipeline
from optix_core.data import ObsNormalizer
from optix_torch import (
    TorchAgent,
    TorchDQNAgent,
    TorchGaussianPPOAgent,
    TorchPPOAgent,
    TorchRainbowDQNAgent,
    TorchSACAgent,
    TorchTD3Agent,
)
from optix_torch.squashed import SquashedGaussian


def net(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, outputs))


def adam(*modules, lr=3e-4):
    return torch.optim.Adam([p for module in modules for p in module.parameters()], lr=lr)


def window(agent, env_id="Pendulum-v1", steps=64):
    return BatchPipeline(env_id, agent, steps).collect()


def test_hyperparameters_by_other_names_with_an_optimiser():
    actor, critic = net(4, 2), net(4, 1)
    given = HyperparamSet(params={"clip_ratio": 0.1, "n_epochs": 2, "batch_size": 32, "vf_coef": 0.4, "lr": 1e-3})
    agent = TorchPPOAgent(actor=actor, critic=critic, optimizer=adam(actor, critic), n_actions=2, hyperparams=given)
    params = agent.get_hyperparams().params
    assert [params[n] for n in ("clip_range", "num_epochs", "minibatch_size", "value_coef")] == [0.1, 2, 32, 0.4]
    assert agent.learn(window(agent, "CartPole-v1"))["learning_rate"] == 1e-3
    agent.set_hyperparams({"clip_ratio": 0.3})
    assert agent.hyperparams["clip_range"] == 0.3


def test_epsilon_falls_by_a_factor_with_every_learn():
    agent = TorchDQNAgent(
        q_network=net(4, 2), n_actions=2, hyperparams={"epsilon": 0.8, "epsilon_decay": 0.5, "epsilon_min": 0.15}
    )
    pipeline = BatchPipeline("CartPole-v1", agent, 16)
    seen = []
    for _ in range(4):
        agent.learn(pipeline.collect())
        seen.append(agent._head.epsilon)
    assert seen == pytest.approx([0.4, 0.2, 0.15, 0.15])
    twin = TorchDQNAgent(q_network=net(4, 2), hyperparams=agent.get_hyperparams())
    twin.restore_training_state(agent.training_state())
    assert twin._head.epsilon == pytest.approx(0.15)
    assert twin.hyperparams["epsilon_decay_steps"] is None


def squashing_agent(**options):
    torch.manual_seed(0)
    return TorchGaussianPPOAgent(actor=net(3, 2), critic=net(3, 1), action_dim=1, **options)


def test_two_outputs_per_action_are_a_mean_and_a_deviation_within_the_range():
    agent = squashing_agent(hyperparams={"n_epochs": 1, "learning_rate": 0.0})
    assert isinstance(agent._distribution, SquashedGaussian)
    assert np.abs(agent.act(np.zeros((500, 3), np.float32))).max() <= 1.0  # the range is not known yet
    collected = window(agent)
    assert 1.2 < np.abs(collected.actions).max() <= 2.0  # Pendulum's reaches from -2 to 2
    found = agent.learn(collected)
    assert found["approx_kl"] == pytest.approx(0.0, abs=1e-4)
    assert "log_std" not in agent.networks.extra


def test_a_spread_that_depends_on_the_observation_is_learned():
    agent = squashing_agent(hyperparams={"n_epochs": 4, "learning_rate": 1e-3})
    before = copy.deepcopy(agent.actor.state_dict())
    agent.learn(window(agent))
    rows = agent.actor[2].weight
    assert not torch.equal(rows[0], before["2.weight"][0])
    assert not torch.equal(rows[1], before["2.weight"][1])
    policy = agent.make_policy("greedy", num_envs=3, seed=0)
    assert policy.act(np.zeros((3, 3), np.float32)).shape == (3, 1)


def test_the_squashed_density_and_its_gradient():
    torch.manual_seed(0)
    centre, scale = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.5])
    distribution = SquashedGaussian(centre, scale)
    outputs = (0.5 * torch.randn(6, 4)).requires_grad_()
    mean, log_std = (half.detach().double() for half in outputs.chunk(2, 1))
    reference = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, log_std.exp()), [torch.distributions.transforms.TanhTransform(cache_size=1)]
    )
    unit = torch.tanh(mean + log_std.exp() * 0.7 * torch.randn(6, 2).double())
    log_probs, entropies = distribution.judge(outputs, (centre + scale * unit).float())
    torch.testing.assert_close(log_probs.detach().double(), reference.log_prob(unit).sum(1), atol=1e-3, rtol=1e-3)
    drawn = reference.rsample((50_000,))
    torch.testing.assert_close(
        entropies.detach().double(), -reference.log_prob(drawn).sum(-1).mean(0), atol=0.03, rtol=0
    )
    weights = torch.randn(6)
    ((log_probs * weights).sum() + 0.3 * entropies.sum()).backward()
    gradient = distribution.evaluate(outputs.detach(), (centre + scale * unit).float()).backward(weights, 0.3)
    torch.testing.assert_close(gradient, outputs.grad)


def test_an_agent_without_an_action_space_takes_the_pipelines():
    agent = TorchSACAgent(actor=net(3, 2), critic1=net(4, 1), critic2=net(4, 1), action_dim=1)
    env = gym.make("Pendulum-v1")
    BatchPipeline(env, agent)
    assert np.abs([agent.act(env.observation_space.sample()) for _ in range(200)]).max() > 1.2

    def shifted():
        space = gym.spaces.Discrete(2, start=5)
        return gym.wrappers.TransformAction(gym.make("CartPole-v1"), lambda a: a - 5, space)

    for discrete in (
        TorchPPOAgent(actor=net(4, 2), critic=net(4, 1)),
        TorchDQNAgent(q_network=net(4, 2)),
        TorchRainbowDQNAgent(q_network=net(4, 102)),
    ):
        assert set(window(discrete, shifted).actions.ravel()) == {5, 6}


def test_a_told_range_stays():
    agent = TorchSACAgent(actor=net(3, 2), critic=net(4, 1), action_space=gym.spaces.Box(-0.5, 0.5, (1,), np.float32))
    assert np.abs(window(agent).actions).max() <= 0.5


def test_sac_with_an_optimiser_for_each_network():
    actor, one, other = net(3, 2), net(4, 1), net(4, 1)
    log_alpha = torch.tensor(-1.0, requires_grad=True)
    agent = TorchSACAgent(
        actor=actor,
        critic1=one,
        critic2=other,
        action_dim=1,
        actor_optimizer=adam(actor, lr=1e-3),
        critic_optimizer=adam(one, other, lr=3e-3),
        alpha_optimizer=torch.optim.SGD([log_alpha], lr=1e-2),
        hyperparams={"learning_starts": 8, "batch_size": 16, "buffer_size": 500},
    )
    before = [copy.deepcopy(module.state_dict()) for module in (actor, one, other)]
    found = agent.learn(window(agent))
    assert log_alpha.item() != -1.0
    assert found["alpha"] == pytest.approx(np.exp(log_alpha.item()), rel=0.2)
    for module, old in zip((actor, one, other), before, strict=True):
        assert not torch.equal(module[0].weight, old["0.weight"])
    assert agent.hyperparams["learning_rate"] == 1e-3
    agent.set_hyperparams({"learning_rate": 2e-3})
    rates = [group["lr"] for group in agent._optimizers["critic"]._optimizer.param_groups]
    assert rates == pytest.approx([2e-3, 6e-3, 2e-2])


def test_an_optimiser_for_each_network_is_exact_in_a_saved_state():
    def make():
        torch.manual_seed(3)
        actor, critic = net(4, 2), net(4, 1)
        return TorchPPOAgent(
            actor=actor,
            critic=critic,
            actor_optimizer=torch.optim.SGD(actor.parameters(), lr=1e-2, momentum=0.9),
            critic_optimizer=adam(critic),
            hyperparams={"n_epochs": 2},
        )

    one, other = make(), make()
    pipeline = BatchPipeline("CartPole-v1", one, 64)
    first, second = pipeline.collect(), pipeline.collect()
    one.learn(first)
    other.restore_training_state(one.training_state())
    assert one.learn(second) == other.learn(second)
    for mine, theirs in zip(one.actor.parameters(), other.actor.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_td3_and_a_network_whose_optimiser_is_missing():
    actor = nn.Sequential(*net(3, 1), nn.Tanh())
    one, other = net(4, 1), net(4, 1)
    agent = TorchTD3Agent(
        actor=actor, critic1=one, critic2=other, action_dim=1, actor_optimizer=adam(actor),
        hyperparams={"learning_starts": 8, "policy_noise": 0.1, "noise_clip": 0.3, "policy_freq": 1},
    )  # fmt: skip
    before = copy.deepcopy(one.state_dict())
    agent.learn(window(agent))
    assert not torch.equal(one[0].weight, before["0.weight"])
    assert agent.hyperparams["policy_delay"] == 1


def test_a_base_agent_from_a_model():
    agent = TorchAgent(model=net(4, 2))
    assert "policy_loss" in agent.learn(window(agent, "CartPole-v1", 128))


def test_normalisers_of_the_users_own():
    rewards, observations = RewardNormalizer(gamma=0.5, clip=3.0), ObsNormalizer(4)
    observations.update(np.random.default_rng(0).normal(size=(50, 4)))
    agent = TorchPPOAgent(
        actor=net(4, 2), critic=net(4, 1), reward_normalizer=rewards, obs_normalizer=observations,
        hyperparams={"n_epochs": 1},
    )  # fmt: skip
    agent.learn(window(agent, "CartPole-v1"))
    assert rewards.stats.count == 64
    assert rewards.gamma == 0.5
    assert observations.stats.count == 50 + 64
    assert agent.get_hyperparams()["norm_reward"] is True


def test_environments_from_functions_in_processes_of_their_own():
    agent = TorchPPOAgent(actor=net(4, 2), critic=net(4, 1))
    pipeline = VectorBatchPipeline(
        env_fns=[lambda: gym.make("CartPole-v1")] * 2, agent=agent, n_steps=8, async_envs=True
    )
    assert pipeline.collect().rewards.shape == (8, 2)
    pipeline.close()


WRONG = {
    "two names": (lambda: TorchPPOAgent(actor=net(4, 2), critic=net(4, 1), hyperparams={"n_epochs": 1, "num_epochs": 2}),  # noqa: E501
                  "n_epochs=1 and num_epochs=2 are one hyperparameter"),
    "window": (lambda: TorchPPOAgent(actor=net(4, 2), critic=net(4, 1), hyperparams={"n_steps": 64}),
               "'n_steps' is the length of a window"),
    "two sizes": (lambda: TorchPPOAgent(actor=net(4, 2), critic=net(4, 1), action_dim=2, n_actions=3),
                  "action_dim and n_actions are one argument"),
    "wrong size": (lambda: TorchPPOAgent(actor=net(4, 2), critic=net(4, 1), n_actions=3),
                   "The actor has 2 outputs; 3 actions need 3"),
    "gaussian size": (lambda: TorchGaussianPPOAgent(actor=net(3, 3), critic=net(3, 1), action_dim=1),
                      "The actor has 3 outputs; 1 actions need 1 or 2"),
    "unbounded": (lambda: TorchGaussianPPOAgent(actor=net(3, 2), critic=net(3, 1),
                                                action_space=gym.spaces.Box(-np.inf, np.inf, (1,))),
                  r"\[mean \|\| log_std\] squashes actions into a range"),
    "both optimisers": (lambda: TorchPPOAgent(actor=(a := net(4, 2)), critic=net(4, 1), optimizer=adam(a),
                                              actor_optimizer=adam(a)),
                        "optimizer is for all networks and actor_optimizer for one"),
    "others' optimiser": (lambda: TorchPPOAgent(actor=net(4, 2), critic=net(4, 1), critic_optimizer=adam(net(4, 1))),
                          "critic_optimizer holds none of the critic's parameters"),
    "one critic": (lambda: TorchSACAgent(actor=net(3, 2), critic1=net(4, 1), action_dim=1), "critic1= and critic2="),
    "no size": (lambda: TorchSACAgent(actor=net(3, 2), critic=net(4, 1)), "action_dim="),
    "alpha": (lambda: TorchSACAgent(actor=(a := net(3, 2)), critic=net(4, 1), action_dim=1, alpha_optimizer=adam(a)),
              "alpha_optimizer moves log alpha"),
    "no temperature": (lambda: TorchTD3Agent(actor=net(3, 1), critic=net(4, 1), action_dim=1,
                                             alpha_optimizer=torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)),  # noqa: E501
                       "TorchTD3Agent has no temperature"),
    "no network": (lambda: TorchAgent(), "needs a network for its policy"),
    "two networks": (lambda: TorchAgent(model=net(4, 2), actor=net(4, 2)), "actor and model are one argument"),
    "other observations": (lambda: window(TorchPPOAgent(actor=net(4, 2), critic=net(4, 1))),
                           r"The networks take observations \[4\], and the environment gives \[3\]"),
    "other actions": (lambda: window(TorchPPOAgent(actor=net(3, 2), critic=net(3, 1))), "pass action_space="),
    "other number": (lambda: window(TorchDQNAgent(q_network=net(4, 3)), "CartPole-v1"), "has 3 outputs"),
    "two decays": (lambda: TorchDQNAgent(q_network=net(4, 2),
                                         hyperparams={"epsilon_decay": 0.9, "epsilon_decay_steps": 10}),
                   "epsilon_decay and epsilon_decay_steps say the same thing"),
    "a tuple": (lambda: TorchAgent(model=Both()), "must give one tensor"),
}  # fmt: skip


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x), x


@pytest.mark.parametrize("wrong", sorted(WRONG))
def test_wrong_uses_are_refused_in_a_line(wrong):
    use, said = WRONG[wrong]
    with pytest.raises(ConfigError, match=said) as refused:
        use()
    assert str(refused.value).count("\n") == 0
