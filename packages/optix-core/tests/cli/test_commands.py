"""Every command but ``train``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

JUDGEMENT_KEYS = {"verdict", "should_stop", "stop_env_steps", "budget_used", "loss", "upper_gain", "horizon_env_steps"}

ALLOW = ("--allow-import", "optix_cli_envs")  # the run's environment lives in a module of the tests


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of a finished run, where ``optix`` finds it by name."""
    shutil.copytree(finished_run, tmp_path / "runs" / "toy")
    return tmp_path / "runs" / "toy"


def words_of(text):
    return " ".join(text.split())


# -------------------------------------------------------------------------------------------------------------- eval


def test_eval_repeats_with_its_seed_and_agrees_with_the_run(optix, run):
    first = optix("eval", run, *ALLOW, "--episodes", 30, "--seed", 5, "--json")
    assert first.code == 0
    values = json.loads(first.out)
    assert values["episodes"] == 30 and values["seed"] == 5 and values["mean_episode_length"] == 20
    assert values["ci_low"] <= values["mean"] <= values["ci_high"]
    result = json.loads((run / "result.json").read_text())
    assert values["snapshot"] == result["best_snapshot"]["id"]
    assert values["reported"] == result["confirmed_return"]
    assert values["mean"] == pytest.approx(result["confirmed_return"]["mean"], abs=0.5)
    assert optix("eval", run, *ALLOW, "--episodes", 30, "--seed", 5, "--json").out == first.out


def test_eval_in_words_with_a_fresh_seed(optix, run):
    outputs = [words_of(optix("eval", "toy", *ALLOW, "--episodes", 10).out) for _ in range(2)]
    assert "mean return" in outputs[0] and "95 % interval" in outputs[0] and "--episodes 10" in outputs[0]
    seeds = [output.partition("--seed ")[2].split()[0] for output in outputs]
    assert seeds[0] != seeds[1]


def test_eval_plays_the_policy_that_the_result_names(optix, run, monkeypatch):
    from optix_core.checkpoints import CheckpointRegistry

    loaded = []
    load = CheckpointRegistry.load
    monkeypatch.setattr(CheckpointRegistry, "load", lambda self, agent, i: loaded.append(i) or load(self, agent, i))
    optix("eval", run, *ALLOW, "--episodes", 2)
    assert loaded == [json.loads((run / "result.json").read_text())["best_snapshot"]["id"]]


def test_eval_refuses_damaged_weights(optix, run):
    weights = run / json.loads((run / "result.json").read_text())["best_snapshot"]["path"]
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    outcome = optix("eval", run, *ALLOW)
    assert outcome.code == 2 and "damaged" in outcome.err and outcome.out == ""


def test_eval_of_a_run_that_optix_did_not_start(optix, run):
    (run / "run.json").unlink()
    outcome = optix("eval", run, *ALLOW)
    assert outcome.code == 2 and outcome.err.count("\n") == 1 and "run.json" in outcome.err


# ----------------------------------------------------------------------------------------------------------- explain


def test_explain_tells_and_replays(optix, run):
    outcome = optix("explain", "toy")
    assert outcome.code == 0
    story = words_of(outcome.out)
    confirmed = json.loads((run / "result.json").read_text())["confirmed_return"]
    assert f"returned {confirmed['mean']:.4g} on average over 100 greedy episodes" in story
    assert "decisions replayed from the evidence: identical." in story
    assert all(len(line) <= 80 for line in outcome.out.splitlines())


def test_explain_of_a_damaged_journal(optix, run):
    journal = run / "events.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[3] = b"x" + lines[3][1:]
    journal.write_bytes(b"".join(lines[:40]) + lines[40][:50])
    outcome = optix("explain", run)
    assert outcome.code == 0
    assert "line 4 is damaged" in outcome.out and "line 41 was cut off" in outcome.out
    assert "without a stop" in words_of(outcome.out)


def test_damaged_snapshots_are_named_by_explain_and_runs(optix, run):
    victim = sorted((run / "snapshots").iterdir())[0] / "snapshot.json"
    victim.write_bytes(victim.read_bytes()[:-1])
    name = f"snapshots/{victim.parent.name}/snapshot.json"
    for outcome in (optix("explain", run), optix("runs")):
        assert outcome.code == 0
        assert name in "".join(outcome.out.split())


def test_explain_exits_1_when_a_decision_does_not_follow(optix, run):
    import zlib

    journal = run / "events.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    head, _, tail = lines[1].partition(b',"crc":"')
    head = head.replace(b'"learn":true', b'"learn":false')
    lines[1] = head + f',"crc":"{zlib.crc32(head):08x}'.encode() + tail[8:]
    journal.write_bytes(b"".join(lines))
    outcome = optix("explain", run)
    assert outcome.code == 1 and "decisions come out differently" in words_of(outcome.out)


# ------------------------------------------------------------------------------------------------- backends and runs


def test_backends_and_their_algorithms(optix):
    outcome = optix("backends")
    assert outcome.code == 0
    assert "reference  optix-reference-backend 0.1" in outcome.out and "linear-a2c" in outcome.out


