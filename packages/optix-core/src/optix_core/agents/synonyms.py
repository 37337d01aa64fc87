"""Other names of hyperparameters, from the libraries that people come from, and what to write where none will do.

Every name of ours has its other names here once, algorithm by algorithm; ``specs`` hangs them on the hyperparameters.
They are accepted wherever hyperparameters are given, and what is kept has our name. ``docs/coming_from.md`` shows the
table by library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

Names: TypeAlias = Mapping[str, tuple[str, ...]]
"""Other names by ours."""

_COMMON: Names = {
    "learning_rate": ("lr",),
    "hidden_sizes": ("net_arch", "fcnet_hiddens"),
    "activation": ("activation_fn", "fcnet_activation"),
    "normalize_observations": ("norm_obs",),
    "normalize_rewards": ("norm_reward",),
    "max_grad_norm": ("grad_clip",),
}

LEARNING_RATE: tuple[str, ...] = ("learning_rate", *_COMMON["learning_rate"])
"""All names of the learning rate."""

_ON_POLICY: Names = {
    **_COMMON,
    "entropy_coef": ("ent_coef",),
    "value_coef": ("vf_coef", "vf_loss_coeff"),
    "gae_lambda": ("lambda_", "lam"),
    "normalize_advantage": ("norm_adv",),
}

A2C: Names = _ON_POLICY

PPO: Names = {
    **_ON_POLICY,
    "clip_range": ("clip_ratio", "clip_coef", "clip_param"),
    "clip_range_value": ("clip_range_vf", "vf_clip_param"),
    "num_epochs": ("n_epochs", "update_epochs", "num_sgd_iter"),
    "minibatch_size": ("batch_size", "sgd_minibatch_size"),
}

RECURRENT_PPO: Names = {**PPO, "cell_size": ("lstm_hidden_size",)}

_OFF_POLICY: Names = {
    **_COMMON,
    "capacity": ("replay_capacity", "buffer_size"),
    "batch_size": ("train_batch_size",),
    "n_step": ("n_steps",),
    "learning_starts": ("num_steps_sampled_before_learning_starts",),
}

DQN: Names = {
    **_OFF_POLICY,
    "epsilon_start": ("epsilon", "exploration_initial_eps", "start_e"),
    "epsilon_end": ("epsilon_min", "exploration_final_eps", "end_e"),
    "target_update_interval": ("target_update_freq",),
    "double_q": ("double_dqn",),
    "per_alpha": ("prioritized_replay_alpha",),
    "per_beta": ("prioritized_replay_beta",),
}

RAINBOW: Names = {**DQN, "num_atoms": ("n_atoms",), "noise_std_init": ("sigma0",)}

SAC: Names = {**_OFF_POLICY, "alpha": ("ent_coef",)}

TD3: Names = {
    **_OFF_POLICY,
    "policy_delay": ("policy_frequency", "policy_freq"),
    "target_noise": ("target_policy_noise", "policy_noise"),
    "target_noise_clip": ("noise_clip",),
}

WINDOW: tuple[str, ...] = ("n_steps", "num_steps", "rollout_length")
"""Other names of the length of an on-policy agent's windows, which belongs to the pipeline."""

_WINDOW_ADVICE = "is the length of a window, which the pipeline has: BatchPipeline(..., window_size=2048)."
_UPDATES_ADVICE = "is no setting of its own: updates_per_step = gradient_steps / train_freq, per environment step."
_TARGET_ADVICE = "counts environment steps: target_update_interval counts updates, updates_per_step for each of those."
_BUDGET_ADVICE = "is the budget of the run: RLOptimizer(..., max_env_steps=...)."

