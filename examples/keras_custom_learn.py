"""An algorithm of your own on Keras: PPO whose learning rate falls, and a policy gradient with a loss of its own.

    python examples/keras_custom_learn.py

``learn`` is overridden in ordinary Python, around what the base does; ``loss`` is a pure function, which the base
differentiates and compiles.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from optix_core.pipelines import VectorBatchPipeline
from optix_protocol import EpisodeData
from optix_tf import TFAgent, TFPPOAgent


class AnnealedPPO(TFPPOAgent):
    """PPO whose learning rate falls with every window, and which says how far it got."""

    def learn(self, episode_data: EpisodeData) -> dict[str, float]:
        """Learn as PPO does, then lower the learning rate by 2 %."""
        diagnostics = super().learn(episode_data)
        self.networks.set_learning_rate(0.98 * self.networks.learning_rate)
        return {**diagnostics, "next_learning_rate": self.networks.learning_rate}


class SoftAgent(TFAgent):
    """A policy gradient that also punishes large logits, which keeps the policy soft."""

    @staticmethod
    def loss(model: Any, params: Any, batch: Any, weights: Any, hyperparams: Any) -> tuple[Any, dict[str, Any]]:
        """Add a thousandth of the mean square of the actor's outputs to the usual loss."""
        loss, found = TFAgent.loss(model, params, batch, weights, hyperparams)
        squares = tf.reduce_mean(tf.square(model.actor(params["actor"], batch.observations)), axis=1)
        size = tf.reduce_sum(weights * squares)
        return loss + 1e-3 * size, {**found, "logit_size": size}


def train(agent: TFAgent, num_windows: int) -> list[dict[str, float]]:
    """Train on CartPole and return the diagnostics of each window."""
    pipeline = VectorBatchPipeline("CartPole-v1", agent, n_envs=8, window_size=64, seed=0)
    return [agent.learn(window) for window, _ in zip(pipeline.windows(), range(num_windows), strict=False)]


def main(num_windows: int = 20) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Train both agents."""
    import gymnasium as gym

    env = gym.make("CartPole-v1")
    annealed = train(AnnealedPPO.from_env(env, hyperparams={"learning_rate": 1e-3}), num_windows)
    soft = train(SoftAgent.from_env(env), num_windows)
    return annealed, soft


if __name__ == "__main__":
    for name, diagnostics in zip(("annealed PPO", "soft agent"), main(), strict=True):
        print(name, diagnostics[-1])
