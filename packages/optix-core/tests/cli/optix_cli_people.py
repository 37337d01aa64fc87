"""What other people's packages do: register by a function, want arguments, wrappers and options, or fail to import."""

import gymnasium as gym
import numpy as np
from optix_cli_envs import Toy


class Room(Toy):
    """Pays ``pay`` for action 1, more after a reset with the option ``bonus``; says what it was asked for."""

    def __init__(self, pay, name="plain"):
        self.pay, self.name, self.bonus = pay, name, 0.0

    def reset(self, *, seed=None, options=None):
        self.bonus = float((options or {}).get("bonus", 0.0))
        return super().reset(seed=seed)

    def reward(self, action):
        return self.pay * float(action == 1) + self.bonus


class Double(gym.RewardWrapper):
    """Multiplies rewards."""

    def __init__(self, env, by=2.0):
        super().__init__(env)
        self.by = by

    def reward(self, reward):
        return self.by * reward


class Pictures(Toy):
    """Shows small coloured pictures."""

    observation_space = gym.spaces.Box(0, 255, (36, 40, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.picture(), {}

    def step(self, action):
        _, *rest = super().step(action)
        return (self.picture(), *rest)

    def picture(self):
        return np.full((36, 40, 3), self.t, np.uint8)


def register_rooms():
    gym.register(id="CliRoom-v0", entry_point=Room, max_episode_steps=50)
    gym.register(id="CliPictures-v0", entry_point=Pictures, max_episode_steps=50)


def fail():
    raise RuntimeError("no licence")


def leave():
    raise SystemExit("goodbye")
