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
    said = [
        "storage of the study",
        "storage of the study",
        "Did you mean 'learning_rate'",
        "smaller end first",
        "no YAML",
    ]
    for outcome, words in zip(wrong, said, strict=True):
        assert outcome.code == 2 and words in outcome.err and outcome.err.count("\n") <= 2, outcome
