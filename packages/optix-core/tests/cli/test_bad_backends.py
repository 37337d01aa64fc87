"""Backends of strangers that are wrong, each in its own way, beside a good one: a line each, and the good one works."""

import pytest

from optix_core.agents import registry
from optix_core.errors import OptixWarning

GOOD = """
from optix_protocol.conformance.reference import ReferenceBackend


class Backend(ReferenceBackend):
    name = "NAME"


create = Backend
"""

BAD = {
    "misnamed": (
        GOOD.replace("NAME", "other"),
        "calls itself 'other', and must have the name of its entry point, 'misnamed'",
    ),
    "exits": ("raise SystemExit(3)", "fails to load: SystemExit: 3"),
    "dies": ("import no_such_library", "fails to load: ModuleNotFoundError: No module named 'no_such_library'"),
    "fails": ("def create():\n    raise RuntimeError('no licence')", "fails to load: RuntimeError: no licence"),
    "mute": (
        GOOD.replace("NAME", "mute") + "Backend.algorithms = lambda self: 1 / 0",
        "fails in algorithms(): ZeroDivisionError: division by zero",
    ),
    "vague": (
        GOOD.replace("NAME", "vague") + "Backend.algorithms = lambda self: {'ppo': 'the usual one'}",
        "describes 'ppo' by something else than an AlgorithmInfo",
    ),
    "empty": (GOOD.replace("NAME", "empty") + "Backend.algorithms = lambda self: {}", "has no algorithm"),
    "nothing": ("create = dict", "lacks algorithms(), make_agent(), name or protocol_version"),
    "shy": (
        GOOD.replace("NAME", "shy") + "Backend.name = property(lambda self: 1 / 0)",
        "fails to load: ZeroDivisionError: division by zero",
    ),
    "newer": (
        GOOD.replace("NAME", "newer") + "Backend.protocol_version = '2.0'",
        "was written for optix-protocol 2.0",
    ),
}


def install(folder, package, module, code, *, name):
    """Put a package with one entry point into a folder of packages."""
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[optix.backends]\n{name} = {module}:create\n")


@pytest.fixture
def strangers(optix, tmp_path, monkeypatch):
    """All of them installed, and two packages that offer the same name."""
    folder = tmp_path / "strangers"
    folder.mkdir()
    for name, (code, _) in BAD.items():
        install(folder, f"optix-{name}", f"strange_{name}", code, name=name)
    for package in ("first", "second"):
        install(folder, f"optix-{package}", f"strange_{package}", GOOD.replace("NAME", "twin"), name="twin")
    monkeypatch.syspath_prepend(str(folder))
    return optix


def test_the_list_names_every_fault_and_goes_on(strangers):
    listed = strangers("backends")
    assert listed.code == 0
    assert "Traceback" not in listed.out + listed.err
    told = " ".join(listed.out.split())
    for _, fault in BAD.values():
        assert fault in told
    assert told.count("is offered by optix-first 1.0 and optix-second 1.0: uninstall all but one of them") == 2
    assert "linear-a2c" in told  # the good one, after them all


@pytest.mark.parametrize("name", [*BAD, "twin"])
def test_who_asks_for_one_gets_its_fault_in_a_line_or_two(strangers, name):
    for outcome in (strangers("check-backend", name), strangers("train", "CartPole-v1", "--backend", name)):
        assert outcome.code == 2
        assert "Traceback" not in outcome.err
        assert len(outcome.err) < 400
        assert BAD.get(name, ("", "is offered by"))[1] in " ".join(outcome.err.split())


def test_an_exemption_from_what_does_not_exist_is_a_line(optix, tmp_path, monkeypatch):
    typo = GOOD.replace("NAME", "typo") + "Backend.conformance_exemptions = {'linear-a2c': {'act_bach': 'no reason'}}"
    install(tmp_path, "optix-typo", "strange_typo", typo, name="typo")
    monkeypatch.syspath_prepend(str(tmp_path))
    outcome = optix("check-backend", "typo")
    assert outcome.code == 2
    assert outcome.err.startswith("optix: error: Backend 'typo': ")
    assert "act_bach" in outcome.err


def test_the_first_backend_that_works_is_the_default(strangers, monkeypatch):
    good = [point for point in registry._points() if point.name in ("dies", "reference")]
    monkeypatch.setattr(registry, "_points", lambda: good)
    with pytest.warns(OptixWarning, match=r"'dies' .* fails to load: .* Backend 'reference' is used instead"):
        assert registry.default_backend() == "reference"
