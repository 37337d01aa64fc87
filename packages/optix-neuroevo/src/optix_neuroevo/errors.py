"""What graphs refuse, in a line or two."""

from __future__ import annotations

from optix_core.errors import ConfigError


class GraphError(ConfigError):
    """An edit that a graph cannot take, a graph that cannot be run, or a file of another graph (a ``ValueError``)."""
