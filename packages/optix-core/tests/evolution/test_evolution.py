"""Evolution in a run: variants train, race and may win; all of it on the bill, in the journal, and the same again."""

import numpy as np
import pytest

from optix_core import MetaController, PolicyManager, RLOptimizer, VectorBatchPipeline
from optix_core.journal import events as kinds
from optix_core.journal import read_journal
from optix_core.reporting.story import render_story
from optix_protocol import EvalMetrics, LoopCallback, ParamBound


class Death(BaseException):
    """Nothing catches it: as close to kill -9 as one process gets."""


@pytest.fixture
def exact(skill_agent):
    class Exact(skill_agent):
        """Rises to what its reach allows, with random numbers, so that any slip of the state shows."""

        deaths = ()
        born = 0

        def __init__(self, reach=0.5):
            super().__init__(lambda k: 0.0, reach=reach)
            self.rng = np.random.default_rng(0)
            self.torn_down = 0
            Exact.born += 1

        def learn(self, episode_data):
            self.learned += 1
            if Exact.deaths and (Exact.deaths[0] == self.learned):
                Exact.deaths = Exact.deaths[1:]
                raise Death
            self.skill += 0.1 * (self.params["reach"] - self.skill) + 0.001 * self.rng.standard_normal()
            return {"loss": float(self.rng.standard_normal())}

        def training_state(self):
            state = {"skill": self.skill, "learned": self.learned, **self.params}
            return {**state, "rng": self.rng.bit_generator.state}

        def restore_training_state(self, state):
            self.skill, self.learned = state["skill"], state["learned"]
            self.params["reach"] = state["reach"]
            self.rng.bit_generator.state = state["rng"]

        def param_bounds(self):
            return {"reach": ParamBound(low=0.0, high=2.0)}

        def teardown(self):
            self.torn_down += 1

    return Exact


@pytest.fixture
def evolve(exact, skill_env, tmp_path):
    """Make a run that evolves; 40 environment steps per window."""

    def make(name="run", *, max_spawns=3, resume=False, seed=0, agent=None, callbacks=(), **settings):
        agent = agent or exact()
        pipeline = VectorBatchPipeline(lambda: skill_env(noise=0.1), agent, n_envs=10, window_size=4, seed=2)
        settings = {"max_env_steps": 40 * 400, "state_interval_s": 0.0, "confirm_episodes": 10, **settings}
        run = RLOptimizer(agent, pipeline, checkpoint_dir=tmp_path / name, resume=resume, seed=seed, **settings)
        manager = PolicyManager(run.registry, max_spawns=max_spawns, max_ensemble_size=3)
        callback = manager.as_callback(agent, agent_factory=exact, meta_controller=MetaController())
        callback.set_stop_fn(run.stop)
        run.add_callback(callback)
        for other in callbacks:
            run.add_callback(other)
        return run, manager

    return make


def journal(path):
    entries, problems = read_journal(path / "events.jsonl")
    assert not problems
    return entries


def all_of(kind, path):
    return [entry.event for entry in journal(path) if isinstance(entry.event, kind)]


def test_variants_train_and_the_report_says_what_the_journal_says(evolve, tmp_path):
    run, manager = evolve()
    result = run.run()
    assert manager.spawns_used == 3
    recorded = all_of(kinds.Variant, tmp_path / "run")
    assert len(recorded) == 3
    for variant, event in zip(manager.variants, recorded, strict=True):
        assert variant.train_env_steps > 0
        assert variant.train_env_steps == event.train_env_steps
        assert variant.play_env_steps == event.play_env_steps
        assert [tuple(point) for point in event.curve] == list(variant.curve)
        assert len(event.curve) >= 1
        assert (variant.won, variant.why, variant.gain) == (event.won, event.message, float(event.gain))
        for told in (f"{event.train_env_steps:,}", f"{event.play_env_steps:,}", event.message):
            assert told in manager.report()
    spent = sum(event.train_env_steps + event.play_env_steps for event in recorded)
    assert result.search_env_steps == spent
    assert result.train_env_steps + result.search_env_steps <= 40 * 400
    assert f"spawns used       {manager.spawns_used} of 3" in manager.report()
    assert result.stop_reason in manager.report()


def test_a_better_variant_becomes_the_run(evolve, tmp_path):
    """Noise moves the reach up in some variant; the run goes on as the winner, which is the best policy now."""
    for seed in range(6):
        run, manager = evolve(f"run{seed}", seed=seed)
        run.run()
        winners = [variant for variant in manager.variants if variant.won]
        if winners:
            break
    assert winners
    assert winners[-1].hyperparams["reach"] > 0.5
    assert run.agent.skill > 0.52
    changed = all_of(kinds.Hyperparams, tmp_path / f"run{seed}")
    assert changed[-1].changed["reach"] == winners[-1].hyperparams["reach"]
    assert run.result.confirmed_return["mean"] == pytest.approx(run.agent.skill, abs=0.06)


