"""``optix tune``: trials, a configuration in the end, and one line for what is wrong."""

import pytest
import yaml

pytest.importorskip("optuna")


RATES = "learning_rate: [log_float, 1.0e-4, 1.0e-2]\n"


@pytest.fixture
def tune(optix, tmp_path):
    (tmp_path / "space.yaml").write_text(RATES)

    def run(*arguments, trials=2):
        return optix(
            "tune", "optix_cli_envs:CliToy-v0", "--backend", "reference", "--trials", trials,
            "--total-env-steps", 2000 * trials, "--out", "out", "--space", "space.yaml", *arguments,
        )  # fmt: skip

    return run


def test_the_best_trial_is_written_as_a_configuration_and_more_trials_go_on_from_there(tune, tmp_path):
    done = tune()
    assert done.code == 0, done.err
    assert done.out.count("trial") >= 2 and "next: optix train" in done.out
    best = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())
    assert best["backend"] == "reference" and 1e-4 <= best["overrides"]["learning_rate"] <= 1e-2
    more = tune(trials=3)
    assert more.code == 0 and "trial   2" in more.out and "trial   1" not in more.out
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"trial-0000", "trial-0002", "study.journal"}


def test_what_is_wrong_is_one_line(tune, tmp_path):
    (tmp_path / "foreign").write_text("hello")
    wrong = [tune("--storage", "foreign"), tune("--storage", "sqlite:////nowhere/x.db")]
    (tmp_path / "space.yaml").write_text(RATES.replace("rate", "rat"))
    wrong.append(tune())
    (tmp_path / "space.yaml").write_text("learning_rate: [1.0e-2, 1.0e-4]\n")
    wrong.append(tune())
    (tmp_path / "space.yaml").write_text("[")
    wrong.append(tune())
    (tmp_path / "space.yaml").write_text("learning_rate: [log_float, 0, 1.0e-4]\n")
    wrong.append(tune())
    (tmp_path / "space.yaml").write_text(RATES)
    wrong.append(tune("--workers", 3))
    said = [
        "no journal of Optuna's",
        "storage of the study",
        "Did you mean 'learning_rate'",
        "smaller end first",
        "no YAML",
        "log",
        "3 workers are more than 2 trials",
    ]
    for outcome, words in zip(wrong, said, strict=True):
        assert outcome.code == 2 and words in outcome.err and outcome.err.count("\n") <= 2, outcome


def test_a_setting_of_a_search_is_trained_with(tune, train, optix, tmp_path):
    searched = tune("--finalists", 1, "--workers", 2, "--plots")
    assert searched.code == 0, searched.err
    assert "fresh trainings reach" in searched.out and "next: optix train" in searched.out
    assert (tmp_path / "out" / "history.png").exists() and (tmp_path / "out" / "progress.png").exists()
    best = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())["overrides"]["learning_rate"]
    for run, more, rate in (("best", (), best), ("own", ("--set", "learning_rate=0.005"), 0.005)):
        arguments = ("--from-study", "out", "--out", run, "--max-env-steps", 2000, *more)
        assert optix("train", "optix_cli_envs:CliToy-v0", *arguments).code == 0
        stored = yaml.safe_load((tmp_path / run / "run.json").read_text())
        assert stored["hyperparams"]["learning_rate"] == rate and stored["backend"] == "reference"
    wrong = {
        ("CartPole-v1", "--from-study", "out"): "The study has env_id 'optix_cli_envs:CliToy-v0'",
        ("optix_cli_envs:CliToy-v0", "--from-study", "out", "--trial", 9): "those from 0 to 1",
        ("optix_cli_envs:CliToy-v0", "--from-study", "nothing"): "There is no study in 'nothing'",
        ("optix_cli_envs:CliToy-v0", "--trial", 1): "--trial needs --from-study",
    }
    for arguments, words in wrong.items():
        outcome = optix("train", *arguments, "--max-env-steps", 2000)
        assert outcome.code == 2 and words in outcome.err and outcome.err.count("\n") <= 2, outcome