ADVICE: Mapping[str, str] = {
    **dict.fromkeys(WINDOW, _WINDOW_ADVICE),
    **dict.fromkeys(("train_freq", "train_frequency", "gradient_steps"), _UPDATES_ADVICE),
    **dict.fromkeys(("target_network_frequency", "target_network_update_freq"), _TARGET_ADVICE),
    **dict.fromkeys(("total_timesteps", "n_timesteps"), _BUDGET_ADVICE),
    **dict.fromkeys(("n_envs", "num_envs"), "belongs to the pipeline: VectorBatchPipeline(..., n_envs=8)."),
    "train_batch_size": "is n_envs * window_size here: VectorBatchPipeline(..., n_envs=8, window_size=128).",
    "num_minibatches": "is no setting here: minibatch_size = n_envs * window_size / num_minibatches.",
    "clip_vloss": "is a number here: clip_range_value=0.2 clips the value loss, None does not.",
    "exploration_fraction": "is counted in steps here: epsilon_decay_steps = exploration_fraction * total_timesteps.",
    "action_noise": "is a number here, in units where the action range is -1 to 1: exploration_noise=0.1.",
    "autotune": "is said by alpha: None learns the temperature, a number keeps it.",
    **dict.fromkeys(("policy_lr", "actor_lr", "critic_lr", "q_lr", "alpha_lr"),
                    "belongs to an optimiser of its own: actor_optimizer=, critic_optimizer=, alpha_optimizer=."),
    "policy_kwargs": "is flat here: hidden_sizes=[64, 64], activation='tanh'.",
    "policy": "is a network here: actor= and critic= take your own, hidden_sizes= sizes the built ones.",
    "use_sde": "has no counterpart: an actor with 2 * action_dim outputs has a spread that depends on the state.",
    "kl_coeff": "has no counterpart: target_kl=0.02 ends an update early, adaptive_kl=0.01 adapts the learning rate.",
    "anneal_lr": "is a schedule here: learning_rate='linear(2.5e-4, 0)'.",
    "lr_schedule": "is a schedule of learning_rate here, in shares of the budget: 'piecewise((0, 1e-3), (1, 1e-5))'.",
    "verbose": "belongs to the run: RLOptimizer(..., verbose=True).",
    "optimize_memory_usage": "is always on here: every observation is kept once.",
}  # fmt: skip
"""What to write instead of names that cannot mean the same here; each completes the sentence that the name begins."""


class NamedValues(dict[str, Any]):
    """Values by our names, which answer to the other names, too: ``values["clip_ratio"]`` is ``values["clip_range"]``.

    It lists, copies and writes as a dictionary of our names. Setting by another name sets the value of ours.

    Args:
        values: by our names.
        others: ours, by the other names.
    """

    _others: Mapping[str, str] = MappingProxyType({})

    def __init__(self, values: Any = (), others: Mapping[str, str] | None = None) -> None:
        super().__init__(values)
        if others is not None:
            self._others = others

    def _ours(self, name: Any) -> Any:
        return name if super().__contains__(name) else self._others.get(name, name)

    def __missing__(self, name: str) -> Any:
        ours = self._others.get(name, name)
        if ours == name or not super().__contains__(ours):
            raise KeyError(name)
        return super().__getitem__(ours)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(self._ours(name))

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(self._ours(name), value)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(self._ours(name))

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a name, or a default."""
        return super().get(self._ours(name), default)

    def pop(self, name: str, *default: Any) -> Any:
        """Remove a value and return it."""
        return super().pop(self._ours(name), *default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return the value of a name, which is set where there is none."""
        return super().setdefault(self._ours(name), default)

    def update(self, *values: Any, **named: Any) -> None:
        """Set several values."""
        for name, value in dict(*values, **named).items():
            self[name] = value

    def copy(self) -> NamedValues:
        """Return the same values in another dictionary."""
        return NamedValues(self, self._others)

    def __or__(self, values: Any) -> NamedValues:  # type: ignore[override]
        joined = self.copy()
        joined.update(values)
        return joined

    def __ior__(self, values: Any) -> NamedValues:  # type: ignore[override]
        self.update(values)
        return self


def by_other_name(names: Names, known: Iterable[str]) -> dict[str, str]:
    """Return ours by the other names, for those hyperparameters that exist; a name of ours is never another's."""
    exist = set(known)
    return {other: ours for ours in names if ours in exist for other in names[ours] if other not in exist}
