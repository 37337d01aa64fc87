"""``optix export``: the best policy of a run as a model that acts like it."""

import numpy as np
import pytest

onnxruntime = pytest.importorskip("onnxruntime")

ALLOW = ("--allow-import", "optix_cli_envs")


def test_the_model_is_checked_against_the_policy(optix, finished_run, tmp_path):
    done = optix("export", finished_run, "toy.onnx", *ALLOW)
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "toy.onnx" in text and "same actions as the policy" in text
    session = onnxruntime.InferenceSession(tmp_path / "toy.onnx", providers=["CPUExecutionProvider"])
    assert "observation" in {value.name for value in session.get_inputs()}
    assert "action" in {value.name for value in session.get_outputs()}


def test_the_model_is_named_after_the_run(optix, finished_run, tmp_path):
    assert optix("export", finished_run, *ALLOW).code == 0
    assert (tmp_path / "toy.onnx").is_file()


def test_a_missing_package_is_named(optix, finished_run, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    done = optix("export", finished_run, *ALLOW)
    assert done.code == 2
    assert 'ONNX models need the package onnx: pip install "optix-core[onnx]"' in done.err


def test_without_onnxruntime_the_model_is_written_unchecked(optix, finished_run, monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = optix("export", finished_run, *ALLOW)
    assert done.code == 0
    assert "checked no" in " ".join(done.out.split())
    assert (tmp_path / "toy.onnx").is_file()


def test_a_place_that_cannot_be_written_to_is_named(optix, finished_run):
    done = optix("export", finished_run, "no/such/place.onnx", *ALLOW)
    assert done.code == 2
    assert "cannot be written: No such file or directory" in done.err


def test_a_model_that_acts_differently_is_refused_and_leaves_no_file(optix, finished_run, monkeypatch, tmp_path):
    kept = tmp_path / "earlier.onnx"
    kept.write_bytes(b"a model of an earlier day")
    there = set(tmp_path.iterdir())
    monkeypatch.setattr(np, "allclose", lambda *args, **kwargs: False)
    for name in ("toy.onnx", "earlier.onnx"):
        done = optix("export", finished_run, name, *ALLOW)
        assert done.code == 2
        assert "acts differently from the policy" in done.err
    assert set(tmp_path.iterdir()) == there and kept.read_bytes() == b"a model of an earlier day"
