"""Every setting that ``--set`` knows, with its default and what it means: one table, read from where they are declared.

The loop's are the fields of :class:`~optix_core.training.LoopSettings`, the monitor's those of
:class:`~optix_core.convergence.MonitorSettings`, hyperparameters those that a backend declares. A setting that
is added there is known here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any

from optix_core.convergence import MonitorSettings
from optix_core.loop.settings import RunSettings
from optix_core.training.loop_settings import MONITOR_SETTINGS, LoopSettings

if TYPE_CHECKING:
    from optix_protocol import AlgorithmInfo


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting.

    Attributes:
        name: as ``--set`` takes it.
        default: its value when none is given.
        meaning: what it does, in a sentence or two; empty where a foreign backend does not say.
    """

    name: str
    default: Any
    meaning: str


@cache
def loop_settings() -> Mapping[str, Setting]:
    """Return the settings of the loop by name, without those that the monitor declares for itself."""
    told = {**described(RunSettings), **described(LoopSettings)}
    return {
        known.name: Setting(name=known.name, default=known.default, meaning=told.get(known.name, ""))
        for known in fields(LoopSettings)
        if known.default is not MISSING
    }


@cache
def monitor_settings() -> Mapping[str, Setting]:
    """Return the settings of the monitor by name, without those that the run gives it."""
    told = described(MonitorSettings)
    return {
        known.name: Setting(name=known.name, default=known.default, meaning=told.get(known.name, ""))
        for known in fields(MonitorSettings)
        if known.name in MONITOR_SETTINGS
    }


def hyperparameters(info: AlgorithmInfo) -> Mapping[str, Setting]:
    """Return the hyperparameters of an algorithm by name."""
    from optix_core.agents.meanings import MEANINGS

    return {
        name: Setting(name=name, default=default, meaning=MEANINGS.get(name, ""))
        for name, default in info.default_hyperparams.items()
    }


def described(documented: type) -> dict[str, str]:
    """Return what the docstring of a class says of each argument or attribute, as one line of plain text."""
    text = inspect.getdoc(documented) or ""  # python -OO leaves none
    section = re.search(r"^(?:Args|Attributes):\n((?:[ ]{4}.*\n?|\n)+)", text, re.MULTILINE)
    found: dict[str, str] = {}
    name = ""
    for line in section[1].splitlines() if section else ():
        entry = re.match(r"    (\w+): (.*)", line)
        if entry:
            name, words = entry[1], entry[2]
            found[name] = words
        elif name and line.strip():
            found[name] += " " + line.strip()
    return {name: _plain(words) for name, words in found.items()}


def _plain(text: str) -> str:
    """Return reStructuredText without its markup."""
    plain = re.sub(r":\w+:`~?\.?([^`]*)`", r"\1", text).replace("``", "").strip()
    return plain[:1].upper() + plain[1:]
