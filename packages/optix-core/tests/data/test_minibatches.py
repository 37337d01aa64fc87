import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optix_core.data import make_minibatches, minibatch_slices


@given(num_rows=st.integers(1, 500), size=st.integers(1, 600), epochs=st.integers(1, 3))
def test_every_row_is_visited_once_per_epoch_in_even_parts(num_rows, size, epochs):
    batches = list(make_minibatches(num_rows, size, rng=np.random.default_rng(0), num_epochs=epochs))
    lengths = [len(batch) for batch in batches]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1
    visits = np.bincount(np.concatenate(batches), minlength=num_rows)
    assert (visits == epochs).all()


def test_order_is_fresh_each_epoch_and_repeats_with_the_seed():
    first, second = make_minibatches(100, 100, rng=np.random.default_rng(3), num_epochs=2)
    again, _ = make_minibatches(100, 100, rng=np.random.default_rng(3), num_epochs=2)
    assert (first != second).any()
    assert (first == again).all()


def test_no_rows_make_no_minibatch_and_size_zero_is_refused():
    assert minibatch_slices(0, 8) == []
    with pytest.raises(ValueError, match="at least 1"):
        minibatch_slices(8, 0)
