"""What environments say as episodes end reaches journal, result and story; so do masks that nobody heeds."""

import json

import gymnasium as gym
import numpy as np
import pytest

from optix_core import RLOptimizer, RunResult, VectorBatchPipeline, reporting
from optix_core.errors import OptixWarning
from optix_core.journal import Entry, events, read_events, read_journal
from optix_core.reporting.text import at_the_ends
from optix_core.testing.masked import MaskedChoice
from optix_protocol import LoopCallback
from optix_protocol.conformance.reference import ReferenceAgent


class Errand(gym.Env):
    """Episodes of 5 steps; every other one of an environment succeeds, and half of those tell how far they went."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    num_resets = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.num_resets += 1
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        over = self.t == 5
        info = {"is_success": self.num_resets % 2 == 0, "distance": 3.0, "words": "none"} if over else {"distance": 9.0}
        return np.zeros(1, np.float32), float(action), over, False, info


def run(env, path, agent_class=ReferenceAgent, **kwargs):
    agent = agent_class(observation_space=env().observation_space, action_space=env().action_space)
    pipeline = VectorBatchPipeline(env, agent, n_envs=2, window_size=20)
    result = RLOptimizer(agent, pipeline, checkpoint_dir=path, max_env_steps=400, **kwargs).run()
    entries, problems = read_journal(path / "events.jsonl")
    assert not problems
    return result, entries


def sentences(entries):
    return " ".join(sentence for section in reporting.render_story(entries) for sentence in section.sentences)


@pytest.fixture(scope="module")
def errand(tmp_path_factory):
    path = tmp_path_factory.mktemp("errand") / "run"
    return path, *run(Errand, path, confirm_episodes=20)


def of_kind(entries, kind):
    return [entry.event for entry in entries if isinstance(entry.event, kind)]


def test_windows_keep_the_means_of_what_was_said_as_episodes_ended(errand):
    _, _, entries = errand
    windows = of_kind(entries, events.Window)
    assert [window.infos for window in windows] == [{"is_success": 0.5, "distance": 3.0}] * 10


def test_the_result_has_the_confirmed_means_beside_the_return(errand):
    path, result, entries = errand
    assert set(result.confirmed_infos) == {"is_success", "distance"}
    assert 0.3 <= result.confirmed_infos["is_success"] <= 0.7 and result.confirmed_infos["distance"] == 3.0
    stored = json.loads((path / "result.json").read_text())
    assert stored["confirmed_infos"] == result.confirmed_infos == RunResult.from_dict(stored).confirmed_infos
    assert of_kind(entries, events.RunFinished)[0].confirmed_infos == result.confirmed_infos
    assert of_kind(entries, events.Confirmed)[0].infos == result.confirmed_infos


def test_the_story_has_the_success_rate(errand):
    _, result, entries = errand
    rate = f"{100 * result.confirmed_infos['is_success']:.3g}"
    assert f"said as these episodes ended: success rate {rate} %, mean distance 3." in sentences(entries)


def test_what_was_written_before_there_were_infos_still_reads(errand):
    path, _, _ = errand
    older = []
    for values in read_events(path / "events.jsonl")[0]:
        values.pop("infos", None)
        values.pop("confirmed_infos", None)
        older.append(Entry.from_dict(values))
    assert "as these episodes ended" not in sentences(older)
    assert of_kind(older, events.Window)[0].infos == {}
    stored = json.loads((path / "result.json").read_text())
    del stored["confirmed_infos"]
    assert RunResult.from_dict(stored).confirmed_infos is None


def test_an_environment_that_says_nothing_adds_no_words(tmp_path):
    class Silent(Errand):
        def step(self, action):
            return *super().step(action)[:4], {}

    result, entries = run(Silent, tmp_path / "run", confirm_episodes=2)
    assert result.confirmed_infos == {}
    assert "as these episodes ended" not in sentences(entries)


def test_many_numbers_are_shortened_and_the_success_rate_comes_first():
    many = {f"x{i}": float(i) for i in range(9)} | {"is_success": 0.125}
    assert at_the_ends(many, most=3) == "success rate 12.5 %, mean x0 0, mean x1 1, and 7 more"
    assert at_the_ends({"success": 1.0}) == "success rate 100 %"
    assert at_the_ends({"success": 7.0}) == "mean success 7"


class Deaf(ReferenceAgent):
    act_masked = None


def test_masks_that_the_agent_overlooks_are_a_note_of_the_result(tmp_path):
    with pytest.warns(OptixWarning, match="Deaf takes no notice"):
        result, entries = run(MaskedChoice, tmp_path / "run", confirm_episodes=2, agent_class=Deaf)
    (note,) = [note for note in result.notes if "takes no notice" in note]
    assert [event.message for event in of_kind(entries, events.Note)].count(note) == 1
    told, _ = run(lambda: MaskedChoice(tell=None), tmp_path / "untold", confirm_episodes=2, agent_class=Deaf)
    assert not any("takes no notice" in note for note in told.notes)


def test_callbacks_hear_of_every_window_also_where_no_episode_ended(tmp_path):
    heard = []

    class Listener(LoopCallback):
        def on_window(self, progress, eval_metrics, diagnostics):
            heard.append((dict(progress), eval_metrics, dict(diagnostics)))

    agent = ReferenceAgent(observation_space=Errand.observation_space, action_space=Errand.action_space)
    pipeline = VectorBatchPipeline(Errand, agent, n_envs=2, window_size=3)  # episodes have 5 steps, and a row to reset
    RLOptimizer(
        agent, pipeline, checkpoint_dir=tmp_path / "run", max_env_steps=50, confirm_episodes=2, callbacks=[Listener()]
    ).run()
    windows = of_kind(read_journal(tmp_path / "run" / "events.jsonl")[0], events.Window)
    assert len(heard) == len(windows) > 5
    for (progress, metrics, diagnostics), window in zip(heard, windows, strict=True):
        counts = {name: getattr(window.evidence, name) for name in ("num_windows", "num_env_steps", "num_episodes")}
        assert progress.pop("elapsed_s") > 0 and progress == counts
        assert (None if metrics is None else metrics.primary_score) == window.score
        assert diagnostics == window.diagnostics
    assert {metrics is None for _, metrics, _ in heard} == {True, False}
    assert heard[0][2] == {} and heard[1][2]
    assert heard[1][1].metrics["distance"] == 3.0
