"""How large a replay memory may be."""

import numpy as np
import pytest
from gymnasium import spaces

from optix_core.data import capacity as module
from optix_core.data.capacity import check_capacity, fitting_capacity, free_memory, row_bytes
from optix_core.errors import ConfigError

PICTURES = spaces.Box(0, 255, (96, 96, 3), np.uint8)
ACTIONS = spaces.Box(-1, 1, (3,), np.float32)


@pytest.fixture
def free(monkeypatch):
    def say(number):
        monkeypatch.setattr(module, "free_memory", lambda: number)

    return say


def test_a_row_is_what_the_memory_keeps_of_a_step():
    pictures = row_bytes(PICTURES, ACTIONS)
    assert 96 * 96 * 3 < pictures < 96 * 96 * 3 + 100
    assert row_bytes(spaces.Box(-1, 1, (10,), np.float64), ACTIONS) == row_bytes(spaces.Box(-1, 1, (10,)), ACTIONS)
    stacked = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert row_bytes(stacked, spaces.Discrete(4), frame_stack=4) == pytest.approx(84 * 84, rel=0.02)
    parts = spaces.Dict(a=spaces.Box(-1, 1, (3,)), b=spaces.Discrete(5))
    assert row_bytes(parts, ACTIONS) >= 8 * 4


def test_the_budget_and_the_machine_bound_it(free):
    free(8 * 10**9)
    row = row_bytes(PICTURES, ACTIONS)
    assert fitting_capacity(1_000_000, row=row, budget=5000, least=1001) == 5000
    assert fitting_capacity(1_000_000, row=row, budget=500, least=1001) == 1001
    bounded = fitting_capacity(1_000_000, row=row, budget=10**7, least=1001)
    assert bounded * row <= 2 * 10**9 < (bounded + 1) * row
    assert fitting_capacity(1000, row=row) == 1000
    free(None)
    assert fitting_capacity(1_000_000, row=row) == 1_000_000
    free(10**6)
    with pytest.raises(ConfigError, match="needs at least 1,001 rows"):
        fitting_capacity(1_000_000, row=row, least=1001)


def test_more_than_the_machine_holds_is_refused_with_what_fits(free):
    free(10**9)
    check_capacity(30_000, row=30_000)
    check_capacity(10**6, row=30_000, budget=10_000)  # a memory that never fills takes no pages
    with pytest.raises(ConfigError, match=r"--set capacity=8333\."):
        check_capacity(10**6, row=30_000, budget=10**6)


def test_free_memory_is_a_number_of_bytes_or_unknown():
    found = free_memory()
    assert found is None or 10**6 < found < 10**15
