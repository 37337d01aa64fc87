"""Backends are found through entry points and loaded only when chosen.

Listing reads metadata and imports nothing. Whatever a package of somebody else does when it is loaded becomes one line
about that package, and harms no other.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from optix_core.errors import AgentError, OptixWarning, in_one_line, suggest
from optix_protocol import PROTOCOL_VERSION, AlgorithmInfo, Backend, SupportsModels

GROUP = "optix.backends"

# What to install for a framework of ours that is not there.
_FIRST_PARTY: Mapping[str, str] = {
    "torch": "optix-torch",
    "jax": "optix-jax[gymnax]",
    "tf": "optix-tf",
    "neuroevo": "optix-neuroevo",
}

_OF_FRAMEWORK: Mapping[str, str] = {"torch": "optix-torch", "keras": "optix-tf", "flax": "optix-jax"}


@dataclass(frozen=True, kw_only=True)
class BackendListing:
    """What is known of a backend without importing it.

    Attributes:
        name: name of the entry point.
        package: distribution that provides it.
        version: the distribution's version.
        entry_point: where its factory is, ``"module:attribute"``.
    """

    name: str
    package: str
    version: str
    entry_point: str

    @classmethod
    def of(cls, point: EntryPoint) -> BackendListing:
        """Return what an entry point's metadata tell."""
        package, version = (point.dist.name, point.dist.version) if point.dist else ("?", "?")
        return cls(name=point.name, package=package, version=version, entry_point=point.value)


def list_backends() -> list[BackendListing]:
    """Return the installed backends in alphabetical order, from package metadata alone.

    Where several packages offer the same name, all are listed, and :func:`load_backend` refuses the name.
    """
    found = {BackendListing.of(point) for point in _points()}
    return sorted(found, key=lambda listing: (listing.name, listing.package))


def load_backend(name: str) -> Backend:
    """Load one backend.

    Raises:
        AgentError: not installed or offered by several packages; fails to load, whatever it raises; is no backend,
            calls itself otherwise, describes no algorithms, or was built for another major protocol version.
    """
    points = {BackendListing.of(point): point for point in _points() if point.name == name}
    if not points:
        raise _not_installed(name)
    listing, *others = sorted(points, key=lambda listing: listing.package)
    if others:
        packages = " and ".join(f"{found.package} {found.version}" for found in (listing, *others))
        raise AgentError(f"Backend '{name}' is offered by {packages}: uninstall all but one of them.")
    who, authors = f"Backend '{name}' ({listing.entry_point})", f"report it to the authors of {listing.package}"
    try:
        backend: Backend = points[listing].load()()
        is_backend = isinstance(backend, Backend)
        own_name, version = (backend.name, backend.protocol_version) if is_backend else ("", "")
    except (Exception, SystemExit) as error:
        told = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise AgentError(
            f"{who} fails to load: {told}. Reinstall {listing.package}; OPTIX_DEBUG=1 shows where it came from."
        ) from error
    if not is_backend:
        raise AgentError(f"{who} lacks algorithms(), make_agent(), name or protocol_version.")
    check_protocol_version(name, version, package=listing.package if points[listing].dist else None)
    if own_name != name:
        raise AgentError(
            f"{who} calls itself {own_name!r}, and must have the name of its entry point, '{name}': {authors}."
        )
    _check_algorithms(backend, who, authors)
    return backend


def _not_installed(name: str) -> AgentError:
    if name in _FIRST_PARTY:
        return AgentError(f"Backend '{name}' is not installed: pip install {_FIRST_PARTY[name]}")
    names = sorted({point.name for point in _points()})
    return AgentError(
        f"No backend '{name}' is installed (installed: {', '.join(names) or 'none'}).{suggest(name, names)}"
    )


def _check_algorithms(backend: Backend, who: str, authors: str) -> None:
    """Refuse a backend whose description of its algorithms cannot be used."""
    try:
        algorithms = dict(backend.algorithms())
    except (Exception, SystemExit) as error:
        raise AgentError(
            f"{who} fails in algorithms(): {type(error).__name__}: {error}. OPTIX_DEBUG=1 shows where it came from; "
            f"{authors}."
        ) from error
    wrong = [name for name, info in algorithms.items() if not isinstance(info, AlgorithmInfo)]
    if wrong or not algorithms:
        what = f"describes {wrong[0]!r} by something else than an AlgorithmInfo" if wrong else "has no algorithm"
        raise AgentError(f"{who} {what}: {authors}.")


def check_protocol_version(name: str, version: str, *, package: str | None = None) -> None:
    """Raise ``AgentError`` if a backend was written for another major version of the protocol.

    Args:
        name: the backend's.
        version: what it declares as ``protocol_version``.
        package: the distribution that it comes from, for the advice.
    """
    ours, (theirs, dot, _) = PROTOCOL_VERSION.partition(".")[0], str(version).partition(".")
    if theirs == ours:
        return
    if not (theirs.isdecimal() and dot):
        raise AgentError(
            f"Backend '{name}' declares the protocol_version {version!r}, which is no version such as "
            f"'{PROTOCOL_VERSION}': report it to the authors of {package or 'the backend'}."
        )
    outdated = package or "its package" if int(theirs) < int(ours) else "optix-core optix-protocol"
    raise AgentError(
        f"Backend '{name}' was written for optix-protocol {version}, and {PROTOCOL_VERSION} is installed: "
        f"pip install --upgrade {outdated}"
    )


def default_backend() -> str:
    """Return the backend to use when none is named: the first that works, torch before the others by name.

    One that is passed over because it is broken is told in a warning.

    Raises:
        AgentError: none is installed, or none works; the line is about the first.
    """
    names = sorted({point.name for point in _points()}, key=lambda name: (name != "torch", name))
    broken: list[AgentError] = []
    for name in names:
        try:
            load_backend(name)
        except AgentError as error:
            broken.append(error)
            continue
        for why in broken:
            warnings.warn(f"{why} Backend '{name}' is used instead.", OptixWarning, stacklevel=3)
        return name
    raise broken[0] if broken else AgentError("No backend is installed: pip install optix-torch")


def models_backend(model: object) -> SupportsModels:
    """Return the backend that trains models of this kind: the first by name that says so, torch before the others.

    Raises:
        AgentError: no installed backend knows it.
    """
    frameworks = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    for name in sorted({point.name for point in _points()}, key=lambda name: (name != "torch", name)):
        try:
            backend = load_backend(name)
        except AgentError:
            continue  # a broken backend of another framework is none of this model's business
        if isinstance(backend, SupportsModels) and backend.serves_model(model):
            return backend
    hint = next((f": pip install {_OF_FRAMEWORK[name]}" for name in _OF_FRAMEWORK if name in frameworks), "")
    raise AgentError(
        f"{in_one_line(repr(model))} is no agent, and no installed backend trains models of the type "
        f"{type(model).__name__}{hint}"
    )


def _points() -> list[EntryPoint]:
    return list(entry_points(group=GROUP))
