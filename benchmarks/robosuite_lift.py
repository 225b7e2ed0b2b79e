"""robosuite's TwoArmLift on two xArm7 without a camera: reads numbers of steps from stdin, answers with seconds.

Run by `horseshoe bench sim --robosuite-python`, with a Python that has robosuite 1.5.2 and mujoco 3.3.7; it must not
import Horseshoe.
"""

import json
import sys
import time

import mujoco
import numpy as np
import robosuite

env = robosuite.make(
    "TwoArmLift",
    robots=["XArm7", "XArm7"],
    has_renderer=False,
    has_offscreen_renderer=False,
    use_camera_obs=False,
    control_freq=20,
    horizon=100_000,
)
env.reset()
low, high = env.action_spec
rng = np.random.default_rng(0)
for _ in range(3):
    env.step(rng.uniform(low, high))
print(json.dumps({"robosuite": robosuite.__version__, "mujoco": mujoco.__version__, "control_rate": 20}), flush=True)
for line in sys.stdin:
    begun = time.perf_counter()
    for _ in range(int(line)):
        env.step(rng.uniform(low, high))
    print(json.dumps({"seconds": time.perf_counter() - begun}), flush=True)
