"""Losses of models that are trained on data sets: their names, and which of them fits the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from optix_core.errors import ConfigError, suggest
from optix_protocol import Array

LOSSES = ("cross_entropy", "bce", "mse", "mae", "huber", "reconstruction", "vae", "contrastive")
"""Names of losses, beside ``"auto"``."""

_HUGE = 1_000
"""Whole numbers beyond so many are no classes of a single output."""


def check_loss(loss: Any) -> Any:
    """Return a loss by name in lower case, or a function as it is.

    Raises:
        ConfigError: there is none of that name.
    """
    if callable(loss):
        return loss
    name = str(loss).lower().replace("-", "_")
    if name not in (*LOSSES, "auto"):
        raise ConfigError(f"There is no loss {loss!r} (auto, {', '.join(LOSSES)}).{suggest(name, LOSSES)}")
    return name


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a model makes of some rows of the data.

    Attributes:
        targets: ``[B, ...]``, or None where a batch holds inputs alone.
        outputs: shape of the outputs, or of each where there are several.
        inputs: shape of the inputs, or of each where there are several.
        all_targets: those of all rows, where they are known.
    """

    targets: Array | None
    outputs: tuple[int, ...] | tuple[tuple[int, ...], ...]
    inputs: tuple[int, ...] | tuple[tuple[int, ...], ...]
    all_targets: Array | None = None

    @property
    def known_targets(self) -> Array | None:
        """The targets of as many rows as are known."""
        return self.targets if self.all_targets is None else self.all_targets

    @property
    def has_several_outputs(self) -> bool:
        """Whether the model returns a tuple."""
        return bool(self.outputs) and isinstance(self.outputs[0], tuple)


def choose_loss(sample: Sample) -> str:
    """Return the loss that fits the data, ``loss="auto"``.

    ======================================================= ================== ==================
    targets                                                 outputs            loss
    ======================================================= ================== ==================
    none                                                    shaped as inputs   reconstruction
    none, or the inputs themselves                          three: x, mu, logv vae
    whole numbers from 0 ``[B]``, ``[B, *]``                ``[B, C, *]``      cross_entropy
    0 and 1, True and False                                 as many            bce
    numbers, not all whole                                  as many            mse
    ======================================================= ================== ==================

    Raises:
        ConfigError: the data could mean several things, or none of these, in one line.
    """
    if sample.has_several_outputs:
        if len(sample.outputs) == 3:
            return "vae"
        raise ConfigError(f"The model has {len(sample.outputs)} outputs: say what to learn with a function as loss=.")
    outputs: Any = sample.outputs
    if sample.targets is None:
        if outputs == sample.inputs:
            return "reconstruction"
        raise ConfigError(
            f"There are no targets, and the model turns {_shape(sample.inputs)} into {_shape(outputs)}: pass rows "
            "(inputs, targets), or say loss='contrastive'."
        )
    shape = sample.targets.shape
    targets = sample.targets if sample.all_targets is None else sample.all_targets
    whole = targets.dtype.kind in "biu" or bool(np.equal(np.mod(targets, 1), 0).all())
    is_class = targets.dtype.kind in "iu" and targets.min() >= 0
    classes_wide = len(outputs) == len(shape) + 1 and outputs[2:] == shape[1:] and outputs[1] > 1
    same = outputs == shape or _without_one(outputs) == _without_one(shape)
    if is_class and classes_wide:
        return "cross_entropy"
    binary = whole and set(np.unique(targets).tolist()) <= {0, 1}
    if same and binary:
        one_hot = len(shape) == 2 and shape[1] > 1 and bool((targets.sum(axis=1) == 1).all())
        if one_hot:
            raise ConfigError(
                f"Each target has a single 1 among {shape[1]}: say loss='cross_entropy' (one class) or loss='bce' "
                "(several at once)."
            )
        return "bce"
    if same and not whole:
        return "mse"
    if same and targets.dtype.kind == "f":
        return "mse"
    if same:
        top = int(targets.max())
        classes = f"cross_entropy with {top + 1} outputs (classes)" if 0 <= top < _HUGE else "classes"
        raise ConfigError(
            f"Targets are whole numbers up to {top}, and there is one output for each: say loss='mse' (amounts) or "
            f"take {classes}."
        )
    raise ConfigError(
        f"No loss fits outputs of shape {_shape(outputs)} and targets of shape {_shape(shape)}: change the model's "
        "last layer, or pass a function as loss=."
    )


