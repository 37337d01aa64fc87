"""DQN, SAC and TD3: one file of weights and one batch give torch and JAX the same losses, gradients and parameters.

In float64 torch runs its hand-written gradients on modules by autograd, in float32 by the kernels that training uses.
"""

import functools

import numpy as np
import pytest
from gymnasium import spaces

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
pytest.importorskip("optix_torch")
pytest.importorskip("optix_jax")

import optax  # noqa: E402
from torch import nn  # noqa: E402

import optix_torch  # noqa: E402
from optix_jax._off_policy import LearnerState, Optimizer  # noqa: E402
from optix_jax._off_policy import Transitions as JaxTransitions  # noqa: E402
from optix_jax._twin_critics import TwinModel  # noqa: E402
from optix_jax.algorithms import dqn, sac, td3  # noqa: E402
from optix_jax.networks import MLP, Network  # noqa: E402
from optix_protocol.conformance.masks import random_masks  # noqa: E402
from optix_torch._learned import Transitions  # noqa: E402

HIDDEN, NUM_ACTIONS, NUM_DIMENSIONS = (48, 32), 3, 2
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
RATE, SGD_RATE = 1e-3, 0.1
OBSERVATIONS = spaces.Box(-np.inf, np.inf, (5,), np.float32)
ACTIONS = spaces.Box(-1.0, 1.0, (NUM_DIMENSIONS,))
NUMBERS = {"tau": 0.02, "target_noise": 0.3, "target_noise_clip": 0.4}


@pytest.fixture(params=["float64", "float32"])
def precision(request, monkeypatch, torch_precision):
    if request.param == "float32":
        yield request.param
        return
    torch_precision(request.param)
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)  # what is computed stays in float64
    with jax.enable_x64(True):
        yield request.param


class Side:
    """The file as one framework takes it."""

    def __init__(self, path, precision):
        self.arrays = {
            name: array.astype(precision) if array.dtype == np.float64 else array
            for name, array in np.load(path).items()
        }
        self.precision = precision

    def layers(self, name):
        count = sum(key.startswith(name + ".") for key in self.arrays) // 2
        return [(self.arrays[f"{name}.{i}.kernel"], self.arrays[f"{name}.{i}.bias"]) for i in range(count)]


# ---- torch ----------------------------------------------------------------------------------------------------------


class SideBySide(nn.Module):
    """A dense network in float64 that is no ``nn.Sequential``: autograd runs it, not a kernel."""

    def __init__(self, chain):
        super().__init__()
        self.chain = chain

    def forward(self, *inputs):
        return self.chain(torch.cat(inputs, 1).to(torch.float64))


def torch_network(side, name, *, last=()):
    parts = []
    for kernel, bias in side.layers(name):
        linear = nn.Linear(*kernel.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(kernel.T.copy()))
            linear.bias.copy_(torch.from_numpy(bias))
        parts += [linear, nn.ReLU()]
    chain = nn.Sequential(*parts[:-1], *last)
    return SideBySide(chain) if side.precision == "float64" else chain


def torch_batch(side):
    return Transitions(*(torch.from_numpy(side.arrays[name]) for name in Transitions._fields if name in side.arrays))


def numbers_of(module):
    """Weights as ``[in, out]`` and biases, in order."""
    return [p.detach().numpy().T.copy() for p in module.parameters()]


class Noise:
    def __init__(self, noise):
        self.noise = iter(noise)

    def standard_normal(self, shape, dtype):
        return next(self.noise)


def torch_agent(name, side, optimizer, rate):
    options = {"hyperparams": {"capacity": 1000, "batch_size": 128}, "observation_space": OBSERVATIONS}
    if name == "dqn":
        network = torch_network(side, "q_network")
        agent = optix_torch.TorchDQNAgent(
            q_network=network,
            optimizer=optimizer and optimizer(network.parameters()),
            **options | {"hyperparams": options["hyperparams"] | DQN_SETTINGS | {"learning_rate": rate}},
            action_dim=NUM_ACTIONS,
        )
        load(agent._target.networks[0], torch_network(side, "slow_q_network"))
        return agent
    agent_class = {"sac": optix_torch.TorchSACAgent, "td3": optix_torch.TorchTD3Agent}[name]
    names = {"tau"} if name == "sac" else {"tau", "target_noise", "target_noise_clip"}
    settings = {key: NUMBERS[key] for key in names} | {"learning_rate": rate}
    if name == "sac":
        settings["initial_alpha"] = 0.3
    last = [nn.Tanh()] if name == "td3" else []
    actor = torch_network(side, "actor", last=last)
    critics = [torch_network(side, f"critic{i}") for i in range(2)]
    parameters = [p for module in (actor, *critics) for p in module.parameters()]
    agent = agent_class(
        actor=actor,
        critic=critics,
        action_space=ACTIONS,
        optimizer=optimizer and optimizer(parameters),
        **options | {"hyperparams": options["hyperparams"] | settings},
    )
    for i, slow in enumerate(agent._target_critics.networks):
        load(slow, torch_network(side, f"slow_critic{i}"))
    if name == "td3":
        load(agent._target_actor.networks[0], torch_network(side, "slow_actor", last=last))
    return agent


