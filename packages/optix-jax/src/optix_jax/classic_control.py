"""Gymnasium's classic control tasks as pure functions, equal to Gymnasium's own step by step.

CartPole, Acrobot, both mountain cars and the pendulum; numbers are float32 here and mostly float64 there, so they agree
to rounding. A time limit truncates what has not terminated in the same step.

Sources: Barto, Sutton & Anderson 1983 with the corrections of Florian 2007 (CartPole); Sutton & Barto, *Reinforcement
Learning* (Acrobot by the equations of the book, one Runge-Kutta step; MountainCar: Moore 1990).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from optix_jax.transitions import Transition

if TYPE_CHECKING:
    import gymnasium as gym

State = tuple[jax.Array, jax.Array]
"""Physical quantities ``[D]`` float32 and the steps taken, int32."""


def _begin(key: jax.Array, low: Any, high: Any) -> State:
    return jax.random.uniform(key, np.shape(low), jnp.float32, jnp.asarray(low), jnp.asarray(high)), jnp.int32(0)


def _box(high: Any, low: Any = None) -> gym.Space[Any]:
    from gymnasium import spaces

    high = np.array(high, np.float32)
    return spaces.Box(-high if low is None else np.array(low, np.float32), high, dtype=np.float32)


def _discrete(num_actions: int) -> gym.Space[Any]:
    from gymnasium import spaces

    return spaces.Discrete(num_actions)


@dataclass(frozen=True)
class CartPole:
    """A pole on a cart that is pushed left (0) or right (1): 1 per step until the pole or the cart is out of bounds.

    The state is position, velocity, angle and angular velocity, and is shown as it is.

    Attributes:
        max_steps: time limit.
    """

    max_steps: int = 500

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Space of one observation."""
        return _box([4.8, np.inf, 2 * _FALLEN, np.inf])

    @property
    def action_space(self) -> gym.Space[Any]:
        """Push left or right."""
        return _discrete(2)

    def reset(self, key: jax.Array) -> tuple[jax.Array, State]:
        """Begin an episode near the upright rest."""
        state = _begin(key, [-0.05] * 4, [0.05] * 4)
        return state[0], state

    def step(self, key: jax.Array, state: State, action: jax.Array) -> Transition:
        """Take an Euler step of 0.02 s."""
        del key
        (x, x_dot, theta, theta_dot), time = state
        sine, cosine = jnp.sin(theta), jnp.cos(theta)
        cart_and_pole, pole, half_length, tau = 1.1, 0.1, 0.5, 0.02
        force = jnp.where(action == 1, 10.0, -10.0)
        push = (force + pole * half_length * jnp.square(theta_dot) * sine) / cart_and_pole
        theta_acceleration = (9.8 * sine - cosine * push) / (
            half_length * (4.0 / 3.0 - pole * jnp.square(cosine) / cart_and_pole)
        )
        x_acceleration = push - pole * half_length * theta_acceleration * cosine / cart_and_pole
        x, theta = x + tau * x_dot, theta + tau * theta_dot
        after = jnp.stack([x, x_dot + tau * x_acceleration, theta, theta_dot + tau * theta_acceleration])
        terminated = (jnp.abs(x) > 2.4) | (jnp.abs(theta) > _FALLEN)
        return _transition(after, (after, time), jnp.float32(1.0), terminated, self.max_steps)


_FALLEN = 12 * 2 * math.pi / 360
"""Angle in radians beyond which the pole of CartPole counts as fallen."""


