"""What all online tuners share: the space, the experiments, the gate, and the exact state.

A tuner only says which places to try beside the present one and where their scores point (``_candidates``,
``_proposal``). Everything else is here: scores are credited to the values that earned them, NaN is the worst of scores,
only differences of scores in units of their own spread count (multiplying all rewards changes nothing), and the tuner
moves only to a place that has beaten the present one beyond reasonable doubt, unless the gate is off.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from optix_core.errors import ConfigError, OptixWarning, true_or_false, whole_number
from optix_core.seeding import derive_seed
from optix_core.tuning.space import Point, Range, Space
from optix_core.tuning.trial import InTurn, Noise, Trial, there_and_back, trial_in_turn, trial_side_by_side
from optix_protocol import (
    BaseAgent,
    BaseOptimizer,
    EvalMetrics,
    HyperparamSet,
    LoopState,
    PolicySnapshot,
    SupportsParamBounds,
)

SLOW = frozenset(
    {
        "gamma", "gae_lambda", "lambda_", "lam", "tau", "capacity", "buffer_size", "replay_capacity", "n_step",
        "target_entropy", "target_update_interval", "target_update_freq",
    }
)  # fmt: skip
"""Act over many windows whatever the agent: no short experiment can judge them."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What an experiment said.

    Attributes:
        tuner: who held it.
        tried: the values of every place, the present ones first.
        scores: mean score of each place, with a trend taken out where they were tried in turn.
        z: standard errors by which the best of the others beats the present ones.
        accepted: whether the tuner moved.
        values: in force from now on.
        in_turn: tried one after the other, and not side by side.
    """

    tuner: str
    tried: tuple[Mapping[str, Any], ...]
    scores: tuple[float, ...]
    z: float
    accepted: bool
    values: Mapping[str, Any]
    in_turn: bool


class OnlineTuner(BaseOptimizer, ABC):
    """Base of the tuners; see there what each adds.

    Args:
        param_bounds: range of every hyperparameter that is tuned, in a form of :mod:`optix_core.tuning.space`.
            None takes the agent's own (``param_bounds()``), without those that act slowly.
        log_params: names of those searched in the logarithm.
        gate: move only if the best place tried beats the present one beyond reasonable doubt (95 %, one-sided, or 84 %
            where common seeds explain half of the spread), and then to that very place; without, always as far as the
            tuner's own rule says.
        num_windows: that a branch learns from, where places are tried side by side.
        seed: of all that is drawn.

    Attributes:
        num_probes: experiments held so far.
        num_failures: experiments since the latest move.

    Raises:
        ConfigError: (a ``ValueError``) a range that is empty, reversed or touches 0 on a log scale; see :class:`Space`.
    """

    name: ClassVar[str]

    def __init__(
        self,
        param_bounds: Mapping[str, Range] | None = None,
        log_params: Collection[str] = (),
        *,
        gate: bool = True,
        num_windows: int = 4,
        seed: int = 0,
    ) -> None:
        self.gate = true_or_false("gate", gate)
        self.num_windows = whole_number("num_windows", num_windows, least=1)
        self.seed = whole_number("seed", seed, least=0)
        self.num_probes = self.num_failures = 0
        self._log_params = log_params
        self._space = None if param_bounds is None else Space.of(param_bounds, log_params)
        self._is_typed = False
        self._base: Point | None = None
        self._held: dict[str, Any] = {}
        self._in_turn: InTurn | None = None
        self._side_by_side: list[Point] | None = None
        self._noise = Noise()
        self._findings: list[Finding] = []

    # ---- what a tuner is ---------------------------------------------------------------------------------------------

    @abstractmethod
    def _candidates(self, base: Point, rng: np.random.Generator) -> list[Point]:
        """Return the places to try beside ``base``, at least one."""

    @abstractmethod
    def _proposal(self, trial: Trial) -> Point:
        """Take in an experiment and return where it points; the gate decides whether the tuner goes there."""

    @abstractmethod
    def _own_state(self) -> dict[str, Any]:
        """Return what the tuner remembers beside what is here."""

    @abstractmethod
    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`_own_state` returned."""

    # ---- the contract ------------------------------------------------------------------------------------------------

    def suggest(self, hyperparams: HyperparamSet, eval_metrics: EvalMetrics) -> HyperparamSet | None:
        """Take in the score that these values earned, and say which to try next.

        Values that nobody asked for (a rollback brought them back, a schedule changed them) end the experiment in hand:
        another begins from there.

        Args:
            hyperparams: the values that trained the policy which earned the score.
            eval_metrics: that score.
        """
        self._space_for(hyperparams)
        score = float(eval_metrics.primary_score)
        self._watch(score)
        if self._in_turn is None or not self._are_in_force(self._asked(self._in_turn), hyperparams):
            self._stand_at(hyperparams)
            self._in_turn = self._next_in_turn()
        if self._are_in_force(self._asked(self._in_turn), hyperparams):  # not so outside the range, at first
            self._in_turn.scores.append(score)
        if self._in_turn.complete:
            held = self._in_turn
            self._conclude(trial_in_turn(held.points, held.order, held.scores, self._noise), in_turn=True)
            self._in_turn = self._next_in_turn()
        return HyperparamSet(params=self._asked(self._in_turn), episode_id=eval_metrics.episode_id)

    def on_improvement(self, snapshot: PolicySnapshot) -> None:
        """Hear of a new best policy, of which a tuner makes nothing."""
        del snapshot

    def on_plateau(self, episode_id: int, state: LoopState) -> None:
        """Hear that the score has stopped improving, of which a tuner makes nothing."""
        del episode_id, state

    def is_probing(self) -> bool:
        """Whether the values in force are an experiment: their score is no evidence about convergence."""
        return self._in_turn is not None and self._in_turn.present != 0

    # ---- what the loop makes of it where it can branch ---------------------------------------------------------------

    def take_agent(self, agent: BaseAgent) -> None:
        """Take the ranges from the agent where none were given, and leave slow hyperparameters alone.

        Raises:
            ConfigError: it has no such hyperparameter, or nothing is left to tune.
        """
        bounds = dict(agent.param_bounds()) if isinstance(agent, SupportsParamBounds) else {}
        values = agent.get_hyperparams()
        if self._space is None:
            left_out = {*getattr(agent, "schedules", ())}  # these move by themselves
            if values.params.get("adaptive_kl") is not None:
                left_out.add("learning_rate")  # so does this one
            fast = {name: b for name, b in bounds.items() if not b.slow and values.params.get(name) is not None}
            self._space = Space.of({n: b for n, b in fast.items() if n not in left_out}, self._log_params)
        space = self._space_for(values)
        if "learning_rate" in space.names and values.params.get("adaptive_kl") is not None:
            raise ConfigError("learning_rate follows adaptive_kl: switch that off, or leave it out of param_bounds.")
        for name in space.names:
            if name in getattr(agent, "schedules", ()):
                raise ConfigError(f"{name} follows a schedule: give it a plain value, or leave it out of param_bounds.")
        slow = [n for n in space.names if n in SLOW or (n in bounds and bounds[n].slow)]
        kept = tuple(axis for axis in space.axes if axis.name not in slow)
        if slow and not kept:
            raise ConfigError(
                f"{slow[0]} acts over many windows, which no short experiment can judge: search by trials."
            )
        if slow:
            message = f"{', '.join(slow)} will stay: no short experiment can judge what acts over many windows."
            warnings.warn(message, OptixWarning, stacklevel=2)
        self._space = Space(kept)

    def plan(self, hyperparams: HyperparamSet, eval_metrics: EvalMetrics) -> list[dict[str, Any]]:
        """Say which values to try side by side, the present ones first; :meth:`conclude` hears what became of them.

        Args:
            hyperparams: in force.
            eval_metrics: the latest score.
        """
        space = self._space_for(hyperparams)
        self._watch(float(eval_metrics.primary_score))
        base = self._stand_at(hyperparams)
        candidates = self._candidates(base, self._rng())
        self._side_by_side = [base, *candidates]
        return [self.values, *map(space.decode, candidates)]

    def watch(self, eval_metrics: EvalMetrics) -> None:
        """Hear a score between two experiments."""
        self._watch(float(eval_metrics.primary_score))

    def conclude(self, samples: Sequence[ArrayLike]) -> HyperparamSet:
        """Take in what became of the places of the latest :meth:`plan`; return the values from now on.

        Args:
            samples: ``[E]`` scores of each place; those at one position were earned on a common seed.
        """
        assert self._side_by_side is not None
        points, self._side_by_side = self._side_by_side, None
        self._conclude(trial_side_by_side(points, samples), in_turn=False)
        return HyperparamSet(params=self.values)

    @property
    def values(self) -> dict[str, Any]:
        """The values that the tuner holds for the best, experiments aside; empty before the first score."""
        return dict(self._held)

    def take_findings(self) -> list[Finding]:
        """Return what the experiments since the last call said."""
        found, self._findings = self._findings, []
        return found

    # ---- state -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the exact state: lists, numbers, strings and None."""
        return {
            "num_probes": self.num_probes,
            "num_failures": self.num_failures,
            "base": None if self._base is None else self._base.tolist(),
            "held": dict(self._held),
            "in_turn": None if self._in_turn is None else self._in_turn.state_dict(),
            "noise": [self._noise.sum_of_squares, self._noise.freedom],
            "own": self._own_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.num_probes, self.num_failures = int(state["num_probes"]), int(state["num_failures"])
        base, in_turn = state["base"], state["in_turn"]
        self._base = None if base is None else np.array(base, dtype=np.float64)
        self._held = dict(state["held"])
        self._in_turn = None if in_turn is None else InTurn.of_state(in_turn)
        total, freedom = state["noise"]
        self._noise = Noise(sum_of_squares=float(total), freedom=float(freedom))
        self._load_own_state(state["own"])

    # ---- helpers -----------------------------------------------------------------------------------------------------

    def _watch(self, score: float) -> None:
        """Hear every score, whatever it was earned for."""

    def _space_for(self, hyperparams: HyperparamSet) -> Space:
        if self._space is None:
            raise ConfigError(
                "There is no hyperparameter to tune: give ranges, param_bounds={'learning_rate': (1e-4, 1e-3)}."
            )
        if not self._is_typed:
            self._space, self._is_typed = self._space.typed(hyperparams), True
        return self._space

    @property
    @abstractmethod
    def num_places(self) -> int:
        """How many places an experiment tries, the present one among them."""

    def _stand_at(self, hyperparams: HyperparamSet) -> Point:
        """Take the values in force for the present place, to the last bit where they lie in the range."""
        assert self._space is not None
        base = self._base = self._space.encode(hyperparams)
        inside = self._space.decode(base)
        self._held = {
            name: hyperparams[name] if self._are_in_force({name: value}, hyperparams) else value
            for name, value in inside.items()
        }
        return base

    def _asked(self, held: InTurn) -> dict[str, Any]:
        """Return the values that an experiment in turn wants to be in force now."""
        assert self._space is not None
        return self.values if held.present == 0 else self._space.decode(held.point)

    def _rng(self) -> np.random.Generator:
        """Return random numbers for the experiment that begins: they depend on its number alone."""
        return np.random.default_rng(derive_seed(self.seed, self.name, self.num_probes))

    def _next_in_turn(self) -> InTurn:
        assert self._base is not None
        points = np.array([self._base, *self._candidates(self._base, self._rng())])
        return InTurn(points=points, order=there_and_back(len(points)))

    def _conclude(self, trial: Trial, *, in_turn: bool) -> None:
        """Move or stay, and remember what was found."""
        assert self._space is not None and self._base is not None
        proposal = np.clip(self._proposal(trial), 0.0, 1.0)
        if self.gate:
            proposal = trial.points[trial.winner].copy()  # what was proved better, and nothing else
        accepted = trial.beats_base(trial.winner) if self.gate else not trial.invalid.all()
        before = self.values
        if accepted:
            self._base, self._held = proposal, self._space.decode(proposal)
        self.num_probes += 1
        self.num_failures = 0 if accepted else self.num_failures + 1
        self._findings.append(
            Finding(
                tuner=self.name,
                tried=(before, *(self._space.decode(point) for point in trial.points[1:])),
                scores=tuple(
                    math.nan if bad else float(mean) for mean, bad in zip(trial.means, trial.invalid, strict=True)
                ),
                z=trial.z(trial.winner),
                accepted=accepted,
                values=self.values,
                in_turn=in_turn,
            )
        )

    @staticmethod
    def _are_in_force(values: Mapping[str, Any], hyperparams: Mapping[str, Any]) -> bool:
        """Whether an agent has these values, up to the rounding of single precision."""
        for name, value in values.items():
            present = hyperparams[name]
            if isinstance(value, float) and isinstance(present, int | float):
                if not math.isclose(value, present, rel_tol=1e-6):
                    return False
            elif value != present:
                return False
        return True