def test_one_broken_backend_does_not_hide_the_others(optix, site, tmp_path, monkeypatch):
    info = tmp_path / "broken" / "optix_broken-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: optix-broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[optix.backends]\nbroken = no_such_module:create\n")
    monkeypatch.syspath_prepend(str(tmp_path / "broken"))
    outcome = optix("backends")
    assert outcome.code == 0 and "linear-a2c" in outcome.out and "fails to load" in words_of(outcome.out)


def test_check_backend_counts_what_ran_passed_and_was_skipped(optix):
    outcome = optix("check-backend", "reference")
    assert outcome.code == 0, outcome.out
    text = words_of(outcome.out)
    assert "Backend reference keeps the contract" in text and "0 failed" in text
    assert "skipped, and why" in text and "the agent has no capability 'recurrent_state'" in text


def test_check_backend_exits_1_when_the_contract_is_broken(optix, monkeypatch):
    from optix_protocol.conformance.reference import ReferenceAgent

    monkeypatch.setattr(ReferenceAgent, "get_hyperparams", lambda self: None)
    outcome = optix("check-backend", "reference", "--verbose")
    assert outcome.code == 1
    assert "does not keep the contract" in words_of(outcome.out) and "failed, and how to mend it" in outcome.out


def test_check_backend_of_an_unknown_one(optix):
    outcome = optix("check-backend", "referenze")
    assert outcome.code == 2 and "'reference'" in outcome.err


def test_runs_lists_whatever_state_they_are_in(optix, run, tmp_path):
    crashed, damaged = tmp_path / "runs" / "crashed", tmp_path / "runs" / "damaged"
    shutil.copytree(run, crashed)
    (crashed / "result.json").unlink()
    shutil.copytree(run, damaged)
    (damaged / "run.json").write_text("{")
    (tmp_path / "runs" / "notes").mkdir()
    outcome = optix("runs")
    assert outcome.code == 0
    lines = {line.split()[0]: line for line in outcome.out.splitlines()}
    assert set(lines) == {"run", "crashed", "damaged", "toy", "runs/damaged:"}
    result = json.loads((run / "result.json").read_text())
    for word in ("CliToy-v0", "linear-a2c", "finished", result["verdict"], f"{result['train_env_steps']:,}"):
        assert word in lines["toy"]
    assert "crashed" in lines["crashed"].split()[1:]
    assert "damaged" in lines["damaged"].split()[1:]


def test_runs_without_any(optix, tmp_path):
    assert "optix train CartPole-v1" in optix("runs").out
    assert optix("runs", tmp_path / "nowhere").code == 2


# ------------------------------------------------------------------------------------------------ assess and compare


def write_curve(path, scores):
    lines = [f"{1000 * (i + 1)},{score}" for i, score in enumerate(scores)]
    path.write_text("\n".join(["env_steps,score", *lines]))


def test_assess_a_csv_file(optix, tmp_path):
    pytest.importorskip("matplotlib")
    noise = np.random.default_rng(0).standard_normal(600)
    write_curve(tmp_path / "curve.csv", 100 * (1 - np.exp(-np.arange(600) / 60)) + noise)
    outcome = optix("assess", "curve.csv")
    text = words_of(outcome.out)
    assert outcome.code == 0 and "CONVERGED" in text and "present trend goes on" in text
    assert "picture curve-assessment.png" in text
    assert (tmp_path / "curve-assessment.png").read_bytes().startswith(b"\x89PNG")


def test_assess_as_json_makes_no_picture_unless_asked(optix, tmp_path):
    write_curve(tmp_path / "curve.csv", np.arange(100))
    values = json.loads(optix("assess", "curve.csv", "--json").out)
    assert set(values) >= JUDGEMENT_KEYS
    assert values["verdict"] == "IMPROVING" and values["should_stop"] is False
    assert [path.name for path in tmp_path.iterdir()] == ["curve.csv"]


def test_assess_takes_the_columns_that_it_is_told(optix, tmp_path):
    rows = "".join(f"{100 * i},{i},0\n" for i in range(1, 100))
    (tmp_path / "mine.csv").write_text("ticks,gain,loss\n" + rows)
    values = json.loads(optix("assess", "mine.csv", "--x", "ticks", "--y", "gain", "--json").out)
    assert values["verdict"] == "IMPROVING" and values["budget_env_steps"] == 9900
    wrong = optix("assess", "mine.csv", "--x", "ticks", "--y", "gian")
    assert wrong.code == 2 and wrong.err.count("\n") == 1 and "Did you mean 'gain'?" in wrong.err


def test_assess_a_run_by_name(optix, run):
    values = json.loads(optix("assess", "toy", "--json").out)
    assert values["source"] == "run directory" and values["budget_env_steps"] == 120_000


