"""The environments of a pipeline, opened from whatever describes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optix_core.environments import EnvSpec, make_vector
from optix_core.environments.making import layers
from optix_core.errors import ConfigError

if TYPE_CHECKING:
    import gymnasium as gym

_NO_LIVES = "episodic_life is for Atari games: this environment knows no lives."


def open_environments(
    env: Any, n_envs: int, async_envs: bool, episodic_life: bool
) -> tuple[EnvSpec | None, gym.vector.VectorEnv[Any, Any, Any]]:
    """Make the environments; those that step in this process record their episodes, so that they can be resumed."""
    import gymnasium as gym

    from optix_core.environments.flattening import flat_vector
    from optix_core.environments.mask_wrappers import vector_with_masks
    from optix_core.pipelines.env_state import EpisodeRecorder

    if episodic_life and (async_envs or isinstance(env, gym.vector.VectorEnv)):
        raise ConfigError("episodic_life needs environments that the pipeline makes and steps itself.")
    if isinstance(env, gym.vector.VectorEnv):
        from optix_core.environments.workers import give_deadlines

        give_deadlines(layers(env)[-1])
        return None, flat_vector(vector_with_masks(env))
    wrapper = _record_lives if episodic_life else EpisodeRecorder
    if isinstance(env, Sequence) and not isinstance(env, str):
        if not env:
            raise ConfigError("A pipeline needs one environment at least, and the list of them is empty.")
        specs = [EnvSpec.of(source) for source in env]
        return specs[0], make_vector(
            [spec.make for spec in specs], asynchronous=async_envs, wrapper=wrapper, copy=False
        )
    spec = EnvSpec.of(env)
    envs = spec.make_vector(n_envs, asynchronous=async_envs, wrapper=wrapper, copy=False)
    if episodic_life and not isinstance(envs, gym.vector.SyncVectorEnv):
        raise ConfigError(_NO_LIVES)
    return spec, envs


def environments_of(envs: Any) -> list[Any]:
    """Return the unwrapped environments of a vector environment that live in this process, else the vector itself."""
    vector = layers(envs)[-1]
    return [layers(env)[-1] for env in getattr(vector, "envs", ())] or [vector]


def _record_lives(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    from optix_core.environments.atari import EpisodicLife
    from optix_core.pipelines.env_state import EpisodeRecorder

    if not hasattr(env.unwrapped, "ale"):
        raise ConfigError(_NO_LIVES)
    return EpisodeRecorder(EpisodicLife(env))
