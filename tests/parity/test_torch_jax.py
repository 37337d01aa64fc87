"""The same PPO in torch and JAX: one file of weights and a batch give the same loss, gradients and parameters."""

import itertools

import jax
import numpy as np
import pytest
import torch
from gymnasium import spaces

from optix_core.agents import load_weights, save_weights
from optix_core.agents.updates import Batch
from optix_jax import FlaxGaussianPPOAgent, FlaxPPOAgent
from optix_jax.algorithms import ppo as jax_ppo
from optix_protocol import HyperparamSet
from optix_protocol.conformance.masks import allowing, random_masks
from optix_torch import TorchGaussianPPOAgent, TorchPPOAgent

ROWS, SIZES = 200, (5, 16, 16)
BOX = spaces.Box(-1, 1, (5,))
CASES = {
    "discrete": (spaces.Discrete(3, start=2), TorchPPOAgent, FlaxPPOAgent, 3),
    "multidiscrete": (spaces.MultiDiscrete([2, 3]), TorchPPOAgent, FlaxPPOAgent, 5),
    "multibinary": (spaces.MultiBinary((2, 2)), TorchPPOAgent, FlaxPPOAgent, 4),
    "two axes": (spaces.MultiDiscrete([[2, 3], [2, 2]]), TorchPPOAgent, FlaxPPOAgent, 9),
    "box": (
        spaces.Box(np.array([0.0, -3.0], np.float32), np.array([4.0, 3.0], np.float32)),
        TorchGaussianPPOAgent,
        FlaxGaussianPPOAgent,
        2,
    ),
}
VARIANTS = (
    {},
    {"clip_range_value": 0.1, "value_coef": 1.0, "activation": "relu"},
    {"entropy_coef": 0.05},
    {"entropy_coef": 0.05, "masked": True},
)


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def dtype(request, torch_precision):
    torch_precision(np.dtype(request.param).name)
    with jax.enable_x64(request.param == np.float64):
        yield request.param


def write_weights(path, num_outputs, gaussian, dtype):
    """Write layers as ``part.index.weight`` ``[in, out]`` and ``part.index.bias``, which is neither's own format."""
    rng, arrays = np.random.default_rng(0), {}
    for part, width in (("actor", num_outputs), ("critic", 1)):
        for index, (low, high) in enumerate(itertools.pairwise((*SIZES, width))):
            arrays[f"{part}.{index}.weight"] = rng.normal(0, 0.5, (low, high)).astype(dtype)
            arrays[f"{part}.{index}.bias"] = rng.normal(0, 0.1, high).astype(dtype)
    if gaussian:
        arrays["log_std"] = rng.normal(0, 0.3, num_outputs).astype(dtype)
    save_weights(path, arrays, kind="parity")
    return load_weights(path, kind="parity", like=arrays)


def in_torch(agent, arrays):
    for part, module in (("actor", agent.actor), ("critic", agent.critic)):
        layers = [layer for layer in module if isinstance(layer, torch.nn.Linear)]
        for index, layer in enumerate(layers):
            layer.weight.data.copy_(torch.from_numpy(arrays[f"{part}.{index}.weight"].T.copy()))
            layer.bias.data.copy_(torch.from_numpy(arrays[f"{part}.{index}.bias"]))
    if "log_std" in arrays:
        agent.networks.extra["log_std"].data.copy_(torch.from_numpy(arrays["log_std"]))


def from_torch(agent, what):
    found = {}
    for part, module in (("actor", agent.actor), ("critic", agent.critic)):
        for index, layer in enumerate(layer for layer in module if isinstance(layer, torch.nn.Linear)):
            found[f"{part}.{index}.weight"] = what(layer.weight).detach().numpy().T.copy()
            found[f"{part}.{index}.bias"] = what(layer.bias).detach().numpy().copy()
    for name, parameter in agent.networks.extra.items():
        found[name] = what(parameter).detach().numpy().copy()
    return found


def in_jax(arrays):
    tree = {"actor": {}, "critic": {}}
    for name, array in arrays.items():
        part, _, rest = name.partition(".")
        if not rest:
            tree[name] = array
            continue
        index, kind = rest.split(".")
        tree[part].setdefault(f"Dense_{index}", {})["kernel" if kind == "weight" else "bias"] = array
    return tree


def from_jax(tree):
    found = {name: np.asarray(leaf) for name, leaf in tree.items() if name == "log_std"}
    for part in ("actor", "critic"):
        for name, layer in tree[part].items():
            index = name.removeprefix("Dense_")
            found[f"{part}.{index}.weight"] = np.asarray(layer["kernel"])
            found[f"{part}.{index}.bias"] = np.asarray(layer["bias"])
    return found


