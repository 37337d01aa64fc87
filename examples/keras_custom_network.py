"""A network of your own on Keras: any model, here one with a shortcut that no chain of layers has.

python examples/keras_custom_network.py
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import keras

from optix_core.pipelines import VectorBatchPipeline
from optix_tf import TFPPOAgent


def residual_network(num_inputs: int, num_outputs: int) -> Any:
    """Build a model whose hidden layers add to what they are given."""
    observations = keras.Input((num_inputs,))
    x = keras.layers.Dense(64, activation="gelu")(observations)
    for _ in range(2):
        x = keras.layers.Add()([x, keras.layers.Dense(64, activation="gelu")(keras.layers.LayerNormalization()(x))])
    return keras.Model(observations, keras.layers.Dense(num_outputs)(x))


def main(num_windows: int = 20) -> tuple[float, float]:
    """Train on CartPole and return the mean return of the first and of the last window's episodes."""
    env = gym.make("CartPole-v1")
    agent = TFPPOAgent(
        actor=residual_network(4, 2),
        critic=residual_network(4, 1),
        optimizer=keras.optimizers.AdamW(1e-3, weight_decay=1e-4),
        hyperparams={"num_epochs": 4, "minibatch_size": 128},
        observation_space=env.observation_space,
        action_space=env.action_space,
    )
    pipeline = VectorBatchPipeline("CartPole-v1", agent, n_envs=8, window_size=128, seed=0)
    returns = []
    for window, _ in zip(pipeline.windows(), range(num_windows), strict=False):
        agent.learn(window)
        returns.append(float(window.episode_returns.mean()))
    return returns[0], returns[-1]


if __name__ == "__main__":
    first, last = main()
    print(f"mean return {first:.0f} -> {last:.0f}")
