"""Actors on the machines of a Ray cluster. The only file that imports Ray.

One Ray actor on each machine has a pool of actor processes there, which talk to it over shared memory. The learner asks
each for trajectories, at most two requests ahead, and every request brings the newest weights along, which Ray keeps in
its object store: sent once to each machine. A request to a machine that was lost fails; Ray starts its pool again
elsewhere.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # else workers run in a copy of the working directory

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from optix_core.environments import EnvSpec
from optix_core.errors import ConfigError, EnvError, in_one_line, whole_number
from optix_distributed.codec import DamagedTrajectoryError, decode
from optix_distributed.local.setup import pack_env
from optix_distributed.node_pool import NodePool, Reply, versions
from optix_distributed.transport import ActorHealth, ActorJob, Delivery
from optix_distributed.weights import Layout
from optix_protocol import StateTree

_AHEAD = 2
_WAIT_S = 0.05
_PUT_EVERY_S = 0.05
_FETCH_S = 0.5
_QUIET_S = 2.0
_KNOCK_S = 5.0
_START_S = 60.0
_BACKOFF_S = (0.5, 1.0, 2.0, 5.0)


@dataclass
class _Machine:
    """A pool of actors as the learner sees it."""

    handle: Any
    first_actor: int
    n_actors: int
    epoch: int = 0
    ask_at: float = 0.0
    listen_at: float = 0.0
    in_a_row: int = 0
    given_up: str = ""
    pending: list[Any] = field(default_factory=list)
    health: Sequence[ActorHealth] = ()
    failures: deque[str] = field(default_factory=lambda: deque(maxlen=5))


class RayTransport:
    """Actors on a Ray cluster, spread over its machines.

    Args:
        n_actors: how many, all machines together.
        address: of a cluster, ``"host:port"`` or ``"auto"``; None takes the one that this process is connected to, or
            starts one on this machine, which ends with the run.

    Attributes:
        num_damaged: trajectories that arrived damaged and were left out.

    Raises:
        ConfigError: no actor.
    """

    in_step = False

    def __init__(self, n_actors: int = 2, *, address: str | None = None) -> None:
        self.n_actors = whole_number("n_actors", n_actors, least=1)
        self._address = address
        self._machines: list[_Machine] = []
        self._messages: deque[Any] = deque()
        self._weights: tuple[bytes, int, int] | None = None
        self._put: tuple[Any, int, int] | None = None
        self._put_at, self._number, self._put_number = 0.0, 0, -1
        self._connected_here = False
        self.num_damaged = 0

    def open(self, job: ActorJob) -> None:
        """Connect, and start a pool on each machine; see :class:`Transport`.

        Raises:
            ConfigError: no cluster answers, or its machines have other versions.
        """
        self._layout, env = Layout.of(job.policy), pack_env(job.env)
        self._connected_here = _connect(self._address)
        try:
            self._place(replace(job, env=EnvSpec()), env)
            self._require_equal_versions()
        except BaseException:
            self.close(1.0)
            raise

    def publish(self, policy: StateTree, *, policy_version: int, hyperparam_version: int) -> None:
        """Send these weights with the next requests."""
        self._weights = bytes(self._layout.pack(policy)), policy_version, hyperparam_version
        self._number += 1

    def poll(self, timeout_s: float) -> Delivery | None:
        """Return a trajectory; see :class:`Transport`."""
        until = time.monotonic() + timeout_s
        while True:
            self._ask()
            while self._messages:
                try:
                    window, origin = decode(memoryview(self._messages.popleft()))
                except DamagedTrajectoryError:
                    self.num_damaged += 1
                    continue
                return Delivery(window=window, origin=origin)
            left = until - time.monotonic()
            if left <= 0:
                return None
            self._listen(min(left, 0.2))

    def health(self) -> Sequence[ActorHealth]:
        """Say how each actor was doing when its machine last answered."""
        found = []
        for machine in self._machines:
            numbers = range(machine.first_actor, machine.first_actor + machine.n_actors)
            silent = "given up" if machine.given_up else "starting"
            known = {actor.actor: actor for actor in machine.health}
            for number in numbers:
                actor = known.get(number, ActorHealth(actor=number, state=silent))
                failures = (*machine.failures, *actor.failures)
                found.append(
                    ActorHealth(
                        actor=number,
                        state=actor.state,
                        incarnation=machine.epoch + actor.incarnation,
                        env_steps=actor.env_steps,
                        failures=failures,
                        seconds=actor.seconds,
                    )
                )
        return found

    def close(self, deadline_s: float = 5.0) -> None:
        """End all actors and what was started here; see :class:`Transport`."""
        if not ray.is_initialized():
            return
        closing = [machine.handle.close.remote() for machine in self._machines if machine.handle is not None]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=0.6 * deadline_s)
        for machine in self._machines:
            if machine.handle is None:
                continue
            ray.kill(machine.handle, no_restart=True)
            machine.pending.clear()
            machine.handle = None
        if self._connected_here:
            ray.shutdown()
            self._connected_here = False

    # ---- starting ---------------------------------------------------------------------------------------------------

    def _place(self, job: ActorJob, env: str) -> None:
        nodes = [node for node in ray.nodes() if node["Alive"]][: self.n_actors]
        shares = [self.n_actors // len(nodes) + (i < self.n_actors % len(nodes)) for i in range(len(nodes))]
        first, pool = 0, ray.remote(NodePool)
        for node, share in zip(nodes, shares, strict=True):
            where = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=True)
            options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": 0, "scheduling_strategy": where}
            handle = pool.options(**options).remote(job, env, n_actors=share, first_actor=first, most=2 * share)
            self._machines.append(_Machine(handle, first, share))
            first += share

    def _require_equal_versions(self) -> None:
        ours = versions()
        try:
            answers = ray.get([machine.handle.versions.remote() for machine in self._machines], timeout=_START_S)
        except GetTimeoutError as error:
            raise ConfigError(f"The cluster has not started the actors' processes within {_START_S:g} s.") from error
        except RayError as error:
            raise ConfigError(f"The cluster cannot start the actors' processes: {_cause(error)}") from error
        for theirs in answers:
            other = [
                f"{name} {theirs.get(name, '-')} instead of {ours[name]}"
                for name in ours
                if ours[name] != theirs.get(name)
            ]
            if other:
                raise ConfigError(f"A machine of the cluster has {', '.join(other)}: install the same everywhere.")

    # ---- asking and hearing -----------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Have two requests on their way to each machine, as long as the learner takes what comes."""
        if self._weights is None or len(self._messages) > 2 * self.n_actors:
            return
        now = time.monotonic()
        if self._put is None or (self._put_number != self._number and now - self._put_at >= _PUT_EVERY_S):
            block, *stamps = self._weights
            self._put = (ray.put(np.frombuffer(block, np.uint8)), *stamps)
            self._put_at, self._put_number = now, self._number
        weights, policy_version, hyperparam_version = self._put
        for machine in self._machines:
            while not machine.given_up and now >= machine.ask_at and len(machine.pending) < _AHEAD:
                request = machine.handle.pull.remote(
                    weights,
                    number=self._put_number,
                    policy_version=policy_version,
                    hyperparam_version=hyperparam_version,
                    epoch=machine.epoch,
                    wait_s=_WAIT_S,
                )
                machine.pending.append(request)

    def _listen(self, timeout_s: float) -> None:
        heard = [machine for machine in self._machines if time.monotonic() >= machine.listen_at]
        pending = {request: machine for machine in heard for request in machine.pending}
        if not pending:
            time.sleep(min(timeout_s, 0.05))
            return
        ready, _ = ray.wait(list(pending), num_returns=1, timeout=timeout_s)
        for request in ready:
            machine = pending[request]
            if request not in machine.pending:
                continue  # of a machine whose earlier request has failed
            try:
                reply = ray.get(request, timeout=_FETCH_S)
            except GetTimeoutError:  # Ray calls answers ready that were lost with their machine: hear the others first
                machine.listen_at = time.monotonic() + _QUIET_S
                continue
            except RayError as error:
                self._lost(machine, _cause(error))
                continue
            machine.pending.remove(request)
            self._take(machine, reply)

    def _take(self, machine: _Machine, reply: Reply) -> None:
        machine.health = reply.health
        if reply.messages:
            machine.in_a_row = 0
            self._messages.extend(reply.messages)
        if reply.error:
            machine.given_up = reply.error
            machine.failures.append(reply.error)
            if all(other.given_up for other in self._machines):
                raise EnvError(reply.error)

    def _lost(self, machine: _Machine, problem: str) -> None:
        """Ask again later: Ray starts the pool anew, on another machine if its own is gone."""
        machine.failures.append(problem)
        machine.pending.clear()
        machine.epoch += 1
        machine.ask_at = time.monotonic() + _BACKOFF_S[min(machine.in_a_row, len(_BACKOFF_S) - 1)]
        machine.in_a_row += 1


def _cause(error: Exception) -> str:
    """Return the line of Ray's report that says what happened: the last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return in_one_line(lines[-1] if lines else type(error).__name__)


def _connect(address: str | None) -> bool:
    """Connect to a cluster, or start one here; return False where this process was connected already.

    Raises:
        ConfigError: none answers, it has another version of Ray or Python, or the process is connected to another.
    """
    if address is not None and address != "auto":
        _require_answer(address)
    if ray.is_initialized():
        present = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", present):
            raise ConfigError(f"This process is connected to the Ray cluster at {present}, not to {address}.")
        return False
    quiet = {"include_dashboard": False} if address is None else {}
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = "on this machine" if address in (None, "auto") else f"at {address}"
        raise ConfigError(f"No Ray cluster {where} can be used: {in_one_line(error)}") from error
    return True


def _require_answer(address: str) -> None:
    """Knock before Ray does, who waits for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        raise ConfigError(f"address={address!r} is no address of a cluster: give host:port, such as 10.0.0.1:6379.")
    try:
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()
    except OSError as error:
        raise ConfigError(
            f"No Ray cluster answers at {address} ({in_one_line(error)}): start one with `ray start --head`, or leave "
            "the address out."
        ) from error
