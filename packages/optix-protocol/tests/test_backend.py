"""check_backend: the whole of a good backend, and each way in which a backend can break the contract."""

from dataclasses import replace

import pytest

from optix_protocol.conformance import backend as module
from optix_protocol.conformance import check_backend
from optix_protocol.conformance.reference import ReferenceAgent, ReferenceBackend


def test_reference_backend_passes_on_every_kind_of_action():
    report = check_backend(ReferenceBackend())
    assert report.ok, report.summary()
    subjects = {result.subject for result in report.results}
    assert subjects == {
        "reference",
        "linear-a2c on discrete actions",
        "linear-a2c on multidiscrete actions",
        "linear-a2c on multibinary actions",
        "linear-a2c on box actions",
    }
    assert report.num_passed > 150


class Changed(ReferenceBackend):
    """The reference backend with a changed AlgorithmInfo."""

    changes: dict = {}  # noqa: RUF012

    def algorithms(self):
        return {name: replace(info, **self.changes) for name, info in super().algorithms().items()}


class Nameless(ReferenceBackend):
    name = "two words"


class NoMethods:
    name = "empty"
    protocol_version = "1.0"


class OfAnotherSeries(ReferenceBackend):
    protocol_version = "7.0"


class OfAnUnreadableSeries(ReferenceBackend):
    protocol_version = "new"


class Empty(ReferenceBackend):
    def algorithms(self):
        return {}


class MisnamedAlgorithm(ReferenceBackend):
    def algorithms(self):
        return {"PPO": super().algorithms()["linear-a2c"]}


class UnknownKind(Changed):
    changes = {"action_kinds": frozenset({"binary"})}  # noqa: RUF012


class TakesAnyAlgorithm(ReferenceBackend):
    def make_agent(self, algorithm, **kwargs):
        return super().make_agent("linear-a2c", **kwargs)


class TakesAnyHyperparameter(ReferenceBackend):
    def make_agent(self, algorithm, *, hyperparams=None, **kwargs):
        return super().make_agent(algorithm, **kwargs)


class RaisesKeyError(ReferenceBackend):
    def make_agent(self, algorithm, **kwargs):
        if algorithm not in self.algorithms():
            raise KeyError(algorithm)
        return super().make_agent(algorithm, **kwargs)


class RaisesAPage(ReferenceBackend):
    def make_agent(self, algorithm, **kwargs):
        if algorithm not in self.algorithms():
            raise ValueError("no\nsuch\nthing")
        return super().make_agent(algorithm, **kwargs)


class TakesUndeclaredActions(Changed):
    changes = {"action_kinds": frozenset({"discrete"})}  # noqa: RUF012


class ListsOtherDefaults(Changed):
    changes = {"default_hyperparams": {"learning_rate": 0.3, "gamma": 0.99, "gae_lambda": 0.95}}  # noqa: RUF012


class ListsTooFewDefaults(Changed):
    changes = {"default_hyperparams": {"learning_rate": 0.1}}  # noqa: RUF012


class ClaimsToBeOffPolicy(Changed):
    changes = {"on_policy": False}  # noqa: RUF012


class OfTheFirstSeries(TakesUndeclaredActions):
    """A backend from before there were multi-binary actions, which takes MultiBinary for Discrete: both have n."""

    protocol_version = "1.0"

    def make_agent(self, algorithm, *, action_space, **kwargs):
        if not hasattr(action_space, "n"):
            raise ValueError("Discrete actions, please.")
        return super().make_agent(algorithm, action_space=action_space, **kwargs)


def test_a_backend_need_not_refuse_what_its_version_did_not_know(monkeypatch):
    monkeypatch.setattr(module, "check_agent", lambda *args, **kwargs: module.ConformanceReport.merge("none", []))
    assert check_backend(OfTheFirstSeries()).ok
    monkeypatch.setattr(OfTheFirstSeries, "protocol_version", "1.1")
    assert {f.check for f in check_backend(OfTheFirstSeries()).failures} == {"backend_refuses_unknown"}