@dataclass(frozen=True)
class Acrobot:
    """Two links that hang from a joint; torque at the elbow (-1, 0, 1) swings the tip above the bar: -1 per step.

    The state is both angles and both velocities; shown are cosine and sine of each angle, then the velocities.

    Attributes:
        max_steps: time limit.
    """

    max_steps: int = 500

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Space of one observation."""
        return _box([1.0] * 4 + [4 * math.pi, 9 * math.pi])

    @property
    def action_space(self) -> gym.Space[Any]:
        """Torque -1, 0 or 1."""
        return _discrete(3)

    def reset(self, key: jax.Array) -> tuple[jax.Array, State]:
        """Begin an episode near the hanging rest."""
        state = _begin(key, [-0.1] * 4, [0.1] * 4)
        return self._show(state[0]), state

    def step(self, key: jax.Array, state: State, action: jax.Array) -> Transition:
        """Take one Runge-Kutta step of 0.2 s."""
        del key
        y, time = state
        torque, dt = action.astype(jnp.float32) - 1.0, 0.2
        k1 = _acrobot_velocities(y, torque)
        k2 = _acrobot_velocities(y + dt / 2 * k1, torque)
        k3 = _acrobot_velocities(y + dt / 2 * k2, torque)
        k4 = _acrobot_velocities(y + dt * k3, torque)
        y = y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        angles = y[:2] - 2 * math.pi * jnp.round(y[:2] / (2 * math.pi))
        limits = jnp.array([4 * math.pi, 9 * math.pi], jnp.float32)
        after = jnp.concatenate([angles, jnp.clip(y[2:], -limits, limits)])
        terminated = -jnp.cos(after[0]) - jnp.cos(after[0] + after[1]) > 1.0
        reward = jnp.where(terminated, 0.0, -1.0)
        return _transition(self._show(after), (after, time), reward, terminated, self.max_steps)

    @staticmethod
    def _show(y: jax.Array) -> jax.Array:
        return jnp.stack([jnp.cos(y[0]), jnp.sin(y[0]), jnp.cos(y[1]), jnp.sin(y[1]), y[2], y[3]])


def _acrobot_velocities(y: jax.Array, torque: jax.Array) -> jax.Array:
    """Return the time derivative of the state: all lengths and masses are 1, centres of mass half-way, inertia 1."""
    theta1, theta2, omega1, omega2 = y
    g, com = 9.8, 0.5
    d1 = com**2 + (1 + com**2 + 2 * com * jnp.cos(theta2)) + 2.0
    d2 = com**2 + com * jnp.cos(theta2) + 1.0
    phi2 = com * g * jnp.sin(theta1 + theta2)
    phi1 = (
        -com * jnp.square(omega2) * jnp.sin(theta2)
        - 2 * com * omega2 * omega1 * jnp.sin(theta2)
        + (com + 1) * g * jnp.sin(theta1)
        + phi2
    )
    alpha2 = (torque + d2 / d1 * phi1 - com * jnp.square(omega1) * jnp.sin(theta2) - phi2) / (
        com**2 + 1.0 - jnp.square(d2) / d1
    )
    return jnp.stack([omega1, omega2, -(d2 * alpha2 + phi1) / d1, alpha2])


@dataclass(frozen=True)
class MountainCar:
    """A car too weak for its hill pushes left, not at all or right (0, 1, 2): -1 per step until it is up.

    Attributes:
        max_steps: time limit.
    """

    max_steps: int = 200

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Position and velocity."""
        return _box([0.6, 0.07], [-1.2, -0.07])

    @property
    def action_space(self) -> gym.Space[Any]:
        """Push left, not at all, or right."""
        return _discrete(3)

    def reset(self, key: jax.Array) -> tuple[jax.Array, State]:
        """Begin an episode at rest, near the bottom."""
        state = _begin(key, [-0.6, 0.0], [-0.4, 0.0])
        return state[0], state

    def step(self, key: jax.Array, state: State, action: jax.Array) -> Transition:
        """Take a step."""
        del key
        after = _roll(state[0], (action.astype(jnp.float32) - 1.0) * 0.001)
        terminated = (after[0] >= 0.5) & (after[1] >= 0.0)
        return _transition(after, (after, state[1]), jnp.float32(-1.0), terminated, self.max_steps)