def random_batch(space, dtype, masked):
    rng = np.random.default_rng(1)
    space.seed(0)
    actions = np.stack([space.sample() for _ in range(ROWS)])
    masks = np.empty((ROWS, 0), np.bool_)  # all actions are allowed
    if masked:
        masks = allowing(space, random_masks(space, rng, ROWS), actions)
    actions = actions if actions.ndim == 1 else actions.reshape(ROWS, -1)  # as agents hand them on
    return {
        "observations": rng.normal(size=(ROWS, SIZES[0])).astype(dtype),
        "actions": actions.astype(dtype) if actions.dtype.kind == "f" else actions.astype(np.int64),
        "log_probs": rng.normal(-1.5, 0.3, ROWS).astype(dtype),
        "values": rng.normal(size=ROWS).astype(dtype),
        "advantages": rng.normal(size=ROWS).astype(dtype),
        "returns": rng.normal(size=ROWS).astype(dtype),
        "masks": masks,
    }


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", CASES)
def test_same_loss_gradients_and_parameters_after_ten_steps(kind, variant, dtype, tmp_path):
    space, torch_class, jax_class, num_outputs = CASES[kind]
    masked = variant.get("masked", False)
    if masked and kind == "box":
        pytest.skip("masks are for discrete actions")
    settings = {"hidden_sizes": [16, 16], "num_epochs": 10, "minibatch_size": ROWS, "learning_rate": 1e-3, **variant}
    settings.pop("masked", None)
    tolerance = {"rtol": 0, "atol": 1e-9 if dtype == np.float64 else 1e-5}
    arrays = write_weights(tmp_path / "weights.safetensors", num_outputs, kind == "box", dtype)
    batch = random_batch(space, dtype, masked)

    ours = torch_class.from_spaces(BOX, space, hyperparams=settings)
    in_torch(ours, arrays)
    torch_batch = Batch(**{name: torch.from_numpy(array) for name, array in batch.items()})
    outputs = ours.networks.actor.infer(torch_batch.observations)
    judged = ours._evaluate(outputs, torch_batch.actions, torch_batch.masks)
    usual = ours.hyperparams["max_grad_norm"]
    ours.set_hyperparams(HyperparamSet(params={"max_grad_norm": 1e9}))  # the gradient as it is
    policy_loss, value_loss, entropy, approx_kl, *_ = ours._step_in_place(*torch_batch).tolist()
    torch_gradients = from_torch(ours, lambda parameter: parameter.grad)
    in_torch(ours, arrays)
    ours.set_hyperparams(HyperparamSet(params={"max_grad_norm": usual}))
    ours.networks.optimizer.restore({**ours.networks.optimizer.state(), **_untouched(ours)})
    ours._optimize(torch_batch, len(torch_batch.returns))

    theirs = jax_class.from_spaces(BOX, space, hyperparams=settings)
    numbers = {
        name: None if value is None else dtype(value)
        for name, value in jax_ppo.Settings.of(theirs.hyperparams)._asdict().items()
    }
    exact = {name: dtype(theirs.hyperparams[name]) for name in numbers if numbers[name] is not None}
    jax_settings = jax_ppo.Settings(**{**numbers, **exact})._replace(num_epochs=np.int32(10))
    params, jax_batch = jax.tree.map(jax.numpy.asarray, in_jax(arrays)), Batch(**batch)
    log_probs, entropies, _ = theirs.model.judge(params, jax_batch.observations, jax_batch.actions, jax_batch.masks)
    (_, terms), gradients = jax.value_and_grad(
        lambda p: jax_ppo.ppo_loss(theirs.model, p, jax_batch, jax_settings), has_aux=True
    )(params)
    state = jax_ppo.TrainState(params, theirs.model.optimizer.init(params), dtype(1e-3))
    state, _ = jax_ppo.ppo_update(
        theirs.model, state, jax_batch, ROWS, jax_settings, jax.random.PRNGKey(0), minibatch_size=ROWS
    )

    assert np.asarray(log_probs).dtype == dtype
    np.testing.assert_allclose(log_probs, judged.log_probs.numpy(), **tolerance)
    np.testing.assert_allclose(entropies, judged.entropies.numpy(), **tolerance)
    for ours_term, theirs_term in (
        (policy_loss, terms.policy_loss),
        (value_loss, terms.value_loss),
        (entropy, terms.entropy),
        (approx_kl, terms.approx_kl),
    ):
        np.testing.assert_allclose(theirs_term, ours_term, **tolerance)
    for found, expected in ((from_jax(gradients), torch_gradients), (from_jax(state.params), from_torch(ours, _same))):
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, err_msg=name, **tolerance)
    moved = [np.abs(from_jax(state.params)[name] - array).max() for name, array in arrays.items()]
    assert min(moved) > 1e-4


def _untouched(agent):
    state = agent.networks.optimizer.state()
    return {"first": np.zeros_like(state["first"]), "second": np.zeros_like(state["second"]), "num_steps": 0}


def _same(parameter):
    return parameter
