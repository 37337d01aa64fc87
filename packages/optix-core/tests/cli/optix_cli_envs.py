"""Environments that misbehave, for ``optix train optix_cli_envs:Name-v0``."""

import threading

import gymnasium as gym
import numpy as np


class Toy(gym.Env):
    """Episodes of 20 steps; action 1 pays 1, action 0 pays nothing."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    num_steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        Toy.num_steps += 1
        return np.full(2, self.t / 20, np.float32), self.reward(action), self.t >= 20, False, {}

    def reward(self, action):
        return float(action == 1)


class Breaks(Toy):
    """Raises in step 5000, all instances together."""

    def reward(self, action):
        if Toy.num_steps >= 5000:
            raise RuntimeError("the joint came off")
        return super().reward(action)


class Words(gym.spaces.Space):
    """A space of a package's own."""

    def contains(self, x):
        return True


class Mission(Toy):
    """Says what to do in words, beside what it shows."""

    observation_space = gym.spaces.Dict(seen=Toy.observation_space, mission=Words())

    def reset(self, *, seed=None, options=None):
        seen, info = super().reset(seed=seed)
        return {"seen": seen, "mission": "go"}, info

    def step(self, action):
        seen, *rest = super().step(action)
        return {"seen": seen, "mission": "go"}, *rest


class VectorReward(Toy):
    """Pays in two currencies."""

    def reward(self, action):
        return np.array([1.0, 2.0])


class NaNReward(Toy):
    """Pays NaN after a while."""

    def reward(self, action):
        return float("nan") if Toy.num_steps >= 3000 else super().reward(action)


class Mute(Toy):
    """Pays the same whatever one does."""

    def reward(self, action):
        return 0.0


class TupleActions(Toy):
    """Acts in a space that no algorithm knows."""

    action_space = gym.spaces.Tuple((gym.spaces.Discrete(2), gym.spaces.Discrete(2)))


class Double(Toy):
    """Pays twice as much, and runs into its time limit."""

    def step(self, action):
        seen, reward, _, _, info = super().step(action)
        return seen, 2 * reward, False, self.t >= 20, info


class Arrives(Toy):
    """Says that it succeeded, and something whose name looks like markup."""

    def step(self, action):
        return *super().step(action)[:4], {"is_success": True, "[bold]": 2.5}


class Wide(Toy):
    """Shows more."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)


class Change(Toy):
    """Looks always the same, and pays for an action that is not the last one."""

    last = 0

    def step(self, action):
        _, _, *rest = super().step(action)
        reward, self.last = float(action != self.last), action
        return np.ones(2, np.float32), reward, *rest


class OddKeys(Toy):
    """Has numbers for keys in its infos, and a name that stands in no file."""

    def step(self, action):
        return *super().step(action)[:4], {1: 2.0, ("a", 2): 1.0, "\ud800": 1.0, "a\nb": 3.0, "kept": 4.0}


class Unspeakable(Toy):
    """Raises what no terminal can show."""

    def reward(self, action):
        raise RuntimeError("\ud800 [/bold]")


class GivesUp(Toy):
    """Raises what usually ends a generator."""

    def step(self, action):
        raise GeneratorExit


class NoSpace(Toy):
    """Has no action space."""

    action_space = None


class SilentEnd(Toy):
    """Shows None in the end."""

    def step(self, action):
        seen, *rest = super().step(action)
        return (None if self.t >= 20 else seen), *rest


class Messy(Toy):
    """Raises where nobody can catch it: in threads and when it is cleared away."""

    def reset(self, *, seed=None, options=None):
        thread = threading.Thread(target=self.fail)
        thread.start()
        thread.join()
        return super().reset(seed=seed)

    def fail(self):
        raise RuntimeError("the link\nis down")

    __del__ = fail


ODD = (OddKeys, Unspeakable, GivesUp, NoSpace, SilentEnd, Messy)
for env in (*ODD, Toy, Breaks, Mission, VectorReward, NaNReward, Mute, TupleActions, Double, Arrives, Wide, Change):
    gym.register(id=f"Cli{env.__name__}-v0", entry_point=env, max_episode_steps=50)
