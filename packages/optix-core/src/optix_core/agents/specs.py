"""The hyperparameters of each algorithm, the same for every framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from optix_core.agents import synonyms
from optix_core.agents.hyperparams import Hyperparam
from optix_core.policies.activations import ACTIVATIONS, activation_name
from optix_protocol import ParamBound


def _named(specs: Mapping[str, Hyperparam], names: synonyms.Names) -> Mapping[str, Hyperparam]:
    """Return hyperparameters that know their other names."""
    return {name: replace(spec, synonyms=names.get(name, ())) for name, spec in specs.items()}


_ACTIVATION = Hyperparam(
    default="relu", kind=str, choices=tuple(ACTIVATIONS), read=activation_name, fixed=True, network=True
)
"""A framework refuses those that it lacks."""

_NORMALIZERS: Mapping[str, Hyperparam] = {
    "normalize_observations": Hyperparam(default=False, kind=bool, fixed=True),
    "normalize_rewards": Hyperparam(default=False, kind=bool, fixed=True),
}

_SIZES = Hyperparam(default=None, kind=tuple, optional=True, fixed=True, network=True)
_TWO_SIZES: Mapping[str, Hyperparam] = {"actor_hidden_sizes": _SIZES, "critic_hidden_sizes": _SIZES}
"""For an actor and a critic of unlike size; None is ``hidden_sizes``."""

_PPO: Mapping[str, Hyperparam] = {
    "learning_rate": Hyperparam(default=3e-4, low=0, bound=ParamBound(low=1e-5, high=1e-2, log=True)),
    "clip_range": Hyperparam(default=0.2, low=0, open_low=True, bound=ParamBound(low=0.05, high=0.4)),
    "entropy_coef": Hyperparam(default=0.01, low=0, bound=ParamBound(low=1e-4, high=0.1, log=True)),
    "value_coef": Hyperparam(default=0.5, low=0, bound=ParamBound(low=0.1, high=1.0)),
    "gamma": Hyperparam(default=0.99, low=0, high=1, bound=ParamBound(low=0.9, high=0.9999, slow=True)),
    "gae_lambda": Hyperparam(default=0.95, low=0, high=1, bound=ParamBound(low=0.8, high=1.0, slow=True)),
    "num_epochs": Hyperparam(default=10, kind=int, low=1, bound=ParamBound(low=1, high=20, integer=True)),
    "minibatch_size": Hyperparam(
        default=64, kind=int, low=1, bound=ParamBound(low=32, high=4096, log=True, integer=True)
    ),
    "max_grad_norm": Hyperparam(default=0.5, low=0, open_low=True, bound=ParamBound(low=0.1, high=10.0, log=True)),
    "normalize_advantage": Hyperparam(default=True, kind=bool),
    "target_kl": Hyperparam(default=None, low=0, open_low=True, optional=True),
    "clip_range_value": Hyperparam(default=None, low=0, open_low=True, optional=True),
    "adaptive_kl": Hyperparam(default=None, low=0, open_low=True, optional=True, adapts="learning_rate"),
    **_NORMALIZERS,
    "hidden_sizes": Hyperparam(default=(64, 64), kind=tuple, fixed=True, network=True),
    **_TWO_SIZES,
    "activation": replace(_ACTIVATION, default="tanh"),
    "log_std_init": Hyperparam(default=0.0, low=-20, high=5, fixed=True, network=True),
}

PPO: Mapping[str, Hyperparam] = _named(_PPO, synonyms.PPO)
"""PPO for every kind of action; ``log_std_init`` matters to Gaussian policies only."""

_RECURRENT_PPO: Mapping[str, Hyperparam] = {
    **{name: spec for name, spec in _PPO.items() if name not in _TWO_SIZES},  # its heads are linear
    "sequence_length": Hyperparam(
        default=32, kind=int, low=1, bound=ParamBound(low=8, high=128, log=True, integer=True)
    ),
    "minibatch_size": Hyperparam(
        default=256, kind=int, low=1, bound=ParamBound(low=64, high=4096, log=True, integer=True)
    ),
    "cell": Hyperparam(default="gru", kind=str, choices=("gru", "lstm"), fixed=True, network=True),
    "cell_size": Hyperparam(default=64, kind=int, low=1, fixed=True, network=True),
    "hidden_sizes": Hyperparam(default=(64,), kind=tuple, fixed=True, network=True),
}

RECURRENT_PPO: Mapping[str, Hyperparam] = _named(_RECURRENT_PPO, synonyms.RECURRENT_PPO)
"""PPO with a recurrent cell between ``hidden_sizes`` and the heads. Gradients flow through ``sequence_length`` steps;
``minibatch_size`` counts transitions, and is made up of whole sequences."""

_A2C: Mapping[str, Hyperparam] = {
    "learning_rate": Hyperparam(default=1e-3, low=0, bound=ParamBound(low=1e-5, high=1e-2, log=True)),
    **{
        name: _PPO[name]
        for name in (
            "entropy_coef", "value_coef", "gamma", "gae_lambda", "max_grad_norm", "normalize_advantage",
            *_NORMALIZERS, "hidden_sizes", *_TWO_SIZES, "activation", "log_std_init",
        )
    },
}  # fmt: skip

A2C: Mapping[str, Hyperparam] = _named(_A2C, synonyms.A2C)
"""Advantage actor-critic: one gradient step per window; ``value_coef`` and ``gae_lambda`` matter with a critic only."""

_FRAMES: Mapping[str, Hyperparam] = {"frame_stack": Hyperparam(default=1, kind=int, low=1, fixed=True)}
"""Above 1, observations are stacks of so many pictures along their first axis, and the memory keeps each one once."""

_HINDSIGHT: Mapping[str, Hyperparam] = {
    "her": Hyperparam(default="future", kind=str, choices=("future", "final", "episode", "none"), fixed=True),
    "her_k": Hyperparam(default=4, kind=int, low=0, fixed=True),
}
"""Where hindsight takes new goals from, and how many per original one; without effect outside goal environments."""

_TWIN_CRITICS: Mapping[str, Hyperparam] = {
    "learning_rate": Hyperparam(default=3e-4, low=0, bound=ParamBound(low=1e-5, high=1e-2, log=True)),
    "gamma": Hyperparam(default=0.99, low=0, high=1, bound=ParamBound(low=0.9, high=0.9999, slow=True)),
    "tau": Hyperparam(default=0.005, low=0, high=1, bound=ParamBound(low=1e-3, high=0.05, log=True, slow=True)),
    "batch_size": Hyperparam(default=256, kind=int, low=1, bound=ParamBound(low=64, high=1024, log=True, integer=True)),
    "updates_per_step": Hyperparam(default=1.0, low=0, open_low=True, bound=ParamBound(low=0.25, high=4.0, log=True)),
    "learning_starts": Hyperparam(default=100, kind=int, low=0),
    "capacity": Hyperparam(default=1_000_000, kind=int, low=1, fixed=True),
    **_FRAMES,
    **_NORMALIZERS,
    "n_step": Hyperparam(default=1, kind=int, low=1, fixed=True),
    **_HINDSIGHT,
    "hidden_sizes": Hyperparam(default=(256, 256), kind=tuple, fixed=True, network=True),
    **_TWO_SIZES,
    "activation": _ACTIVATION,
}

_SAC: Mapping[str, Hyperparam] = {
    **_TWIN_CRITICS,
    "alpha": Hyperparam(default=None, low=0, open_low=True, optional=True, words={"auto": None}),
    "initial_alpha": Hyperparam(default=1.0, low=0, open_low=True, fixed=True),
    "target_entropy": Hyperparam(default=None, optional=True, words={"auto": None}),
}

SAC: Mapping[str, Hyperparam] = _named(_SAC, synonyms.SAC)
"""Soft actor-critic; ``alpha`` None learns the temperature, ``target_entropy`` None stands for minus the number of
action dimensions (in nats, with actions in units where the range is -1 to 1)."""

_TD3: Mapping[str, Hyperparam] = {
    **_TWIN_CRITICS,
    "learning_rate": Hyperparam(default=1e-3, low=0, bound=ParamBound(low=1e-5, high=1e-2, log=True)),
    "policy_delay": Hyperparam(default=2, kind=int, low=1, bound=ParamBound(low=1, high=4, integer=True)),
    "exploration_noise": Hyperparam(default=0.1, low=0, open_low=True, bound=ParamBound(low=0.02, high=0.5, log=True)),
    "target_noise": Hyperparam(default=0.2, low=0, bound=ParamBound(low=0.05, high=0.5)),
    "target_noise_clip": Hyperparam(default=0.5, low=0, open_low=True, bound=ParamBound(low=0.1, high=1.0)),
}

TD3: Mapping[str, Hyperparam] = _named(_TD3, synonyms.TD3)
"""TD3; noises are standard deviations in units where the action range is -1 to 1."""

_REPLAY: Mapping[str, Hyperparam] = {
    "gamma": Hyperparam(default=0.99, low=0, high=1, bound=ParamBound(low=0.9, high=0.9999, slow=True)),
    "batch_size": Hyperparam(default=64, kind=int, low=1, bound=ParamBound(low=16, high=512, log=True, integer=True)),
    "capacity": Hyperparam(default=100_000, kind=int, low=1, fixed=True),
    **_FRAMES,
    **_NORMALIZERS,
    "learning_starts": Hyperparam(default=500, kind=int, low=0),
    "updates_per_step": Hyperparam(default=0.25, low=0, bound=ParamBound(low=0.05, high=1.0, log=True)),
    "target_update_interval": Hyperparam(
        default=100, kind=int, low=1, bound=ParamBound(low=10, high=10_000, log=True, integer=True, slow=True)
    ),
    "tau": Hyperparam(default=1.0, low=0, high=1, open_low=True),
    "max_grad_norm": Hyperparam(default=10.0, low=0, open_low=True, bound=ParamBound(low=0.1, high=100.0, log=True)),
    "double_q": Hyperparam(default=True, kind=bool),
    "activation": _ACTIVATION,
}

_DQN: Mapping[str, Hyperparam] = {
    "learning_rate": Hyperparam(default=3e-4, low=0, bound=ParamBound(low=1e-5, high=1e-2, log=True)),
    **_REPLAY,
    "epsilon_start": Hyperparam(default=1.0, low=0, high=1),
    "epsilon_end": Hyperparam(default=0.05, low=0, high=1, bound=ParamBound(low=0.01, high=0.2, log=True)),
    "epsilon_decay_steps": Hyperparam(default=10_000, kind=int, low=1, optional=True),
    "epsilon_decay": Hyperparam(
        default=None, low=0, open_low=True, high=1, optional=True, excludes="epsilon_decay_steps"
    ),
    "n_step": Hyperparam(default=1, kind=int, low=1, fixed=True),
    "per_alpha": Hyperparam(default=0.0, low=0, high=1, fixed=True),
    "per_beta": Hyperparam(default=0.4, low=0, high=1),
    **_HINDSIGHT,
    "hidden_sizes": Hyperparam(default=(64, 64), kind=tuple, fixed=True, network=True),
}

DQN: Mapping[str, Hyperparam] = _named(_DQN, synonyms.DQN)
"""DQN; every ``target_update_interval`` updates the target moves the share ``tau`` of the way to the online network.
``epsilon_decay_steps`` counts environment steps, over which epsilon falls on a straight line; ``epsilon_decay``, which
excludes it, multiplies epsilon once per ``learn``. With neither, epsilon stays at ``epsilon_start``."""

_RAINBOW: Mapping[str, Hyperparam] = {
    "learning_rate": Hyperparam(default=3e-4, low=0, bound=ParamBound(low=1e-5, high=1e-2, log=True)),
    **_REPLAY,
    "epsilon_end": Hyperparam(default=0.0, low=0, high=1),
    "n_step": Hyperparam(default=3, kind=int, low=1, fixed=True),
    "per_alpha": Hyperparam(default=0.5, low=0, high=1, fixed=True),
    "per_beta": Hyperparam(default=0.4, low=0, high=1),
    "num_atoms": Hyperparam(default=51, kind=int, low=2, fixed=True, network=True),
    "v_min": Hyperparam(default=-10.0, fixed=True, network=True),
    "v_max": Hyperparam(default=10.0, fixed=True, network=True),
    "noise_std_init": Hyperparam(default=0.5, low=0, fixed=True, network=True),
    "hidden_sizes": Hyperparam(default=(128, 128), kind=tuple, fixed=True, network=True),
}

RAINBOW: Mapping[str, Hyperparam] = _named(_RAINBOW, synonyms.RAINBOW)
"""Rainbow; values are represented between ``v_min`` and ``v_max``, which must enclose the discounted returns."""

BY_ALGORITHM: Mapping[str, Mapping[str, Hyperparam]] = {
    "ppo": PPO,
    "recurrent_ppo": RECURRENT_PPO,
    "a2c": A2C,
    "dqn": DQN,
    "rainbow": RAINBOW,
    "sac": SAC,
    "td3": TD3,
}
"""By the name of the algorithm, as users type it."""
