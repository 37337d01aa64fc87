"""A run that is killed in the middle of an epoch ends with the weights of one that was not."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from optix_core import DatasetPipeline, RLOptimizer
from optix_torch import MLAgent

SCRIPT = Path(__file__).with_name("resumed_training.py")


def script():
    spec = importlib.util.spec_from_file_location("resumed_training", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kill(directory, num_workers, after):
    done = subprocess.run([sys.executable, str(SCRIPT), str(directory), str(num_workers), str(after)], check=False)
    return done.returncode == -signal.SIGKILL


def test_two_kills_in_the_middle_of_an_epoch_change_no_bit(tmp_path):
    training = script()
    expected, windows = training.train(str(tmp_path / "whole"), 0, resume=False)
    assert windows == 15  # five in an epoch
    assert kill(tmp_path / "killed", 0, 3)
    assert kill(tmp_path / "killed", 0, 3)
    found, windows = training.train(str(tmp_path / "killed"), 0, resume=True)
    assert windows == 11 and found == expected


@pytest.mark.slow
def test_twenty_kills_with_two_workers_change_no_bit(tmp_path):
    training = script()
    expected, _ = training.train(str(tmp_path / "whole"), 0, resume=False)
    rng = np.random.default_rng(0)
    for number in range(20):
        directory = tmp_path / f"killed{number}"
        after = int(rng.choice([2, 3, 4, 5, 7, 8, 9, 10, 12, 13]))  # none of them is the first of an epoch
        assert kill(directory, 2, after)
        found, windows = training.train(str(directory), 0, resume=True)
        assert windows == 16 - after and found == expected


class OwnOrder(Sampler):
    """An order of the user's own, drawn from torch's global numbers."""

    def __len__(self):
        return 64

    def __iter__(self):
        return iter(torch.randperm(64).tolist())


def whole_loader():
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8, sampler=OwnOrder())


class Remembers:
    """A loader with a state, as torchdata's StatefulDataLoader has one."""

    def __init__(self):
        self.loader, self.taken, self.loaded = whole_loader(), 0, 0

    def __iter__(self):
        batches = list(self.loader)[self.taken :]
        for batch in batches:
            self.taken += 1
            yield batch
        self.taken = 0

    def state_dict(self):
        return {"taken": self.taken, "generator": torch.get_rng_state()[:8]}

    def load_state_dict(self, state):
        self.taken, self.loaded = state["taken"], self.loaded + 1
        assert isinstance(state["generator"], torch.Tensor)


@pytest.mark.parametrize("make", [whole_loader, Remembers])
def test_loaders_of_the_users_own_go_on_in_the_middle_of_an_epoch(tmp_path, make):
    def run(directory, **settings):
        torch.manual_seed(1)
        model, loader = nn.Linear(3, 1), make()
        pipeline = DatasetPipeline(loader, val_data=whole_loader().dataset, window_size=16)
        RLOptimizer(MLAgent(model, loss="mse"), pipeline, checkpoint_dir=directory, **settings).run()
        return model.weight.detach().numpy().tobytes(), loader

    expected, _ = run(tmp_path / "whole", max_env_steps=160)
    run(tmp_path / "cut", max_env_steps=96)  # an epoch and a half
    torch.randn(5)  # somebody else draws
    found, loader = run(tmp_path / "cut", max_env_steps=160, resume=True)
    assert found == expected
    if isinstance(loader, Remembers):
        assert loader.loaded == 1
