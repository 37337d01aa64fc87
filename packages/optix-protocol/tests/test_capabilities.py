"""Capabilities are found by looking, and contracts are recognised by their methods alone."""

import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys
from importlib.metadata import version

import pytest

import optix_protocol
from optix_protocol import (
    CAPABILITIES,
    BaseAgent,
    HyperparamSet,
    LoopCallback,
    capabilities_of,
    conformance,
    is_on_policy,
)
from optix_protocol.conformance import example_case
from optix_protocol.conformance.recurrent_reference import RecurrentReferenceAgent
from optix_protocol.conformance.reference import ReferenceAgent


class SixMethods:
    def act(self, observation): ...
    def learn(self, episode_data): ...
    def get_hyperparams(self): ...
    def set_hyperparams(self, hyperparams): ...
    def save_weights(self, path): ...
    def load_weights(self, path): ...


def test_six_methods_make_an_agent():
    assert isinstance(SixMethods(), BaseAgent)
    assert capabilities_of(SixMethods()) == frozenset()


def test_inheriting_without_all_six_cannot_be_created():
    class Half(BaseAgent):
        def act(self, observation):
            return 0

    with pytest.raises(TypeError, match="learn"):
        Half()


@pytest.mark.parametrize("name", sorted(CAPABILITIES))
def test_a_capability_is_its_methods(name):
    methods = [member for member in vars(CAPABILITIES[name]) if not member.startswith("_")]
    namespace = {method: (lambda self: None) for method in methods}
    assert capabilities_of(type("Able", (SixMethods,), namespace)()) == {name}
    first = methods[0]
    without = type("Unable", (SixMethods,), {k: v for k, v in namespace.items() if k != first})
    assert capabilities_of(without()) == frozenset()


def test_on_policy_unless_it_says_otherwise():
    assert is_on_policy(SixMethods())
    assert not is_on_policy(type("Replay", (SixMethods,), {"is_on_policy": False})())


def test_reference_agents_have_every_capability_that_concerns_the_kit():
    case = example_case()
    spaces = {"observation_space": case.observation_space, "action_space": case.action_space}
    on_host = set(CAPABILITIES) - {
        "batches", "export", "fused_training", "lagged_windows", "many_seeds", "population",
    }  # fmt: skip
    assert capabilities_of(RecurrentReferenceAgent(**spaces)) == on_host - {"action_masks"}
    assert capabilities_of(ReferenceAgent(**spaces)) == on_host - {"recurrent_state"}


def test_callback_hears_everything_by_default():
    callback = LoopCallback()
    hyperparams = HyperparamSet(params={})
    arguments = {
        "episode_id": 1,
        "eval_metrics": optix_protocol.EvalMetrics(primary_score=1.0),
        "snapshot": None,
        "state": optix_protocol.LoopState.ACTIVE,
        "old": hyperparams,
        "new": hyperparams,
        "progress": {"num_env_steps": 1},
        "diagnostics": {},
        "message": "a note",
    }
    hooks = [getattr(callback, name) for name in dir(callback) if name.startswith("on_")]
    assert len(hooks) == 10
    for hook in hooks:
        assert hook(**{name: arguments[name] for name in inspect.signature(hook).parameters}) is None


def test_everything_public_exists_and_is_documented():
    for name in optix_protocol.__all__:
        value = getattr(optix_protocol, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name


def test_versions_agree():
    assert version("optix-protocol") == optix_protocol.__version__
    assert optix_protocol.__version__.split(".")[:2] == optix_protocol.PROTOCOL_VERSION.split(".")


def test_every_module_says_what_it_offers():
    found = [module.name for module in pkgutil.walk_packages(optix_protocol.__path__, "optix_protocol.")]
    modules = [importlib.import_module(name) for name in found if "._" not in name and ".checks" not in name]
    assert len(modules) > 10
    for module in modules:
        assert all(hasattr(module, name) for name in module.__all__), module.__name__


def test_what_travels_can_gain_fields():
    """Frozen and keyword-only, so that a new field with a default breaks nobody."""
    public = [getattr(module, name) for module in (optix_protocol, conformance) for name in module.__all__]
    travels = [value for value in public if inspect.isclass(value) and dataclasses.is_dataclass(value)]
    assert len(travels) > 10
    for kind in travels:
        assert kind.__dataclass_params__.frozen, kind
        assert all(field.kw_only for field in dataclasses.fields(kind)), kind


def test_import_needs_numpy_alone():
    heavy = ("gymnasium", "pytest", "scipy", "torch", "tensorflow", "jax", "ray", "optix_core")
    program = (
        f"import sys; before = set(sys.modules); import optix_protocol.conformance.reference\n"
        f"print(*sorted((set(sys.modules) - before) & set({heavy!r})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
