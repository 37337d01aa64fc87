"""Environments by the ids of Gymnasium's registry, with errors that say what to do."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optix_core.environments import foreign
from optix_core.environments.making import environment_failed, told
from optix_core.errors import EnvError, suggest

if TYPE_CHECKING:
    import gymnasium as gym

# Packages that register environments when they are imported, or by a function, by the namespace of their ids.
_NAMESPACES: Mapping[str, str] = {
    "ALE": "ale_py",
    "MinAtar": "minatar.gym:register_envs",
    "brax": "optix_jax.brax_envs",
    "gymnax": "optix_jax.gymnax_envs",
}
# Extras of optix-core, by what the error of a missing dependency mentions.
_EXTRAS: Mapping[str, tuple[str, ...]] = {
    "box2d": ("box2d",),
    "mujoco": ("mujoco", "imageio"),
    "atari": ("ale_py", "atari", "opencv"),
}


def make_registered(env_id: str, kwargs: Mapping[str, Any] | None = None) -> gym.Env[Any, Any]:
    """``gymnasium.make`` with errors that say what to do.

    Raises:
        EnvError: unknown id, missing dependency, wrong arguments.
    """
    import gymnasium as gym

    env_id = resolve_id(env_id)
    try:
        if _is_game(registered_name(env_id), kwargs or {}):
            from optix_core.environments.atari import make_game

            return make_game(registered_name(env_id), kwargs or {})
        return gym.make(env_id, **dict(kwargs or {}))
    except (gym.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise EnvError(_missing_dependency(env_id, error)) from error
    except gym.error.Error as error:
        raise EnvError(f"Environment '{env_id}' cannot be made: {_one_line(error)}") from error
    except TypeError as error:
        if "argument" not in str(error):
            raise EnvError(f"Environment '{env_id}' cannot be made: {told(error)}") from error
        hint = " Give them: --env-arg KEY=VALUE." if "missing" in str(error) else ""
        raise EnvError(f"Environment '{env_id}' does not take these arguments: {_one_line(error)}.{hint}") from error
    except BaseException as error:
        failed = environment_failed(error, "")
        raise (
            failed
            if failed is error
            else EnvError(f"Environment '{env_id}' cannot be made: {told(error)}{_known_remedy(env_id)}")
        ) from error


def resolve_id(env_id: str) -> str:
    """Return the full registered id: imports the package behind its namespace and adds a missing version.

    The module of ``"module:Name-v0"`` is imported and stays part of the id, so that another process finds it too.

    Raises:
        EnvError: nothing of that name is registered (with close matches), or its package is not installed.
    """
    if env_id.startswith("envpool:"):
        from optix_core.environments.pools import PREFIX, pool_name

        return PREFIX + pool_name(env_id)
    if ":" in env_id:
        module, _, name = env_id.partition(":")
        foreign.load_module(module, of=f" of environment '{name}'")
        return f"{module}:{_registered_id(name, module)}"
    return _registered_id(env_id, "")


def _registered_id(env_id: str, module: str) -> str:
    """Return the full id of what has been registered by Gymnasium, by a known package, or by a module just imported."""
    import gymnasium as gym
    from gymnasium.envs.registration import find_highest_version, parse_env_id

    package = _NAMESPACES.get(env_id.partition("/")[0]) or ("ale_py" if "NoFrameskip-v" in env_id else None)
    if package:
        root = package.partition(":")[0].partition(".")[0]
        if not importlib.util.find_spec(root):
            raise EnvError(_missing_dependency(env_id, ModuleNotFoundError(root)))
        if env_id not in gym.registry:  # somebody may have put another one in its place
            foreign.register([package])
    if env_id in gym.registry:
        return env_id
    try:
        namespace, name, version = parse_env_id(env_id)
        if version is None and find_highest_version(namespace, name) is not None:
            return f"{env_id}-v{find_highest_version(namespace, name)}"
    except gym.error.Error:
        pass
    hint = suggest(env_id, gym.registry)
    if module:
        how = (
            f" Importing '{module}' did not register it; a function that does is called by --import {module}:FUNCTION."
        )
    else:
        how = f" One of a package that has to be imported first is package:{env_id}."
    raise EnvError(f"Unknown environment '{env_id}'.{hint}{how}")


def _is_game(name: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether this is an Atari game to preprocess: one that shows pictures, its frame skip left to us."""
    import gymnasium as gym

    spec = gym.spec(name)
    shows_pictures = {**spec.kwargs, **kwargs}.get("obs_type", "rgb") == "rgb"
    return spec.entry_point == "ale_py.env:AtariEnv" and shows_pictures and "frameskip" not in kwargs


def registered_name(env_id: str) -> str:
    """Return the id without the module that registers it."""
    return env_id.rpartition(":")[2]


def _missing_dependency(env_id: str, error: Exception) -> str:
    text = str(error).lower()
    for extra, signs in _EXTRAS.items():
        if any(sign in text for sign in signs):
            clone = f"in a clone: uv run --package optix-core --extra {extra} optix ..."
            return f'{env_id} needs {extra}: pip install "optix-core[{extra}]" ({clone}).'
    return f"{env_id} needs a package that is not installed: {_one_line(error)}"


def _known_remedy(env_id: str) -> str:
    """Return what helps where the reason for a failure is known to be another package's version."""
    import gymnasium as gym

    spec = gym.registry.get(registered_name(env_id))
    entry = str(getattr(spec, "entry_point", ""))
    if entry.startswith("gymnasium_robotics.") and installed_before("mujoco", (3, 12)) is False:
        return '. gymnasium-robotics works with earlier releases of MuJoCo: pip install "mujoco<3.12"'
    return ""


def installed_before(package: str, release: tuple[int, ...]) -> bool | None:
    """Return whether an installed package is older than a release, None if it is not there or has an odd version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return tuple(int(part) for part in version(package).split(".")[: len(release)]) < release
    except (PackageNotFoundError, ValueError):
        return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
