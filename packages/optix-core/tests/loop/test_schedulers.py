"""Schedulers chosen by their settings, and the doors to the parts of a run."""

import pytest

from optix_core import BackoffScheduler, ConfigError, ConvergenceMonitor, HyperparamSet, LoopCallback
from optix_core.reporting.story import render_story


def test_settings_of_a_scheduler_choose_it_and_the_journal_says_so(loop, events, entries):
    optimizer = loop(base_interval=2, plateau_threshold=3, dormant_threshold=4, max_env_steps=400)
    assert isinstance(optimizer.scheduler, BackoffScheduler)
    assert (optimizer.scheduler.base_interval, optimizer.scheduler.dormant_threshold) == (2, 4)
    optimizer.run()
    (began,) = events("run_started")
    assert began["scheduler"]["name"] == "BackoffScheduler"
    assert began["scheduler"]["settings"] == {"base_interval": 2, "plateau_threshold": 3, "dormant_threshold": 4}
    assert "BackoffScheduler judged the scores" in " ".join(render_story(entries())[0].sentences)


def test_settings_of_the_monitor_and_none_at_all(loop, tmp_path):
    assert loop(margin_fraction=0.2).scheduler.margin_fraction == 0.2
    assert isinstance(loop().scheduler, ConvergenceMonitor)


def test_off_policy_agents_have_defaults_of_their_own(loop, skill_agent):
    agent = skill_agent()
    agent.is_on_policy = False
    assert loop(agent=agent, base_interval=1).scheduler.dormant_threshold == 15


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"base_intervall": 1}, "Did you mean 'base_interval'"),
        ({"base_interval": 1, "margin": 3.0}, "belongs to BackoffScheduler and margin to ConvergenceMonitor"),
        ({"base_interval": 0}, "base_interval must be at least 1"),
        ({"base_interval": 1, "scheduler": BackoffScheduler()}, "give it to the one that you pass"),
    ],
)
def test_wrong_settings_are_refused_in_a_line(loop, settings, said):
    with pytest.raises(ConfigError, match=said) as refused:
        loop(**settings)
    assert "\n" not in str(refused.value)


def test_the_registry_is_there_before_the_run(loop, tmp_path):
    optimizer = loop(max_env_steps=400)
    registry = optimizer.registry
    assert registry.list() == []
    optimizer.run()
    assert optimizer.registry is registry
    assert registry.best is not None


def test_a_registry_that_was_only_asked_for_leaves_nothing_behind(loop):
    folder = loop(checkpoint_dir=None).registry.path
    assert not folder.exists()


def test_a_tuner_may_use_other_names_and_callbacks_hear_ours(loop, skill_agent, events):
    from optix_core.agents import Hyperparam, HyperparamStore

    class Named(skill_agent):
        def __init__(self):
            super().__init__()
            self.store = HyperparamStore({"rate": Hyperparam(default=1.0, synonyms=("speed",))})

        def get_hyperparams(self):
            return self.store.to_set()

        def set_hyperparams(self, hyperparams):
            self.store.update(hyperparams)

    class Tuner:
        def suggest(self, hyperparams, eval_metrics):
            return HyperparamSet(params={"speed": min(2.0, hyperparams["speed"] + 0.5)})

        on_improvement = on_plateau = lambda self, *args: None
        is_probing = lambda self: False  # noqa: E731

    class Heard(LoopCallback):
        def __init__(self):
            self.pairs = []

        def on_hyperparam_update(self, old, new):
            self.pairs.append((old.params["speed"], new.params["speed"], list(new)))

    heard = Heard()
    loop(agent=Named(), optimizer=Tuner(), callbacks=heard, max_env_steps=400).run()
    assert heard.pairs == [(1.0, 1.5, ["rate"]), (1.5, 2.0, ["rate"])]
    assert [event["changed"] for event in events("hyperparams")] == [{"rate": 1.5}, {"rate": 2.0}]


def test_a_sum_over_time_is_a_score_and_one_of_several_environments_is_refused(loop, tmp_path):
    from optix_core import BaseEvaluator, EvalMetrics

    class Sum(BaseEvaluator):
        def score(self, episode_data, train_diagnostics):
            return EvalMetrics(primary_score=sum(episode_data.rewards), episode_id=episode_data.episode_id)

    optimizer = loop(n_envs=1, evaluator=Sum(), max_env_steps=80)
    optimizer.run()
    assert isinstance(optimizer.best_snapshot.eval_metrics.primary_score, float)
    with pytest.raises(ValueError, match=r"primary_score must be one number, got 10: windows are \[T, N\]"):
        loop(evaluator=Sum(), max_env_steps=80, checkpoint_dir=tmp_path / "b").run()