def load(module, other):
    module.load_state_dict(other.state_dict())


def torch_updates(name, side, num_updates, optimizer=None, rate=RATE):
    """Return what was learned, the slow copies, the gradients of the last update, and its diagnostics."""
    agent, batch = torch_agent(name, side, optimizer, rate), torch_batch(side)
    agent._rng = Noise(side.arrays["noise"])
    for _ in range(num_updates):
        agent._update(batch)
        agent._num_updates += 1
    modules = {"q_network": agent.q_network} if name == "dqn" else {"actor": agent.actor}
    slow = [agent._target.networks[0]] if name == "dqn" else list(agent._target_critics.networks)
    if name != "dqn":
        modules |= {f"critic{i}": critic for i, critic in enumerate(agent.critics)}
    if name == "td3":
        slow.append(agent._target_actor.networks[0])
    learned = {key: numbers_of(module) for key, module in modules.items()}
    if name == "sac":
        learned["log_alpha"] = [agent._extra["log_alpha"].detach().numpy().reshape(())]
    gradients = {key: [p.grad.numpy().T.copy() for p in module.parameters()] for key, module in modules.items()}
    return learned, [numbers_of(module) for module in slow], gradients, agent._measure()


# ---- JAX ------------------------------------------------------------------------------------------------------------


def jax_params(side, name):
    return {f"Dense_{i}": {"kernel": kernel, "bias": bias} for i, (kernel, bias) in enumerate(side.layers(name))}


def in_order(params):
    """Weights and biases in the order of torch's."""
    return [np.asarray(params[layer][leaf]) for layer in sorted(params) for leaf in ("kernel", "bias")]


def jax_network(num_outputs, output_activation="identity"):
    return Network(
        module=MLP(hidden_sizes=HIDDEN, num_outputs=num_outputs, activation="relu", output_activation=output_activation)
    )


def jax_updates(name, side, num_updates, transformation=None, rate=RATE):
    optimizer = Optimizer.of(None) if transformation is None else Optimizer(transformation=transformation)
    critics = (jax_params(side, "critic0"), jax_params(side, "critic1")) if name != "dqn" else ()
    slow_critics = (jax_params(side, "slow_critic0"), jax_params(side, "slow_critic1")) if name != "dqn" else ()
    if name == "dqn":
        update, parts = dqn.dqn_update, {"q_network": ("q_network",)}
        model = dqn.Model(q_network=jax_network(NUM_ACTIONS), optimizer=optimizer)
        params, slow = {"q_network": jax_params(side, "q_network")}, {"q_network": jax_params(side, "slow_q_network")}
        settings = dqn.Settings(learning_rate=rate, **DQN_SETTINGS)
    else:
        activation = "tanh" if name == "td3" else "identity"
        width = NUM_DIMENSIONS * (2 if name == "sac" else 1)
        model = TwinModel(
            actor=jax_network(width, activation), critics=(jax_network(1), jax_network(1)), optimizer=optimizer
        )
        params, slow = {"actor": jax_params(side, "actor"), "critic": critics}, {"critic": slow_critics}
        parts = {"actor": ("actor",), "critic": ("critic",)}
    if name == "sac":
        update, parts["actor"] = sac.sac_update, ("actor", "log_alpha")
        params["log_alpha"] = np.log(0.3).astype(side.precision)
        settings = sac.Settings(
            learning_rate=rate, tau=NUMBERS["tau"], alpha=0.0, target_entropy=-float(NUM_DIMENSIONS)
        )
    elif name == "td3":
        update = td3.td3_update
        slow["actor"] = jax_params(side, "slow_actor")
        settings = td3.Settings(learning_rate=rate, policy_delay=2, **NUMBERS)
    memories = {
        part: optimizer.transformation.init({key: params[key] for key in names}) for part, names in parts.items()
    }
    zero = np.zeros((), side.precision)
    state = LearnerState(params, slow, memories, {"actor_loss": zero} if name == "td3" else {})
    step = jax.jit(update, static_argnums=0)
    batch = JaxTransitions(**{field: side.arrays[field] for field in Transitions._fields if field in side.arrays})
    for done in range(num_updates):
        before = state.params
        noise = side.arrays["noise"][done].swapaxes(0, 1)
        state, _ = step(model, state, batch._replace(noise=noise), settings, done)
    learned = named(state.params)
    moved = {
        key: [(o - n) / rate for o, n in zip(was, learned[key], strict=True)] for key, was in named(before).items()
    }
    slow = [in_order(network) for network in state.targets.get("critic", ())]
    slow += [in_order(state.targets[part]) for part in ("q_network", "actor") if part in state.targets]
    return learned, slow, moved, {key: float(value) for key, value in state.diagnostics.items()}


