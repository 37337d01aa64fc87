"""What can happen in an evolution: see :mod:`optix_core.journal.events`, which has these records, too."""

from __future__ import annotations

import msgspec

from optix_core.journal._base import Event, Json, Number


class MetaDecision(Event, frozen=True, tag="meta_decision"):
    """The meta-controller of an evolution asked for something.

    Attributes:
        num_env_steps: of training so far.
        action: ``"spawn"``, ``"prune"`` or ``"stop"``.
        verdict: on the run.
        gap: bounds on the gap between training and validation, in standard deviations of the scores, or None.
        gap_slope: bounds on its growth, or None.
        improvement: bounds on the improvement of the score, as a fraction of its range, or None.
        spawns_left: before this.
        message: a sentence with the numbers.
    """

    num_env_steps: int
    action: str
    verdict: str
    spawns_left: int
    message: str
    gap: tuple[Number, Number] | None = None
    gap_slope: tuple[Number, Number] | None = None
    improvement: tuple[Number, Number] | None = None


class Variant(Event, frozen=True, tag="variant"):
    """A variant trained from the best policy, and raced against it.

    Attributes:
        number: from 1.
        parent: number of the snapshot that it began from, or None for the policy of the run.
        num_env_steps: of the run, when it began.
        noise: share of each range by which its hyperparameters were moved at most.
        hyperparams: that differ from its parent's.
        train_env_steps: that it trained.
        play_env_steps: of the episodes that both sides played.
        curve: its own steps and score, after each window in which an episode ended.
        gain: mean paired difference to the incumbent, NaN where none was measured.
        upper: upper bound on it.
        p_value: one-sided, that an equal variant does as well.
        num_pairs: pairs of episodes that decided.
        won: it took the incumbent's place.
        message: how it ended, in a sentence.
    """

    number: int
    num_env_steps: int
    noise: float
    hyperparams: dict[str, Json]
    train_env_steps: int
    play_env_steps: int
    gain: Number
    upper: Number
    p_value: Number
    num_pairs: int
    won: bool
    message: str
    parent: int | None = None
    curve: list[tuple[int, Number]] = msgspec.field(default_factory=list)


class Pruned(Event, frozen=True, tag="pruned"):
    """A member left the ensemble.

    Attributes:
        member: its name.
        message: why.
    """

    member: str
    message: str


class Averaged(Event, frozen=True, tag="averaged"):
    """Weights along the run were averaged, and the average raced against the best single policy.

    Attributes:
        snapshots: that were averaged.
        gain: mean paired difference to the best of them.
        p_value: one-sided.
        env_steps: of the episodes that both sides played.
        accepted: whether the average takes its place.
        message: a sentence with the numbers.
    """

    gain: Number
    p_value: Number
    env_steps: int
    accepted: bool
    message: str
    snapshots: list[int] = msgspec.field(default_factory=list)