def test_assess_without_matplotlib_goes_on_without_a_picture(optix, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    write_curve(tmp_path / "curve.csv", np.arange(100))
    outcome = optix("assess", "curve.csv")
    assert outcome.code == 0 and "optix-core[plot]" in outcome.out
    outcome = optix("assess", "curve.csv", "--out", "picture.png")
    assert outcome.code == 2 and "optix-core[plot]" in outcome.err


@pytest.mark.parametrize("args", [("none.csv",), ("curve.csv", "--alpha", "0"), ("curve.csv", "--out", "no/where.png")])
def test_assess_of_what_cannot_be_is_one_line(optix, tmp_path, args):
    if "no/where.png" in args:
        pytest.importorskip("matplotlib")
    write_curve(tmp_path / "curve.csv", np.arange(100))
    outcome = optix("assess", *args)
    assert outcome.code == 2 and outcome.err.startswith("optix: error: ") and outcome.err.count("\n") == 1


@pytest.fixture
def folders(run, tmp_path):
    """Two contenders of three seeds each on two environments, with known returns."""
    from optix_core.checkpoints import atomic_write_json, read_json

    returns = {"old": {"A-v0": (1.0, 2.0, 3.0), "B-v0": (100.0, 200.0, 300.0)},
               "new": {"A-v0": (4.0, 5.0, 3.0), "B-v0": (500.0, 400.0, 300.0)}}  # fmt: skip
    for name, tasks in returns.items():
        for task, means in tasks.items():
            for seed, mean in enumerate(means):
                path = tmp_path / name / f"{task}-{seed}"
                shutil.copytree(run, path)
                result = read_json(path / "result.json")
                confirmed = {**result["confirmed_return"], "mean": mean}
                atomic_write_json(path / "result.json", {**result, "env_id": task, "confirmed_return": confirmed})
    return tmp_path / "old", tmp_path / "new"


def test_compare_folders_of_runs_on_several_environments(optix, folders):
    values = json.loads(optix("compare", *folders, "--json").out)
    assert values["tasks"] == ["A-v0", "B-v0"] and values["baseline"] == "old"
    old, new = values["rows"]
    assert (old["name"], new["name"], new["scores"], new["tasks"]) == ("old", "new", 6, 2)
    assert old["mean"]["estimate"] == pytest.approx(0.25) and new["mean"]["estimate"] == pytest.approx(0.75)
    assert new["improvement"]["estimate"] == pytest.approx(8.5 / 9)


def test_compare_prints_a_table_and_draws(optix, folders, tmp_path):
    pytest.importorskip("matplotlib")
    outcome = optix("compare", *folders)
    assert outcome.code == 0
    text = words_of(outcome.out)
    assert "On A-v0, B-v0" in text and "P(better): that a score beats one of old" in text
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_compare_two_single_runs_by_their_episodes(optix, run, tmp_path):
    settings = ("--backend", "reference", "--max-env-steps", 4000, "--set", "learning_rate=0.001", "--quiet")
    assert optix("train", "optix_cli_envs:CliToy-v0", *settings, "--out", "weak").code == 0
    values = json.loads(optix("compare", run, "weak", "--json").out)
    strong, weak = values["rows"]
    assert weak["name"] == "linear-a2c learning_rate=0.001"
    for row, directory in ((strong, run), (weak, tmp_path / "weak")):
        confirmed = json.loads((directory / "result.json").read_text())["confirmed_return"]
        assert row["scores"] == confirmed["episodes"]
        assert row["mean"]["estimate"] == pytest.approx(confirmed["mean"])


def test_compare_leaves_out_what_has_no_result_and_says_so(optix, run, folders, tmp_path):
    (tmp_path / "old" / "A-v0-0" / "result.json").unlink()
    values = json.loads(optix("compare", *folders, "--json").out)
    assert values["rows"][0]["scores"] == 5 and "A-v0-0" in values["left_out"][0]
    (run / "result.json").unlink()
    outcome = optix("compare", run)
    assert outcome.code == 2 and "confirmed return" in outcome.err


def test_compare_refuses_contenders_on_different_environments(optix, folders, tmp_path):
    for path in (tmp_path / "old").glob("B-v0-*"):
        shutil.rmtree(path)
    outcome = optix("compare", *folders)
    assert outcome.code == 2 and "'old' has no run on B-v0" in outcome.err


def test_compare_has_no_scale_for_one_contender_on_several_environments(optix, folders):
    outcome = optix("compare", folders[0])
    assert outcome.code == 2 and "no common scale" in outcome.err


# ------------------------------------------------------------------------------------------------------ the entrance


def test_version(optix):
    assert optix("--version").out.startswith("optix ")
    assert "optix-core " in optix("version").out


def test_help_names_every_command(optix):
    text = optix("--help").out
    for command in ("train", "eval", "explain", "assess", "compare", "runs", "backends", "check-backend", "version"):
        assert f" {command} " in text


def test_importing_the_core_imports_neither_typer_nor_rich():
    code = (
        "import sys, optix_core.training, optix_core.cli, optix_core.reporting.curves\n"
        "heavy = {'typer', 'rich', 'click', 'matplotlib', 'gymnasium', 'scipy.stats', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_needs_no_framework_and_no_environment_library():
    code = (
        "import sys\nfrom optix_core.cli.app import run\nassert run(['--help']) == 0\n"
        "heavy = {'matplotlib', 'gymnasium', 'numpy', 'scipy', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
