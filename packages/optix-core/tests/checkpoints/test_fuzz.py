"""Every kind of damage to every file of a run: accidents, and forgeries that carry the right checksums."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optix_core.checkpoints import RunDirectory, list_runs, read_events
from optix_core.errors import OptixError, RunDirectoryError
from optix_core.storage.documents import dump_document, parse_document


@pytest.fixture(scope="module")
def module_run(tmp_path_factory, make_run, toy, memory_at):
    return make_run(tmp_path_factory.mktemp("damage") / "run"), (toy, memory_at)


def files_of(path):
    return sorted(
        str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and file.name != ".optix-lock"
    )


def use_everything(path, classes, *, honest):
    """Do all that optix does with a directory it is given; only its own errors may come out.

    With ``honest`` the damage was an accident: whatever loads must be exactly what was saved.
    """
    agent_class, memory_at = classes
    scores, steps = {1: 10.0, 2: 30.0, 3: 20.0}, (1, 2, 3)
    reports = [str(problem) for summary in list_runs(path) for problem in summary.problems]
    try:
        events, problems = read_events(path / "events.jsonl")
        reports += problems
        assert not honest or all(event["score"] == scores[event["seq"] + 1] for event in events)
    except RunDirectoryError as error:
        reports.append(str(error))
    try:
        run = RunDirectory.open(path)
    except RunDirectoryError as error:
        return [*reports, str(error)]
    for snapshot in run.registry.list():
        assert not honest or snapshot.eval_metrics.primary_score == scores[snapshot.snapshot_id]
    for load in (run.registry.load_best, lambda agent: run.registry.load_ensemble(agent, 1)):
        agent = agent_class()
        try:
            load(agent)
            assert not honest or agent.value in steps
        except OptixError as error:
            reports.append(str(error))
    state = run.load_state()
    if honest and state is not None:
        step = state.tree["step"]
        agent = {k: list(v) if isinstance(v, np.ndarray) else v for k, v in state.tree["agent"].items()}
        expected = {"weights": [float(step)] * 5, "rng": 2**90 + step, "memory": list(memory_at(step))}
        assert {**state.tree, "agent": agent} == {"agent": expected, "step": step}
    for read in (run.read_run, run.read_result):
        try:
            read()
        except RunDirectoryError as error:
            reports.append(str(error))
    reports += [str(problem) for problem in (*run.problems, *run.verify().problems)]
    try:
        with RunDirectory.create(path, resume=True) as run:
            run.rewind(run.load_state())
            reports += [str(problem) for problem in run.problems]
    except RunDirectoryError as error:
        reports.append(str(error))
    assert all("\n" not in report for report in reports)
    return reports


def test_an_undamaged_run_is_reported_as_such(module_run, tmp_path):
    source, classes = module_run
    shutil.copytree(source, tmp_path / "run")
    assert use_everything(tmp_path / "run", classes, honest=True) == []


def test_truncation_of_every_file_is_named(module_run, no_fsync, tmp_path):
    source, classes = module_run
    for name in files_of(source):
        size = (source / name).stat().st_size
        for length in {0, 1, size // 2, size - 1, *range(0, size, 512)} - {size}:
            shutil.copytree(source, tmp_path / "run")
            os.truncate(tmp_path / "run" / name, length)
            reports = use_everything(tmp_path / "run", classes, honest=True)
            assert reports or name == "events.jsonl", (name, length)  # a journal cut between lines is just shorter
            shutil.rmtree(tmp_path / "run")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
    | st.sampled_from(["../../etc/passwd", "/dev/zero", "$array", "NaN", "weights.bin", "\x1b[2J", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def mutate_json(draw, value):
    """Replace one place in a JSON value by any other value, or drop or add a key."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(value)))
        action = draw(st.integers(0, 9))
        if action == 0:
            return {k: v for k, v in value.items() if k != key}
        if action == 1:
            return {**value, draw(st.text(max_size=6)): draw(JSON)}
        return {**value, key: mutate_json(draw, value[key])}
    if isinstance(value, list) and value and draw(st.booleans()):
        index = draw(st.integers(0, len(value) - 1))
        return [*value[:index], mutate_json(draw, value[index]), *value[index + 1 :]]
    return draw(JSON)


