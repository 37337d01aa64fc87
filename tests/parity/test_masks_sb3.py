"""Masked PPO against sb3-contrib's MaskablePPO: one file of weights and one batch give the same loss and gradients."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from optix_core.agents.updates import Batch
from optix_core.policies.masks import mask_parts
from optix_protocol.conformance.masks import allowing, random_masks
from optix_torch import TorchPPOAgent
from optix_torch.algorithms.ppo import ppo_loss

contrib = pytest.importorskip("sb3_contrib")

HIDDEN, SIZE = (32, 16), 5
KINDS = {
    "discrete": spaces.Discrete(6),
    "multidiscrete": spaces.MultiDiscrete([2, 3, 4]),
    "multibinary": spaces.MultiBinary(4),
}
ENTROPY_COEF = 0.03


class Still(gym.Env):
    """Spaces, for a peer that takes them from an environment."""

    observation_space = spaces.Box(-np.inf, np.inf, (SIZE,))

    def __init__(self, action_space):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        return np.zeros(SIZE, np.float32), {}

    def step(self, action):
        return np.zeros(SIZE, np.float32), 0.0, False, False, {}

    def action_masks(self):
        return np.ones(sum(mask_parts(self.action_space)), bool)


@pytest.fixture(params=KINDS)
def space(request):
    return KINDS[request.param]


@pytest.fixture
def file(space, reference_file):
    """The weights and the batch, with masks that forbid at least one choice of each part, but not what was done."""
    num_outputs = space.n if isinstance(space, spaces.MultiBinary) else sum(mask_parts(space))
    found = dict(np.load(reference_file({"actor": (SIZE, *HIDDEN, num_outputs), "critic": (SIZE, *HIDDEN, 1)})))
    rng = np.random.default_rng(2)
    num_rows = len(found["observations"])
    space.seed(0)
    actions = np.stack([space.sample() for _ in range(num_rows)]).astype(np.int64)
    masks = allowing(space, random_masks(space, rng, num_rows), actions)
    columns = {name: rng.normal(size=num_rows) for name in ("advantages", "returns", "values")}
    arrays = {**found, **columns, "old_log_probs": rng.normal(-2.0, 0.3, num_rows)}
    return {name: array.astype(np.float32) for name, array in arrays.items()} | {"actions": actions, "masks": masks}


def layers(file, network):
    count = sum(name.startswith(network) for name in file) // 2
    return [(file[f"{network}.{i}.kernel"].T, file[f"{network}.{i}.bias"]) for i in range(count)]


def fill(network, arrays):
    linears = [module for module in network if isinstance(module, nn.Linear)]
    for linear, (weight, bias) in zip(linears, arrays, strict=True):
        linear.weight.data.copy_(torch.from_numpy(weight.copy()))
        linear.bias.data.copy_(torch.from_numpy(bias))


def chain(file, network):
    parts = []
    for weight, _ in layers(file, network):
        parts += [nn.Linear(weight.shape[1], weight.shape[0]), nn.Tanh()]
    built = nn.Sequential(*parts[:-1])
    fill(built, layers(file, network))
    return built


def theirs(file, space):
    """MaskablePPO's policy with these weights; it has two logits for each switch, of which ours is the difference."""
    model = contrib.MaskablePPO("MlpPolicy", Still(space), device="cpu", policy_kwargs={"net_arch": list(HIDDEN)})
    policy = model.policy
    actor = layers(file, "actor")
    if isinstance(space, spaces.MultiBinary):
        weight, bias = actor[-1]
        actor[-1] = np.zeros((2 * len(weight), weight.shape[1]), np.float32), np.zeros(2 * len(bias), np.float32)
        actor[-1][0][1::2], actor[-1][1][1::2] = weight, bias
    fill([*policy.mlp_extractor.policy_net, policy.action_net], actor)
    fill([*policy.mlp_extractor.value_net, policy.value_net], layers(file, "critic"))
    return model


