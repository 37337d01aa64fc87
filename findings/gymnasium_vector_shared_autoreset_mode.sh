#!/usr/bin/env bash
# A vector environment of Gymnasium writes how it resets into the metadata of its environments' class.
#
# Expected: envs.metadata["autoreset_mode"], which wrappers and training code read to know where the true last observation of
#           an episode is, tells of this vector environment.
# Happens:  a second vector environment of the same class changes what the first one says, because both write into the
#           one dictionary of the class. Whoever asks the first for its final observations looks in the wrong place.
# Seen with Python 3.11, gymnasium 1.3.0:
#     made with SAME_STEP, the first says SameStep
#     after a second one with NEXT_STEP, the first says NextStep
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
from gymnasium.vector import AutoresetMode, SyncVectorEnv


class Short(gym.Env):
    metadata = {"render_modes": []}
    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, True, False, {}


print(f"Python {sys.version.split()[0]}, gymnasium {gym.__version__}")
first = SyncVectorEnv([Short] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
before = first.metadata["autoreset_mode"]
print(f"made with SAME_STEP, the first says {before.value}")
second = SyncVectorEnv([Short] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
after = first.metadata["autoreset_mode"]
print(f"after a second one with NEXT_STEP, the first says {after.value}")
sys.exit(0 if (before, after) == (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP) else "this has changed")
PROGRAM
"$work/venv/bin/python" "$work/program.py"
