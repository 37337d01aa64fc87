"""What has to run before an environment of somebody else exists: imports, functions that register, wrappers.

All of it is named by text, so that it can stand in ``run.json`` and be done again in another process:
``package``, ``package.module:function``, ``package.module:Wrapper(1, key=2)``.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterable
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from optix_core.environments.making import environment_failed, told
from optix_core.errors import ConfigError, EnvError

if TYPE_CHECKING:
    import gymnasium as gym

_OUR_WRAPPERS = "gymnasium.wrappers"


def load_module(module: str, *, of: str = "") -> ModuleType:
    """Import a module of somebody else.

    Args:
        module: its full name.
        of: what it is imported for, ``" of environment 'Name-v0'"``.

    Raises:
        EnvError: it cannot be found, or raised anything while it was imported.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = f"needs '{error.name}', which is not installed"
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            missing = "cannot be found; if it lies in this directory, set PYTHONPATH=."
        raise EnvError(f"Module '{module}'{of} {missing}.") from error
    except BaseException as error:
        failed = environment_failed(error, "")
        message = f"Module '{module}'{of} cannot be imported: {told(error)}"
        raise (failed if failed is error else EnvError(message)) from error


def register(imports: Iterable[str]) -> None:
    """Import modules and call the functions that register environments, each once in a process.

    Args:
        imports: ``"module"`` or ``"module:function"``.

    Raises:
        EnvError: a module that cannot be imported, or a function that is not there or raises.
    """
    for text in imports:
        _register(text)


@cache
def _register(text: str) -> None:
    module, colon, name = text.partition(":")
    found = load_module(module)
    if not colon:
        return
    function = getattr(found, name, None)
    if not callable(function):
        raise EnvError(f"Module '{module}' has no function '{name}' to call for '--import {text}'.")
    try:
        function()
    except BaseException as error:
        failed = environment_failed(error, "")
        raise (failed if failed is error else EnvError(f"'{text}' could not be called: {told(error)}")) from error


def named_modules(imports: Iterable[str], wrappers: Iterable[str]) -> tuple[str, ...]:
    """Return the modules of these texts without those of Gymnasium's own wrappers, each once."""
    modules = [text.partition(":")[0] for text in imports]
    modules += [module for text in wrappers if not _is_gymnasiums(module := text.partition(":")[0])]
    return tuple(dict.fromkeys(modules))


def callable_modules(imports: Iterable[str], wrappers: Iterable[str]) -> tuple[str, ...]:
    """Return the modules of which something would be called, which is more than importing them."""
    return named_modules([text for text in imports if ":" in text], wrappers)


def _is_gymnasiums(module: str) -> bool:
    return module == _OUR_WRAPPERS or module.startswith(_OUR_WRAPPERS + ".")


def parse_wrapper(text: str) -> tuple[str, str, list[Any], dict[str, Any]]:
    """Read ``module:Class`` or ``module:Class(1, key="value")``, whose arguments are literals.

    Returns:
        Module, name, positional arguments and arguments by name.

    Raises:
        ConfigError: it is neither.
    """
    module, _, call = text.partition(":")
    try:
        parsed: Any = ast.parse(call.strip(), mode="eval").body
        positional: list[ast.expr] = []
        named: list[ast.keyword] = []
        if isinstance(parsed, ast.Call):
            parsed, positional, named = parsed.func, parsed.args, parsed.keywords
        if not isinstance(parsed, ast.Name) or not module.strip():
            raise ValueError
        values = [ast.literal_eval(value) for value in positional]
        keywords = {str(item.arg): ast.literal_eval(item.value) for item in named}
    except (SyntaxError, ValueError) as error:
        raise ConfigError(
            f"A wrapper is module:Class or module:Class(1, key='value') with literals as arguments, not '{text}'."
        ) from error
    return module.strip(), parsed.id, values, keywords


def wrap(env: gym.Env[Any, Any], wrappers: Iterable[str]) -> gym.Env[Any, Any]:
    """Put wrappers around an environment, the first one innermost.

    Args:
        env: what is wrapped.
        wrappers: as :func:`parse_wrapper` reads them; what is called gets the environment as its first argument.

    Raises:
        ConfigError: a text that is no wrapper.
        EnvError: a wrapper that is not there, does not take these arguments, or gives no environment.
    """
    import gymnasium as gym

    for text in wrappers:
        module, name, values, keywords = parse_wrapper(text)
        make = getattr(load_module(module, of=f" of wrapper '{name}'"), name, None)
        if not callable(make):
            raise EnvError(f"Module '{module}' has no wrapper '{name}'.")
        try:
            env = make(env, *values, **keywords)
        except BaseException as error:
            failed = environment_failed(error, "")
            message = f"Wrapper '{text}' does not fit this environment: {told(error)}"
            raise (failed if failed is error else EnvError(message)) from error
        if not isinstance(env, gym.Env):
            raise EnvError(f"Wrapper '{text}' returned {type(env).__name__}; it must return a gymnasium.Env.")
    return env