def judged_by_theirs(model, file):
    """Log-probabilities, entropies, and the loss of ``MaskablePPO.train`` with its gradients."""
    policy, data = model.policy, {name: torch.from_numpy(array) for name, array in file.items()}
    values, log_probs, entropies = policy.evaluate_actions(
        data["observations"], data["actions"], action_masks=data["masks"]
    )
    ratio = torch.exp(log_probs - data["old_log_probs"])
    advantages = data["advantages"]
    policy_loss = -torch.min(advantages * ratio, advantages * torch.clamp(ratio, 0.8, 1.2)).mean()
    value_loss = nn.functional.mse_loss(data["returns"], values.flatten())
    loss = policy_loss - ENTROPY_COEF * entropies.mean() + 0.5 * value_loss
    policy.zero_grad()
    loss.backward()
    modules = [*policy.mlp_extractor.policy_net, policy.action_net, *policy.mlp_extractor.value_net, policy.value_net]
    gradients = [p.grad for module in modules for p in module.parameters()]
    return log_probs, entropies, loss.item(), gradients


def test_log_probabilities_entropies_loss_and_gradients_agree(space, file):
    log_probs, entropies, expected, gradients = judged_by_theirs(theirs(file, space), file)
    data = {name: torch.from_numpy(array) for name, array in file.items()}
    agent = TorchPPOAgent(
        actor=chain(file, "actor"),
        critic=chain(file, "critic"),
        observation_space=Still.observation_space,
        action_space=space,
        hyperparams={"entropy_coef": ENTROPY_COEF},
    )
    batch = Batch(
        log_probs=data["old_log_probs"],
        **{name: data[name] for name in Batch._fields if name != "log_probs"},
    )
    judged = agent._evaluate(agent.networks.actor.forward(batch.observations), batch.actions, batch.masks)
    torch.testing.assert_close(judged.log_probs, log_probs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(judged.entropies, entropies, atol=1e-5, rtol=1e-5)

    values = agent.networks.critic.forward(batch.observations).squeeze(1)
    loss = ppo_loss(judged.log_probs, judged.entropies, values, batch, agent.hyperparams)
    agent.networks.parameters.gradient.zero_()
    agent.networks.backward(judged.backward(loss.d_log_prob, loss.d_entropy), loss.d_value.unsqueeze(1))
    total = loss.policy - ENTROPY_COEF * loss.entropy + 0.5 * loss.value
    assert total.item() == pytest.approx(expected, abs=1e-5)
    found = [parameter.grad for module in (agent.actor, agent.critic) for parameter in module.parameters()]
    last = 2 * len(HIDDEN)
    if isinstance(space, spaces.MultiBinary):
        gradients[last : last + 2] = [gradient[1::2] for gradient in gradients[last : last + 2]]
    assert len(found) == len(gradients)
    for mine, other in zip(found, gradients, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)

    unmasked = agent._evaluate(agent.networks.actor.forward(batch.observations), batch.actions, batch.masks[:, :0])
    assert (unmasked.log_probs - log_probs).abs().max() > 0.1  # without its masks, it is another policy


def test_draws_and_best_actions_agree(space, file):
    """The same probabilities, row by row: sampled by ours, as MaskablePPO's distribution has them."""
    model = theirs(file, space)
    agent = TorchPPOAgent(
        actor=chain(file, "actor"),
        critic=chain(file, "critic"),
        observation_space=Still.observation_space,
        action_space=space,
    )
    rows, masks = file["observations"][:8], file["masks"][:8]
    best, _ = model.predict(rows, deterministic=True, action_masks=masks)
    policy = agent.make_policy("greedy", num_envs=8, seed=0)
    np.testing.assert_array_equal(policy.act_masked(rows, masks), best)
    draws = 2000
    counts = sum(chosen(space, agent.act_masked(rows, masks)) for _ in range(draws))
    assert not counts[~masks].any()
    distribution = model.policy.get_distribution(torch.from_numpy(rows), action_masks=masks)
    parts = getattr(distribution, "distributions", None) or [distribution.distribution]
    probs = torch.cat([part.probs for part in parts], 1).detach().numpy()
    assert (np.abs(counts / draws - probs) < 5 * np.sqrt(probs * (1 - probs) / draws) + 1e-3).all()


def chosen(space, actions):
    """One-hot, part by part, as masks are laid out: ``[N, A]``."""
    parts = mask_parts(space)
    flat = np.zeros((len(actions), sum(parts)), int)
    places = np.asarray(actions).reshape(len(actions), -1) + np.cumsum((0, *parts[:-1]))
    flat[np.arange(len(actions))[:, None], places] = 1
    return flat
