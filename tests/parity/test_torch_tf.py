"""One file of weights and one batch give torch and TensorFlow the same losses, gradients and parameters.

In float64 torch runs its hand-written gradients on modules by autograd, in float32 by the kernels that training uses.
TensorFlow runs what training runs: all updates in one call compiled by XLA.
"""

import functools

import numpy as np
import pytest
from gymnasium import spaces

torch = pytest.importorskip("torch")
optix_torch = pytest.importorskip("optix_torch")
optix_tf = pytest.importorskip("optix_tf")

from torch import nn  # noqa: E402

from optix_core.agents.updates import Batch, Diagnostics  # noqa: E402
from optix_protocol.conformance.masks import allowing, random_masks  # noqa: E402
from optix_tf._compilation import compiled  # noqa: E402
from optix_tf._off_policy import Transitions as TFTransitions  # noqa: E402
from optix_tf._runtime import keras, tf  # noqa: E402
from optix_tf.algorithms.ppo import Plan, ppo_update  # noqa: E402
from optix_torch._learned import Transitions  # noqa: E402

HIDDEN, NUM_ACTIONS, NUM_DIMENSIONS, NUM_ROWS = (48, 32), 3, 2, 128
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
OBSERVATIONS = spaces.Box(-np.inf, np.inf, (5,), np.float32)
DISCRETE, BOX = spaces.Discrete(NUM_ACTIONS), spaces.Box(-1.0, 1.0, (NUM_DIMENSIONS,))
PPO_SETTINGS = {"clip_range": 0.15, "entropy_coef": 0.03, "value_coef": 0.7, "clip_range_value": 0.4}
SETTINGS = {
    "ppo": PPO_SETTINGS,
    "gaussian ppo": PPO_SETTINGS | {"log_std_init": -0.5},
    "dqn": {"double_q": True, "target_update_interval": 3, "tau": 0.5},
    "sac": {"tau": 0.02, "initial_alpha": 0.3},
    "td3": {"tau": 0.02, "target_noise": 0.3, "target_noise_clip": 0.4, "policy_delay": 2},
    "masked ppo": PPO_SETTINGS,
    "masked dqn": {"double_q": True, "target_update_interval": 3, "tau": 0.5},
}
OUTPUTS = {"ppo": NUM_ACTIONS, "gaussian ppo": NUM_DIMENSIONS, "sac": 2 * NUM_DIMENSIONS, "td3": NUM_DIMENSIONS}


@pytest.fixture(params=[pytest.param("float64", marks=pytest.mark.slow), "float32"])
def precision(request, monkeypatch, torch_precision):
    torch_precision(request.param)
    if request.param == "float64":
        monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor.double())  # what is computed stays in float64
    return request.param


@pytest.fixture
def arrays(request, reference_file, precision):
    """The file's arrays, with what PPO needs besides, in the precision under test."""
    full_name = request.getfixturevalue("name")
    name = full_name.removeprefix("masked ")
    if name == "dqn":
        networks = dict.fromkeys(("q_network", "slow_q_network"), (5, *HIDDEN, NUM_ACTIONS))
    elif "ppo" in name:
        networks = {"actor": (5, *HIDDEN, OUTPUTS[name]), "critic": (5, *HIDDEN, 1)}
    else:
        networks = dict.fromkeys(("actor", "slow_actor"), (5, *HIDDEN, OUTPUTS[name]))
        critics = ("critic0", "critic1", "slow_critic0", "slow_critic1")
        networks |= dict.fromkeys(critics, (5 + NUM_DIMENSIONS, *HIDDEN, 1))
    is_discrete = name in ("ppo", "dqn")
    path = reference_file(networks, num_actions=NUM_ACTIONS * is_discrete, num_dimensions=NUM_DIMENSIONS)
    rng = np.random.default_rng(1)
    found = dict(np.load(path)) | {name: rng.normal(size=NUM_ROWS) for name in ("advantages", "returns", "values")}
    nothing = np.empty((NUM_ROWS, 0), np.bool_)  # all actions are allowed
    found |= {"masks": nothing, "next_masks": nothing}
    if full_name != name:
        masks, next_masks = (random_masks(DISCRETE, rng, NUM_ROWS) for _ in range(2))
        found |= {"masks": allowing(DISCRETE, masks, found["actions"]), "next_masks": next_masks}
    found["noise"] = np.round(256 * found["noise"]) / 256  # torch squares it in float32: exact with so few bits
    return {key: array.astype(precision) if array.dtype.kind == "f" else array for key, array in found.items()}


def layers(arrays, name):
    count = sum(key.startswith(name + ".") for key in arrays) // 2
    return [(arrays[f"{name}.{i}.kernel"], arrays[f"{name}.{i}.bias"]) for i in range(count)]


def last_activation(agent, network):
    return "tanh" if agent == "td3" and "actor" in network else None


# ---- torch ----------------------------------------------------------------------------------------------------------


