"""What can happen in a run: one typed, frozen record per event, and nothing else is ever written to a journal.

The loop constructs these records, reports match them::

    match entry.event:
        case events.Window(score=score):
            ...
        case events.Rollback(snapshot=snapshot, exact=exact):
            ...

A renamed field breaks the type check of writers and readers alike, and not a report. A new field has a default, so that
older journals still read. A score, a bound or a diagnostic may be NaN or infinite, which JSON cannot say: such a
:data:`Number` is written by name (:func:`number`) and ``float()`` turns it back.
"""

from __future__ import annotations

import msgspec

from optix_core.journal._base import Event as Event
from optix_core.journal._base import Json as Json
from optix_core.journal._base import Number as Number
from optix_core.journal._base import number as number
from optix_core.journal.evolution_events import Averaged as Averaged
from optix_core.journal.evolution_events import MetaDecision as MetaDecision
from optix_core.journal.evolution_events import Pruned as Pruned
from optix_core.journal.evolution_events import Variant as Variant
from optix_core.journal.search_events import Experiment as Experiment
from optix_core.journal.search_events import Exploit as Exploit
from optix_core.journal.search_events import Generation as Generation
from optix_core.journal.search_events import Hyperparams as Hyperparams


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a run, as :class:`optix_core.Budget` has them; None is no limit."""

    max_env_steps: int | None = None
    max_episodes: int | None = None
    max_seconds: float | None = None


class ChosenScheduler(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduler that its settings chose: its class and those settings."""

    name: str
    settings: dict[str, Json]


class RunStarted(Event, frozen=True, tag="run_started"):
    """A run begins.

    Attributes:
        env_id: the environment's id or name.
        backend: the agent's backend, or the module of a user's own.
        algorithm: its algorithm, or the class of a user's own agent.
        seed: of everything.
        hyperparams: as the run begins.
        pipeline: how windows are collected.
        budget: limits of the run.
        scheduler: set where settings given by name chose the scheduler.
    """

    env_id: str
    backend: str
    algorithm: str
    seed: int
    hyperparams: dict[str, Json]
    pipeline: Json = None
    scheduler: ChosenScheduler | None = None
    budget: Budget = Budget()


class Resumed(Event, frozen=True, tag="resumed"):
    """A run continues from its saved state.

    Attributes:
        num_env_steps: where it continues.
        budget: limits from now on.
        notes: what could not be restored exactly, in sentences.
    """

    num_env_steps: int
    budget: Budget
    notes: list[str] = msgspec.field(default_factory=list)


class EvidenceRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All that a decision depended on: :class:`optix_core.Evidence`, flat and without the clock."""

    num_windows: int
    num_env_steps: int
    num_episodes: int
    window_env_steps: int
    search_env_steps: int = 0
    budget_exceeded: str | None = None
    verdict: str
    should_stop: bool = False
    explanation: str = ""
    snapshot_due: bool = False
    tuning_due: bool = False
    damage: str | None = None
    degradation: str | None = None
    watching: bool = False
    can_roll_back: bool = False
    stop_request: str | None = None


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was decided: the action, whether the policy is kept, whether the window is learned from."""

    action: str
    checkpoint: bool
    learn: bool


class Window(Event, frozen=True, tag="window"):
    """A window was collected, scored and judged, before the agent learns from it.

    Attributes:
        evidence: all that the decision depends on.
        decision: what was decided.
        stop_reason: why the run ends, if it does.
        score: of the whole window, or None if no episode ended in it.
        scores: what the scheduler was told: environment steps, score and number of episodes of each piece.
        gap: training score minus validation score, or None without a validation.
        level: smoothed score.
        looked: the scheduler tested the evidence.
        upper_gain: upper confidence bound on the gain over ``horizon_env_steps``, in score units.
        horizon_env_steps: of the bound; 0 before the first look.
        margin: a gain below this is not worth waiting for.
        score_range: of the scores so far.
        policy_version: of the policy that acted.
        hyperparam_version: of the hyperparameters that trained it.
        diagnostics: what the latest ``learn`` returned.
        infos: means of the numbers that the environment said in its ``info`` as the window's episodes ended.
    """

    evidence: EvidenceRecord
    decision: DecisionRecord
    stop_reason: str | None = None
    score: Number | None = None
    scores: list[tuple[int, Number, int]] = msgspec.field(default_factory=list)
    gap: Number | None = None
    level: Number = "NaN"
    looked: bool = False
    upper_gain: Number = "Infinity"
    horizon_env_steps: int = 0
    margin: Number = 0.0
    score_range: Number = 0.0
    policy_version: int = 0
    hyperparam_version: int = 0
    diagnostics: dict[str, Number] = msgspec.field(default_factory=dict)
    infos: dict[str, Number] = msgspec.field(default_factory=dict)


class Symptom(Event, frozen=True, tag="symptom"):
    """A diagnostic of ``learn`` left its healthy range.

    Attributes:
        symptom: which one.
        severity: ``"warning"`` or ``"fatal"``.
        message: a sentence with the numbers.
    """

    symptom: str
    severity: str
    message: str


