"""Environments that fail where they are told to; a module that other processes find."""

import os
import signal
import time

import gymnasium as gym
import numpy as np


class OddError(Exception):
    """Cannot be rebuilt from its pickle, nor sent at all."""

    def __init__(self, code, *, reason):
        super().__init__(f"{code} {reason}")
        self.hook = lambda: None


class Faulty(gym.Env):
    """Fails where it is told to, but never in the process ``parent``."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)

    def __init__(self, where="nowhere", how="raise", parent=0):
        self.where, self.how, self.parent = where, how, parent
        self.fail("init")

    def fail(self, where):
        if where != self.where or os.getpid() == self.parent:
            return
        if self.how == "raise":
            raise OddError(7, reason="gripper jammed")
        if self.how == "exit":
            raise SystemExit("licence expired")
        if self.how == "die":
            os._exit(3)
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.fail("reset")
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        if self.t == 3:
            self.fail("step")
        return np.zeros(1, np.float32), 1.0, False, self.t >= 5, {}

    def close(self):
        self.fail("close")
