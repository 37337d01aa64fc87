import dataclasses
import enum
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optix_core.checkpoints import DamagedFileError, atomic_write_json, read_json
from optix_core.storage.documents import dump_document, parse_document, parse_json, plain

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.text().filter(lambda key: key != "sha256"), JSON_VALUES))
def test_document_comes_back_as_it_was(value):
    data = dump_document(value)
    assert parse_document(data) == value
    assert json.loads(data).keys() == value.keys() | {"sha256"}


def test_every_flipped_bit_and_every_truncation_is_noticed():
    data = dump_document({"score": 1.25, "nested": {"a": [1, 2, None]}})
    for position in range(len(data)):
        with pytest.raises(ValueError):
            parse_document(data[:position])
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(ValueError):
                parse_document(bytes(damaged))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "repeats a key"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": 1e999}', "range of a float"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
    ],
)
def test_what_strict_json_forbids_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_a_number_of_ten_thousand_digits_is_damage_and_not_a_traceback(tmp_path):
    (tmp_path / "x.json").write_text('{"a": ' + "9" * 10_000 + "}")
    with pytest.raises(DamagedFileError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


class Colour(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: float
    y: object


def test_plain_turns_what_a_training_run_holds_into_json():
    value = {
        "scalar": np.float32(0.5),
        "flag": np.bool_(True),
        "whole": np.int64(7),
        "array": np.array([[1.0, np.nan], [np.inf, -np.inf]]),
        "colour": Colour.RED,
        "point": Point(1.0, (1, 2)),
        "path": Path("a") / "b",
        "set": {3, 1, 2},
        3: None,
        "object": object(),
        "huge": 2**5000,
    }
    result = plain(value)
    assert result == {
        "scalar": 0.5,
        "flag": True,
        "whole": 7,
        "array": [[1.0, "NaN"], ["Infinity", "-Infinity"]],
        "colour": "red",
        "point": {"x": 1.0, "y": [1, 2]},
        "path": str(Path("a") / "b"),
        "set": [1, 2, 3],
        "3": None,
        "object": "<builtins.object>",
        "huge": hex(2**5000),
    }
    assert type(result["flag"]) is bool
    assert math.isnan(float(result["array"][0][1]))
    json.dumps(result, allow_nan=False)


def test_plain_survives_a_cycle():
    cycle = {}
    cycle["self"] = cycle
    assert "nested too deeply" in json.dumps(plain(cycle))


def test_a_document_must_not_bring_its_own_checksum(tmp_path):
    with pytest.raises(ValueError, match="sha256"):
        atomic_write_json(tmp_path / "x.json", {"sha256": "0"})


def test_a_missing_a_too_large_and_a_foreign_document_are_named(tmp_path):
    with pytest.raises(DamagedFileError, match="missing"):
        read_json(tmp_path / "absent.json")
    (tmp_path / "large.json").write_bytes(b" " * 100)
    with pytest.raises(DamagedFileError, match="100 bytes, more than the 50"):
        read_json(tmp_path / "large.json", max_bytes=50)
    (tmp_path / "foreign.json").write_text('{"a": 1}')
    with pytest.raises(DamagedFileError, match="checksum"):
        read_json(tmp_path / "foreign.json")
