"""Policies in plain NumPy: acting needs no framework."""

from optix_core.policies.encoders import Encoder, Flatten, Keep, OneHot, encoder_for, is_image_space
from optix_core.policies.heads import (
    Categorical,
    DiagonalGaussian,
    EpsilonGreedy,
    Head,
    MultiCategorical,
    SquashedGaussian,
)
from optix_core.policies.mlp import ACTIVATIONS, MLP
from optix_core.policies.network import NetworkPolicy, policy_from_tree, policy_tree

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "Categorical",
    "DiagonalGaussian",
    "Encoder",
    "EpsilonGreedy",
    "Flatten",
    "Head",
    "Keep",
    "MultiCategorical",
    "NetworkPolicy",
    "OneHot",
    "SquashedGaussian",
    "encoder_for",
    "is_image_space",
    "policy_from_tree",
    "policy_tree",
]
