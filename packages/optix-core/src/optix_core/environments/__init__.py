"""Environments by their ids, pictures of Atari, observations of several parts."""

from optix_core.environments.registered import resolve_id
from optix_core.environments.spec import EnvSpec, make_vector

__all__ = ["EnvSpec", "make_vector", "resolve_id"]
