"""Trains on a shuffled data set that draws random numbers; kills itself after some windows if it is told to.

python resumed_training.py RUN_DIRECTORY NUM_WORKERS [KILL_AFTER_WINDOWS]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from optix_core import DatasetPipeline, LoopCallback, RLOptimizer
from optix_core.loop.saving import StateSaver
from optix_torch import MLAgent

EPOCHS, ROWS = 3, 200


def save_each_window(self: StateSaver) -> None:
    """Have the exact state on the disk before each window, however long that takes."""
    self.save()
    self.run_dir.flush()


StateSaver.save_if_due = save_each_window


class Noisy(Dataset):
    """Rows with noise that is drawn anew each time."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(ROWS, 6, generator=generator)
        self.y = (self.x.sum(1) > 0).long()

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[number] + 0.1 * torch.randn(6), self.y[number]


class Kills(LoopCallback):
    """Kills the process, as power failures and schedulers do, after some windows of this sitting."""

    def __init__(self, after: int) -> None:
        self.left = after

    def on_window(self, progress, eval_metrics, diagnostics):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def train(directory: str, num_workers: int, kill_after: int = 0, *, resume: bool) -> tuple[bytes, int]:
    """Return the weights of the model in the end, and how many windows this sitting had."""
    kills = Kills(kill_after)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.BatchNorm1d(16), nn.Linear(16, 2))
    pipeline = DatasetPipeline(Noisy(), batch_size=16, window_size=32, num_workers=num_workers)
    RLOptimizer(
        MLAgent(model, loss="cross_entropy"),
        pipeline,
        callbacks=kills,
        checkpoint_dir=directory,
        resume=resume,
        state_interval_s=0,
        max_episodes=EPOCHS,
    ).run()
    return b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values()), kill_after - kills.left


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:]), resume=Path(sys.argv[1]).is_dir())
