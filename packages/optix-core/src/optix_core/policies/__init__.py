"""Policies in plain NumPy: acting needs no framework."""

from optix_core.policies.activations import ACTIVATIONS, activation_name
from optix_core.policies.encoders import Bits, Encoder, Flatten, Keep, OneHot, encoder_for
from optix_core.policies.heads import (
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    EpsilonGreedy,
    Head,
    MultiCategorical,
    SquashedGaussian,
)
from optix_core.policies.images import is_image_space
from optix_core.policies.mlp import MLP
from optix_core.policies.network import MaskablePolicy, NetworkPolicy, network_policy, policy_from_tree, policy_tree
from optix_core.policies.recurrent import GRU, LSTM, RecurrentNetwork, RecurrentPolicy, StateNetwork

__all__ = [
    "ACTIVATIONS",
    "GRU",
    "LSTM",
    "MLP",
    "Bernoulli",
    "Bits",
    "Categorical",
    "DiagonalGaussian",
    "Encoder",
    "EpsilonGreedy",
    "Flatten",
    "Head",
    "Keep",
    "MaskablePolicy",
    "MultiCategorical",
    "NetworkPolicy",
    "OneHot",
    "RecurrentNetwork",
    "RecurrentPolicy",
    "SquashedGaussian",
    "StateNetwork",
    "activation_name",
    "encoder_for",
    "is_image_space",
    "network_policy",
    "policy_from_tree",
    "policy_tree",
]
