"""Where studies are kept: a kill leaves a journal that goes on, and what is wrong with a storage is one line."""

import json
import subprocess
import sys

import pytest

from optix_core.errors import ConfigError
from optix_core.search import studies

optuna = pytest.importorskip("optuna")


def test_a_line_that_was_cut_off_is_cut_off_whole(search, told, tmp_path):
    whole, torn = search(n_trials=3), search(n_trials=2, storage=tmp_path / "s")
    whole.run(), torn.run()
    with (tmp_path / "s").open("ab") as file:
        file.write(b'{"op_code":4,"worker_')
    more = search(n_trials=3, storage=tmp_path / "s")
    more.run()
    assert told(more.study) == told(whole.study)
    assert all(json.loads(line) for line in (tmp_path / "s").read_text().splitlines())


def test_sqlite_keeps_a_study_too(search, told, tmp_path):
    whole, kept = search(n_trials=3), search(n_trials=2, storage=f"sqlite:///{tmp_path}/s.db")
    whole.run(), kept.run()
    more = search(n_trials=3, storage=f"sqlite:///{tmp_path}/s.db")
    more.run()
    assert told(more.study) == told(whole.study)
    assert {path.name for path in (tmp_path / "s.db.trials").iterdir()} >= {"trial-0000", "trial-0002"}


def test_a_lock_dies_with_its_owner_and_a_living_one_is_named(search, tmp_path, monkeypatch):
    path = tmp_path / "s"
    search(n_trials=1, storage=path)
    holds = "import sys; from pathlib import Path; from optix_core.search.studies import JournalLock; "
    holds += "JournalLock(Path(sys.argv[1])).acquire(); print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", holds, str(path)], **pipes) as holder:
        holder.stdout.readline()
        monkeypatch.setattr(studies, "PATIENCE_S", 0.05)
        with pytest.raises(ConfigError, match="is locked by another process"):
            search(n_trials=1, storage=path)
        holder.kill()
    search(n_trials=1, storage=path)  # with the same patience: a lock that stayed would be named again


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 4}, "has seed 3, not 4"),
        ({"trial_steps": 100}, "has trial_steps 960, not 100"),
        ({"round_size": 5}, "has round_size 1, not 5"),
        ({"about": {"env_id": "Other-v0"}}, "has env_id Toy-v0, not Other-v0"),
    ],
)
def test_a_study_of_something_else_is_refused(search, tmp_path, changes, words):
    about = {"storage": tmp_path / "s", "n_trials": 1, "about": {"env_id": "Toy-v0"}}
    search(**about).run()
    with pytest.raises(ConfigError, match=words):
        search(**{**about, **changes})


def test_a_study_that_somebody_else_made_is_refused(search, tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    study = optuna.create_study(storage=url, study_name="optix", direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(ConfigError, match="made by something else"):
        search(storage=url)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"workers": 3, "n_trials": 2}, "3 workers are more than 2 trials"),
        ({"finalists": 2}, "a parameter seed"),
        ({"storage": "/nowhere/s"}, "There is no directory"),
        ({"storage": "postgresql://nobody@localhost/x", "directory": None}, "Give directory="),
    ],
)
def test_what_cannot_be_is_one_line(search, changes, words):
    with pytest.raises(ConfigError, match=words) as caught:
        search(**changes)
    assert len(str(caught.value).splitlines()) == 1
