"""Tuners in the loop: side by side where the run can be brought back exactly, in turn elsewhere, on the bill always."""

import numpy as np
import pytest

from optix_core import PBTOptimizer, ReturnEvaluator, RLOptimizer, SPSAOptimizer, VectorBatchPipeline
from optix_core.journal import events as kinds
from optix_core.journal import read_journal
from optix_core.loop.tuning import SEARCH_SHARE
from optix_core.reporting.story import render_story
from optix_protocol import EvalMetrics, LoopCallback, ParamBound

BEST_RATE = 0.8


class InTurn(SPSAOptimizer):
    plan = None


@pytest.fixture
def memoryless(skill_agent):
    class Memoryless(skill_agent):
        """What it earns follows from its rate alone."""

        def learn(self, episode_data):
            self.learned += 1
            self.skill = 1 - 4 * (self.params["rate"] - BEST_RATE) ** 2
            return {"loss": 1.0}

    return lambda: Memoryless(rate=0.5)


@pytest.fixture
def exact(skill_agent):
    class Exact(skill_agent):
        """Learns at a speed that is best at a certain rate, with random numbers; its state can be brought back."""

        def __init__(self):
            super().__init__(lambda k: 0.0, rate=0.5)
            self.rng = np.random.default_rng(0)

        def act(self, observation):
            return super().act(observation) + 0.05 * self.rng.standard_normal()

        def learn(self, episode_data):
            self.learned += 1
            self.skill += 0.05 * (1 - 4 * (self.params["rate"] - BEST_RATE) ** 2)
            return {"loss": float(self.rng.standard_normal())}

        def training_state(self):
            state = {"skill": self.skill, "learned": self.learned, "rate": self.params["rate"]}
            return {**state, "rng": self.rng.bit_generator.state}

        def restore_training_state(self, state):
            self.skill, self.learned, self.params["rate"] = state["skill"], state["learned"], state["rate"]
            self.rng.bit_generator.state = state["rng"]

        def param_bounds(self):
            return {"rate": ParamBound(low=0.0, high=1.0)}

    return Exact


def rates(entries):
    return [e.event.changed["rate"] for e in entries if isinstance(e.event, kinds.Hyperparams)]


def test_in_turn_the_optimum_is_found_and_probes_are_no_evidence(loop, memoryless, entries):
    tuner = SPSAOptimizer({"rate": (0.0, 1.0)}, gate=False)
    result = loop(agent=memoryless(), optimizer=tuner, max_env_steps=40 * 120, noise=0.2).run()
    assert tuner.values["rate"] == pytest.approx(BEST_RATE, abs=0.08)
    assert tuner.num_probes >= 15
    found = entries()
    held = [e.event for e in found if isinstance(e.event, kinds.Experiment)]
    assert len(held) == tuner.num_probes and all(e.in_turn and e.env_steps == 0 for e in held)
    probing, seen = False, 0
    for entry in found:
        match entry.event:
            case kinds.Window(scores=scores):
                seen += bool(scores)
                assert not (probing and scores)
            case kinds.Hyperparams(probe=probe):
                probing = probe
    assert seen > 20  # what the present values earn is
    assert result.search_env_steps == 0


def test_a_run_that_ends_in_an_experiment_goes_back_to_the_best(loop, memoryless, entries):
    for windows in range(30, 36):
        agent, tuner = memoryless(), SPSAOptimizer({"rate": (0.0, 1.0)}, gate=False)
        loop(agent=agent, optimizer=tuner, max_env_steps=40 * windows, checkpoint_dir=None).run()
        assert agent.params["rate"] == tuner.values["rate"]


@pytest.mark.parametrize("kind", [SPSAOptimizer, PBTOptimizer])
def test_side_by_side_the_speed_of_learning_improves_within_its_share(loop, exact, entries, kind):
    agent, tuner = exact(), kind({"rate": (0.0, 1.0)})
    budget = 40 * 600
    result = loop(agent=agent, optimizer=tuner, max_env_steps=budget, noise=0.05).run()
    assert tuner.num_probes >= 3 and abs(agent.params["rate"] - BEST_RATE) < 0.15
    spent = result.search_env_steps
    assert result.train_env_steps + spent <= budget < result.train_env_steps + spent + 40
    held = [e.event for e in entries() if isinstance(e.event, kinds.Experiment)]
    assert sum(e.env_steps for e in held) == spent > 0 and len(held) == tuner.num_probes
    assert spent <= SEARCH_SHARE * budget + max(e.env_steps for e in held)
    assert not any(e.in_turn for e in held) and not any(
        e.event.probe for e in entries() if isinstance(e.event, kinds.Hyperparams)
    )
    windows = [e.event for e in entries() if isinstance(e.event, kinds.Window)]
    assert windows[-1].evidence.search_env_steps <= spent and windows[0].evidence.search_env_steps == 0
    assert result.eval_env_steps < spent  # what branches play is on the bill of the search
    story = {section.title: section for section in render_story(entries())}
    assert "standard errors" in str(story["Hyperparameter changes"].table.rows)


