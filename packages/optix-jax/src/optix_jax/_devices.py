"""Where networks live."""

from __future__ import annotations

import jax

from optix_core.errors import ConfigError


def resolve_device(name: str) -> jax.Device:
    """Return the device for ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"tpu"`` or ``"auto"`` (JAX's default device).

    Raises:
        ConfigError: unknown, or not on this machine.
    """
    if name == "auto":
        return jax.devices()[0]
    platform, _, index = name.partition(":")
    try:
        return jax.devices(platform)[int(index or 0)]
    except (RuntimeError, ValueError, IndexError):
        installed = ", ".join(sorted({device.platform for device in jax.devices()} | {"cpu"}))
        raise ConfigError(
            f"There is no device '{name}' here (JAX sees: {installed}); use device='cpu' or 'auto'. "
            'A GPU needs pip install "optix-jax[cuda]".'
        ) from None
