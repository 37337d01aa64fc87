"""What the parts of a run must be able to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optix_core.errors import ConfigError
from optix_protocol import LoopCallback

_METHODS: Mapping[str, Sequence[str]] = {
    "agent": ("act", "learn", "get_hyperparams", "set_hyperparams", "save_weights", "load_weights"),
    "pipeline": ("windows", "policy_changed", "close"),
    "evaluator": ("score", "combine"),
    "optimizer": ("suggest", "on_improvement", "on_plateau", "is_probing"),
    "scheduler": ("update", "state_dict", "load_state_dict"),
}


def require_part(kind: str, part: object) -> None:
    """Require that a part has the methods that the loop calls.

    Args:
        kind: ``"agent"``, ``"pipeline"``, ``"evaluator"``, ``"optimizer"`` or ``"scheduler"``.
        part: what was given as such.

    Raises:
        ConfigError: it is a class, or lacks methods, which are named.
    """
    if isinstance(part, type):
        raise ConfigError(f"The {kind} is the class {part.__name__}: make one of it, {part.__name__}(...).")
    # By name, and not by the Protocol, so that the message can say what is missing.
    missing = [name for name in _METHODS[kind] if not callable(getattr(part, name, None))]
    if missing:
        raise ConfigError(f"{type(part).__name__} is no {kind}: it lacks {', '.join(missing)}.")


def require_callback(callback: object) -> None:
    """Require that a callback is a :class:`optix_protocol.LoopCallback`.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(callback, LoopCallback):
        raise ConfigError(
            f"{callback!r} is no callback: inherit from optix_protocol.LoopCallback and override what you want to hear."
        )
