"""Windows of random interaction, with every kind of row in them."""

import numpy as np
import pytest
from gymnasium import spaces

import optix_tf._runtime  # noqa: F401 - before the test modules import tensorflow
from optix_protocol.testing import random_window

BOX = spaces.Box(-1, 1, (3,))
SPACES = {
    "discrete": (BOX, spaces.Discrete(4, start=2)),
    "multidiscrete": (BOX, spaces.MultiDiscrete([2, 3])),
    "two axes": (BOX, spaces.MultiDiscrete([[2, 3], [4, 2]])),
    "multibinary": (BOX, spaces.MultiBinary((2, 2))),
    "whole": (BOX, spaces.Box(np.array([-128, 0], np.int32), np.array([127, 2**31 - 1], np.int32), dtype=np.int32)),
    "number": (BOX, spaces.Box(-1.0, 1.0, ())),
    "box": (BOX, spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))),
    "one-hot": (spaces.Discrete(5), spaces.Discrete(2)),
    "image": (spaces.Box(0, 255, (1, 40, 36), np.uint8), spaces.Discrete(3)),
}


def make_window(kind="discrete", *, T=12, N=3, seed=0, num_ends=4):
    """A window in which ``num_ends`` episodes end, half of them by truncation; the row after an end is not valid."""
    ends = [(2 + 2 * (i // N), i % N) for i in range(num_ends)]
    return random_window(*SPACES[kind], num_steps=T, num_envs=N, seed=seed, terminated=ends[::2], truncated=ends[1::2])


@pytest.fixture
def window():
    return make_window


@pytest.fixture
def spaces_by_kind():
    return SPACES
