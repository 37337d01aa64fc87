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


SETTINGS = {"entropy_coef": ENTROPY_COEF, "hidden_sizes": HIDDEN}


def judged_by_torch(file, space):
    agent = TorchPPOAgent(
        actor=chain(file, "actor"),
        critic=chain(file, "critic"),
        observation_space=Still.observation_space,
        action_space=space,
        hyperparams={"entropy_coef": ENTROPY_COEF},
    )
    batch = batch_of(file, torch.from_numpy)
    judged = agent._evaluate(agent.networks.actor.forward(batch.observations), batch.actions, batch.masks)
    values = agent.networks.critic.forward(batch.observations).squeeze(1)
    loss = ppo_loss(judged.log_probs, judged.entropies, values, batch, agent.hyperparams)
    agent.networks.parameters.gradient.zero_()
    agent.networks.backward(judged.backward(loss.d_log_prob, loss.d_entropy), loss.d_value.unsqueeze(1))
    total = loss.policy - ENTROPY_COEF * loss.entropy + 0.5 * loss.value
    gradients = [parameter.grad.numpy() for module in (agent.actor, agent.critic) for parameter in module.parameters()]
    return judged.log_probs, judged.entropies, total.item(), gradients


def judged_by_jax(file, space):
    jax = pytest.importorskip("jax")
    from optix_jax import FlaxPPOAgent
    from optix_jax.algorithms import ppo

    agent = FlaxPPOAgent.from_spaces(Still.observation_space, space, hyperparams=SETTINGS)
    names = [(part, f"Dense_{i}") for part in ("actor", "critic") for i in range(len(layers(file, part)))]
    params = {"actor": {}, "critic": {}}
    for part, name in names:
        weight, bias = layers(file, part)[int(name[-1])]
        params[part][name] = {"kernel": weight.T, "bias": bias}
    batch, settings = batch_of(file, np.asarray), ppo.Settings.of(agent.hyperparams)
    log_probs, entropies, _ = agent.model.judge(params, batch.observations, batch.actions, batch.masks)
    (loss, _), found = jax.value_and_grad(lambda p: ppo.ppo_loss(agent.model, p, batch, settings), has_aux=True)(params)
    gradients = [array for part, name in names for array in (found[part][name]["kernel"].T, found[part][name]["bias"])]
    return log_probs, entropies, float(loss), gradients


def judged_by_tf(file, space):
    tf = pytest.importorskip("tensorflow")
    from optix_tf import TFPPOAgent
    from optix_tf.algorithms import ppo

    agent = TFPPOAgent.from_spaces(Still.observation_space, space, hyperparams=SETTINGS)
    batch = batch_of(file, tf.constant)
    params = {
        part: [tf.constant(array) for weight, bias in layers(file, part) for array in (weight.T, bias)]
        for part in ("actor", "critic")
    }
    log_probs, entropies, _ = agent.model.judge(params, batch.observations, batch.actions, batch.masks)
    weights = tf.fill([len(file["returns"])], 1.0 / len(file["returns"]))
    with tf.GradientTape() as tape:
        tape.watch(params)
        loss, _ = ppo.ppo_loss(agent.model, params, batch, weights, agent._settings())
    found = tape.gradient(loss, params)
    return log_probs, entropies, float(loss), [g.numpy().T for part in ("actor", "critic") for g in found[part]]


def batch_of(file, convert):
    names = {name: "old_log_probs" if name == "log_probs" else name for name in Batch._fields}
    return Batch(**{name: convert(file[kept]) for name, kept in names.items()})


FRAMEWORKS = {"torch": judged_by_torch, "jax": judged_by_jax, "tf": judged_by_tf}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_log_probabilities_entropies_loss_and_gradients_agree(framework, space, file):
    log_probs, entropies, expected, gradients = judged_by_theirs(theirs(file, space), file)
    last = 2 * len(HIDDEN)
    if isinstance(space, spaces.MultiBinary):
        gradients[last : last + 2] = [gradient[1::2] for gradient in gradients[last : last + 2]]
    ours = FRAMEWORKS[framework](file, space)
    close = {"atol": 1e-5, "rtol": 1e-5}
    np.testing.assert_allclose(np.asarray(ours[0]), log_probs.detach().numpy(), **close)
    np.testing.assert_allclose(np.asarray(ours[1]), entropies.detach().numpy(), **close)
    assert ours[2] == pytest.approx(expected, abs=1e-5)
    for mine, other in zip(ours[3], gradients, strict=True):
        np.testing.assert_allclose(np.asarray(mine), other.numpy(), **close)
    without = FRAMEWORKS[framework]({**file, "masks": file["masks"][:, :0]}, space)
    assert np.abs(np.asarray(without[0]) - log_probs.detach().numpy()).max() > 0.1  # it is another policy


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
