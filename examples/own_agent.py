"""Your own agent and your own environment in the autonomous loop: six methods, NumPy, no framework.

uv run python examples/own_agent.py
"""

import gymnasium as gym
import numpy as np

from optix_core import RLOptimizer, RunResult, VectorBatchPipeline
from optix_protocol import HyperparamSet


class Corridor(gym.Env):
    """Walk right to the door: -0.05 a step, +1 for the door, 40 steps at most."""

    observation_space = gym.spaces.Box(0, 1, (8,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.time = int(self.np_random.integers(4)), 0
        return np.eye(8, dtype=np.float32)[self.position], {}

    def step(self, action):
        self.position = max(0, self.position + (1 if action == 1 else -1))
        self.time += 1
        at_door = self.position == 7
        reward = 1.0 if at_door else -0.05
        return np.eye(8, dtype=np.float32)[self.position], reward, at_door, self.time >= 40, {}


class Reinforce:
    """A softmax policy, linear in the observation, after Williams (1992)."""

    def __init__(self, seed: int = 0) -> None:
        self.weights = np.zeros((8, 2))
        self.params = {"learning_rate": 2.0, "gamma": 0.98}
        self.rng = np.random.default_rng(seed)

    def probabilities(self, observations):
        logits = np.exp(observations @ self.weights)
        return logits / logits.sum(-1, keepdims=True)

    def act(self, observation):
        return (self.rng.random(observation.shape[:-1]) < self.probabilities(observation)[..., 1]).astype(np.int64)

    def learn(self, episode_data):
        returns, future = np.zeros(episode_data.rewards.shape), np.zeros(episode_data.num_envs)
        for t in reversed(range(episode_data.num_steps)):
            future = episode_data.rewards[t] + self.params["gamma"] * future * ~episode_data.done[t]
            returns[t] = future
        seen, taken = episode_data.flat(episode_data.observations), episode_data.flat(episode_data.actions)
        gain = episode_data.flat((returns - returns.mean()) / (returns.std() + 1e-8))
        errors = (np.eye(2)[taken] - self.probabilities(seen)) * gain[:, None]
        self.weights += self.params["learning_rate"] * seen.T @ errors / len(seen)
        return {"gradient": float(np.abs(errors).mean())}

    def get_hyperparams(self):
        return HyperparamSet(params=dict(self.params))

    def set_hyperparams(self, hyperparams):
        self.params.update(hyperparams.params)

    def save_weights(self, path):
        with open(path, "wb") as file:
            np.save(file, self.weights)

    def load_weights(self, path):
        self.weights = np.load(path, allow_pickle=False)


def main() -> RunResult:
    agent = Reinforce()
    pipeline = VectorBatchPipeline(Corridor, agent, n_envs=8, window_size=64)
    return RLOptimizer(agent, pipeline, max_env_steps=200_000, verbose=True).run()


if __name__ == "__main__":
    result = main()
    print(f"{result.verdict}: {result.why}")
    print(f"confirmed return {result.confirmed_return['mean']:.3f} over 100 fresh episodes")
