"""Checks of get_hyperparams and set_hyperparams."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from optix_protocol.conformance.check import check
from optix_protocol.conformance.subject import Subject, differ, require, skip
from optix_protocol.types import HyperparamSet

_UNKNOWN = "no_such_hyperparameter"


@check("hyperparameters")
def check_hyperparams_are_plain(subject: Subject) -> None:
    """Hyperparameters come as a HyperparamSet of plain Python scalars."""
    hyperparams = subject.fresh().get_hyperparams()
    require(
        isinstance(hyperparams, HyperparamSet),
        f"get_hyperparams returned {type(hyperparams).__name__}: return HyperparamSet(params={{...}}).",
    )
    for name, value in hyperparams.params.items():
        require(
            type(value) in (float, int, bool, str, type(None)),
            f"hyperparameter {name!r} is a {type(value).__name__}: return float, int, bool, str or None "
            "(float(x) for NumPy scalars); sizes of the network are no hyperparameter of learn.",
        )
    json.dumps(dict(hyperparams.params))


@check("hyperparameters")
def check_hyperparams_round_trip(subject: Subject) -> None:
    """What set_hyperparams is given, get_hyperparams returns; setting the current values changes nothing."""
    agent = subject.fresh()
    before = _params(agent)
    agent.set_hyperparams(HyperparamSet(params=before))
    require(_params(agent) == before, "setting the values of get_hyperparams changed them.")
    changed = _changes(subject)
    if not changed:
        skip("the agent has no hyperparameter that can be set to 0.9 of its value")
    agent.set_hyperparams(HyperparamSet(params=changed))
    for name, value in changed.items():
        require(
            np.isclose(_params(agent)[name], value, rtol=1e-6),
            f"set_hyperparams({name}={value:g}) was followed by get_hyperparams() with {_params(agent)[name]!r}.",
        )


@check("hyperparameters")
def check_hyperparams_missing_keep(subject: Subject) -> None:
    """Hyperparameters that are not named keep their values."""
    agent = subject.fresh()
    before = _params(agent)
    changes = _changes(subject)
    if not changes or len(before) < 2:
        skip("needs two hyperparameters, one of which can be set to 0.9 of its value")
    name = next(iter(changes))
    agent.set_hyperparams(HyperparamSet(params={name: changes[name]}))
    others = {key: value for key, value in _params(agent).items() if key != name}
    require(
        others == {key: value for key, value in before.items() if key != name},
        f"setting only {name} changed others: update the stored values, do not replace them.",
    )


@check("hyperparameters")
def check_hyperparams_unknown_refused(subject: Subject) -> None:
    """An unknown name is refused, and then nothing at all is changed."""
    agent = subject.fresh()
    before = _params(agent)
    for params in ({_UNKNOWN: 1.0}, {**_changes(subject), _UNKNOWN: 1.0}):
        try:
            agent.set_hyperparams(HyperparamSet(params=params))
        except ValueError:
            pass
        except Exception as error:
            require(
                False, f"an unknown name raised {type(error).__name__}: raise ValueError and list the names you know."
            )
        else:
            require(False, f"set_hyperparams accepted {_UNKNOWN!r}: raise ValueError and list the names you know.")
        require(_params(agent) == before, "set_hyperparams refused an unknown name, but changed others: check first.")


@check("hyperparameters")
def check_hyperparams_are_copies(subject: Subject) -> None:
    """Changing what get_hyperparams returned, or what set_hyperparams was given, does not change the agent."""
    agent = subject.fresh()
    before = _params(agent)
    handed = dict(before)
    agent.set_hyperparams(HyperparamSet(params=handed))
    for params in (handed, agent.get_hyperparams().params):
        try:
            params.clear()
        except (AttributeError, TypeError):
            continue  # read-only: as good
    require(_params(agent) == before, "the agent shares its hyperparameter dict with the caller: return dict(...).")


@check("hyperparameters")
def check_hyperparams_accept_numpy_scalars(subject: Subject) -> None:
    """A tuner may set NumPy scalars; get_hyperparams still returns plain Python values."""
    agent = subject.fresh()
    floats = {name: np.float64(value) for name, value in _params(agent).items() if _is_tunable(value)}
    if not floats:
        skip("the agent has no hyperparameter that is a positive float")
    agent.set_hyperparams(HyperparamSet(params=floats))
    for name in floats:
        require(
            type(_params(agent)[name]) is float,
            f"{name} was set to a NumPy scalar and came back as {type(_params(agent)[name]).__name__}: store float(x).",
        )


@check("hyperparameters")
def check_hyperparams_take_effect(subject: Subject) -> None:
    """A changed learning rate changes what the next learn does."""
    rate = _params(subject.fresh()).get("learning_rate")
    if rate is None or not _is_tunable(rate):
        skip("the agent has no hyperparameter 'learning_rate'")
    window = subject.window()
    usual, slower = subject.fresh(), subject.fresh()
    slower.set_hyperparams(HyperparamSet(params={"learning_rate": 0.1 * rate}))
    require(
        differ(
            subject.weights(subject.learned_from(window, agent=usual)),
            subject.weights(subject.learned_from(window, agent=slower)),
        ),
        "set_hyperparams(learning_rate=...) has no effect on the next learn: pass the value on to the optimiser "
        "(in PyTorch, to every entry of optimizer.param_groups).",
    )


def _params(agent: Any) -> dict[str, Any]:
    return dict(agent.get_hyperparams().params)


def _changes(subject: Subject) -> dict[str, float]:
    """New values that the agent accepts, one at a time: 0.9 of the current ones. Some names may be fixed for good."""
    changes = {}
    for name, value in _params(subject.fresh()).items():
        if _is_tunable(value):
            try:
                subject.fresh().set_hyperparams(HyperparamSet(params={name: 0.9 * value}))
            except ValueError:
                continue
            changes[name] = 0.9 * value
    return changes


def _is_tunable(value: Any) -> bool:
    return isinstance(value, float) and value > 0.0
