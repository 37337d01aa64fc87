"""Pickles are recognised, in every wrapping, and honest formats are not mistaken for them."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import zipfile

import numpy as np
import pytest

from optix_protocol.conformance._files import is_pickle, read_arrays


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def safetensors(**arrays) -> bytes:
    header, data = {"__metadata__": {"kind": "test"}}, b""
    names = {"float32": "F32", "float64": "F64", "int64": "I64", "bool": "BOOL"}
    for name, array in arrays.items():
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": names[str(array.dtype)], "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def torch_like() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": [1.0, 2.0]}))
        archive.writestr("archive/data/0", b"\x00" * 8)
    return buffer.getvalue()


WEIGHTS = {"weight": np.arange(6.0).reshape(2, 3)}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol(protocol):
    assert is_pickle(pickle.dumps(WEIGHTS, protocol=protocol))


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_pickles(compress):
    assert is_pickle(compress(pickle.dumps(WEIGHTS)))
    assert not is_pickle(compress(npz(**WEIGHTS)))
    assert not is_pickle(compress(b"text")[:-3])


def test_containers_of_pickles():
    assert is_pickle(torch_like())
    assert is_pickle(npz(everything=np.array([{"a": 1}], dtype=object)))


@pytest.mark.parametrize(
    "data",
    [
        npz(**WEIGHTS),
        safetensors(weight=np.ones((2, 3), np.float32)),
        json.dumps({"weight": [1.0]}).encode(),
        b"",
        b"\x00" * 64,
        b"PK\x03\x04 not a zip",
        np.random.default_rng(0).bytes(4096),
    ],
)
def test_honest_files_are_no_pickles(data):
    assert not is_pickle(data)


def test_no_length_of_a_safetensors_header_looks_like_a_pickle():
    for padding in range(1500):
        array = np.zeros(1, np.float32)
        assert not is_pickle(safetensors(**{"w" * (1 + padding): array}))


@pytest.mark.parametrize("write", [npz, safetensors])
def test_arrays_are_read(write):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([True, False]), "c": np.array([1, 2, 3])}
    read = read_arrays(write(**arrays))
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_other_files_hold_no_known_arrays():
    assert read_arrays(b"") is None
    assert read_arrays(b"anything else") is None
    assert read_arrays(torch_like()) is None
