"""An actor-critic in NumPy, small enough to be seen through, and environments that misbehave."""

from __future__ import annotations

import os
import signal
import sys
import time

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest

from optix_core.agents.lag import CorrectsLag
from optix_core.data import compute_vtrace
from optix_core.policies import MLP, Categorical, Flatten, policy_from_tree, policy_tree
from optix_protocol import HyperparamSet

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # no actor can import what pytest has found somewhere


class LinearAgent(CorrectsLag):
    """Softmax policy and value, both linear in the observation; one step on V-trace's advantages per window."""

    is_on_policy = True

    def __init__(self, size=4, num_actions=2, seed=0):
        rng = np.random.default_rng(seed)
        self.policy = rng.normal(0, 0.01, (size, num_actions)).astype(np.float32)
        self.value = np.zeros(size, np.float32)
        self.learning_rate, self.lags = 0.02, []

    def host_policy(self):
        network = MLP(weights=[self.policy], biases=[np.zeros(2, np.float32)], activations=["identity"])
        return policy_tree(Flatten(shape=(len(self.policy),)), network, Categorical(), None)

    def make_policy(self, mode, *, num_envs, seed):
        return policy_from_tree(self.host_policy(), mode=mode, seed=seed)

    def act(self, observations):
        return policy_from_tree(self.host_policy(), mode="sample").act(np.atleast_2d(observations))

    def learn(self, window):
        logits = window.observations @ self.policy
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        chosen = np.take_along_axis(log_probs, window.actions[..., None].astype(int), -1)[..., 0]
        values, successors = window.observations @ self.value, window.next_observations @ self.value
        advantages, targets = compute_vtrace(
            window.rewards, values, successors, window.terminated, window.truncated,
            chosen - window.behaviour_log_probs, window.valid, gamma=0.98, trace_decay=0.95,
        )  # fmt: skip
        rows = window.valid
        score = np.eye(2)[window.actions[rows].astype(int)] - np.exp(log_probs[rows])
        scale = self.learning_rate / rows.sum()
        self.policy += (scale * window.observations[rows].T @ (score * advantages[rows][:, None])).astype(np.float32)
        self.value += (scale * window.observations[rows].T @ (targets - values)[rows]).astype(np.float32)
        return {"loss": float(np.square(targets - values)[rows].mean())}

    def get_hyperparams(self):
        return HyperparamSet(params={"learning_rate": self.learning_rate})

    def set_hyperparams(self, hyperparams):
        self.learning_rate = hyperparams["learning_rate"]

    def save_weights(self, path):
        with open(path, "wb") as file:
            np.savez(file, policy=self.policy, value=self.value)

    def load_weights(self, path):
        with np.load(path) as stored:
            self.policy, self.value = stored["policy"], stored["value"]


class Awkward(gym.Env):
    """Cart-pole's shapes; does something unpleasant after some steps."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, deed="nothing", after=50, chance=1.0, sleep_s=0.0):
        self.deed, self.after, self.chance, self.sleep_s = deed, after, chance, sleep_s
        self.count = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._observation(), {}

    def _observation(self):
        return self.np_random.normal(size=4).astype(np.float32)

    def step(self, action):
        self.t += 1
        self.count += 1
        if self.sleep_s:
            time.sleep(self.sleep_s)
        observation = self._observation()
        if self.count == self.after and self.np_random.random() < self.chance:
            if self.deed == "raise":
                raise RuntimeError("the motor is on fire")
            if self.deed == "hang":
                time.sleep(3600)
            if self.deed == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.deed == "nan":
                observation[0] = np.nan
        return observation, float(action), self.t % 20 == 0, False, {"is_success": 1.0}


@pytest.fixture
def agent():
    return LinearAgent()


@pytest.fixture
def awkward():
    return Awkward


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Every test leaves the shared memory as it found it."""
    from optix_distributed.local.segments import shared_folder

    before = set(shared_folder().glob(f"optix-{os.getpid()}-*"))
    yield
    assert set(shared_folder().glob(f"optix-{os.getpid()}-*")) == before
