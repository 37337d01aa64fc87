"""What happens where hyperparameters are changed, alone or in a population; ``events`` hands all of it on."""

from __future__ import annotations

from optix_core.journal._base import Event, Json, Number


class Hyperparams(Event, frozen=True, tag="hyperparams"):
    """A tuner changed hyperparameters.

    Attributes:
        changed: the new values.
        version: their version from now on.
        probe: whether they are an experiment, and their scores no evidence about convergence.
    """

    changed: dict[str, Json]
    version: int
    probe: bool = False


class Experiment(Event, frozen=True, tag="experiment"):
    """A tuner compared hyperparameters.

    Attributes:
        tuner: who.
        tried: values of every place, those in force first.
        scores: mean score of each place, NaN for one that broke.
        z: standard errors by which the best of the others is ahead of those in force.
        accepted: whether the tuner moved.
        values: in force from now on.
        in_turn: tried one after the other in the run itself, and not side by side from one exact state.
        env_steps: environment steps of the branches.
    """

    tuner: str
    tried: list[dict[str, Json]]
    scores: list[Number]
    z: Number
    accepted: bool
    values: dict[str, Json]
    in_turn: bool = False
    env_steps: int = 0


class Generation(Event, frozen=True, tag="generation"):
    """The members of a population played the same fresh episodes, after each had trained for a while.

    Attributes:
        number: from 1.
        num_env_steps: of training so far, all members together.
        member_env_steps: of training so far, of each member.
        returns: mean return of each member, NaN for one whose learning broke.
        hyperparams: with which each member has trained since the generation before.
        best: the member with the highest return.
    """

    number: int
    num_env_steps: int
    member_env_steps: int
    returns: list[Number]
    hyperparams: list[dict[str, Json]]
    best: int


class Exploit(Event, frozen=True, tag="exploit"):
    """A member of a population became a copy of a better one, and goes on with other hyperparameters.

    Attributes:
        generation: after which.
        member: that was given up.
        parent: that it became.
        gain: mean paired difference of their returns on fresh episodes, or NaN where its learning was broken.
        p_value: one-sided.
        hyperparams: those of the parent, perturbed.
    """

    generation: int
    member: int
    parent: int
    gain: Number
    p_value: Number
    hyperparams: dict[str, Json]
