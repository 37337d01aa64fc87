"""Actors in processes of their own on this machine."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence

from optix_core.errors import ConfigError, EnvError, OptixWarning, real_number, whole_number
from optix_distributed.codec import DamagedTrajectoryError, decode
from optix_distributed.local.board import Board, board_bytes
from optix_distributed.local.ring import Ring, ring_bytes
from optix_distributed.local.segments import require_room, sweep
from optix_distributed.local.setup import ActorSetup, pack_env
from optix_distributed.local.supervisor import Limits, Supervisor
from optix_distributed.local.waiting import Patience
from optix_distributed.transport import ActorHealth, ActorJob, Delivery
from optix_distributed.weights import Layout
from optix_protocol import StateTree

_LOOK_AFTER_S = 0.05


class LocalTransport:
    """Actor processes, spawned, that read weights from and write trajectories to shared memory.

    An actor that fails, hangs or is killed is started again with other seeds, after a pause that grows; one that fails
    :attr:`Limits.max_failures` times without a trajectory is given up, and the others go on.

    Args:
        n_actors: how many.
        depth: trajectories of an actor that may wait for the learner; a full ring makes the actor wait. With 1 an actor
            collects while the learner learns from what it sent before: more only adds lag.
        in_step: actors wait for the weights that follow from their last trajectory. The same seed then gives the same
            run as :class:`InProcessTransport`, and nobody works while another does.
        limits: how long an actor may take, and how often it may fail.
        first_actor: number of the first of them; decides their seeds.

    Attributes:
        num_damaged: trajectories that arrived damaged and were left out.

    Raises:
        ConfigError: no actor.
    """

    def __init__(
        self,
        n_actors: int = 2,
        *,
        depth: int = 1,
        in_step: bool = False,
        limits: Limits | None = None,
        first_actor: int = 0,
    ) -> None:
        self.n_actors = whole_number("n_actors", n_actors, least=1)
        self.in_step = in_step
        self._depth = whole_number("depth", depth, least=1)
        self._limits, self._first_actor = limits or Limits(), first_actor
        real_number("step_timeout_s", self._limits.step_timeout_s, above=0.0)
        self._board: Board | None = None
        self._supervisors: list[Supervisor] = []
        self._next, self._looked_after, self.num_damaged = 0, 0.0, 0

    @property
    def pids(self) -> list[int | None]:
        """The processes of the actors."""
        return [supervisor.pid for supervisor in self._supervisors]

    def open(self, job: ActorJob) -> None:
        """Start all actors at once; see :class:`Transport`."""
        sweep()
        env, self._layout = pack_env(job.env), Layout.of(job.policy)
        capacity, weights = job.max_message_bytes, self._layout.num_bytes
        require_room(board_bytes(weights) + self.n_actors * ring_bytes(self._depth, capacity))
        try:
            self._board = Board.create(weights)
            for actor in range(self.n_actors):
                ring = Ring.create(depth=self._depth, capacity=capacity)
                setup = ActorSetup(
                    actor=self._first_actor + actor,
                    incarnation=0,
                    seed=job.seed,
                    env=env,
                    layout=self._layout.to_json(),
                    board=str(self._board.path),
                    ring=str(ring.path),
                    depth=self._depth,
                    capacity=capacity,
                    n_envs=job.n_envs,
                    trajectory_len=job.trajectory_len,
                    in_step=self.in_step,
                    clip_rewards=job.clip_rewards,
                    episodic_life=job.episodic_life,
                    wants_infos=job.wants_infos,
                )
                self._supervisors.append(Supervisor(setup, ring, self._limits))
            for supervisor in self._supervisors:
                supervisor.start(time.monotonic())
        except BaseException:
            self.close(0.0)
            raise

    def publish(self, policy: StateTree, *, policy_version: int, hyperparam_version: int) -> None:
        """Write weights to where the actors read them."""
        self.publish_block(
            self._layout.pack(policy), policy_version=policy_version, hyperparam_version=hyperparam_version
        )

    def publish_block(self, block: bytes | bytearray, *, policy_version: int, hyperparam_version: int) -> None:
        """Do the same with weights that are packed already."""
        self._opened().publish(block, policy_version=policy_version, hyperparam_version=hyperparam_version)

    def poll(self, timeout_s: float) -> Delivery | None:
        """Return a trajectory, of each actor in turn where several have some; see :class:`Transport`."""
        until = time.monotonic() + timeout_s
        while (message := self.poll_message(until - time.monotonic())) is not None:
            try:
                window, origin = decode(memoryview(message))
            except DamagedTrajectoryError:
                self.num_damaged += 1
                continue
            return Delivery(window=window, origin=origin)
        return None

    def poll_message(self, timeout_s: float) -> bytes | None:
        """Return a trajectory as it is on its way, for somebody who passes it on."""
        self._opened()
        until, patience = time.monotonic() + timeout_s, Patience()
        while True:
            message = self._take()
            if message is not None:
                return message
            now = time.monotonic()
            self._look_after(now)
            if now >= until:
                return None
            patience.sleep()

    def health(self) -> Sequence[ActorHealth]:
        """Say how each actor is doing."""
        return [supervisor.health() for supervisor in self._supervisors]

    def close(self, deadline_s: float = 5.0) -> None:
        """Ask the actors to stop, end those that do not, and remove the shared memory."""
        if self._board is not None:
            self._board.stop()
        until, patience = time.monotonic() + 0.6 * deadline_s, Patience()
        while not all(supervisor.has_ended() for supervisor in self._supervisors) and time.monotonic() < until:
            patience.sleep()
        for supervisor in self._supervisors:
            supervisor.kill()
            supervisor.ring.close()
        if self._board is not None:
            self._board.close()
            self._board = None

    def _opened(self) -> Board:
        if self._board is None:
            raise ConfigError("This transport is not open: a run opens it, and closes it in the end.")
        return self._board

    def _take(self) -> bytes | None:
        for _ in range(self.n_actors):
            supervisor = self._supervisors[self._next]
            place = supervisor.ring.peek()
            if place is None and self.in_step and not supervisor.given_up:
                return None  # its turn: the order of trajectories is part of the run
            self._next = (self._next + 1) % self.n_actors
            if place is not None:
                message = bytes(place)
                supervisor.ring.release()
                supervisor.delivered()
                return message
        return None

    def _look_after(self, now: float) -> None:
        if now - self._looked_after < _LOOK_AFTER_S:
            return
        self._looked_after = now
        for supervisor in self._supervisors:
            problem = supervisor.watch(now)
            if problem is not None and supervisor.given_up:
                self._give_up(problem)

    def _give_up(self, problem: str) -> None:
        left = sum(not supervisor.given_up for supervisor in self._supervisors)
        if not left:
            raise EnvError(f"No actor is left; the last one failed: {problem}")
        warnings.warn(
            f"An actor is given up after {self._limits.max_failures} failures in a row ({problem}). Training goes on "
            f"with {left} of {self.n_actors}.",
            OptixWarning,
            stacklevel=2,
        )
