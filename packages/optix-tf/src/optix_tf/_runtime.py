"""TensorFlow and Keras, set up as they are imported: every module of this package takes them from here."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module

if "tensorflow" not in sys.modules:
    # Where PyTorch is installed, too: its Triton crashes the process if TensorFlow's LLVM was loaded before its own.
    with suppress(ImportError):
        import_module("triton")

# The environment is read when TensorFlow and Keras are imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import tensorflow as tf

from optix_core.errors import ConfigError

__all__ = ["keras", "resolve_device", "tf"]


def _use_one_thread() -> None:
    """Run each operation on one thread, which small networks are fastest with, unless the user chose otherwise.

    The runtime reads this once, when it starts; a runtime that is already running stays as it is.
    """
    threading = tf.config.threading
    if os.environ.get("TF_NUM_INTRAOP_THREADS") or threading.get_intra_op_parallelism_threads():
        return
    try:
        threading.set_intra_op_parallelism_threads(1)
    except RuntimeError:
        return


def resolve_device(name: str) -> str:
    """Return TensorFlow's name for ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"auto"`` (a GPU if there is one).

    Raises:
        ConfigError: unknown, or not on this machine.
    """
    if name == "cpu":
        return "/CPU:0"
    num_gpus = len(tf.config.list_physical_devices("GPU"))
    if name == "auto":
        name = "cuda" if num_gpus else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ConfigError(f"Unknown device '{name}'; use cpu, cuda or auto.")
    if kind == "cuda" and int(index or 0) >= num_gpus:
        raise ConfigError(f"TensorFlow sees {num_gpus or 'no'} CUDA device(s) here; use device='cpu' or 'auto'.")
    return f"/{'GPU' if kind == 'cuda' else 'CPU'}:{index or 0}"


if keras.backend.backend() != "tensorflow":
    raise ConfigError(
        f"Keras runs on {keras.backend.backend()} here: set KERAS_BACKEND=tensorflow before keras is imported."
    )
_use_one_thread()