def damage(draw, path):
    """Damage one file as accidents do."""
    data = path.read_bytes()
    position = draw(st.integers(0, len(data) - 1))
    kind = draw(
        st.sampled_from(["flip", "truncate", "zero", "insert", "delete", "swap", "garbage", "empty", "directory"])
    )
    if kind == "directory":
        path.unlink()
        path.mkdir()
        return
    end = draw(st.integers(position, min(len(data), position + 600)))
    extra = draw(st.binary(min_size=1, max_size=20))
    path.write_bytes({
        "flip": data[:position] + bytes([data[position] ^ (1 << draw(st.integers(0, 7)))]) + data[position + 1 :],
        "truncate": data[:position],
        "zero": data[:position] + b"\0" * (len(data) - position),
        "insert": data[:position] + extra + data[position:],
        "delete": data[:position] + data[end:],
        "swap": data[end:] + data[:end],
        "garbage": draw(st.binary(max_size=200)),
        "empty": b"",
    }[kind])  # fmt: skip


def forge(draw, path):
    """Rewrite one file as an adversary would: well-formed, resealed, wrong."""
    data = path.read_bytes()
    if path.suffix == ".json":
        path.write_bytes(
            dump_document({k: v for k, v in _object(mutate_json(draw, parse_document(data))) if k != "sha256"})
        )
        return
    if path.suffix == ".safetensors":
        length = int.from_bytes(data[:8], "little")
        header = json.dumps(mutate_json(draw, json.loads(data[8 : 8 + length]))).encode()
        data = len(header).to_bytes(8, "little") + header + data[8 + length :]
        path.write_bytes(data)
        _reseal(path)
        return
    damage(draw, path)


def _object(value):
    return (value if isinstance(value, dict) else {"forged": value}).items()


def _reseal(path):
    size, digest = path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
    for manifest in path.parent.glob("*.json"):
        document = parse_document(manifest.read_bytes())
        if "arrays" in document:
            document["arrays"] = {"bytes": size, "sha256": digest}
        else:
            document |= {"weights_bytes": size, "weights_sha256": digest}
        manifest.write_bytes(dump_document(document))


def one_case(module_run, folder, draw, corrupt, *, honest):
    source, classes = module_run
    path = Path(folder) / "run"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(source, path)
    for name in draw(st.lists(st.sampled_from(files_of(source)), min_size=1, max_size=3, unique=True)):
        corrupt(draw, path / name)
    use_everything(path, classes, honest=honest)


@pytest.fixture(scope="module")
def no_fsync():
    """Damage, not power cuts, is the matter here; waiting for the disk would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


FUZZ = settings(deadline=None, suppress_health_check=list(HealthCheck))


@given(st.data())
@settings(FUZZ, max_examples=150)
def test_accidents_are_never_loaded_and_never_a_traceback(module_run, no_fsync, tmp_path_factory, data):
    one_case(module_run, tmp_path_factory.getbasetemp(), data.draw, damage, honest=True)


@given(st.data())
@settings(FUZZ, max_examples=150)
def test_forgeries_are_never_a_traceback(module_run, no_fsync, tmp_path_factory, data):
    one_case(module_run, tmp_path_factory.getbasetemp(), data.draw, forge, honest=False)


@pytest.mark.slow
@given(st.data())
@settings(FUZZ, max_examples=10_000)
def test_ten_thousand_accidents(module_run, no_fsync, tmp_path_factory, data):
    one_case(module_run, tmp_path_factory.getbasetemp(), data.draw, damage, honest=True)


@pytest.mark.slow
@given(st.data())
@settings(FUZZ, max_examples=10_000)
def test_ten_thousand_forgeries(module_run, no_fsync, tmp_path_factory, data):
    one_case(module_run, tmp_path_factory.getbasetemp(), data.draw, forge, honest=False)