def test_a_winner_gets_its_time(evolve, tmp_path):
    """A verdict on the policy before is none on the winner: the run goes on for a quarter of its steps at least."""
    for seed in range(8):
        run, _ = evolve(f"run{seed}", seed=seed, max_spawns=1)
        run.run()
        (event,) = all_of(kinds.Variant, tmp_path / f"run{seed}")
        if event.won:
            break
    assert event.won
    assert run.result.train_env_steps >= 1.25 * event.num_env_steps
    assert run.result.train_env_steps + run.result.search_env_steps < 40 * 400


def test_a_worse_variant_leaves_no_trace(evolve, tmp_path):
    """Without a winner, the windows of a run are those of one that never evolved."""

    class Scores(LoopCallback):
        def __init__(self):
            self.all = []

        def on_episode_end(self, episode_id, eval_metrics):
            self.all.append(eval_metrics.primary_score)

    for seed in range(8):
        with_variants, without = Scores(), Scores()
        settings = {"seed": seed, "max_env_steps": 40 * 100}  # so short that half of it passes without a verdict
        run, manager = evolve(f"with{seed}", max_spawns=1, callbacks=[with_variants], **settings)
        run.run()
        if not manager.variants[0].won:
            break
    evolve(f"without{seed}", max_spawns=0, callbacks=[without], **settings)[0].run()
    (variant,) = all_of(kinds.Variant, tmp_path / f"with{seed}")
    shared = min(len(with_variants.all), len(without.all))
    assert shared > variant.num_env_steps // 40 + 5
    assert with_variants.all[:shared] == without.all[:shared]


def story(path):
    """What a journal says, without times."""
    return [e.event for e in journal(path) if not isinstance(e.event, kinds.Resumed)]


def test_it_is_the_same_from_one_seed(evolve, tmp_path):
    first, ours = evolve("a")
    second, theirs = evolve("b")
    first.run()
    second.run()
    assert story(tmp_path / "a") == story(tmp_path / "b")
    assert ours.report() == theirs.report()
    assert first.agent.skill == second.agent.skill


def test_it_is_the_same_after_dying_even_within_a_race(evolve, exact, tmp_path):
    whole, ours = evolve("whole")
    whole.run()
    first = all_of(kinds.Variant, tmp_path / "whole")[0]
    in_race = first.num_env_steps // 40 + 3
    exact.deaths = (20, in_race, in_race + 40)
    resume = False
    for _ in range(10):
        run, theirs = evolve("torn", resume=resume)
        try:
            run.run()
            break
        except Death:
            resume = True
    assert not exact.deaths
    assert run.agent.skill == whole.agent.skill
    assert story(tmp_path / "torn") == story(tmp_path / "whole")
    assert theirs.report() == ours.report()
    assert [m.name for m in theirs.members] == [m.name for m in ours.members]


def test_explain_tells_every_decision_with_its_numbers(evolve, tmp_path):
    run, manager = evolve()
    run.run()
    sections = {section.title: section for section in render_story(journal(tmp_path / "run"))}
    told = sections["Evolution"]
    decisions = all_of(kinds.MetaDecision, tmp_path / "run")
    rows = [row for row in told.table.rows if row[1].startswith("decision")]
    assert len(rows) == len(decisions) >= 3
    for row, decision in zip(rows, decisions, strict=True):
        assert decision.message in row[2]
        assert decision.verdict in row[2]
    for variant in manager.variants:
        row = next(row for row in told.table.rows if row[1].startswith(f"variant {variant.number} "))
        assert f"{variant.train_env_steps:,}" in row[2]
        assert variant.why in row[2]
    assert sections["The record"]


def test_no_spawns_are_made_unless_asked_for(evolve, tmp_path):
    run, manager = evolve(max_spawns=0)
    run.run()
    assert manager.variants == ()
    assert all_of(kinds.Variant, tmp_path / "run") == []
    assert run.result.search_env_steps == 0


def test_a_run_without_exact_state_says_why_nothing_is_spawned(evolve, skill_agent):
    run, manager = evolve(agent=skill_agent())
    run.run()
    assert manager.spawns_used == 0
    assert any("No variant was spawned: agent and environments need an exact state" in n for n in run.result.notes)
    with pytest.raises(ValueError, match="no run to spawn in"):
        manager.spawn_variant()


def test_a_budget_too_small_for_a_race_ends_as_usual(evolve):
    run, manager = evolve(max_env_steps=160)
    result = run.run()
    assert result.train_env_steps == 160
    assert manager.spawns_used == 0
    assert "No variant was spawned: there is no room for a race in the budget." in result.notes


