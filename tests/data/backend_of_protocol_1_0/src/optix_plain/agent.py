"""Six methods and nothing more: a linear softmax policy by the Monte Carlo policy gradient (Williams 1992)."""

import io

import numpy as np

from optix_protocol import HyperparamSet

DEFAULTS = {"learning_rate": 0.2, "gamma": 0.99}


class PlainAgent:
    is_on_policy = True

    def __init__(self, num_features, num_actions, *, seed=0, hyperparams=None):
        self.rng = np.random.default_rng(seed)
        self.weights = self.rng.normal(0.0, 0.01, (num_features + 1, num_actions))
        self.hyperparams = dict(DEFAULTS)
        self.set_hyperparams(HyperparamSet(params=hyperparams or {}))

    def act(self, observation):
        logits = features(np.atleast_2d(observation)) @ self.weights
        actions = (logits + self.rng.gumbel(size=logits.shape)).argmax(1)
        return actions if np.ndim(observation) == 2 else actions[0]

    def learn(self, episode_data):
        if episode_data.num_env_steps == 0:
            return {}
        rewards = np.where(episode_data.valid, episode_data.rewards, 0.0)
        returns, running = np.zeros(rewards.shape), np.zeros(episode_data.num_envs)
        for t in reversed(range(episode_data.num_steps)):
            running = rewards[t] + self.hyperparams["gamma"] * running * ~episode_data.done[t]
            returns[t] = running
        x = features(episode_data.flat(episode_data.observations))
        scale, actions = episode_data.flat(returns), episode_data.flat(episode_data.actions)
        scale = (scale - scale.mean()) / (scale.std() + 1e-8)
        logits = x @ self.weights
        probs = np.exp(logits - logits.max(1, keepdims=True))
        probs /= probs.sum(1, keepdims=True)
        step = (np.eye(probs.shape[1])[actions] - probs) * scale[:, None]
        self.weights = self.weights + self.hyperparams["learning_rate"] * x.T @ step / len(x)
        return {"loss": float(-np.mean(scale * np.log(probs[np.arange(len(x)), actions] + 1e-12)))}

    def get_hyperparams(self):
        return HyperparamSet(params=dict(self.hyperparams))

    def set_hyperparams(self, hyperparams):
        unknown = hyperparams.params.keys() - DEFAULTS.keys()
        if unknown:
            raise ValueError(f"unknown hyperparameter {min(unknown)!r}; known are {', '.join(DEFAULTS)}.")
        self.hyperparams |= {name: float(value) for name, value in hyperparams.params.items()}

    def save_weights(self, path):
        with open(path, "wb") as file:
            np.save(file, self.weights)

    def load_weights(self, path):
        with open(path, "rb") as file:
            data = file.read()
        try:
            loaded = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path} is no weight file, or a damaged one.") from error
        if not isinstance(loaded, np.ndarray) or loaded.shape != self.weights.shape:
            raise ValueError(f"{path} belongs to another network.")
        self.weights = loaded


def features(observations):
    return np.concatenate([np.tanh(observations), np.ones((len(observations), 1))], axis=1)