class ByAutograd(nn.Module):
    """A dense network that is no ``nn.Sequential``: autograd runs it, not a kernel."""

    def __init__(self, chain):
        super().__init__()
        self.chain = chain

    def forward(self, *inputs):
        return self.chain(torch.cat(inputs, 1).to(torch.float64))


def torch_network(name, arrays, network):
    parts = []
    for kernel, bias in layers(arrays, network):
        linear = nn.Linear(*kernel.shape)
        linear.weight.data, linear.bias.data = torch.from_numpy(kernel.T.copy()), torch.from_numpy(bias.copy())
        parts += [linear, nn.ReLU()]
    chain = nn.Sequential(*parts[:-1], *([nn.Tanh()] if last_activation(name, network) else []))
    return ByAutograd(chain) if arrays["rewards"].dtype == np.float64 else chain


class Noise:
    def __init__(self, noise):
        self.noise = iter(noise)

    def standard_normal(self, shape, dtype):
        return next(self.noise)


def torch_agent(name, arrays, settings, optimizer):
    build = functools.partial(torch_network, name, arrays)
    common = {"hyperparams": settings, "observation_space": OBSERVATIONS}
    if name == "dqn":
        network = build("q_network")
        agent = optix_torch.TorchDQNAgent(
            q_network=network, optimizer=optimizer and optimizer(network.parameters()), action_dim=NUM_ACTIONS, **common
        )
        agent._target.networks[0].load_state_dict(build("slow_q_network").state_dict())
        return agent
    actor = build("actor")
    if "ppo" in name:
        agent_class = optix_torch.TorchPPOAgent if name == "ppo" else optix_torch.TorchGaussianPPOAgent
        agent = agent_class(actor=actor, critic=build("critic"), action_dim=OUTPUTS[name], **common)
        if optimizer:
            agent.networks.optimizer = PlainSteps(agent.networks.parameters)
        return agent
    critics = [build("critic0"), build("critic1")]
    parameters = [p for module in (actor, *critics) for p in module.parameters()]
    agent_class = optix_torch.TorchSACAgent if name == "sac" else optix_torch.TorchTD3Agent
    agent = agent_class(
        actor=actor, critic=critics, action_space=BOX, optimizer=optimizer and optimizer(parameters), **common
    )
    for i, slow in enumerate(agent._target_critics.networks):
        slow.load_state_dict(build(f"slow_critic{i}").state_dict())
    if name == "td3":
        agent._target_actor.networks[0].load_state_dict(build("slow_actor").state_dict())
    return agent


class PlainSteps:
    """Gradient descent on the parameters of actor, critic and spread together."""

    def __init__(self, parameters):
        self._parameters = parameters

    def step(self):
        self._parameters.vector.add_(self._parameters.gradient, alpha=-self.learning_rate)


def of_torch(name, arrays, num_updates, settings, *, plain_steps=False):
    """Return what is learned, the slow copies, and the last update's diagnostics."""
    optimizer = functools.partial(torch.optim.SGD, lr=settings["learning_rate"]) if plain_steps else None
    agent = torch_agent(name, arrays, settings, optimizer)
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    if "ppo" in name:
        agent.networks.optimizer.learning_rate = settings["learning_rate"]
        outputs = agent.networks.actor.infer(tensors["observations"])
        log_probs = agent._evaluate(outputs, tensors["actions"], tensors["masks"]).log_probs
        names = ("observations", "actions", "values", "advantages", "returns", "masks")
        batch = Batch(log_probs=log_probs, **{key: tensors[key] for key in names})
        for _ in range(num_updates):
            measured = agent._step_in_place(*batch)
        diagnostics = Diagnostics(*measured.tolist())._asdict()
        learned, slow = {"actor": agent.actor, "critic": agent.critic}, {}
    else:
        agent._rng = Noise(arrays["noise"].astype(np.float32))
        for _ in range(num_updates):
            agent._update(Transitions(**{field: tensors[field] for field in Transitions._fields if field in tensors}))
            agent._num_updates += 1
        diagnostics = agent._measure()
        if name == "dqn":
            learned, slow = {"q_network": agent.q_network}, {"q_network": agent._target.networks[0]}
        else:
            learned = {"actor": agent.actor, "critic_0": agent.critics[0], "critic_1": agent.critics[1]}
            slow = {f"critic_{i}": network for i, network in enumerate(agent._target_critics.networks)}
            slow |= {"actor": agent._target_actor.networks[0]} if name == "td3" else {}
    extra = {key: [p.detach().numpy().copy()] for key, p in agent.networks.extra.items()}
    return (
        {key: numbers(module) for key, module in learned.items()} | extra,
        {key: numbers(module) for key, module in slow.items()},
        diagnostics,
    )


def numbers(module):
    """Kernels ``[in, out]`` and biases, in order."""
    return [p.detach().numpy().T.copy() for p in module.parameters()]


# ---- TensorFlow -----------------------------------------------------------------------------------------------------


