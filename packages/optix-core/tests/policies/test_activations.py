"""Activation functions: what they compute, how they are called elsewhere, and the same in ONNX."""

import math

import numpy as np
import pytest

from optix_core.policies import ACTIVATIONS, MLP, Flatten, activation_name
from optix_core.policies.onnx_export import PolicyGraph

X = np.concatenate([np.linspace(-12, 12, 241), [-1000.0, -88.0, -1.0, -0.5, 0.5, 1.0, 88.0, 1000.0]])


def softplus(x):
    return x if x > 30 else math.log1p(math.exp(x))


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def elu(x):
    return x if x > 0 else math.expm1(x)


FORMULAS = {
    "identity": lambda x: x,
    "relu": lambda x: max(x, 0),
    "tanh": math.tanh,
    "sigmoid": sigmoid,
    "elu": elu,
    "silu": lambda x: x * sigmoid(x),
    "gelu": lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "mish": lambda x: x * math.tanh(softplus(x)),
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x)),
    "celu": elu,
    "softplus": softplus,
    "softsign": lambda x: x / (1 + abs(x)),
    "relu6": lambda x: min(max(x, 0), 6),
    "hard_sigmoid": lambda x: min(max(x + 3, 0), 6) / 6,
    "hard_silu": lambda x: x * min(max(x + 3, 0), 6) / 6,
    "hard_tanh": lambda x: min(max(x, -1), 1),
    "hard_shrink": lambda x: x if abs(x) > 0.5 else 0,
    "soft_shrink": lambda x: math.copysign(max(abs(x) - 0.5, 0), x),
    "tanh_shrink": lambda x: x - math.tanh(x),
    "log_sigmoid": lambda x: -softplus(-x),
    "sparse_plus": lambda x: 0 if x <= -1 else x if x >= 1 else (x + 1) ** 2 / 4,
    "sparse_sigmoid": lambda x: min(max((x + 1) / 2, 0), 1),
    "squareplus": lambda x: (x + math.sqrt(x * x + 4)) / 2,
    "exponential": lambda x: math.exp(min(x, 700)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_they_compute_their_formulas(name):
    x = np.minimum(X, 80.0) if name == "exponential" else X
    expected = [FORMULAS[name](value) for value in x.astype(np.float32).astype(float)]
    found = ACTIVATIONS[name](x.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=2e-5 if name == "squareplus" else 2e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_models_for_deployment_compute_the_same(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    mlp = MLP(weights=[np.eye(1, dtype=np.float32)], biases=[np.zeros(1, np.float32)], activations=[name])
    graph = PolicyGraph(Flatten(shape=(1,)), None)
    graph.output("outputs", graph.mlp(graph.rows, mlp), (1,))
    graph.save(tmp_path / "model.onnx", kind="test")
    rows = np.clip(X, -80, 80).astype(np.float32)[:, None]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"observation": rows})
    np.testing.assert_allclose(found, mlp(rows.copy()), rtol=1e-5, atol=2e-5 if name == "squareplus" else 2e-6)


def test_other_spellings():
    class LeakyReLU:
        pass

    for given, name in {
        "Swish": "silu", "hard_swish": "hard_silu", "Hardswish": "hard_silu", "LeakyReLU": "leaky_relu",
        "soft_sign": "softsign", "linear": "identity", LeakyReLU: "leaky_relu", math.tanh: "tanh",
    }.items():  # fmt: skip
        assert activation_name(given) == name
    assert activation_name("relux") == "relux"
    assert activation_name(3) == 3
