"""Whole numbers as networks take them, and what is small beside a large offset."""

import numpy as np
import pytest
from gymnasium import spaces

from optix_core.data import ObsNormalizer
from optix_core.errors import EnvError
from optix_core.policies import Bits, Flatten, OneHot, encoder_for
from optix_core.policies.encoders import encoded, encoder_from_tree, example_observations


@pytest.mark.parametrize("start", [0, -3])
def test_whole_numbers_outside_of_their_space_are_refused(start):
    encoder = encoder_for(spaces.MultiDiscrete([5, 3], start=[start, start]))
    assert encoder(np.array([[4, 2]]) + start).tolist() == [[0, 0, 0, 0, 1, 0, 0, 1]]
    for wrong in ([5, 0], [0, -1], [-1, 2], [0, 3]):
        with pytest.raises(EnvError, match=r"^The environment returned the observation \[.*not in its MultiDiscrete"):
            encoder(np.array([[0, 0], wrong]) + start)


WHOLE = [
    spaces.Discrete(5, start=2),
    spaces.Discrete(10**6, start=-2),
    spaces.MultiDiscrete([[3, 4]], start=[[1, -1]]),
]


@pytest.mark.parametrize("space", [*WHOLE, spaces.Box(-1, 1, (2, 3)), spaces.MultiBinary(3)])
def test_there_are_observations_to_try_networks_on(space):
    encoder = encoder_for(space)
    examples = example_observations(encoder, 3)
    assert all(space.contains(np.asarray(example, space.dtype)) for example in examples)
    assert encoder(examples).shape == (3, *encoder.encoded_shape)


def test_a_million_values_are_twenty_numbers():
    encoder = encoder_for(spaces.Discrete(10**6, start=-7))
    assert isinstance(encoder, Bits)
    assert encoder.encoded_shape == (20,)
    numbers = np.array([-7, -6, 10**6 - 8, 424242])
    rows = encoder(numbers)
    np.testing.assert_array_equal(rows @ 2 ** np.arange(20), numbers + 7)
    with pytest.raises(EnvError, match="not in its Discrete"):
        encoder(np.array([10**6 - 7]))
    assert encoder_from_tree(encoder.tree()) == encoder
    assert isinstance(encoder_for(spaces.Discrete(500)), OneHot)
    assert encoder_for(spaces.Discrete(2**62)).encoded_shape == (62,)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32])
def test_a_bit_beside_a_large_offset_is_seen(dtype):
    rng = np.random.default_rng(0)
    bits = rng.integers(2, size=(2000, 1))
    observations = (50_000_000 + bits).astype(dtype)
    encoder, normalizer = Flatten(shape=(1,), dtype=str(np.dtype(dtype))), ObsNormalizer((1,))
    for part in np.split(observations, 10):
        normalizer.update(encoder.exact(part))
    rows = encoded(encoder, normalizer, observations)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, (bits - bits.mean()) / bits.std(), atol=1e-3)


def test_float32_and_small_numbers_stay_as_they_are():
    for dtype in (np.float32, np.uint8, np.int16, np.float16):
        assert Flatten(shape=(3,)).exact(np.zeros((2, 3), dtype)).dtype == np.float32


def test_parts_of_observations_are_kept_in_files():
    encoder = Flatten(shape=(3,), parts=(("b.c", 2), ("a", 1)))
    assert encoder_from_tree(encoder.tree()) == encoder
