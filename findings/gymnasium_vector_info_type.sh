#!/usr/bin/env bash
# A vector environment of Gymnasium gives the numbers of an info the type of the first environment that speaks.
#
# Expected: where one environment says {"profit": 0} and the next {"profit": 0.7}, the vector's info holds 0 and 0.7.
# Happens:  the array is of int64, and 0.7 becomes 0 without a word; in the other order both numbers are right.
# Seen with Python 3.11, gymnasium 1.3.0, numpy 2.4:
#     0 beside 0.7: [0 0] int64
#     0.7 beside 0: [0.7 0. ] float64
# Fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet gymnasium==1.3.0 "numpy<2.5"
cat > "$work/program.py" <<'PROGRAM'
import sys

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Shop(gym.Env):
    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, profit):
        self.profit = profit

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {"profit": self.profit}


def told(*profits):
    envs = gym.vector.SyncVectorEnv([lambda profit=profit: Shop(profit) for profit in profits])
    envs.reset()
    found = envs.step(np.zeros(len(profits), np.int64))[4]["profit"]
    print(f"{' beside '.join(map(str, profits))}: {found} {found.dtype}")
    return found


print(f"Python {sys.version.split()[0]}, gymnasium {gym.__version__}, numpy {np.__version__}")
cut, right = told(0, 0.7), told(0.7, 0)
sys.exit(0 if cut[1] == 0 and right[0] == 0.7 else "this has changed")
PROGRAM
"$work/venv/bin/python" "$work/program.py"