def named(params):
    found = {part: in_order(params[part]) for part in ("q_network", "actor") if part in params}
    found |= {f"critic{i}": in_order(critic) for i, critic in enumerate(params.get("critic", ()))}
    return found | ({"log_alpha": [np.asarray(params["log_alpha"])]} if "log_alpha" in params else {})


# ---- both -----------------------------------------------------------------------------------------------------------

DQN_SETTINGS = {"max_grad_norm": 10.0, "double_q": True, "target_update_interval": 3, "tau": 0.5}


def file_for(name, reference_file):
    size = 5
    if name == "dqn":
        sizes = (size, *HIDDEN, NUM_ACTIONS)
        return reference_file({"q_network": sizes, "slow_q_network": sizes}, num_actions=NUM_ACTIONS)
    outputs = NUM_DIMENSIONS * (2 if name == "sac" else 1)
    names = dict.fromkeys(("actor", "slow_actor"), (size, *HIDDEN, outputs))
    critic = (size + NUM_DIMENSIONS, *HIDDEN, 1)
    names |= dict.fromkeys(("critic0", "critic1", "slow_critic0", "slow_critic1"), critic)
    return reference_file(names, num_dimensions=NUM_DIMENSIONS)


def assert_close(found, expected, tolerance):
    for key in expected if isinstance(expected, dict) else range(len(expected)):
        for mine, other in zip(found[key], expected[key], strict=True):
            np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance, err_msg=str(key))


@pytest.mark.parametrize("num_updates", [1, 2])
@pytest.mark.parametrize("name", ["dqn", "sac", "td3"])
def test_losses_and_gradients_agree(name, num_updates, precision, reference_file, monkeypatch):
    """With plain gradient steps a step divided by the learning rate is the gradient."""
    if name == "dqn":
        monkeypatch.setitem(DQN_SETTINGS, "max_grad_norm", 1e9)
    side, tolerance = Side(file_for(name, reference_file), precision), TOLERANCE[precision]
    sgd = functools.partial(torch.optim.SGD, lr=SGD_RATE)
    _, _, expected, theirs = torch_updates(name, side, num_updates, sgd, SGD_RATE)
    _, _, found, ours = jax_updates(name, side, num_updates, optax.identity(), SGD_RATE)
    expected.pop("actor" if name == "td3" and num_updates == 1 else None, None)  # not yet moved
    for key, gradients in expected.items():
        assert max(np.abs(gradient).max() for gradient in gradients) > 1e-3
        for mine, other in zip(found[key], gradients, strict=True):
            np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance, err_msg=key)
    for key, value in ours.items():
        assert value == pytest.approx(theirs[key], rel=tolerance, abs=tolerance), key


@pytest.mark.parametrize("num_updates", [1, 10])
@pytest.mark.parametrize("name", ["dqn", "masked dqn", "sac", "td3"])
def test_parameters_agree_after_steps_of_adam(name, num_updates, precision, reference_file):
    side, tolerance = Side(file_for(name.removeprefix("masked "), reference_file), precision), TOLERANCE[precision]
    if name.startswith("masked"):
        rng, name = np.random.default_rng(3), "dqn"
        side.arrays["next_masks"] = random_masks(spaces.Discrete(NUM_ACTIONS), rng, len(side.arrays["rewards"]))
    expected, expected_slow, _, theirs = torch_updates(name, side, num_updates)
    found, found_slow, _, ours = jax_updates(name, side, num_updates)
    assert_close(found, expected, tolerance)
    assert_close(found_slow, expected_slow, tolerance)
    for key, value in ours.items():
        assert value == pytest.approx(theirs[key], rel=10 * tolerance, abs=10 * tolerance), key