def test_a_variant_is_spawned_when_it_is_asked_for(evolve, tmp_path):
    class Asks(LoopCallback):
        windows = 0

        def on_window(self, progress, eval_metrics, diagnostics):
            self.windows += 1
            if self.windows == 12:
                self.manager.spawn_variant()

    asks = Asks()
    run, asks.manager = evolve(max_spawns=1, callbacks=[asks])
    run.run()
    (decision,) = [d for d in all_of(kinds.MetaDecision, tmp_path / "run") if d.action == "spawn"]
    assert decision.num_env_steps == 12 * 40
    assert decision.message == "spawn_variant() was called."
    with pytest.raises(ValueError, match="no run"):
        asks.manager.spawn_variant()


def test_a_factory_that_makes_nothing_of_use_is_named_before_a_step_is_spent(evolve, exact):
    """The agent of the run itself, handed out again, would learn and lose its weights to its own variants."""

    class Other(exact):
        def load_weights(self, path):
            raise ValueError("the file belongs to another agent.")

    agent = exact()
    for number, (factory, message) in enumerate([(lambda: agent, "in use"), (Other, "belongs to another agent")]):
        run, manager = evolve(f"run{number}", agent=agent)
        run._callbacks.callbacks[0]._agent_factory = factory
        with pytest.raises(ValueError, match=message):
            run.run()
        assert manager.spawns_used == 0


def test_another_agents_callback_is_refused(evolve, exact):
    run, _ = evolve()
    other = PolicyManager(run.registry, max_spawns=1)
    run.add_callback(other.as_callback(exact()))
    with pytest.raises(ValueError, match="another agent than the run's"):
        run.run()


def test_variants_have_their_share_where_the_budget_counts_no_steps(evolve):
    run, manager = evolve(max_env_steps=None, max_episodes=400, max_spawns=2)
    result = run.run()
    assert manager.spawns_used >= 1
    assert result.search_env_steps <= 2 * 0.4 * result.train_env_steps


class TestMembers:
    @pytest.fixture
    def manager(self, tmp_path):
        from optix_core import CheckpointRegistry

        return PolicyManager(CheckpointRegistry(tmp_path / "run", 4), max_ensemble_size=3, score_window=12)

    def test_the_weakest_leaves_and_lets_go(self, manager, exact):
        agents = [exact() for _ in range(3)]
        for i, agent in enumerate(agents):
            manager.add_agent(agent, weight=1.0).scores.extend([float(i)] * 3)
        assert manager.prune(bottom_k=1) == ["agent 0"]
        assert [agent.torn_down for agent in agents] == [1, 0, 0]
        assert manager.prune(bottom_k=5) == ["agent 1"]  # one always stays
        assert manager.pruned == ["agent 0", "agent 1"]

    def test_the_primary_one_is_never_pruned(self, manager, exact):
        agents = [exact() for _ in range(2)]
        for i, agent in enumerate(agents):
            manager.add_agent(agent).scores.extend([float(i)] * 3)
        manager.as_callback(agents[0])
        assert manager.prune(bottom_k=2) == ["agent 1"]
        assert agents[0].torn_down == 0

    def test_weights_follow_scores_whatever_their_unit(self, manager, exact):
        rng = np.random.default_rng(0)
        noise = rng.normal(0, 1, (3, 12))
        found = []
        for scale in (1e-3, 1.0, 1e3):
            for i in range(3):
                agent = manager.members[i].agent if len(manager.members) == 3 else exact()
                member = manager.add_agent(agent)
                member.scores.clear()
                member.scores.extend(scale * (noise[i] + i))
            found.append(manager.rebalance())
        assert np.allclose(found[0], found[1])
        assert np.allclose(found[1], found[2])
        assert found[0][0] < found[0][1] < found[0][2]
        assert sum(found[0]) == pytest.approx(1.0)

    def test_boost(self, manager, exact):
        a, b = exact(), exact()
        manager.add_agent(a)
        manager.add_agent(b)
        manager.boost(b, 3.0)
        assert manager.weights == (0.25, 0.75)
        manager.boost(0, 3.0)
        assert manager.weights == (0.5, 0.5)

    def test_what_is_wrong_is_said(self, manager, exact):
        with pytest.raises(ValueError, match="weight"):
            manager.add_agent(exact(), weight=-1.0)
        for _ in range(3):
            manager.add_agent(exact())
        with pytest.raises(ValueError, match="max_ensemble_size"):
            manager.add_agent(exact())
        with pytest.raises(ValueError, match="no member"):
            manager.boost(exact())
        with pytest.raises(ValueError, match="as_callback"):
            manager.spawn_variant()
        with pytest.raises(ValueError, match="bottom_k"):
            manager.prune(0)
        for no_agent in (None, "agent", type(exact())):
            with pytest.raises(ValueError, match="no agent"):
                manager.lead(no_agent)
        assert len(manager.members) == 3
        with pytest.raises(ValueError, match="CheckpointRegistry"):
            PolicyManager("runs")

    def test_the_report_knows_the_regime(self, manager, exact):
        manager.as_callback(exact())
        rng = np.random.default_rng(0)
        for i in range(60):
            manager.watch(EvalMetrics(primary_score=100 + 2.0 * i + rng.normal(), episode_id=i))
        assert "trending" in manager.report()