@pytest.mark.parametrize(
    ("check", "backend"),
    [
        ("backend_names_itself", Nameless),
        ("backend_names_itself", NoMethods),
        ("backend_protocol_version", OfAnotherSeries),
        ("backend_protocol_version", OfAnUnreadableSeries),
        ("backend_lists_algorithms", Empty),
        ("backend_lists_algorithms", MisnamedAlgorithm),
        ("backend_lists_algorithms", UnknownKind),
        ("backend_refuses_unknown", TakesAnyAlgorithm),
        ("backend_refuses_unknown", TakesAnyHyperparameter),
        ("backend_refuses_unknown", RaisesKeyError),
        ("backend_refuses_unknown", RaisesAPage),
        ("backend_refuses_unknown", TakesUndeclaredActions),
        ("backend_hyperparams", ListsOtherDefaults),
        ("backend_hyperparams", ListsTooFewDefaults),
        ("backend_hyperparams", TakesAnyHyperparameter),
        ("backend_on_policy", ClaimsToBeOffPolicy),
    ],
)
def test_check_catches_its_sabotage(check, backend, monkeypatch):
    monkeypatch.setattr(module, "check_agent", lambda *args, **kwargs: module.ConformanceReport.merge("none", []))
    report = check_backend(backend())
    assert check in {failure.check for failure in report.failures}, report.summary()
    assert not report.ok


def test_a_broken_agent_fails_the_backend():
    class Backend(ReferenceBackend):
        def make_agent(self, algorithm, **kwargs):
            super().make_agent(algorithm, **kwargs)  # refuses what the reference refuses
            return BadAgent(
                observation_space=kwargs["observation_space"], action_space=kwargs["action_space"], seed=kwargs["seed"]
            )

    class BadAgent(ReferenceAgent):
        def save_weights(self, path):
            super().save_weights(f"{path}.npz")

    report = check_backend(Backend())
    assert ("save_writes_exact_path", "linear-a2c on box actions") in {(f.check, f.subject) for f in report.failures}


def _install(folder, monkeypatch, body):
    """Make ``body`` the module behind an entry point named "reference", here and in child processes."""
    (folder / "somebackend.py").write_text(body)
    info = folder / "somebackend-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebackend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[optix.backends]\nreference = somebackend:create\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.parametrize(
    ("first_line", "outcome", "message"),
    [
        ("", "passed", ""),
        ("import torch", "failed", "creating the backend imports torch"),
        ("import no_such_module", "failed", "does not load"),
    ],
)
def test_creating_a_backend_must_be_cheap(tmp_path, monkeypatch, first_line, outcome, message):
    _install(
        tmp_path,
        monkeypatch,
        f"{first_line}\nfrom optix_protocol.conformance.reference import ReferenceBackend as create\n",
    )
    (tmp_path / "torch.py").write_text("")  # stands for the real one
    monkeypatch.setattr(module, "check_agent", lambda *args, **kwargs: module.ConformanceReport.merge("none", []))
    report = check_backend(ReferenceBackend())
    (result,) = [result for result in report.results if result.check == "backend_is_cheap"]
    assert result.outcome == outcome
    assert message in result.message


def test_exemptions_are_by_algorithm():
    exempt = {"linear-a2c": {"truncation_is_not_termination": "for the sake of the test"}}
    report = check_backend(ReferenceBackend(), exempt=exempt)
    assert sum("for the sake of the test" in result.message for result in report.results) == 4


def test_a_backend_may_declare_its_exemptions(monkeypatch):
    seen = []
    empty = module.ConformanceReport.merge("none", [])
    monkeypatch.setattr(module, "check_agent", lambda *args, **kwargs: seen.append(kwargs["exempt"]) or empty)

    class MonteCarlo(ReferenceBackend):
        conformance_exemptions = {"linear-a2c": {"window_end_bootstraps": "no value function"}}  # noqa: RUF012

    check_backend(MonteCarlo())
    assert seen == 4 * [{"window_end_bootstraps": "no value function"}]
    check_backend(MonteCarlo(), exempt={})
    assert seen[4:] == 4 * [None]


def test_only_some_pairs_may_be_checked():
    report = check_backend(ReferenceBackend(), only=[("linear-a2c", "box")])
    assert report.ok
    assert {result.subject for result in report.results if "actions" in result.subject} == {"linear-a2c on box actions"}
    with pytest.raises(ValueError, match="does not announce sac on box actions"):
        check_backend(ReferenceBackend(), only=[("sac", "box")])


def test_exemptions_for_unknown_algorithms_are_refused():
    with pytest.raises(ValueError, match="unknown algorithms: sac"):
        check_backend(ReferenceBackend(), exempt={"sac": {}})
