"""A goal environment in the manner of Gymnasium-Robotics, small enough for seconds: a point with inertia in a cube.

PYTHONPATH=examples uv run optix train point_goal:PointGoal-v0 --algorithm sac

The reward is 0 at the goal and -1 everywhere else, and almost no random flight comes near one: SAC alone learns nothing
(``--set her=none``). With hindsight, which is what optix does with goal environments, it learns to fly to any goal.
"""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class PointGoal(gym.Env):
    """Accelerate a point in a cube so that it reaches a place drawn at random, and stay there.

    Observation: a Dict of ``observation`` (position and velocity, 2 ``dims``), ``achieved_goal`` and ``desired_goal``
    (places in -1..1, ``dims`` each). Action: acceleration in -1..1 (``dims``). An episode is cut off after 50 steps and
    never terminates.
    """

    dims, radius = 3, 0.05

    def __init__(self) -> None:
        place = spaces.Box(-1.0, 1.0, (self.dims,), np.float32)
        own = spaces.Box(-1.0, 1.0, (2 * self.dims,), np.float32)
        self.observation_space = spaces.Dict({"observation": own, "achieved_goal": place, "desired_goal": place})
        self.action_space = spaces.Box(-1.0, 1.0, (self.dims,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.position, self.velocity = np.zeros(self.dims, np.float32), np.zeros(self.dims, np.float32)
        self.goal = self.np_random.uniform(-1.0, 1.0, self.dims).astype(np.float32)
        return self.look(), {}

    def step(self, action):
        push = 0.02 * np.clip(np.asarray(action, np.float32), -1.0, 1.0)
        self.velocity = np.clip(0.9 * self.velocity + push, -0.1, 0.1)
        moved = self.position + self.velocity
        self.position = np.clip(moved, -1.0, 1.0)
        self.velocity[moved != self.position] = 0.0  # a wall
        reward = float(self.compute_reward(self.position, self.goal, {}))
        return self.look(), reward, False, False, {"is_success": reward == 0.0}

    def look(self):
        own = np.concatenate([self.position, self.velocity])
        return {"observation": own, "achieved_goal": self.position.copy(), "desired_goal": self.goal.copy()}

    def compute_reward(self, achieved_goal, desired_goal, info):
        """Return the reward of having reached one place when another was wanted, for one pair or for many."""
        del info
        distance = np.linalg.norm(achieved_goal - desired_goal, axis=-1)
        return -(distance > self.radius).astype(np.float32)


gym.register("PointGoal-v0", PointGoal, max_episode_steps=50)