def tf_network(name, arrays, network):
    dtype, pairs = str(arrays["rewards"].dtype), layers(arrays, network)
    activations = ["relu"] * (len(pairs) - 1) + [last_activation(name, network)]
    dense = [
        keras.layers.Dense(len(bias), activation=activation, dtype=dtype)
        for (_, bias), activation in zip(pairs, activations, strict=True)
    ]
    model = keras.Sequential([keras.Input((len(pairs[0][0]),), dtype=dtype), *dense])
    model.set_weights([array for pair in pairs for array in pair])
    return model


def tf_agent(name, arrays, settings, optimizer):
    build = functools.partial(tf_network, name, arrays)
    common = {"hyperparams": settings, "optimizer": optimizer, "observation_space": OBSERVATIONS}
    if name == "dqn":
        return optix_tf.TFDQNAgent(q_network=build("q_network"), **common)
    if "ppo" in name:
        agent_class = optix_tf.TFPPOAgent if name == "ppo" else optix_tf.TFGaussianPPOAgent
        return agent_class(actor=build("actor"), critic=build("critic"), **common)
    agent_class = optix_tf.TFSACAgent if name == "sac" else optix_tf.TFTD3Agent
    critics = [build("critic0"), build("critic1")]
    return agent_class(actor=build("actor"), critic=critics, action_space=BOX, **common)


def of_tf(name, arrays, num_updates, settings, *, plain_steps=False):
    optimizer = keras.optimizers.SGD(settings["learning_rate"]) if plain_steps else None
    agent = tf_agent(name, arrays, settings, optimizer)
    dtype = arrays["rewards"].dtype
    if "ppo" in name:
        rows = np.tile(np.arange(NUM_ROWS, dtype=np.int32), (num_updates, 1))
        plan = Plan(rows, np.full(num_updates, NUM_ROWS, np.int32), np.int32(num_updates), np.int32(1))
        columns = {key: arrays[key] for key in Batch._fields if key in arrays}
        batch = Batch(log_probs=np.full(NUM_ROWS, np.nan, dtype), **columns)
        update = compiled(ppo_update, agent.model)
        agent.networks.train_state, means = update(agent.networks.train_state, batch, plan, agent._settings())
        diagnostics = {name: float(mean) for name, mean in means._asdict().items()}
    else:
        names = {"q_network": "slow_q_network", "actor": "slow_actor"}
        names |= {f"critic_{i}": f"slow_critic{i}" for i in range(2)}
        slow = {
            part: [tf.constant(array) for pair in layers(arrays, names[part]) for array in pair]
            for part in agent.networks.targets
        }
        agent.networks.train_state = agent.networks.train_state._replace(targets=slow)
        fields = {key: arrays[key] for key in Transitions._fields if key in arrays}
        noises = arrays["noise"].astype(np.float32).astype(dtype)[:num_updates]
        agent._update([TFTransitions(noise=noise.swapaxes(0, 1), **fields) for noise in noises])
        diagnostics = agent._measure()
    params, targets, _ = agent.networks.train_state
    return (
        {key: [t.numpy() for t in part] for key, part in params.items()},
        {key: [t.numpy() for t in part] for key, part in targets.items()},
        diagnostics,
    )


# ---- both -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=list(SETTINGS))
def name(request):
    return request.param


def settings_for(name, **changes):
    memory = {} if "ppo" in name else {"capacity": 1000}
    return SETTINGS[name] | memory | {"learning_rate": 1e-3} | changes


def assert_same(found, expected, tolerance, scale=1.0):
    assert found.keys() == expected.keys()
    for key in expected:
        for mine, other in zip(found[key], expected[key], strict=True):
            np.testing.assert_allclose(scale * mine, scale * other, rtol=tolerance, atol=tolerance, err_msg=key)


def test_losses_and_gradients_agree(name, arrays, precision):
    """After plain gradient steps, equal parameters over the learning rate are equal gradients."""
    name = name.removeprefix("masked ")
    rate, tolerance = 0.125, TOLERANCE[precision]  # Keras keeps it in float32: a power of two is exact
    settings = settings_for(name, learning_rate=rate, **({} if name in ("sac", "td3") else {"max_grad_norm": 1e9}))
    for num_updates in (1, 2):
        expected, _, theirs = of_torch(name, arrays, num_updates, settings, plain_steps=True)
        found, _, ours = of_tf(name, arrays, num_updates, settings, plain_steps=True)
        assert_same(found, expected, tolerance, 1 / rate)
        for key, value in ours.items():
            assert value == pytest.approx(theirs[key], rel=tolerance, abs=tolerance), key


@pytest.mark.parametrize("num_updates", [pytest.param(1, marks=pytest.mark.slow), 10])
def test_parameters_agree_after_steps_of_adam(name, num_updates, arrays, precision):
    tolerance, name = TOLERANCE[precision], name.removeprefix("masked ")
    expected, expected_slow, theirs = of_torch(name, arrays, num_updates, settings_for(name))
    found, found_slow, ours = of_tf(name, arrays, num_updates, settings_for(name))
    assert_same(found, expected, tolerance)
    assert_same(found_slow, expected_slow, tolerance)
    for key, value in ours.items():
        assert value == pytest.approx(theirs[key], rel=10 * tolerance, abs=10 * tolerance), key
