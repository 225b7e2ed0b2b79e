"""Import every module the robot needs from an installed package, and see that no simulator or learner came along.

A script rather than a test, because it runs where only `horseshoe[robot,ros]` is installed.
"""

import pkgutil
import sys
from importlib import import_module
from importlib.util import find_spec

ABSENT = ("torch", "pybullet", "warp", "mujoco", "stable_baselines3")

here = [path for path in sys.path if path]  # the script's own folder, never the repository's
sys.path[:] = here
for name in ABSENT:
    assert find_spec(name) is None, f"{name} is installed; this check means nothing"
names = ["horseshoe"]
for room in ("horseshoe", "horseshoe.hardware", "horseshoe.ros_ws"):
    package = import_module(room)
    names += [m.name for m in pkgutil.iter_modules(package.__path__, f"{room}.") if not m.ispkg]
for name in names:
    import_module(name)
print(f"{len(names)} modules import on Python {sys.version.split()[0]} from {import_module('horseshoe').__path__[0]}")
