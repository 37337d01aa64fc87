"""``optix profile``: where the time of a run went."""

import json

from optix_core.reporting.spending import spending


def test_a_run_tells_where_its_time_went(optix, tmp_path):
    run = optix("train", "CartPole-v1", "--backend", "reference", "--max-env-steps", "600", "--out", "run", "-q")
    assert run.code == 0
    told = optix("profile", "run")
    assert told.code == 0 and "collecting" in told.out and "learning" in told.out and "%" in told.out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    seconds = result["profile"]["seconds"]
    assert 0 < seconds["collecting"] <= result["wall_seconds"]


def test_a_run_without_one(optix, tmp_path):
    optix("train", "CartPole-v1", "--backend", "reference", "--max-env-steps", "600", "--out", "run", "-q")
    path = tmp_path / "run" / "result.json"
    result = json.loads(path.read_text())
    for profile, told in ((None, "keeps no profile"), ({"seconds": 3}, "damaged")):
        path.write_text(json.dumps({**result, "profile": profile}))
        answer = optix("profile", "run")
        assert answer.code == 2
        assert told in answer.err or "damaged" in answer.err


def test_actors_are_told_one_by_one():
    actor = {"actor": 0, "steps_per_second": 1234.5, "incarnation": 2, "failures": ["it broke"]}
    sections = spending(
        {
            "seconds": {"collecting": 1.0, "learning": 3.0},
            "pipeline": {
                "trajectories": 7, "lag_mean": 1.5, "lag_max": 2, "dropped": 1,
                "learner_seconds": {"waiting": 1.0},
                "actors": [{**actor, "seconds": {"environment": 3.0, "acting": 1.0}}],
            },
        }
    )  # fmt: skip
    assert sections[0].table.rows[1] == ("learning", "3.00", "75.0%")
    assert "1.50 updates old on average (most 2); 1 were too old" in sections[1].sentences[0]
    assert sections[2].table.rows == (("0", "1,234", "75.0%", "25.0%", "2", "it broke"),)
