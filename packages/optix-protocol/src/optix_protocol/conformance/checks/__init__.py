"""The checks, one module per group. Their docstrings are the rules of the contract, in the order in which they run."""

from optix_protocol.conformance.checks import (
    acting,
    action_masks,
    agent,
    bootstrapping,
    distribution,
    extras,
    hyperparams,
    learning,
    policy,
    recurrent_state,
    training_state,
    weights,
)

MODULES = (
    agent,
    acting,
    learning,
    bootstrapping,
    hyperparams,
    weights,
    policy,
    recurrent_state,
    action_masks,
    training_state,
    distribution,
    extras,
)
