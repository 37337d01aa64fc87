from dataclasses import replace
from importlib.metadata import EntryPoint

import gymnasium as gym
import numpy as np
import pytest

from optix_core import AgentError, ConfigError, list_backends, load_backend, make_agent
from optix_core.agents import registry
from optix_core.agents.catalog import CatalogBackend
from optix_core.agents.registry import check_protocol_version
from optix_protocol import PROTOCOL_VERSION, AlgorithmInfo


class FakeBackend:
    name = "fake"
    protocol_version = PROTOCOL_VERSION

    def algorithms(self):
        box, discrete = frozenset({"box"}), frozenset({"discrete"})
        infos = [
            AlgorithmInfo(name="ppo", description="", action_kinds=box | discrete, on_policy=True,
                          default_hyperparams={"learning_rate": 1e-3}),
            AlgorithmInfo(name="sac", description="", action_kinds=box, on_policy=False),
            AlgorithmInfo(name="td3", description="", action_kinds=box, on_policy=False),
        ]  # fmt: skip
        return {info.name: info for info in infos}

    def make_agent(self, algorithm, *, observation_space, action_space, seed, device="cpu", hyperparams=None):
        if (hyperparams or {}).get("learning_rate", 1.0) < 0:
            raise ValueError("learning_rate must be positive, got -1.")
        return algorithm, observation_space, action_space, seed, dict(hyperparams or {})


def broken():
    raise ImportError("libfoo.so is missing")


@pytest.fixture
def installed(monkeypatch):
    """Install entry points for this test only."""

    def install(**factories):
        points = [EntryPoint(name=name, value=f"{__name__}:{name}", group=registry.GROUP) for name in factories]
        monkeypatch.setattr(EntryPoint, "load", lambda self: factories[self.name])
        monkeypatch.setattr(registry, "_points", lambda: points)

    return install


def test_listing_imports_nothing(installed):
    installed(fake=FakeBackend, broken=broken)
    assert [listing.name for listing in list_backends()] == ["broken", "fake"]


def test_one_broken_backend_does_not_break_the_others(installed):
    installed(fake=FakeBackend, broken=broken)
    assert load_backend("fake").name == "fake"
    with pytest.raises(AgentError, match=r"Backend 'broken' .* fails to load: ImportError: libfoo.so is missing"):
        load_backend("broken")


def test_missing_backends(installed):
    installed(fake=FakeBackend)
    for name in ("torch", "jax", "tf"):
        with pytest.raises(AgentError, match=f"pip install optix-{name}"):
            load_backend(name)
    with pytest.raises(AgentError, match=r"installed: fake\). Did you mean 'fake'"):
        load_backend("fakr")
    installed()
    with pytest.raises(AgentError, match="No backend is installed"):
        make_agent("CartPole-v1")


MAJOR, MINOR = map(int, PROTOCOL_VERSION.split("."))


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        ("0.1", "pip install --upgrade its package"),
        (f"{MAJOR + 1}.0", "pip install --upgrade optix-core optix-protocol"),
        (f"{10 * MAJOR}.{MINOR}", "pip install --upgrade optix-core optix-protocol"),
    ],
)
def test_a_backend_for_another_protocol_is_refused_with_the_remedy(installed, version, remedy):
    class Other(FakeBackend):
        protocol_version = version

    installed(other=Other)
    with pytest.raises(AgentError) as error:
        load_backend("other")
    assert str(error.value) == (
        f"Backend 'other' was written for optix-protocol {version}, and {PROTOCOL_VERSION} is installed: {remedy}"
    )


def test_the_advice_names_the_package_of_an_outdated_backend():
    with pytest.raises(AgentError, match=r"pip install --upgrade optix-tiny$"):
        check_protocol_version("tiny", "0.1", package="optix-tiny")


@pytest.mark.parametrize("version", ["new", "", None, 7, f"{MAJOR}x.0"])
def test_what_is_no_version_is_said_to_be_none(version):
    with pytest.raises(AgentError, match=r"no version such as .*authors of optix-tiny"):
        check_protocol_version("tiny", version, package="optix-tiny")


@pytest.mark.parametrize("version", [f"{MAJOR}.{MINOR}", f"{MAJOR}.{MINOR + 1}", f"{MAJOR}.{MINOR}.7"])
def test_another_minor_version_is_welcome(version):
    check_protocol_version("tiny", version)


def test_the_backends_of_the_house_declare_the_installed_series():
    assert CatalogBackend.protocol_version.split(".")[0] == str(MAJOR)


def test_what_is_no_backend_is_refused(installed):
    installed(thing=dict)
    with pytest.raises(AgentError, match="lacks"):
        load_backend("thing")


def test_the_usual_choice_of_algorithm(installed):
    installed(fake=FakeBackend)
    assert make_agent("CartPole-v1")[0] == "ppo"
    assert make_agent("Pendulum-v1")[0] == "sac"
    assert make_agent("Pendulum-v1", deterministic=True)[0] == "td3"
    assert make_agent("PPO", "Pendulum-v1")[0] == "ppo"
    assert make_agent("Pendulum-v1", algorithm="PPO", framework="fake")[0] == "ppo"


def test_the_usual_choice_where_actions_have_no_bounds_is_ppo(installed):
    installed(fake=FakeBackend)
    for low, high in ((-np.inf, np.inf), (0.0, np.inf), (-np.finfo(np.float32).max, np.finfo(np.float32).max)):

        class Unbounded(gym.Env):
            observation_space = gym.spaces.Box(0, 1, (1,))
            action_space = gym.spaces.Box(low, high, (2,), np.float32)

        assert make_agent(Unbounded)[0] == make_agent(Unbounded, deterministic=True)[0] == "ppo"


def test_it_falls_back_on_what_the_backend_has(installed):
    class OnlyPPO(FakeBackend):
        def algorithms(self):
            return {"ppo": super().algorithms()["ppo"]}

    installed(fake=OnlyPPO)
    assert make_agent("Pendulum-v1")[0] == "ppo"


def test_errors_of_choice(installed):
    installed(fake=FakeBackend)
    with pytest.raises(ConfigError, match=r"no algorithm 'sacc'.*Did you mean 'sac'"):
        make_agent("Pendulum-v1", algorithm="sacc")
    with pytest.raises(ConfigError, match=r"sac cannot act in a space of kind discrete. Use ppo"):
        make_agent("CartPole-v1", algorithm="sac")
    with pytest.raises(ConfigError, match=r"no hyperparameter 'learning_rat'. Did you mean 'learning_rate'"):
        make_agent("CartPole-v1", learning_rat=1.0)
    with pytest.raises(ConfigError, match="learning_rate must be positive"):
        make_agent("CartPole-v1", learning_rate=-1)
    with pytest.raises(ConfigError, match=r'make_agent\("SAC", env\)'):
        make_agent()


def test_unsupported_action_spaces_are_refused(installed):
    installed(fake=FakeBackend)

    class Odd(gym.Env):
        observation_space = gym.spaces.Box(0, 1, (1,))
        action_space = gym.spaces.Tuple([gym.spaces.Discrete(2)])

    with pytest.raises(ConfigError, match=r"Action space .* is not supported"):
        make_agent(Odd)


def test_algorithm_info_is_complete():
    info = FakeBackend().algorithms()["ppo"]
    assert replace(info, on_policy=False).default_hyperparams == {"learning_rate": 1e-3}
