"""One seed drives everything: every random stream is derived from it by name, and no two streams overlap."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *path: str | int) -> int:
    """Return the seed of a named stream.

    The same arguments give the same value on every machine and in every process (SHA-256, not ``hash``).

    Args:
        seed: the seed of the run.
        path: the stream's name, such as ``"train-env"`` or ``"selection", 3``.

    Returns:
        An integer in ``[0, 2**31)``, which every library accepts as a seed.
    """
    text = "/".join([str(int(seed)), *(f"{type(part).__name__}:{part}" for part in path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
