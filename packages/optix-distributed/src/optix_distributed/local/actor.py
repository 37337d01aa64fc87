"""The process of an actor: it collects by the newest weights until the learner wants no more, or is gone."""

from __future__ import annotations

import os
import sys
import threading
import time

from optix_core.errors import OptixError
from optix_distributed.codec import Origin, encode
from optix_distributed.collector import Collector
from optix_distributed.local.board import Board, Publication
from optix_distributed.local.ring import ActorState, Ring, Word
from optix_distributed.local.setup import ActorSetup, unpack_env
from optix_distributed.local.waiting import Patience
from optix_distributed.transport import ActorJob
from optix_distributed.weights import Layout


class Stopped(BaseException):
    """The learner wants the actor to stop."""


class ActorProcess:
    """One actor, from the first weights to the wish to stop.

    Args:
        setup: what the learner said.
        ring: where trajectories go.
    """

    def __init__(self, setup: ActorSetup, ring: Ring) -> None:
        self._setup, self._ring = setup, ring
        self._layout = Layout.from_json(setup.layout)
        self._board = Board.attach(setup.board, self._layout.num_bytes)

    def run(self) -> None:
        """Collect until the learner wants no more."""
        setup, words = self._setup, self._ring.words
        first = self._wait_for_weights(0)
        job = ActorJob(
            env=unpack_env(setup.env),
            policy=self._layout.unpack(first.weights),
            n_envs=setup.n_envs,
            trajectory_len=setup.trajectory_len,
            max_message_bytes=setup.capacity,
            seed=setup.seed,
            clip_rewards=setup.clip_rewards,
            episodic_life=setup.episodic_life,
            wants_infos=setup.wants_infos,
        )
        collector = Collector(job, actor=setup.actor, incarnation=setup.incarnation, on_act=self._on_act)
        publication, sequence, transfer_ns = first, 0, 0
        while True:
            publication = self._wait_for_turn(publication, fresh=setup.in_step and sequence > 0)
            self._ring.say(ActorState.COLLECTING)
            window = collector.collect(
                self._layout.unpack(publication.weights),
                policy_version=publication.policy_version,
                hyperparam_version=publication.hyperparam_version,
            )
            began = time.perf_counter_ns()
            origin = Origin(actor=setup.actor, incarnation=setup.incarnation, sequence=sequence)
            self._ring.put(encode(window, origin))
            transfer_ns += time.perf_counter_ns() - began
            sequence += 1
            words[Word.ENV_STEPS] += window.num_env_steps
            words[Word.ENV_NS] = int(collector.env_s * 1e9)
            words[Word.ACT_NS] = int(collector.acting_s * 1e9)
            words[Word.TRANSFER_NS] = transfer_ns

    def _on_act(self) -> None:
        self._ring.words[Word.BEAT] += 1
        if self._board.stopped:
            raise Stopped

    def _wait_for_weights(self, have: int) -> Publication:
        patience = Patience()
        while (found := self._board.latest(have)) is None:
            self._on_act()
            patience.sleep()
        return found

    def _wait_for_turn(self, publication: Publication, *, fresh: bool) -> Publication:
        """Wait for room in the ring, and in step for other weights; return the newest."""
        began = time.perf_counter_ns()
        patience = Patience()
        while self._ring.is_full:
            self._ring.say(ActorState.WAITING)
            self._on_act()
            patience.sleep()
        if fresh:
            self._ring.say(ActorState.WAITING)
            publication = self._wait_for_weights(publication.number)
        self._ring.words[Word.WAIT_NS] += time.perf_counter_ns() - began
        return self._board.latest(publication.number) or publication


def main() -> None:
    """Run the actor that standard input describes; end with the process at its other end."""
    _ignore_interrupts()
    setup = ActorSetup.of_line(sys.stdin.readline())
    threading.Thread(target=_end_with_the_learner, daemon=True).start()
    ring = Ring.attach(setup.ring, depth=setup.depth, capacity=setup.capacity)
    try:
        ActorProcess(setup, ring).run()
    except Stopped:
        ring.say(ActorState.STOPPED)
    except BaseException as error:
        told = str(error) if isinstance(error, OptixError) else f"{type(error).__name__}: {error}"
        ring.say(ActorState.FAILED, " ".join(told.split()))
        os._exit(1)  # an environment that has failed may not let go of its threads
    os._exit(0)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the learner, which ends its actors."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with_the_learner() -> None:
    """Wait until the learner's end of the pipe is closed, which the system does however it ends."""
    while os.read(0, 4096):
        pass
    os._exit(0)
