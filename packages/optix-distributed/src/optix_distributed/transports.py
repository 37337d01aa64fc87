"""Transports by name."""

from __future__ import annotations

from optix_core.errors import ConfigError, MissingExtraError, suggest
from optix_distributed.transport import Transport

NAMES = ("inprocess", "local", "process", "ray")
"""What :func:`make_transport` takes; ``"process"`` is another name of ``"local"``."""


def make_transport(transport: str | Transport, n_actors: int, *, address: str | None = None) -> Transport:
    """Return the transport of a name, or the given one.

    Args:
        transport: one of :data:`NAMES`, or a transport that is ready.
        n_actors: how many actors it shall have.
        address: of a Ray cluster; None starts one on this machine.

    Raises:
        ConfigError: an unknown name, or an address for a transport that has none.
        MissingExtraError: Ray is not installed.
    """
    if not isinstance(transport, str):
        return transport
    if transport not in NAMES:
        raise ConfigError(
            f"There is no transport {transport!r} (there are: {', '.join(NAMES)}).{suggest(transport, NAMES)}"
        )
    if address is not None and transport != "ray":
        raise ConfigError(f"address={address!r} is for the transport 'ray', not for {transport!r}.")
    if transport == "inprocess":
        from optix_distributed.inprocess import InProcessTransport

        return InProcessTransport(n_actors)
    if transport == "ray":
        try:
            from optix_distributed.ray_transport import RayTransport
        except ImportError as error:
            raise MissingExtraError(
                f"The transport 'ray' needs Ray ({error}): pip install 'optix-distributed[ray]'"
            ) from error
        return RayTransport(n_actors, address=address)
    from optix_distributed.local.transport import LocalTransport

    return LocalTransport(n_actors)
