"""A classifier of handwritten digits: one line trains it, stops it, and leaves the best weights in the model.

uv run --group examples python examples/digits.py
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from optix_core import Optimizer, RunResult


def rows(seed: int = 0) -> tuple[TensorDataset, TensorDataset]:
    """Return 1437 digits to learn from and 360 to test with, images [64] from 0 to 1."""
    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits)
    return TensorDataset(x[order[360:]], y[order[360:]]), TensorDataset(x[order[:360]], y[order[:360]])


def main(seed: int = 0) -> tuple[RunResult, float]:
    """Train; return the result and the share of test digits that are read right."""
    train, test = rows()
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
    result = Optimizer(model, train, loss="auto", seed=seed).run()
    x, y = test.tensors
    with torch.no_grad():
        accuracy = (model.eval()(x).argmax(1) == y).float().mean().item()
    return result, accuracy


if __name__ == "__main__":
    result, accuracy = main()
    epochs = result.train_env_steps / (0.8 * 1437)
    print(f"{result.why}\n{epochs:.0f} epochs, test accuracy {accuracy:.1%}")