def test_it_tunes_from_the_first_window_on(loop, exact, entries):
    loop(agent=exact(), optimizer=SPSAOptimizer(), max_env_steps=40 * 100).run()
    order = [type(e.event) for e in entries() if isinstance(e.event, kinds.Window | kinds.Experiment)]
    assert order[:2] == [kinds.Window, kinds.Experiment]


def test_a_tuner_that_finds_nothing_leaves_the_run_as_it_would_be_without_it(skill_env, exact, tmp_path):
    """Bit for bit: whatever was tried beside the run is gone."""

    class Refuses(SPSAOptimizer):
        def conclude(self, samples):
            before = dict(self.values)
            super().conclude(samples)
            return before

    returns = []
    for tuner in (None, Refuses()):
        agent = exact()
        heard = []

        class Listener(LoopCallback):
            def on_episode_end(self, episode_id, eval_metrics, heard=heard):
                heard.append(eval_metrics.primary_score)

        pipeline = VectorBatchPipeline(lambda: skill_env(noise=0.3), agent, n_envs=4, window_size=6, seed=1)
        RLOptimizer(
            agent, pipeline, optimizer=tuner, max_env_steps=24 * 200, callbacks=Listener(), confirm_episodes=2
        ).run()
        returns.append(heard)
    plain, tuned = returns
    assert 50 < len(tuned) < len(plain)
    assert tuned == plain[: len(tuned)]


@pytest.mark.parametrize("kind", [SPSAOptimizer, InTurn])
def test_it_resumes_in_the_middle_of_its_experiments(loop, exact, tmp_path, kind):
    """A run stopped again and again is the run that was left alone."""

    def make(**changes):
        tuner = kind({"rate": (0.0, 1.0)}, gate=False)
        return loop(agent=exact(), optimizer=tuner, max_env_steps=40 * 150, noise=0.1, **changes)

    def story(folder):
        found, _ = read_journal(folder / "events.jsonl")
        return [e.event for e in found if isinstance(e.event, kinds.Window | kinds.Experiment | kinds.Hyperparams)]

    make(checkpoint_dir=tmp_path / "whole").run()
    for stop in (7, 30, 31, 60, None):
        optimizer = make(checkpoint_dir=tmp_path / "torn", resume=True)

        class Stopper(LoopCallback):
            def on_window(self, progress, eval_metrics, diagnostics, stop=stop, optimizer=optimizer):
                if progress["num_windows"] == stop:
                    optimizer.stop()

        optimizer.add_callback(Stopper())
        optimizer.run()
    whole, torn = story(tmp_path / "whole"), story(tmp_path / "torn")
    changes = [e for e in whole if not isinstance(e, kinds.Window)]
    assert len(changes) >= 6
    strip = lambda e: e.scores if isinstance(e, kinds.Window) else e  # noqa: E731
    assert [strip(e) for e in torn] == [strip(e) for e in whole]


def test_slow_hyperparameters_are_left_alone(skill_agent):
    class Slow(skill_agent):
        def param_bounds(self):
            return {"rate": ParamBound(low=0.0, high=1.0), "gamma": ParamBound(low=0.9, high=1.0, slow=True)}

    agent = Slow(rate=0.5, gamma=0.99)
    tuner = SPSAOptimizer()
    tuner.take_agent(agent)
    assert set(tuner.plan(agent.get_hyperparams(), EvalMetrics(primary_score=0.0))[0]) == {"rate"}
    with pytest.warns(UserWarning, match="gamma will stay"):
        SPSAOptimizer({"rate": (0, 1), "gamma": (0.9, 0.99)}).take_agent(agent)
    with pytest.raises(ValueError, match="gamma acts over many windows"):
        SPSAOptimizer({"gamma": (0.9, 0.99)}).take_agent(agent)
    with pytest.raises(ValueError, match=r"no hyperparameter 'rat'\. Did you mean 'rate'"):
        SPSAOptimizer({"rat": (0.0, 1.0)}).take_agent(agent)
    adapting = Slow(rate=0.5, gamma=0.99, learning_rate=1e-3, adaptive_kl=0.01)
    with pytest.raises(ValueError, match="learning_rate follows adaptive_kl"):
        SPSAOptimizer({"learning_rate": (1e-4, 1e-2)}).take_agent(adapting)
    agent.schedules = {"rate": "linear(1, 0)"}
    with pytest.raises(ValueError, match="rate follows a schedule"):
        SPSAOptimizer({"rate": (0.0, 1.0)}).take_agent(agent)


