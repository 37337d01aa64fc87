import math
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from optix_core.checkpoints import DamagedFileError, load_tree, read_arrays, save_tree, write_arrays
from optix_core.errors import RunDirectoryError


def names(directory):
    return sorted(entry.name for entry in directory.iterdir())


DTYPES = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8"]
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda code: hnp.arrays(code, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
SCALARS = st.none() | st.booleans() | st.integers() | st.integers(-(2**20000), 2**20000) | st.floats() | st.text()
TREES = st.dictionaries(
    st.text(max_size=5) | st.sampled_from(["$array", "$int", "$", "$$x"]),
    st.recursive(
        SCALARS | ARRAYS,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(st.text(max_size=4) | st.sampled_from(["$array", "$tuple"]), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=4,
)


def assert_same(a, b):
    """Equal in type, value and bits."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    elif isinstance(a, np.ndarray | np.generic):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()
    elif isinstance(a, float):
        assert (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    else:
        assert a == b


@given(TREES)
@settings(max_examples=150, deadline=None)
def test_any_state_comes_back_bit_for_bit(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("tree") / "state"
    save_tree(path, tree)
    assert_same(load_tree(path), tree)


def test_what_real_training_states_hold(tmp_path):
    generator = np.random.Generator(np.random.MT19937(5))
    base = np.arange(24.0).reshape(4, 6)
    tree = {
        "rng": generator.bit_generator.state,
        "pcg": np.random.PCG64(1).state,
        "seed": 2**200 + 1,
        "scalar": np.float32(-0.0),
        "strided": base[::2, ::-3],
        "transposed": base.T,
        "broadcast": np.broadcast_to(np.float64(3), (3, 2)),
        "negative_nan": np.array([-np.nan, np.nan, -0.0]),
        "empty": {},
        "zero": np.zeros((0, 3), np.int8),
        "big_endian": np.array([1, 2], ">i4"),
    }
    save_tree(tmp_path / "state", tree)
    loaded = load_tree(tmp_path / "state")
    big_endian, expected = loaded.pop("big_endian"), tree.pop("big_endian")
    assert_same(loaded, tree)
    assert np.array_equal(big_endian, expected)
    assert loaded["transposed"].flags.f_contiguous  # sums run in memory order
    assert loaded["strided"].flags.writeable
    restored = np.random.Generator(np.random.MT19937(0))
    restored.bit_generator.state = loaded["rng"]
    assert np.array_equal(restored.random(5), generator.random(5))


@pytest.mark.parametrize(
    ("leaf", "place"),
    [
        (object(), "state/a/b is a object"),
        (np.array([object()]), "state/a/b is a ndarray of type object"),
        (np.array(["text"]), "state/a/b"),
        (np.ma.masked_array([1.0], [True]), "state/a/b is a MaskedArray"),
        ({1: 2}, "key 1"),
        (b"bytes", "state/a/b is a bytes"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name_and_leaves_nothing(tmp_path, leaf, place):
    with pytest.raises(TypeError, match=place):
        save_tree(tmp_path / "state", {"a": {"b": leaf}})
    assert names(tmp_path) == []


def test_an_existing_directory_is_never_overwritten(tmp_path):
    save_tree(tmp_path / "state", {"a": 1})
    with pytest.raises(RunDirectoryError, match="exists already"):
        save_tree(tmp_path / "state", {"a": 2})
    assert load_tree(tmp_path / "state") == {"a": 1}


@pytest.mark.parametrize("name", ["tree.json", "arrays.safetensors"])
def test_every_damaged_byte_and_every_truncation_is_named(tmp_path, name):
    save_tree(tmp_path / "state", {"weights": np.arange(6.0), "step": 3})
    path = tmp_path / "state" / name
    original = path.read_bytes()
    for position in range(len(original)):
        for data in (
            original[:position],
            original[:position] + bytes([original[position] ^ 4]) + original[position + 1 :],
        ):
            path.write_bytes(data)
            with pytest.raises(DamagedFileError) as damage:
                load_tree(tmp_path / "state")
            assert damage.value.path == path
    path.unlink()
    with pytest.raises(DamagedFileError, match=f"{name}.*missing"):
        load_tree(tmp_path / "state")


def test_arrays_of_another_state_are_refused(tmp_path):
    save_tree(tmp_path / "a", {"weights": np.arange(6.0)})
    save_tree(tmp_path / "b", {"weights": np.arange(6.0) + 1})
    (tmp_path / "b" / "arrays.safetensors").replace(tmp_path / "a" / "arrays.safetensors")
    with pytest.raises(DamagedFileError, match="SHA-256"):
        load_tree(tmp_path / "a")


def test_a_pickle_is_never_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DamagedFileError):
        read_arrays(path)
    assert not (tmp_path / "executed").exists()


@given(st.dictionaries(st.text(min_size=1, max_size=5), ARRAYS, max_size=4))
@settings(max_examples=60, deadline=None)
def test_the_safetensors_library_and_we_read_each_other(tmp_path_factory, arrays):
    library = pytest.importorskip("safetensors.numpy")
    arrays = {name: array for name, array in arrays.items() if array.dtype != np.complex64}
    folder = tmp_path_factory.mktemp("safetensors")
    write_arrays(folder / "ours", arrays, metadata={"a": "b"})
    theirs = library.load_file(folder / "ours")
    library.save_file(arrays, folder / "theirs", metadata={"a": "b"})
    ours, metadata = read_arrays(folder / "theirs")
    assert metadata == {"a": "b"}
    assert ours.keys() == theirs.keys() == arrays.keys()
    for name, array in arrays.items():
        for read in (ours[name], theirs[name]):
            assert read.dtype == array.dtype
            assert read.shape == array.shape
            assert read.tobytes() == array.tobytes()


def header(text, data=b""):
    encoded = text.encode()
    return len(encoded).to_bytes(8, "little") + encoded + data


ONE = '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cut off"),
        (b"\xff" * 8, "cut off"),
        ((2**63).to_bytes(8, "little") + b"{}", "cut off"),
        (header('{"a": %s, "a": %s}' % (ONE, ONE), b"0000"), "repeats a key"),  # noqa: UP031
        (header('{"a": %s}' % ONE, b"000"), "3 bytes of data where its header describes 4"),  # noqa: UP031
        (header('{"a": %s}' % ONE, b"00000"), "5 bytes of data"),  # noqa: UP031
        (header('{"a": %s, "b": %s}' % (ONE, ONE), b"0000"), "overlaps"),  # noqa: UP031
        (header('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}', b"0" * 8), "leaves a gap"),
        (header('{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', b"0000"), "no sizes"),
        (header('{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}', b"0000"), "no sizes"),
        (
            header('{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}}'),
            "fill the bytes",
        ),
        (
            header('{"a": {"dtype": "F32", "shape": [0, 99999999999999999999], "data_offsets": [0, 0]}}'),
            "fill the bytes",
        ),
        (header('{"a": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}}', b"0000"), "not supported"),
        (header('{"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}', b"0000"), "not supported"),
        (header('{"a": 7}'), "not described"),
        (header("[]"), "not a JSON object"),
        (header("nonsense"), "not a safetensors file"),
        (header('{"__metadata__": {"a": 1}}'), "metadata"),
        (header('{"__metadata__": 1}'), "metadata"),
        (header("[" * 100_000), "nested too deeply"),
        (header('{"a": {"dtype": "F32", "shape": [' + "0," * 40 + '0], "data_offsets": [0, 0]}}'), "no sizes"),
    ],
)
def test_hostile_array_files_are_named(tmp_path, data, reason):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(data)
    with pytest.raises(DamagedFileError, match=reason):
        read_arrays(path)
