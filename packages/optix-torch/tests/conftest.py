"""Stand-ins for a GPU (what a CUDA graph would refuse, and would repeat), and agents of every algorithm."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from gymnasium import spaces
from torch.utils._python_dispatch import TorchDispatchMode

from optix_protocol.conformance import Case, make_window
from optix_torch import (
    TorchAgent,
    TorchDQNAgent,
    TorchPPOAgent,
    TorchRainbowDQNAgent,
    TorchRecurrentPPOAgent,
    TorchSACAgent,
    TorchTD3Agent,
    _optimizers,
)


class NothingThatWaits(TorchDispatchMode):
    """Refuses operations that bring a number to the host, or whose result's shape depends on values."""

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "item", "equal")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(name in func.name() for name in self.REFUSED), func
        return func(*args, **(kwargs or {}))


@pytest.fixture
def nothing_that_waits(monkeypatch):
    monkeypatch.setattr(_optimizers, "_READ_AT_ONCE", frozenset())  # as on a GPU
    return NothingThatWaits()


@pytest.fixture
def capture_by_calling_again():
    """Make a stand-in for a CUDA graph: the same function on the same memory, its result ``[size]`` in one place."""

    def sized(size):
        def capture(update):
            place = torch.zeros(size)
            return lambda: place.copy_(update()), place

        return capture

    return sized


BOX, DISCRETE = spaces.Box(-1, 1, (4,)), spaces.Discrete(2)
CONTINUOUS = spaces.Box(-1, 1, (2,))
ON_POLICY = {"num_epochs": 1, "minibatch_size": 4096, "max_grad_norm": 1e9}
OFF_POLICY = {"learning_starts": 1, "batch_size": 32, "updates_per_step": 1 / 40}


def build(algorithm, networks, **options):
    spaces_ = {"observation_space": BOX, "action_space": CONTINUOUS if algorithm in ("sac", "td3") else DISCRETE}
    kinds = {
        "ppo": (TorchPPOAgent, ON_POLICY),
        "a2c": (TorchAgent, {"max_grad_norm": 1e9}),
        "dqn": (TorchDQNAgent, OFF_POLICY | {"max_grad_norm": 1e9}),
        "rainbow": (TorchRainbowDQNAgent, OFF_POLICY | {"max_grad_norm": 1e9, "num_atoms": 5}),
        "sac": (TorchSACAgent, OFF_POLICY),
        "td3": (TorchTD3Agent, OFF_POLICY | {"policy_delay": 1}),
        "recurrent_ppo": (TorchRecurrentPPOAgent, ON_POLICY),
    }
    kind, hyperparams = kinds[algorithm]
    return kind(**networks, **spaces_, hyperparams=hyperparams, **options)


def window_for(algorithm, agent, seed=0):
    case = Case(observation_space=BOX, action_space=CONTINUOUS if algorithm in ("sac", "td3") else DISCRETE)
    window = make_window(case, seed=seed)
    if algorithm == "recurrent_ppo":
        object.__setattr__(window, "initial_state", agent.initial_state(3))
    return window


def learn(algorithm, agent):
    agent.learn(window_for(algorithm, agent))


@pytest.fixture
def tools():
    """Agents of every algorithm on networks of four observations, two actions; windows of one update for them."""
    return SimpleNamespace(build=build, window_for=window_for, learn=learn)
