"""Checks of a backend, and of every algorithm in it on every kind of action that it declares."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib.metadata import entry_points
from typing import Any, get_args

from optix_protocol.agent import BaseAgent
from optix_protocol.capabilities import is_on_policy
from optix_protocol.conformance.cases import Case, example_case
from optix_protocol.conformance.report import CheckResult, ConformanceError, ConformanceReport, Outcome
from optix_protocol.conformance.runner import check_agent, describe
from optix_protocol.conformance.subject import CheckSkipped, require, skip
from optix_protocol.contracts import ActionKind, AlgorithmInfo, Backend

__all__ = ["BACKEND_CHECKS", "ENTRY_POINT_GROUP", "FRAMEWORKS", "check_backend"]

ENTRY_POINT_GROUP = "optix.backends"
FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "flax", "ray")
_KINDS: tuple[ActionKind, ...] = get_args(ActionKind)
_NEW_KINDS: Mapping[str, frozenset[ActionKind]] = {"1.0": frozenset({"multibinary"})}
"""Kinds of action that were not yet there in an older version: a backend written for it cannot know what to refuse."""


def check_backend(
    backend: Backend,
    *,
    exempt: Mapping[str, Mapping[str, str]] | None = None,
    device: str = "cpu",
    only: Collection[tuple[str, ActionKind]] | None = None,
) -> ConformanceReport:
    """Check a backend, then run :func:`check_agent` on each of its algorithms for each declared kind of action.

    Spaces are Gymnasium's if it is installed, otherwise stand-ins with the same attributes.

    Args:
        backend: what the entry point's factory returned.
        exempt: by algorithm, names of checks it cannot pass by design, each with the reason; default what the backend
            says of itself in an attribute ``conformance_exemptions``, if it has one.
        device: handed to ``make_agent``.
        only: the pairs of algorithm and kind of action to check, for a suite that runs often; default every pair that
            the backend announces.

    Returns:
        One report on everything; its floor grows with the number of algorithms and kinds.

    Raises:
        ValueError: an exemption for an algorithm or a check that does not exist, or a pair that the backend does not
            announce.
    """
    name = str(getattr(backend, "name", type(backend).__name__))
    results = [_run(check, backend, name) for check in BACKEND_CHECKS]
    own = ConformanceReport(subject=name, results=tuple(results), floor=len(BACKEND_CHECKS) - 1)
    algorithms = _algorithms(backend)
    exempt = getattr(backend, "conformance_exemptions", {}) if exempt is None else exempt
    unknown = exempt.keys() - algorithms.keys()
    if unknown:
        raise ValueError(f"exemptions for unknown algorithms: {', '.join(sorted(unknown))}.")
    pairs = [(name, kind) for name, info in algorithms.items() for kind in _KINDS if kind in info.action_kinds]
    if only is not None:
        foreign = set(only) - set(pairs)
        if foreign:
            raise ValueError(f"{name} does not announce {', '.join(sorted(map(' on '.join, foreign)))} actions.")
        pairs = [pair for pair in pairs if pair in only]
    agents = [
        check_agent(
            _factory(backend, algorithm, example_case(kind), device),
            case=example_case(kind),
            make_other=_factory(backend, algorithm, example_case(kind, observation_size=5), device),
            exempt=exempt.get(algorithm),
            subject=f"{algorithm} on {kind} actions",
        )
        for algorithm, kind in pairs
    ]
    return ConformanceReport.merge(name, [own, *agents])


def _factory(backend: Backend, algorithm: str, case: Case, device: str = "cpu") -> Callable[..., BaseAgent]:
    # Large networks and long warm-ups make the checks slow without making them sharper.
    lighter = dict(getattr(backend, "conformance_hyperparams", {}).get(algorithm, {}))

    def make_agent(seed: int = 0, hyperparams: Mapping[str, Any] | None = None) -> BaseAgent:
        return backend.make_agent(
            algorithm,
            observation_space=case.observation_space,
            action_space=case.action_space,
            seed=seed,
            device=device,
            hyperparams={**lighter, **(hyperparams or {})} or None,
        )

    return make_agent


def _unknown_kinds(backend: Backend) -> frozenset[ActionKind]:
    """Return the kinds of action that came after the version for which a backend was written."""
    series = ".".join(str(getattr(backend, "protocol_version", "")).split(".")[:2])
    return _NEW_KINDS.get(series, frozenset())


def _algorithms(backend: Backend) -> Mapping[str, AlgorithmInfo]:
    """Return the algorithms, or none if the backend cannot even list them (a check has said so already)."""
    try:
        return {name: info for name, info in dict(backend.algorithms()).items() if isinstance(info, AlgorithmInfo)}
    except Exception:
        return {}


def _agents(backend: Backend) -> list[tuple[str, AlgorithmInfo, Callable[..., BaseAgent]]]:
    """Return each algorithm with a factory for the first kind of action that it declares."""
    return [
        (name, info, _factory(backend, name, example_case(kind)))
        for name, info in _algorithms(backend).items()
        for kind in [next((kind for kind in _KINDS if kind in info.action_kinds), None)]
        if kind is not None
    ]


# --- the checks -------------------------------------------------------------------------------------------------------


def check_backend_names_itself(backend: Backend) -> None:
    """A backend has a name, a protocol version, algorithms() and make_agent()."""
    require(isinstance(backend, Backend), "a backend has name, protocol_version, algorithms() and make_agent().")
    require(isinstance(backend.name, str) and backend.name.isidentifier(), "name must be a word such as 'torch'.")


def check_backend_protocol_version(backend: Backend) -> None:
    """The protocol version has the major version of the installed optix-protocol."""
    from optix_protocol import PROTOCOL_VERSION

    version = str(getattr(backend, "protocol_version", ""))
    require(
        re.fullmatch(r"\d+\.\d+(\.\d+)?", version),
        f"protocol_version is {version!r}: write the version you built against, {PROTOCOL_VERSION!r}.",
    )
    require(
        version.split(".")[0] == PROTOCOL_VERSION.split(".")[0],
        f"protocol_version is {version}, and optix-protocol {PROTOCOL_VERSION} is installed: bring the backend to this "
        "major version (the change log says what is new), then declare it.",
    )


def check_backend_lists_algorithms(backend: Backend) -> None:
    """algorithms() describes at least one algorithm, each completely."""
    algorithms = dict(backend.algorithms())
    require(algorithms, "algorithms() is empty: describe at least one algorithm.")
    for name, info in algorithms.items():
        require(isinstance(info, AlgorithmInfo), f"algorithms()[{name!r}] must be an AlgorithmInfo.")
        require(name == info.name == info.name.lower(), f"algorithm {name!r}: key and name are equal and lower case.")
        require(info.description and "\n" not in info.description, f"algorithm {name!r}: describe it in one line.")
        require(
            info.action_kinds and info.action_kinds <= set(_KINDS),
            f"algorithm {name!r}: action_kinds is {set(info.action_kinds)}, a non-empty subset of {_KINDS} is needed.",
        )


def check_backend_is_cheap(backend: Backend) -> None:
    """Creating the backend and listing its algorithms imports no framework."""
    entries = [entry for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name == backend.name]
    if not entries:
        skip(f"no entry point {backend.name!r} in the group {ENTRY_POINT_GROUP!r} is installed")
    program = (
        "import sys; from importlib.metadata import entry_points\n"
        f"(entry,) = entry_points(group={ENTRY_POINT_GROUP!r}, name={backend.name!r})\n"
        "entry.load()().algorithms()\n"
        f"print(*(name for name in {FRAMEWORKS!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"the entry point {backend.name!r} does not load: {done.stderr.strip()[-300:]}")
    require(
        not done.stdout.strip(),
        f"creating the backend imports {done.stdout.strip()}: import frameworks inside make_agent, so that listing "
        "backends stays fast.",
    )


def check_backend_refuses_unknown(backend: Backend) -> None:
    """An unknown algorithm or hyperparameter, and a kind of action that is not declared, are one-line ValueErrors."""
    _refused(lambda: _factory(backend, "no-such-algorithm", example_case())(), "an unknown algorithm")
    for name, info, make_agent in _agents(backend):
        _refused(
            partial(make_agent, hyperparams={"no_such_hyperparameter": 1.0}),
            f"{name} with an unknown hyperparameter",
        )
        for kind in set(_KINDS) - info.action_kinds - _unknown_kinds(backend):
            make = _factory(backend, name, example_case(kind))
            _refused(make, f"{name} on {kind} actions, which it does not declare,")


def check_backend_hyperparams(backend: Backend) -> None:
    """default_hyperparams are what a new agent has, and make_agent(hyperparams=...) changes them."""
    for name, info, make_agent in _agents(backend):
        params, defaults = make_agent().get_hyperparams().params, info.default_hyperparams
        lighter = getattr(backend, "conformance_hyperparams", {}).get(name, {})
        missing = sorted(params.keys() - defaults.keys())
        require(not missing, f"{name}: default_hyperparams lacks {', '.join(missing)}, which the agent has.")
        for key, value in params.items():
            require(
                key in lighter or value == defaults[key],
                f"{name}: default_hyperparams has {key}={defaults[key]!r}, the agent {value!r}.",
            )
            if isinstance(value, float) and value > 0.0:
                changed = make_agent(hyperparams={key: 0.9 * value}).get_hyperparams().params[key]
                require(
                    abs(changed - 0.9 * value) < 1e-6 * value,
                    f"{name}: make_agent(hyperparams={{{key!r}: {0.9 * value:g}}}) gave an agent with {changed!r}.",
                )


def check_backend_on_policy(backend: Backend) -> None:
    """AlgorithmInfo.on_policy agrees with the agent's is_on_policy."""
    for name, info, make_agent in _agents(backend):
        found = is_on_policy(make_agent())
        require(
            found == info.on_policy,
            f"{name}: on_policy is {info.on_policy}, but the agent's is_on_policy is {found}: make them agree.",
        )


