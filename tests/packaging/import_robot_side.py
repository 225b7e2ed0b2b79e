"""Import every module the robot needs from an installed package, and see that no simulator or learner came along.

A script rather than a test, because it runs where only `horseshoe[robot,ros]` is installed.
"""

import pkgutil
import sys
from importlib import import_module
from importlib.util import find_spec

ABSENT = ("torch", "pybullet", "warp", "mujoco", "stable_baselines3")

for name in ABSENT:
    assert find_spec(name) is None, f"{name} is installed; this check means nothing"
names = ["horseshoe"]
for room in ("horseshoe", "horseshoe.hardware", "horseshoe.ros_ws"):
    package = import_module(room)
    modules = pkgutil.iter_modules if room == "horseshoe" else pkgutil.walk_packages  # leaves out the other rooms
    names += [m.name for m in modules(package.__path__, f"{room}.") if room != "horseshoe" or not m.ispkg]
for name in names:
    import_module(name)
print(f"{len(names)} modules import on Python {sys.version.split()[0]} from {import_module('horseshoe').__path__[0]}")
