"""Keras agents by the names that users of other libraries know, with networks and optimisers of their own."""

import keras
import numpy as np
import pytest

from optix_core import BatchPipeline, ConfigError, HyperparamSet, RewardNormalizer
from optix_tf import TFAgent, TFDQNAgent, TFGaussianPPOAgent, TFPPOAgent, TFSACAgent, TFTD3Agent


def net(inputs, outputs, last=None):
    layers = [keras.layers.Input(shape=(inputs,)), keras.layers.Dense(8, activation="tanh")]
    return keras.Sequential([*layers, keras.layers.Dense(outputs, activation=last)])


def window(agent, env_id="CartPole-v1", steps=48):
    return BatchPipeline(env_id=env_id, agent=agent, n_steps=steps).collect()


def weights(model):
    return [np.array(array) for array in model.get_weights()]


def moved(model, before):
    return all((now != old).any() for now, old in zip(model.get_weights(), before, strict=True))


def test_ppo_by_other_names_with_an_optimiser_for_each_network():
    actor, critic, rewards = net(4, 2), net(4, 1), RewardNormalizer(gamma=0.9)
    agent = TFPPOAgent(
        actor=actor,
        critic=critic,
        n_actions=2,
        actor_optimizer=keras.optimizers.Adam(1e-3),
        critic_optimizer=keras.optimizers.SGD(1e-2),
        reward_normalizer=rewards,
        hyperparams=HyperparamSet(params={"clip_ratio": 0.1, "n_epochs": 2, "batch_size": 16}),
    )
    before = weights(actor), weights(critic)
    agent.learn(window(agent))
    assert moved(actor, before[0])
    assert moved(critic, before[1])
    assert rewards.stats.count == 48
    agent.set_hyperparams({"lr": 2e-3})
    agent.learn(window(agent))
    first, second = agent.model.group.optimizer._members
    rates = float(first.optimizer.learning_rate), float(second.optimizer.learning_rate)
    assert rates == pytest.approx((2e-3, 2e-2))


def test_two_outputs_per_action_are_a_mean_and_a_deviation_in_the_pipelines_range():
    actor, critic = net(3, 2), net(3, 1)
    agent = TFGaussianPPOAgent(actor=actor, critic=critic, action_dim=1, hyperparams={"n_epochs": 2})
    collected = window(agent, "Pendulum-v1", 128)
    assert 1.2 < np.abs(collected.actions).max() <= 2.0
    before = weights(actor)
    found = agent.learn(collected)
    assert np.isfinite(list(found.values())).all()
    assert moved(actor, before)


def test_sac_with_twin_critics_and_three_optimisers():
    actor, one, other = net(3, 2), net(4, 1), net(4, 1)
    agent = TFSACAgent(
        actor=actor,
        critic1=one,
        critic2=other,
        action_dim=1,
        actor_optimizer=keras.optimizers.Adam(1e-3),
        critic_optimizer=keras.optimizers.Adam(1e-3),
        alpha_optimizer=keras.optimizers.SGD(1e-2),
        hyperparams={"learning_starts": 8, "batch_size": 8, "buffer_size": 300, "updates_per_step": 0.25},
    )
    collected = window(agent, "Pendulum-v1")
    assert np.abs(collected.actions).max() > 1.2
    before = [weights(model) for model in (actor, one, other)]
    assert agent.learn(collected)["alpha"] != 1.0
    for model, old in zip((actor, one, other), before, strict=True):
        assert moved(model, old)


def test_dqn_and_a_base_agent_from_a_model():
    agent = TFDQNAgent(
        q_network=net(4, 2), n_actions=2, hyperparams={"epsilon": 0.8, "epsilon_decay": 0.5, "target_update_freq": 7}
    )
    agent.learn(window(agent))
    assert agent._head.epsilon == pytest.approx(0.4)
    assert agent.hyperparams["target_update_interval"] == 7
    base = TFAgent(model=net(4, 2))
    assert "policy_loss" in base.learn(window(base))


WRONG = {
    "no network": (lambda: TFAgent(), "needs a network for its policy"),
    "both kinds": (
        lambda: TFPPOAgent(
            actor=net(4, 2),
            critic=net(4, 1),
            optimizer=keras.optimizers.Adam(),
            actor_optimizer=keras.optimizers.Adam(),
        ),
        "optimizer is for all networks and actor_optimizer for one",
    ),
    "no temperature": (
        lambda: TFTD3Agent(actor=net(3, 1), critic=net(4, 1), action_dim=1, alpha_optimizer=keras.optimizers.Adam()),
        "has no temperature",
    ),
    "one critic": (lambda: TFSACAgent(actor=net(3, 2), critic1=net(4, 1), action_dim=1), "critic1= and critic2="),
    "wrong size": (lambda: TFPPOAgent(actor=net(4, 2), critic=net(4, 1), n_actions=3), "3 actions need 3"),
}


@pytest.mark.parametrize("wrong", sorted(WRONG))
def test_wrong_uses_are_refused_in_a_line(wrong):
    use, said = WRONG[wrong]
    with pytest.raises(ConfigError, match=said) as refused:
        use()
    assert "\n" not in str(refused.value)