BACKEND_CHECKS: tuple[Callable[[Backend], None], ...] = (
    check_backend_names_itself,
    check_backend_protocol_version,
    check_backend_lists_algorithms,
    check_backend_is_cheap,
    check_backend_refuses_unknown,
    check_backend_hyperparams,
    check_backend_on_policy,
)


def _refused(build: Callable[[], Any], what: str) -> None:
    try:
        build()
    except ValueError as error:
        require("\n" not in str(error).strip(), f"{what} is refused in several lines: say it in one.")
        require(str(error).strip(), f"{what} is refused without a message: say what would be accepted.")
    except Exception as error:
        require(False, f"{what} raised {type(error).__name__}: raise a ValueError with one line that says what to do.")
    else:
        require(False, f"{what} was accepted: raise a ValueError with one line that says what is possible.")


def _run(check: Callable[[Backend], None], backend: Backend, subject: str) -> CheckResult:
    outcome: Outcome = "passed"
    message = ""
    try:
        check(backend)
    except CheckSkipped as reason:
        outcome, message = "skipped", str(reason)
    except ConformanceError as problem:
        outcome, message = "failed", str(problem)
    except Exception as error:
        outcome, message = "failed", f"{describe(error)} Checked: {(check.__doc__ or '').strip()}"
    name = check.__name__.removeprefix("check_")
    return CheckResult(check=name, group="backend", subject=subject, outcome=outcome, message=message)