class Damage(Event, frozen=True, tag="damage"):
    """Learning broke the policy.

    Attributes:
        message: what is broken.
        action: what was decided then.
    """

    message: str
    action: str


class Snapshot(Event, frozen=True, tag="snapshot"):
    """A policy was kept.

    Attributes:
        snapshot: its number.
        score: what it earned.
        best: whether it is the best so far.
    """

    snapshot: int
    score: Number
    best: bool


class DegradationTest(Event, frozen=True, tag="degradation_test"):
    """The best and the present policy played the same fresh episodes.

    Attributes:
        drop: mean paired difference, in score units.
        p_value: one-sided.
        degraded: whether the present one is worse beyond doubt.
        message: a sentence with the numbers.
    """

    drop: Number
    p_value: Number
    degraded: bool
    message: str


class GreedyTest(Event, frozen=True, tag="greedy_test"):
    """The present policy and the untrained one played the same fresh episodes, both greedily.

    Attributes:
        gain: mean paired difference, in score units.
        p_value: one-sided.
        learned: whether the present one is better beyond doubt.
        message: a sentence with the numbers.
    """

    gain: Number
    p_value: Number
    learned: bool
    message: str


class Rollback(Event, frozen=True, tag="rollback"):
    """The run returned to the best policy.

    Attributes:
        snapshot: its number.
        exact: whether its exact training state was restored, and not its weights alone.
        message: why.
    """

    snapshot: int
    exact: bool
    message: str


class NotSaved(Event, frozen=True, tag="not_saved"):
    """A file could not be written; the run continues without it."""

    message: str


class NotValidated(Event, frozen=True, tag="not_validated"):
    """A validation could not be played; the run continues without it."""

    message: str


class Note(Event, frozen=True, tag="note"):
    """Something that one has to know about how the run's numbers come about."""

    message: str


class Error(Event, frozen=True, tag="error"):
    """The environment, the agent or a callback raised."""

    message: str


class Selection(Event, frozen=True, tag="selection"):
    """The final policy was chosen.

    Attributes:
        rounds: what was played to choose it.
        chosen: number of its snapshot.
        reason: why the choice ended.
    """

    rounds: list[Json]
    chosen: int
    reason: str = ""


class Confirmed(Event, frozen=True, tag="confirmed"):
    """The final policy played on seeds that nothing else had seen.

    Attributes:
        mean: of the returns.
        iqm: interquartile mean.
        ci_low: lower end of the 95 % interval of the mean, or None from one episode.
        ci_high: upper end, or None.
        episodes: how many were played.
        could_differ: where all returned the same, the share of episodes that may return something else.
        returns: one per episode.
        infos: means of the numbers that the environment said in its ``info`` as these episodes ended.
    """

    mean: Number
    iqm: Number
    episodes: float
    ci_low: Number | None = None
    ci_high: Number | None = None
    could_differ: float | None = None
    returns: list[Number] = msgspec.field(default_factory=list)
    infos: dict[str, Number] = msgspec.field(default_factory=dict)


class GreedyGap(Event, frozen=True, tag="greedy_gap"):
    """The final policy earns clearly more when it samples its actions than greedily.

    Attributes:
        sampled: mean return of sampled episodes.
        greedy: the confirmed mean return.
        gap: the difference.
        ci_low: lower end of its 95 % interval.
        ci_high: upper end.
        episodes: how many were sampled.
    """

    sampled: float
    greedy: float
    gap: float
    ci_low: float
    ci_high: float
    episodes: float


class RunFinished(Event, frozen=True, tag="run_finished"):
    """The run is over; the fields of its :class:`optix_core.RunResult` without times and versions."""

    env_id: str
    backend: str
    algorithm: str
    seed: int
    verdict: str
    stop_reason: str
    why: str
    train_env_steps: int
    eval_env_steps: int
    search_env_steps: int = 0
    confirmed_return: dict[str, Json] | None = None
    confirmed_infos: dict[str, Json] | None = None
    gain_bound: dict[str, Json] | None = None
    best_snapshot: dict[str, Json] | None = None
    greedy_gap: dict[str, Json] | None = None
    budget: dict[str, Json] | None = None
    error: str | None = None
    notes: list[str] = msgspec.field(default_factory=list)
    max_episode_steps: int | None = None


ALL: tuple[type[Event], ...] = (
    RunStarted,
    Resumed,
    Window,
    Symptom,
    Damage,
    Snapshot,
    DegradationTest,
    GreedyTest,
    Rollback,
    Hyperparams,
    Experiment,
    Generation,
    Exploit,
    MetaDecision,
    Variant,
    Pruned,
    Averaged,
    NotSaved,
    NotValidated,
    Note,
    Error,
    Selection,
    Confirmed,
    GreedyGap,
    RunFinished,
)
"""Every kind of event."""