@dataclass(frozen=True)
class ContinuousMountainCar:
    """The same car with a push of any strength from -1 to 1: 100 for being up, less a tenth of each push squared.

    Attributes:
        max_steps: time limit.
    """

    max_steps: int = 999

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Position and velocity."""
        return _box([0.6, 0.07], [-1.2, -0.07])

    @property
    def action_space(self) -> gym.Space[Any]:
        """The push, from -1 to 1."""
        return _box([1.0])

    def reset(self, key: jax.Array) -> tuple[jax.Array, State]:
        """Begin an episode at rest, near the bottom."""
        state = _begin(key, [-0.6, 0.0], [-0.4, 0.0])
        return state[0], state

    def step(self, key: jax.Array, state: State, action: jax.Array) -> Transition:
        """Take a step."""
        del key
        after = _roll(state[0], jnp.clip(action[0], -1.0, 1.0) * 0.0015)
        terminated = (after[0] >= 0.45) & (after[1] >= 0.0)
        reward = jnp.where(terminated, 100.0, 0.0) - 0.1 * jnp.square(action[0])
        return _transition(after, (after, state[1]), reward, terminated, self.max_steps)


def _roll(state: jax.Array, push: jax.Array) -> jax.Array:
    """Return position and velocity of a mountain car one step later; it stops at the left wall."""
    position, velocity = state
    velocity = jnp.clip(velocity + push - 0.0025 * jnp.cos(3 * position), -0.07, 0.07)
    position = jnp.clip(position + velocity, -1.2, 0.6)
    return jnp.stack([position, jnp.where((position <= -1.2) & (velocity < 0), 0.0, velocity)])


@dataclass(frozen=True)
class Pendulum:
    """A pendulum to swing up and hold by a torque from -2 to 2; reward is minus a cost of angle, speed and torque.

    The state is angle (0 is up) and velocity; shown are cosine and sine of the angle, then the velocity.

    Attributes:
        max_steps: time limit.
    """

    max_steps: int = 200

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Space of one observation."""
        return _box([1.0, 1.0, 8.0])

    @property
    def action_space(self) -> gym.Space[Any]:
        """The torque, from -2 to 2."""
        return _box([2.0])

    def reset(self, key: jax.Array) -> tuple[jax.Array, State]:
        """Begin an episode at any angle."""
        state = _begin(key, [-math.pi, -1.0], [math.pi, 1.0])
        return self._show(state[0]), state

    def step(self, key: jax.Array, state: State, action: jax.Array) -> Transition:
        """Take a step of 0.05 s."""
        del key
        (theta, velocity), time = state
        g, dt = 10.0, 0.05
        torque = jnp.clip(action[0], -2.0, 2.0)
        angle = jnp.mod(theta + math.pi, 2 * math.pi) - math.pi
        cost = jnp.square(angle) + 0.1 * jnp.square(velocity) + 0.001 * jnp.square(torque)
        velocity = jnp.clip(velocity + (1.5 * g * jnp.sin(theta) + 3.0 * torque) * dt, -8.0, 8.0)
        after = jnp.stack([theta + velocity * dt, velocity])
        return _transition(self._show(after), (after, time), -cost, jnp.zeros((), bool), self.max_steps)

    @staticmethod
    def _show(y: jax.Array) -> jax.Array:
        return jnp.stack([jnp.cos(y[0]), jnp.sin(y[0]), y[1]])


def _transition(
    observation: jax.Array, state: State, reward: jax.Array, terminated: jax.Array, max_steps: int
) -> Transition:
    """Return a step to a state whose clock still stands at the step's beginning."""
    physics, time = state
    truncated = (time + 1 >= max_steps) & ~terminated
    return Transition(observation, (physics, time + 1), reward, terminated, truncated)


_ENTRY = "gymnasium.envs.classic_control"

TASKS = {
    f"{_ENTRY}.cartpole:CartPoleEnv": CartPole,
    f"{_ENTRY}.acrobot:AcrobotEnv": Acrobot,
    f"{_ENTRY}.mountain_car:MountainCarEnv": MountainCar,
    f"{_ENTRY}.continuous_mountain_car:Continuous_MountainCarEnv": ContinuousMountainCar,
    f"{_ENTRY}.pendulum:PendulumEnv": Pendulum,
}
"""The task by Gymnasium's entry point."""
