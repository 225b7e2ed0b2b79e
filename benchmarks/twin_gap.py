"""How MuJoCo and the PyBullet twin answer the same servo targets from the same start, both with nominal physics.

Run it with `python benchmarks/twin_gap.py [result.json]`; a minute on an idle core. No policy is involved: the table is
to explain a difference in success, not to tune either engine.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from horseshoe.configuration import write_atomically
from horseshoe.sim.assembly import blueprint, cell, magnets
from horseshoe.sim.assembly.starts import HOME, inverse_kinematics
from horseshoe.sim.assembly.twin import TwinWorld
from horseshoe.sim.assembly.world import TICK, BatchWorld, PhysicsRange, WorldState

Array = NDArray[np.float64]
CELL, BLUEPRINT = cell.load(), blueprint.load("u_shape")
GRASP = np.array([-0.15, 0.1, 0.014])  # of the left tool about leg_a [m]
APART = np.array([[0.1, -0.15, 0.02], [-0.15, 0.1, 0.02], [0.2, 0.25, 0.02]])


def joints(place: Array, yaw: float = np.pi / 2) -> Array:
    """The left arm's joints with the tool down at a place [m]; at the default yaw it closes along the world's x."""
    pose = np.eye(4)
    pose[:3, :3] = (Rotation.from_euler("z", yaw) * Rotation.from_euler("x", np.pi)).as_matrix()
    pose[:3, 3] = place
    pose = np.linalg.inv(CELL.base_poses[0]) @ pose
    start = HOME.copy()
    start[0] = np.arctan2(pose[1, 3], pose[0, 3])
    return inverse_kinematics(pose[None], start[None], 100)[0][0]


class Bench:
    """One world, its left arm commanded tick by tick."""

    def __init__(self, world: BatchWorld) -> None:
        self.world = world

    def start(self, position: Array, left: Array, opening: float, yaw: float = 0.0) -> None:
        """All at rest; leg_a turned by yaw [rad]."""
        quaternion = np.tile([1.0, 0.0, 0.0, 0.0], (3, 1))
        quaternion[1] = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        self.left, self.opening = left, opening
        self.world.reset(
            np.ones(1, dtype=bool),
            np.zeros(1, dtype=np.intp),
            np.stack([left, HOME])[None],
            np.array([[opening, 0.06]]),
            position[None],
            quaternion[None],
        )

    def tick(self, left: Array | None = None, opening: float | None = None, ticks: int = 1) -> WorldState:
        """Command the left arm and let it act."""
        self.left = self.left if left is None else left
        self.opening = self.opening if opening is None else opening
        targets = np.zeros((1, ticks, 2, 7))
        targets[:, :, 0], targets[:, :, 1] = np.append(self.left, self.opening), np.append(HOME, 0.06)
        self.world.advance(targets)
        return self.world.state()

    def move(self, to: Array, seconds: float) -> None:
        """Along a straight line in joint space."""
        origin, n = self.left.copy(), round(seconds / TICK)
        for k in range(n):
            self.tick(origin + (to - origin) * (k + 1) / n)

    def grip(self, lift: float = 0.1) -> WorldState:
        """Take leg_a and lift it."""
        self.start(APART, joints(GRASP), 0.06)
        self.tick(opening=0.02, ticks=60)
        self.move(joints(GRASP + [0, 0, lift]), 0.8)
        return self.tick(ticks=50)

    @contextlib.contextmanager
    def wrench(self, block: int, value: Array) -> Iterator[Array]:
        """A force and torque on a block, world frame [N, N m]; the array may be changed meanwhile."""
        # What the world asks its magnets for: MuJoCo's `look`, the twin `wrenches`.
        name = "wrenches" if isinstance(self.world, TwinWorld) else "look"
        magnetic = getattr(self.world.magnets, name)

        def added(*where: Any) -> Array:
            total: Array = magnetic(*where)
            total[0, block] += value
            return total

        setattr(self.world.magnets, name, added)
        try:
            yield value
        finally:
            setattr(self.world.magnets, name, magnetic)


def servo(bench: Bench) -> dict[str, float]:
    """A ramp of 0.24 rad in 0.4 s on every joint at once, in free air."""
    bench.start(APART, HOME, 0.06)
    command, measured = [], []
    for k in range(100):
        target = HOME + 0.24 * min((k + 1) / 40, 1.0)
        state = bench.tick(target)
        command.append(target)
        measured.append(state.q[0, 0])
    error = np.array(command) - np.array(measured)
    over = np.max(np.array(measured) - HOME - 0.24, axis=0)
    return {
        "servo: lag behind a ramp, proximal joints [ms]": 1e3 * float(error[35, :3].mean() / 0.6),
        "servo: lag behind a ramp, wrist [ms]": 1e3 * float(error[35, 3:].mean() / 0.6),
        "servo: overshoot, worst joint [mrad]": 1e3 * float(max(over.max(), 0.0)),
        "servo: error at rest, worst joint [mrad]": 1e3 * float(np.abs(error[-1]).max()),
    }


def fingers(bench: Bench) -> dict[str, float]:
    """Close on a block from wide open; then pull and turn the held block."""
    bench.start(APART, joints(GRASP), 0.08)
    widths = np.array([bench.tick(opening=0.02).opening[0, 0] for _ in range(80)])
    result = {
        "fingers: from 80 mm to the block [s]": float(np.argmax(widths < 0.0405)) * TICK,
        "fingers: opening on a 40 mm block [mm]": 1e3 * float(widths[-1]),
    }
    held = bench.grip()
    for name, value in (
        ("give at 5 N along the fingers' motion [mm]", [5.0, 0, 0, 0, 0, 0]),
        ("give at 5 N along the pads [mm]", [0, 5.0, 0, 0, 0, 0]),
    ):
        with bench.wrench(1, np.array(value)):
            moved = bench.tick(ticks=40).position[0, 1] - held.position[0, 1]
        result[f"pinch: {name}"] = 1e3 * float(np.linalg.norm(moved))
        held = bench.tick(ticks=40)
    with bench.wrench(1, np.array([0, 0, 0, 0.1, 0, 0])):
        turned = bench.tick(ticks=40)
    tilt = magnets.rotation_angle(
        magnets.matrices(turned.quaternion[:, 1]) @ magnets.matrices(held.quaternion[:, 1]).transpose(0, 2, 1)
    )
    result["pinch: tilt about the pads at 0.1 N m [deg]"] = float(np.degrees(tilt[0]))
    held = bench.grip()
    with bench.wrench(1, np.zeros(6)) as pull:
        for pull[1] in np.arange(1.0, 81.0):
            if np.abs(bench.tick(ticks=5).position[0, 1, 1] - held.position[0, 1, 1]) > 0.004:
                break
    result["pinch: pull along the pads that slips 4 mm [N]"] = float(pull[1])
    return result


def table(bench: Bench) -> dict[str, float]:
    """A block pushed by 1 N for 0.1 s slides; a hand is sent 5 mm into the table."""
    bench.start(APART, HOME, 0.06)
    with bench.wrench(1, np.array([0, 1.0, 0, 0, 0, 0])):
        bench.tick(ticks=10)
    slid = bench.tick(ticks=80).position[0, 1, 1] - APART[1, 1]
    place = GRASP * [1, -1, 0]
    bench.start(APART, joints(place + [0, 0, 0.03]), 0.06)
    bench.move(joints(place + [0, 0, -0.005]), 0.5)
    peak = max(bench.tick(ticks=4).table_contact[0, 0] for _ in range(10))
    return {
        "table: slide of a leg after 0.1 N s [mm]": 1e3 * float(slid),
        "table: force of a hand 5 mm too low [N]": float(peak),
    }


def latch(bench: Bench) -> dict[str, float]:
    """A free leg 12 mm off snaps to the base; so does one that is held, 5 mm and 6 degrees off."""
    world = bench.world
    bench.start(np.array([[0.0, 0.0, 0.02], [-0.08, 0.072, 0.02], [0.2, 0.3, 0.02]]), HOME, 0.06)
    captured, closed, fastest = np.inf, np.inf, 0.0
    for k in range(80):
        state = bench.tick()
        fastest = max(fastest, float(np.linalg.norm(state.velocity[0, 1, :3])))
        gap = world.magnets.gaps(state.position, magnets.matrices(state.quaternion))[0].min()
        captured = min(captured, k * TICK) if world.magnets.latched.any() else captured
        closed = min(closed, k * TICK) if gap < 5e-4 else closed
    result = {
        "latch: capture of a free leg from 12 mm [ms]": 1e3 * captured,
        "latch: from capture to a gap of 0.5 mm [ms]": 1e3 * (closed - captured),
        "latch: peak speed [m/s]": fastest,
    }
    leg = np.array([-0.08, 0.0655, 0.02])
    bench.start(
        np.array([[0.0, 0.0, 0.02], leg, [0.2, 0.3, 0.02]]), joints(leg - [0, 0, 0.006], np.pi / 2 + 0.1), 0.042, 0.1
    )
    bench.tick(opening=0.02, ticks=20)
    state = bench.tick(ticks=100)
    gap, angle = world.magnets.gaps(state.position, magnets.matrices(state.quaternion))
    best = int(gap[0].argmin())
    return result | {
        "latch: held leg joined (1 is yes)": float(world.magnets.latched.any()),
        "latch: gap left with a held leg [mm]": 1e3 * float(gap[0, best]),
        "latch: angle left with a held leg [deg]": float(np.degrees(angle[0, best])),
        "latch: base pulled by [mm]": 1e3 * float(np.linalg.norm(state.position[0, 0, :2])),
    }


def main() -> None:
    nominal = PhysicsRange()
    worlds = {
        "mujoco": BatchWorld(CELL, BLUEPRINT, 1, nominal, n_threads=1),
        "pybullet": TwinWorld(CELL, BLUEPRINT, 1, nominal, pool=1),
    }
    results: dict[str, dict[str, float]] = {}
    for name, world in worlds.items():
        bench = Bench(world)
        results[name] = servo(bench) | fingers(bench) | table(bench) | latch(bench)
    print(f"{'':52} {'mujoco':>9} {'pybullet':>9}")
    for row in results["mujoco"]:
        print(f"{row:52} {results['mujoco'][row]:9.3g} {results['pybullet'][row]:9.3g}")
    if len(sys.argv) > 1:
        write_atomically(Path(sys.argv[1]), json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
