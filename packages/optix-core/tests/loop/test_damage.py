"""Updates that diverge and policies that get worse: the loop goes back, and only then."""

import math

import numpy as np
import pytest

from optix_protocol import HyperparamSet, LoopCallback


def test_an_update_that_diverges_is_rolled_back(loop, skill_agent, events):
    class Diverging(skill_agent):
        diverged = False

        def learn(self, episode_data):
            diagnostics = super().learn(episode_data)
            if self.learned == 30 and not self.diverged:
                self.diverged = True
                self.skill, diagnostics["loss"] = math.nan, math.nan
            return diagnostics

    result = loop(agent=Diverging()).run()
    assert result.verdict == "CONVERGED"
    assert result.confirmed_return["mean"] == pytest.approx(1.0, abs=0.05)
    assert len(events("rollback")) == 1
    assert "NaN" in events("damage")[0]["message"]


def test_a_run_that_diverges_again_and_again_ends_as_diverged_with_the_best_policy(loop, skill_agent, events):
    class Hopeless(skill_agent):
        def learn(self, episode_data):
            diagnostics = super().learn(episode_data)
            if self.learned >= 30:
                self.skill, diagnostics["loss"] = math.nan, math.nan
            return diagnostics

    optimizer = loop(agent=Hopeless())
    result = optimizer.run()
    assert result.stop_reason == "diverged"
    assert result.confirmed_return["mean"] == pytest.approx(1.0, abs=0.1)
    assert optimizer.agent.skill == pytest.approx(1.0, abs=0.1)
    assert len(events("rollback")) <= 10


def test_a_damaged_policy_is_detected_rolled_back_and_recovers(loop, skill_agent, events):
    """Weights perturbed in mid-run, and staying damaged unless the loop goes back."""

    class Damaged(skill_agent):
        damaged = False

        def learn(self, episode_data):
            if self.learned == 120 and not self.damaged:
                self.damaged = True
                self.skill = 0.3
                self.learned += 1
                return {"loss": 1.0}
            if self.skill < 0.5 and self.learned > 100:
                self.learned += 1
                return {"loss": 1.0}
            return super().learn(episode_data)

    degradations = []

    class Listener(LoopCallback):
        def on_degradation(self, episode_id, eval_metrics):
            degradations.append(eval_metrics.primary_score)

    optimizer = loop(
        lambda k: min(1.0, k / 100), agent=Damaged(lambda k: min(1.0, k / 100)), rollback_on_degradation=True,
        callbacks=[Listener()], max_env_steps=40 * 1000,
    )  # fmt: skip
    result = optimizer.run()
    assert len(events("rollback")) == 1
    assert degradations == [pytest.approx(0.3, abs=0.1)]
    rollback_at = events("rollback")[0]["seq"]
    level = [e["level"] for e in events("window") if e["seq"] > rollback_at + 40]
    assert np.mean(level) > 0.9
    assert result.confirmed_return["mean"] > 0.95


def test_a_healthy_plateau_is_never_rolled_back(loop, events):
    loop(noise=1.0, rollback_on_degradation=True, max_env_steps=40 * 300).run()
    assert not events("rollback")


def test_a_rollback_brings_back_the_version_of_the_hyperparameters_with_their_values(loop, events, skill_agent):
    """Windows are stamped with what trained them, and no number is given to two sets of values."""
    stamped = []

    class Exact(skill_agent):
        learned_with_half = 0

        def act(self, observation):
            self.acted_with = self.params["rate"]
            return super().act(observation)

        def learn(self, episode_data):
            stamped.append((episode_data.hyperparam_version, self.acted_with))
            super().learn(episode_data)
            self.learned_with_half += self.params["rate"] == 0.5
            return {"loss": np.nan if self.learned_with_half == 2 and self.params["rate"] == 0.5 else 1.0}

        def training_state(self):
            return {"skill": self.skill, "learned": self.learned, "params": dict(self.params)}

        def restore_training_state(self, state):
            self.skill, self.learned, self.params = state["skill"], state["learned"], dict(state["params"])

    class Tuner:
        asked = 0

        def suggest(self, current, metrics):
            self.asked += 1
            rate = {58: 0.5, 100: 0.25, 140: 0.125}.get(self.asked)
            return None if rate is None else HyperparamSet(params={**current.params, "rate": rate})

        def on_improvement(self, snapshot):
            pass

        def on_plateau(self, episode_id, state):
            pass

        def is_probing(self):
            return False

    loop(agent=Exact(lambda k: min(1.0, k / 100)), optimizer=Tuner(), max_env_steps=40 * 200, noise=0.0).run()
    assert events("rollback")
    rates = {}
    for version, rate in stamped:
        assert rates.setdefault(version, rate) == rate
    assert rates[0] == 1.0 and rates[1] == 0.5
    at = [version for version, _ in stamped]
    assert 0 in at[at.index(1) :]  # the old number came back with the old values
    assert sorted(rates) == list(range(len(rates))) and len(set(rates.values())) == len(rates)
    assert {event["version"]: event["changed"]["rate"] for event in events("hyperparams")} == {
        version: rate for version, rate in rates.items() if version
    }