def require_fitting(loss: str, sample: Sample) -> None:
    """Refuse data and outputs that a named loss cannot be computed from.

    Raises:
        ConfigError: in one line.
    """
    targets, outputs = sample.targets, sample.outputs
    if loss == "vae":
        if not sample.has_several_outputs or len(outputs) != 3:
            raise ConfigError("loss='vae' needs a model that returns (reconstruction, mean, log_variance).")
        return
    if sample.has_several_outputs:
        raise ConfigError(f"loss='{loss}' needs a model with one output, and it returns {len(outputs)}.")
    if loss == "reconstruction":
        if outputs != sample.inputs:
            raise ConfigError(
                f"loss='reconstruction' needs outputs shaped as the inputs, {_shape(sample.inputs)}, and they are "
                f"{_shape(outputs)}."
            )
        return
    if loss == "contrastive":
        if targets is None or targets.shape != sample.inputs:
            raise ConfigError("loss='contrastive' needs rows of two views of one thing, (view, other view).")
        return
    if targets is None:
        raise ConfigError(f"loss='{loss}' needs targets: give rows (inputs, targets).")
    if targets.dtype.kind not in "biuf":
        raise ConfigError(f"Targets are of type {targets.dtype}, which no loss can be computed from.")
    if loss == "cross_entropy":
        _require_classes(sample, outputs)
        return
    if _without_one(outputs) != _without_one(targets.shape):
        raise ConfigError(
            f"loss='{loss}' needs one output for each target: outputs are {_shape(outputs)}, targets "
            f"{_shape(targets.shape)}."
        )
    known = targets if sample.all_targets is None else sample.all_targets
    if loss == "bce":
        if known.min() < 0 or known.max() > 1:
            raise ConfigError(
                f"loss='bce' needs targets from 0 to 1, and they reach from {known.min()} to {known.max()}."
            )
        _require_two(sample)


def _require_classes(sample: Sample, outputs: Any) -> None:
    targets = sample.known_targets
    assert targets is not None and sample.targets is not None
    if sample.targets.shape == outputs and targets.dtype.kind == "f":  # probabilities, or one-hot
        return
    if targets.dtype.kind not in "iu":
        raise ConfigError(
            f"loss='cross_entropy' needs whole numbers as targets, and they are {targets.dtype}: convert them, or say "
            "loss='mse'."
        )
    if len(outputs) < 2:
        raise ConfigError(f"loss='cross_entropy' needs one output for each class, and outputs are {_shape(outputs)}.")
    if targets.min() < 0 or targets.max() >= outputs[1]:
        raise ConfigError(
            f"Targets reach from {targets.min()} to {targets.max()}, and the model has {outputs[1]} outputs: it needs "
            "one for each class, from 0."
        )
    _require_two(sample)


def _require_two(sample: Sample) -> None:
    targets = sample.all_targets  # a few rows may well be of one class
    if targets is not None and bool((targets == targets.flat[0]).all()):
        raise ConfigError(f"All targets are {targets.flat[0]}: with one class there is nothing to learn.")


def _without_one(shape: Any) -> tuple[int, ...]:
    """Return a shape without a last axis of length 1: ``[B, 1]`` and ``[B]`` hold the same numbers."""
    return tuple(shape[:-1]) if len(shape) > 1 and shape[-1] == 1 else tuple(shape)


def _shape(shape: Any) -> str:
    if shape and isinstance(shape[0], tuple):
        return " and ".join(map(_shape, shape))
    return f"[{', '.join(['B', *map(str, shape[1:])])}]"
