"""Toys whose learning curve is known in advance."""

from __future__ import annotations

import gymnasium as gym
import msgspec
import numpy as np
import pytest

from optix_core.journal import events
from optix_protocol import HyperparamSet


class SkillEnv(gym.Env):
    """Episodes of ``length`` steps; the rewards add up to the action plus noise: the score is the skill."""

    def __init__(self, length=4, noise=0.1, truncate=False):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gym.spaces.Box(-10.0, 10.0, (1,), np.float32)
        self.length, self.noise, self.truncate = length, noise, truncate

    def _observe(self):
        return np.array([self.t, self.length], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action):
        self.t += 1
        reward = (float(np.asarray(action).item()) + self.noise * self.np_random.standard_normal()) / self.length
        over = self.t >= self.length
        return self._observe(), reward, over and not self.truncate, over and self.truncate, {}


class SkillAgent:
    """Its action is its skill, which every ``learn`` moves along a curve given as a function of the learn count."""

    is_on_policy = True

    def __init__(self, curve=lambda k: min(1.0, k / 20), **params):
        self.curve, self.params = curve, {"rate": 1.0, **params}
        self.learned, self.skill = 0, float(curve(0))

    def act(self, observation):
        batch = np.asarray(observation).shape[:-1]
        return np.full((*batch, 1), self.skill)

    def learn(self, episode_data):
        self.learned += 1
        self.skill = float(self.curve(self.learned))
        return {"loss": 1.0}

    def get_hyperparams(self):
        return HyperparamSet(params=dict(self.params))

    def set_hyperparams(self, hyperparams):
        unknown = set(hyperparams.params) - set(self.params)
        if unknown:
            raise ValueError(f"unknown hyperparameter {unknown}")
        self.params.update(hyperparams.params)

    def save_weights(self, path):
        with open(path, "wb") as file:
            np.save(file, np.array([self.skill, self.learned]))

    def load_weights(self, path):
        try:
            self.skill, learned = np.load(path, allow_pickle=False)
        except (OSError, EOFError) as error:
            raise ValueError(f"{path} is damaged") from error
        self.learned = int(learned)


@pytest.fixture
def skill_env():
    return SkillEnv


@pytest.fixture
def skill_agent():
    return SkillAgent


EVIDENCE = events.EvidenceRecord(
    num_windows=1, num_env_steps=9, num_episodes=2, window_env_steps=3, verdict="UNDECIDED"
)


def example_event(kind):
    """A record of this kind with every required field filled."""
    fill = {
        str: "x", int: 1, bool: True, float: 0.5, events.Number: 0.5, dict[str, events.Json]: {"a": 1},
        list[events.Json]: [], list[dict[str, events.Json]]: [{"a": 1}], list[events.Number]: ["NaN", 0.5],
        events.Budget: events.Budget(max_episodes=3), events.EvidenceRecord: EVIDENCE,
        events.DecisionRecord: events.DecisionRecord(action="continue", checkpoint=False, learn=True),
    }  # fmt: skip
    return kind(**{f.name: fill[f.type] for f in msgspec.structs.fields(kind) if f.required})


@pytest.fixture(name="example_event", scope="session")
def example_event_fixture():
    return example_event
