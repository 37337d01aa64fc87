"""PPO on the user's own modules and optimisers, and in subclasses."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from optix_core import AgentError, ConfigError, VectorBatchPipeline
from optix_protocol.testing import random_window
from optix_torch import TorchDQNAgent, TorchGaussianPPOAgent, TorchPPOAgent, TorchSACAgent

BOX = spaces.Box(-1, 1, (3,))
ACTIONS = {
    "discrete": spaces.Discrete(4, start=2),
    "box": spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)),
}


def window(kind, seed=0):
    return random_window(BOX, ACTIONS[kind], seed=seed)


class TwoHeads(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.body, self.head = nn.Linear(3, 8), nn.Linear(8, outputs)

    def forward(self, x):
        return self.head(torch.nn.functional.gelu(self.body(x)))


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.RMSprop, torch.optim.AdamW])
def test_own_modules_and_optimiser_are_trained_in_place(optimizer_class):
    torch.manual_seed(0)
    actor, critic = TwoHeads(2), nn.Sequential(nn.Linear(3, 8), nn.ELU(), nn.Linear(8, 1))
    optimizer = optimizer_class([*actor.parameters(), *critic.parameters()], lr=0.02)
    agent = TorchGaussianPPOAgent(
        actor=actor,
        critic=critic,
        optimizer=optimizer,
        hyperparams={"minibatch_size": 16},
        action_space=ACTIONS["box"],
    )
    assert agent.get_hyperparams().params["learning_rate"] == 0.02
    before = [parameter.detach().clone() for parameter in [*actor.parameters(), *critic.parameters()]]
    agent.learn(window("box"))
    state = agent.training_state()
    after = [*actor.parameters(), *critic.parameters()]
    assert all((old != new).any() for old, new in zip(before, after, strict=True))
    assert (state["weights"]["log_std"] != 0).all()
    expected = agent.learn(window("box", seed=1))
    agent.restore_training_state(state)
    assert agent.learn(window("box", seed=1)) == expected


def test_a_module_that_needs_the_observation_space_says_so():
    convolution = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(ValueError, match="observation_space="):
        TorchPPOAgent(actor=convolution, critic=convolution, action_dim=2)


def test_own_modules_get_observations_in_the_form_they_begin_with():
    image, discrete = spaces.Box(0, 255, (40, 36, 1), np.uint8), spaces.Discrete(5)

    def flat(outputs):
        return nn.Sequential(nn.Flatten(), nn.Linear(40 * 36, outputs))

    def embedding(outputs):
        return nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, outputs))

    def one_hot(outputs):
        return nn.Sequential(nn.Linear(5, outputs))

    for network, space in ((flat, image), (embedding, discrete), (one_hot, discrete)):
        agent = TorchPPOAgent(actor=network(2), critic=network(1), observation_space=space)
        assert agent.act(np.stack([space.sample() for _ in range(4)])).shape == (4,)


def test_subclasses_can_add_diagnostics():
    class Counting(TorchPPOAgent):
        def learn(self, episode_data):
            return {**super().learn(episode_data), "rows": float(episode_data.num_env_steps)}

    agent = Counting.from_env((BOX, ACTIONS["discrete"]))
    assert type(agent) is Counting
    assert agent.learn(window("discrete"))["rows"] == window("discrete").num_env_steps


@pytest.mark.parametrize(
    ("actor", "critic", "message"),
    [
        (nn.Linear(5, 2), nn.Linear(3, 1), "The actor fails on observations"),
        (nn.Linear(3, 2), nn.Linear(3, 2), "The critic must give"),
    ],
)
def test_networks_that_do_not_fit_are_refused_at_once(actor, critic, message):
    with pytest.raises(ValueError, match=message):
        TorchPPOAgent(actor=actor, critic=critic, observation_space=BOX, action_space=spaces.Discrete(2))


def test_trying_a_network_leaves_it_as_it_was():
    actor = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4).eval(), nn.Dropout(), nn.Linear(4, 2))
    statistics = actor[1].running_mean.clone()
    TorchPPOAgent(actor=actor, critic=nn.Linear(3, 1), observation_space=BOX, action_space=spaces.Discrete(2))
    assert [part.training for part in actor] == [True, False, True, True]
    assert torch.equal(actor[1].running_mean, statistics)


class Spoiled(nn.Module):
    """Gives what nothing can be learned from: ``how`` changes the outputs of a linear layer."""

    def __init__(self, how, inputs=4, outputs=2):
        super().__init__()
        self.layer, self.how = nn.Linear(inputs, outputs), how

    def forward(self, x):
        return self.how(self.layer(x))


def chain(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, outputs))


REFUSED = {
    "half": (lambda: TorchDQNAgent(q_network=Spoiled(Tensor.half)), "must give float32, not torch.float16"),
    "double": (lambda: TorchPPOAgent(actor=Spoiled(Tensor.double), critic=chain(4, 1)), "must give float32"),
    "detached": (lambda: TorchDQNAgent(q_network=Spoiled(Tensor.detach)), "No gradient leads"),
    "detached critic": (
        lambda: TorchPPOAgent(actor=chain(4, 2), critic=Spoiled(Tensor.detach, outputs=1)),
        "No gradient leads from what the critic gives",
    ),
    "critic without actions": (
        lambda: TorchSACAgent(actor=chain(3, 2), critic=chain(3, 1), action_dim=1),
        r"A critic fails on observations \[2, 3\] and actions \[2, 1\]",
    ),
    "one critic twice": (
        lambda: TorchSACAgent(actor=chain(3, 2), critic=[(twice := chain(4, 1)), twice], action_dim=1),
        "one and the same module",
    ),
    "a class for an optimiser": (
        lambda: TorchDQNAgent(q_network=chain(4, 2), optimizer=torch.optim.Adam),
        "An optimiser is an object such as",
    ),
    "a number for one": (
        lambda: TorchSACAgent(actor=chain(3, 2), critic=chain(4, 1), action_dim=1, actor_optimizer=3),
        "An optimiser is an object such as",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_learned_with_is_refused_at_once(case):
    build, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_an_optimiser_that_cannot_step_is_named():
    network = chain(4, 2)
    optimizer = torch.optim.SparseAdam(list(network.parameters()))
    agent = TorchDQNAgent(q_network=network, optimizer=optimizer, hyperparams={"learning_starts": 8})
    window = VectorBatchPipeline("CartPole-v1", agent, n_envs=2, window_size=32).collect()
    with pytest.raises(AgentError, match=r"SparseAdam\.step\(\) fails: SparseAdam does not support dense gradients"):
        agent.learn(window)


def test_what_is_frozen_throughout_may_be_without_gradients():
    TorchDQNAgent(q_network=Spoiled(Tensor.detach).requires_grad_(False))
