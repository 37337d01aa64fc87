"""What a run needs of its environment beyond the id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optix_core.environments import EnvSpec, resolve_id
from optix_core.environments.foreign import parse_wrapper, register
from optix_core.errors import ConfigError, whole_number


@dataclass(frozen=True, kw_only=True)
class EnvOptions:
    """What a run needs of its environment beyond the id.

    Attributes:
        imports: modules to import, or functions ``"module:function"`` to call, before the id is known.
        args: arguments of ``gymnasium.make``.
        wrappers: ``"module:Class"`` or ``"module:Class(1, key='value')"``, the first one innermost.
        reset_options: passed with every reset.
        frame_stack: how many of the latest observations are shown as one.
        async_envs: step each environment in a process of its own.
        val_env: id of an environment with the same spaces whose episodes, played greedily, drive score and snapshots.
    """

    imports: tuple[str, ...] = ()
    args: Mapping[str, Any] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()
    reset_options: Mapping[str, Any] = field(default_factory=dict)
    frame_stack: int = 1
    async_envs: bool = False
    val_env: str | None = None

    @classmethod
    def of(cls, values: Any) -> EnvOptions:
        """Rebuild options from a ``run.json``, checked.

        Raises:
            ConfigError: an unknown option, or a value of the wrong type.
        """
        try:
            options = cls(**{**values, **{k: tuple(values[k]) for k in ("imports", "wrappers") if k in values}})
        except (TypeError, AttributeError) as error:
            raise ConfigError(f"run.json is damaged: environment is {values!r}.") from error
        texts = (*options.imports, *options.wrappers, *([] if options.val_env is None else [options.val_env]))
        good = all(isinstance(text, str) for text in texts) and isinstance(options.async_envs, bool)
        if not good or not all(isinstance(named, Mapping) for named in (options.args, options.reset_options)):
            raise ConfigError(f"run.json is damaged: environment is {values!r}.")
        whole_number("frame_stack", options.frame_stack, least=1)
        for text in options.wrappers:
            parse_wrapper(text)
        return options

    @property
    def changes_episodes(self) -> bool:
        """Whether an environment made with them is another than that of the id alone."""
        return bool(self.args or self.wrappers or self.reset_options) or self.frame_stack > 1

    def spec(self, env_id: str) -> EnvSpec:
        """Return how to make the environment of an id with these options; its id is looked up, and completed."""
        register(self.imports)
        return EnvSpec(
            env_id=resolve_id(env_id),
            kwargs=self.args,
            imports=self.imports,
            wrappers=self.wrappers,
            reset_options=self.reset_options,
            frame_stack=self.frame_stack,
        )
