"""Making environments: by name, by factory or from an instance, one at a time or side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias

from optix_core.environments import foreign
from optix_core.environments.copies import why_not_remade
from optix_core.environments.making import (
    blaming_environment,
    call_factory,
    environment_failed,
    inspected,
    make_many,
)
from optix_core.environments.registered import make_registered, registered_name, resolve_id
from optix_core.errors import ConfigError, EnvError, in_one_line

if TYPE_CHECKING:
    import gymnasium as gym

EnvFactory: TypeAlias = "Callable[[], gym.Env[Any, Any]]"
EnvWrapper: TypeAlias = "Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]"

# SDL and pygame greet every user and look for a display; a training run wants neither.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

_NATIVE_FROM_ENVS = 4
"""Below this number a native vector environment's fixed cost per step exceeds that of stepping one after the other."""


@dataclass(frozen=True, kw_only=True)
class EnvSpec:
    """How to make an environment, as often as wanted.

    Attributes:
        env_id: a Gymnasium id (``"CartPole-v1"``, ``"module:Name-v0"``), or None.
        factory: makes one environment when there is no id, or None.
        kwargs: arguments for ``gymnasium.make``.
        repeatable: whether ``make`` can give more than one; False for an environment that was given as an object,
            which is used as it is.
        imports: modules, or functions of modules, that register the id (:func:`.foreign.register`).
        wrappers: put around each environment, the first one innermost (:func:`.foreign.wrap`).
        reset_options: passed with every reset (:class:`.wrappers.ResetOptions`).
        frame_stack: how many of the latest observations are shown as one (:func:`.wrappers.stack_frames`).
    """

    env_id: str | None = None
    factory: EnvFactory | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    repeatable: bool = True
    imports: tuple[str, ...] = ()
    wrappers: tuple[str, ...] = ()
    reset_options: Mapping[str, Any] = field(default_factory=dict)
    frame_stack: int = 1

    @classmethod
    def of(cls, env: EnvSpec | str | EnvFactory | gym.Env[Any, Any]) -> EnvSpec:
        """Describe an environment given in any of the usual forms.

        An environment object is served as it is: whatever was set on it or wrapped around it stays. Copies of it are
        made only by :meth:`make_vector`, and only if its registration gives the very same.
        """
        if isinstance(env, EnvSpec):
            return env
        if isinstance(env, str):
            return cls(env_id=resolve_id(env))
        import gymnasium as gym

        from optix_core.environments.spaces_only import SpacesOnly, has_spaces

        if has_spaces(env):
            return cls(factory=_Given(SpacesOnly(env)), repeatable=False)
        if isinstance(env, gym.Env):
            return cls(factory=_Given(env), repeatable=False)
        if callable(env):
            return cls(factory=env)
        raise EnvError(f"{env!r} is no environment: pass an id, a gymnasium.Env or a function that makes one.")

    @property
    def name(self) -> str:
        """The id, or the factory's name."""
        return self.env_id or str(getattr(self.factory, "__name__", "custom environment"))

    def make(self) -> gym.Env[Any, Any]:
        """Make one environment.

        Observations of several parts (Dict, Tuple) are flattened, in the order of their space; parts that have no
        array form are left out, with a warning. Atari games get the
        field's preprocessing (:mod:`optix_core.environments.atari`) unless ``kwargs`` choose a ``frameskip`` or
        ``obs_type``.

        Raises:
            EnvError: unknown id (with close matches), missing extra, or an environment that fails to start.
        """
        return self._presented(self._make_plain())

    def _make_plain(self) -> gym.Env[Any, Any]:
        with chdir(os.curdir):  # one that goes to another directory for its files must not take the run along
            if self.factory is not None:
                return call_factory(self.factory, self.name)
            assert self.env_id is not None
            if self.is_pool:
                raise EnvError(
                    f"{self.env_id} exists only side by side with others: leave --async-envs and wrappers out."
                )
            foreign.register(self.imports)
            return make_registered(self.env_id, self.kwargs)

    def _presented(self, env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        """Return an environment as agents see it: wrapped, observations of several parts flattened, frames stacked."""
        env = foreign.wrap(env, self.wrappers)
        if self.reset_options:
            from optix_core.environments.wrappers import ResetOptions

            env = ResetOptions(env, self.reset_options)
        env = _presented(env)
        if self.frame_stack > 1:
            from optix_core.environments.wrappers import stack_frames

            env = stack_frames(env, self.frame_stack)
        return env

    def make_vector(
        self,
        num_envs: int,
        *,
        asynchronous: bool = False,
        wrapper: EnvWrapper | None = None,
        copy: bool = True,
        at_least: int | None = None,
    ) -> gym.vector.VectorEnv[Any, Any, Any]:
        """Make ``num_envs`` environments side by side.

        From four environments on, a native vectorised version is used where the id registers one (CartPole: up to 80
        times the steps per second); otherwise the environments step in turn in this process, or with ``asynchronous``
        each in its own.

        Args:
            num_envs: how many.
            asynchronous: a process for each.
            wrapper: put around each environment that steps in this process.
            copy: give every step's observations an array of their own; False may reuse one array for all steps.
            at_least: be content with so many environments in this process if no more can be made.

        Raises:
            ConfigError: several are wanted of an environment object that its registration would not give again.
            EnvError: an environment cannot be made, or the function returns the same one again.
        """
        import gymnasium as gym

        if self.is_pool:
            return self._make_pool(num_envs, asynchronous)
        factories: list[EnvFactory] = [self.make] * num_envs
        if isinstance(self.factory, _Given):
            if asynchronous:
                raise ConfigError("An environment object cannot move to a process of its own: pass a function.")
            if num_envs > 1:
                factories[1:] = [self.factory.copies()] * (num_envs - 1)
        if self.native_vector(num_envs) and not asynchronous:
            from optix_core.environments.flattening import flat_vector
            from optix_core.environments.mask_wrappers import vector_with_masks

            with blaming_environment("when made side by side"):
                native = gym.make_vec(
                    str(self.env_id), num_envs=num_envs, vectorization_mode="vector_entry_point", **dict(self.kwargs)
                )
            return flat_vector(vector_with_masks(native))
        return make_vector(factories, asynchronous=asynchronous, wrapper=wrapper, copy=copy, at_least=at_least)

    def make_eval_vector(self, num_envs: int, most: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        """Make environments for evaluation: ``num_envs``, but no more than ``most`` objects, and fewer if need be.

        Args:
            num_envs: how many could be used side by side.
            most: limit for environments that are objects of their own; a native vector environment is one object.

        Raises:
            EnvError: not even one can be made.
        """
        if self.native_vector(num_envs):
            return self.make_vector(num_envs)
        return self.make_vector(min(num_envs, most) if self.repeatable else 1, at_least=1)

    @property
    def is_pool(self) -> bool:
        """Whether the environments are EnvPool's."""
        return self.env_id is not None and self.env_id.startswith("envpool:")

    @property
    def _is_changed(self) -> bool:
        return bool(self.wrappers or self.reset_options) or self.frame_stack > 1

    def _make_pool(self, num_envs: int, asynchronous: bool) -> gym.vector.VectorEnv[Any, Any, Any]:
        from optix_core.environments.flattening import flat_vector
        from optix_core.environments.pools import EnvPoolVector

        if asynchronous or self._is_changed:
            raise ConfigError(
                f"{self.env_id} is stepped together with others: it takes no wrappers, reset options, stacked frames "
                "or processes of its own. What EnvPool itself can do is an argument: --env-arg stack_num=4."
            )
        return flat_vector(EnvPoolVector(str(self.env_id), num_envs, self.kwargs))

    def native_vector(self, num_envs: int) -> bool:
        """Whether so many of these environments are the rows of one object (CartPole), not objects of their own."""
        if self.is_pool:
            return True
        named = self.env_id is not None and not self._is_changed
        return named and num_envs >= _NATIVE_FROM_ENVS and self._has_native_vector()

    def _has_native_vector(self) -> bool:
        import gymnasium as gym

        foreign.register(self.imports)
        spec = gym.spec(registered_name(str(self.env_id)))
        entry = str(spec.vector_entry_point or "")
        # The JAX versions keep their state on a device and are served by the JAX backend instead; that of Atari games
        # has a preprocessing of its own, is no faster on a core and cannot be brought back after a kill.
        ours = entry and "phys2d" not in entry and not entry.startswith("ale_py.")
        return bool(ours) and not spec.additional_wrappers

    @cached_property
    def _probe(self) -> tuple[Any, Any, int | None, float | None, bool, Any]:
        if not self.repeatable:
            return _facts(self.make())
        if self.is_pool:
            pool: Any = self.make_vector(1)
            inner = pool.unwrapped
            facts = pool.single_observation_space, pool.single_action_space, inner.max_episode_steps
            pool.close()
            return *facts, inner.reward_threshold, False, inner.single_observation_space
        with inspected(self._make_plain, self.factory) as env:
            return _facts(self._presented(env))

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Space of one observation, after flattening."""
        space: gym.Space[Any] = self._probe[0]
        return space

    @property
    def own_observation_space(self) -> gym.Space[Any]:
        """Space of one observation as the environment itself gives it; after flattening where frames are stacked."""
        space: gym.Space[Any] = self._probe[5]
        return space

    @property
    def action_space(self) -> gym.Space[Any]:
        """Space of one action."""
        space: gym.Space[Any] = self._probe[1]
        return space

    @property
    def max_episode_steps(self) -> int | None:
        """The registered time limit in environment steps, if any."""
        return self._probe[2]

    @property
    def reward_threshold(self) -> float | None:
        """The return at which the registration calls the task solved, if any."""
        return self._probe[3]

    @property
    def is_goal_env(self) -> bool:
        """Whether it shows goals and can judge any of them (:func:`optix_core.data.is_goal_env`)."""
        return self._probe[4]


class _Given:
    """An environment object in the role of a function that makes it."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.env = env
        spec = env.spec
        self.__name__ = spec.id if spec is not None else type(env.unwrapped).__name__

    def __call__(self) -> gym.Env[Any, Any]:
        return self.env

    def copies(self) -> EnvFactory:
        """Return what makes more of the same.

        Raises:
            ConfigError: nothing does, and why.
        """
        import gymnasium as gym

        why = why_not_remade(self.env)
        if why is not None:
            raise ConfigError(
                f"There is only one {self.__name__}, and no faithful copy of it can be made ({why}): pass a function "
                "that makes one, or use n_envs=1."
            )
        assert self.env.spec is not None
        return EnvSpec(factory=partial(gym.make, self.env.spec)).make


def _presented(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Return an environment as agents see it: masks in its infos, observations of several parts flattened."""
    from optix_core.environments.flattening import flat_env
    from optix_core.environments.mask_wrappers import with_masks

    try:
        return flat_env(with_masks(env))
    except BaseException as error:
        raise environment_failed(error, "when asked for its observation_space") from error


def _facts(env: gym.Env[Any, Any]) -> tuple[Any, Any, int | None, float | None, bool, Any]:
    from optix_core.data import is_goal_env
    from optix_core.environments.flattening import FlatEnv

    try:
        spec = env.spec
        limit, threshold = (spec.max_episode_steps, spec.reward_threshold) if spec else (None, None)
        own = env.env.observation_space if isinstance(env, FlatEnv) else env.observation_space
        return env.observation_space, env.action_space, limit, threshold, is_goal_env(env), own
    except BaseException as error:
        raise environment_failed(error, "when asked for its spaces") from error


def make_vector(
    factories: Sequence[EnvFactory],
    *,
    asynchronous: bool = False,
    wrapper: EnvWrapper | None = None,
    copy: bool = True,
    at_least: int | None = None,
) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Put environments side by side: stepped in turn, or each in a process of its own (spawned, never forked)."""
    from gymnasium.vector import AutoresetMode

    from optix_core.environments.in_turn import EnvsInTurn

    if asynchronous:
        from optix_core.environments.workers import WorkerVectorEnv

        return WorkerVectorEnv([partial(_in_own_arrays, factory) for factory in factories])
    made = make_many(factories, at_least=at_least)
    if wrapper is not None:
        made = [wrapper(env) for env in made]
    try:
        _require_alike(made)
        ready = [partial(_itself, env) for env in made]
        return EnvsInTurn(ready, copy=copy, autoreset_mode=AutoresetMode.SAME_STEP)
    except BaseException as error:
        raise environment_failed(error, "when put beside others") from error


def _require_alike(envs: Sequence[gym.Env[Any, Any]]) -> None:
    for env in envs[1:]:
        for kind in ("observation_space", "action_space"):
            own, first = getattr(env, kind), getattr(envs[0], kind)
            if own != first:
                raise EnvError(
                    f"Environments side by side must be alike: one has the {kind} {in_one_line(first)}, another "
                    f"{in_one_line(own)}."
                )


def _in_own_arrays(factory: EnvFactory) -> gym.Env[Any, Any]:
    from optix_core.environments.own_arrays import Outcomes

    return Outcomes(factory())


def _itself(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    return env