def test_scores_of_the_users_own_decide_by_the_windows_of_the_branches(loop, exact, entries):
    """Nothing is played for them."""

    class Longest(ReturnEvaluator):
        def score(self, episode_data, train_diagnostics):
            del train_diagnostics
            return EvalMetrics(primary_score=float(episode_data.rewards.sum()))

    agent, tuner = exact(), SPSAOptimizer({"rate": (0.0, 1.0)})
    loop(agent=agent, optimizer=tuner, evaluator=Longest(), max_env_steps=40 * 400, noise=0.05).run()
    held = [e.event for e in entries() if isinstance(e.event, kinds.Experiment)]
    assert len(held) == tuner.num_probes >= 3 and {e.env_steps for e in held} <= {3 * 40 * n for n in (2, 3, 4)}
    assert abs(agent.params["rate"] - BEST_RATE) < 0.2


@pytest.mark.parametrize(("num_windows", "in_turn"), [(4, False), (1, True)])
def test_where_nothing_can_be_played_the_windows_decide_or_the_run_itself(
    skill_env, exact, tmp_path, num_windows, in_turn
):
    class Elsewhere(VectorBatchPipeline):
        make_eval_env = lend = None

    agent, tuner = exact(), SPSAOptimizer({"rate": (0.0, 1.0)}, num_windows=num_windows)
    pipeline = Elsewhere(skill_env, agent, n_envs=10, window_size=4)
    RLOptimizer(agent, pipeline, optimizer=tuner, max_env_steps=40 * 100, checkpoint_dir=tmp_path / "run").run()
    found, _ = read_journal(tmp_path / "run" / "events.jsonl")
    held = [e.event for e in found if isinstance(e.event, kinds.Experiment)]
    assert len(held) >= 3 and {e.in_turn for e in held[1:]} == {in_turn}
    assert "NaN" not in held[1].scores


@pytest.fixture
def careful(skill_agent):
    """An agent with a learning rate that makes no difference, on a curve."""

    class Careful(skill_agent):
        def __init__(self, curve):
            super().__init__(curve, learning_rate=1e-3)

        def param_bounds(self):
            return {"learning_rate": ParamBound(low=1e-5, high=1e-1, log=True)}

        def training_state(self):
            return {"skill": self.skill, "learned": self.learned, "rate": self.params["learning_rate"]}

        def restore_training_state(self, state):
            self.skill, self.learned = state["skill"], state["learned"]
            self.params["learning_rate"] = state["rate"]

    return Careful


def test_the_loops_own_tuner_leaves_a_run_alone_that_improves(loop, careful, entries):
    agent = careful(lambda k: k / 20)
    loop(agent=agent, optimizer="auto", max_env_steps=40 * 300, noise=0.01).run()
    verdicts = []
    for entry in entries():
        match entry.event:
            case kinds.Window(evidence=evidence):
                verdicts.append(evidence.verdict)
            case kinds.Experiment():
                assert verdicts[-1] == "UNDECIDED"
    assert verdicts.count("IMPROVING") > 100


def test_the_loops_own_tuner_acts_on_evidence_and_gives_up_after_three_failures(loop, careful, entries):
    agent = careful(lambda k: 0.0)
    result = loop(agent=agent, optimizer="auto", max_env_steps=40 * 400, noise=0.2, confirm_episodes=2).run()
    held = [e.event for e in entries() if isinstance(e.event, kinds.Experiment)]
    assert len(held) == 3 and not any(e.accepted for e in held)
    windows = [e.event for e in entries() if isinstance(e.event, kinds.Window | kinds.Experiment)]
    before = windows[: windows.index(held[0])]
    assert before[-1].looked or any(w.looked for w in before)  # not before the monitor has looked
    assert result.search_env_steps <= 0.35 * (result.train_env_steps + result.search_env_steps)
    assert agent.params["learning_rate"] == 1e-3


def test_the_loops_own_tuner_is_none_where_there_is_no_need_of_it(loop, skill_agent, exact):
    for agent in (skill_agent(), exact()):
        assert loop(agent=agent, optimizer="auto", checkpoint_dir=None).optimizer is None
    with pytest.raises(ValueError, match='optimizer must be a tuner, "auto" or None'):
        loop(optimizer="spsa")
