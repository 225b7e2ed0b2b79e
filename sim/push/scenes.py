"""Scenes: an object, where it shall go, and where the robots start; drawn from named goal sets by seed."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from horseshoe import configuration
from horseshoe.configuration import resource
from horseshoe.errors import HorseshoeError
from horseshoe.sim.push import shapes
from horseshoe.sim.push.config import MATERIALS, MAX_ROBOTS, Material, PushConfig, check_inside

Array = NDArray[np.float64]

PARTICLES = 256
HELD_OUT = 1_000_000  # seeds from here on are for evaluation; training and data sets stay below


@dataclass(frozen=True)
class GoalSet:
    """What goals of a set look like.

    Attributes:
        shapes: names of the objects, drawn with equal chance.
        move: least and largest distance from start to goal [m].
        turn: largest turn [deg].
        rope_move: largest distance for a rope [m], which must bend as well.
        rope_turn: largest turn of a rope [deg].
        bend: least and largest bend of a rope from end to end [deg].
    """

    shapes: tuple[str, ...] = field(metadata={"choices": tuple(shapes.SHAPES)})
    move: tuple[float, float] = field(metadata={"range": (0.0, 1.0)})
    turn: float = field(metadata={"range": (0.0, 180.0)})
    rope_move: float = field(metadata={"range": (0.0, 1.0)})
    rope_turn: float = field(metadata={"range": (0.0, 180.0)})
    bend: tuple[float, float] = field(metadata={"range": (0.0, 270.0)})

    def __post_init__(self) -> None:
        if not self.shapes:
            raise ValueError("shapes: there must be one at least")


@dataclass(frozen=True)
class Scene:
    """One task.

    Attributes:
        name: such as "wide-1000003".
        start: particles of the object [m], shape (n, 2).
        goal: particles of the target shape [m], shape (n, 2); the same order as `start` if `paired`.
        robots: starting positions [m], shape (n_robots, 2).
        area: of the object [m^2].
        material: of the object.
        paired: whether start and goal particles correspond.
    """

    name: str
    start: Array
    goal: Array
    robots: Array
    area: float
    material: Material
    paired: bool = True


def goal_sets() -> list[str]:
    """Names of the goal sets that ship with the package."""
    return sorted(path.stem for path in resource("sim/push/goals").glob("*.yaml"))


def load_goal_set(name: str | Path) -> GoalSet:
    """Read a goal set by name, or from a YAML file of one's own.

    Raises:
        HorseshoeError: unknown name or bad value.
    """
    path = Path(name)
    if path.suffix != ".yaml":
        if str(name) not in goal_sets():
            raise HorseshoeError(f"goal set '{name}' is unknown; the sets are {', '.join(goal_sets())}")
        path = resource(f"sim/push/goals/{name}.yaml")
    return configuration.load(GoalSet, path)


def sample(goals: GoalSet, name: str, seed: int, robots: int, config: PushConfig, count: int = PARTICLES) -> Scene:
    """Draw a scene; the same for the same arguments.

    Args:
        goals: the goal set.
        name: its name, for the scene's name.
        seed: from `HELD_OUT` on for evaluation.
        robots: number of robots, 1 to 12.
        config: the world.
        count: number of particles.

    Raises:
        HorseshoeError: number of robots out of range, or goals that do not fit into the arena.
    """
    rng = np.random.default_rng([seed, len(goals.shapes)])
    shape = str(rng.choice(goals.shapes))
    body = shapes.particles(shape, count)
    target = body
    move, turn = goals.move, goals.turn
    if shape == "rope":
        target = shapes.bend(body, np.radians(rng.uniform(*goals.bend)) * rng.choice([-1.0, 1.0]))
        move, turn = (min(move[0], goals.rope_move), goals.rope_move), goals.rope_turn
    keep = 2.5 * config.robot_radius  # room between object and wall for a robot
    for _ in range(1000):
        angle = rng.uniform(-np.pi, np.pi)
        start = shapes.place(body, rng.uniform(config.low, config.high, 2), angle)
        course = rng.uniform(-np.pi, np.pi)
        step = rng.uniform(*move) * np.array([np.cos(course), np.sin(course)])
        goal = shapes.place(target, start.mean(0) + step, angle + np.radians(rng.uniform(-turn, turn)))
        both = np.concatenate([start, goal])
        if both.min() > config.low + keep and both.max() < config.high - keep:
            break
    else:
        raise HorseshoeError(f"goal set {name}: no room in the arena for shape {shape} moved by {move[0]:g} m or more")
    material = MATERIALS["rope" if shape == "rope" else "box"]
    positions = place_robots(start, robots, config, rng)
    return Scene(f"{name}-{seed}", start, goal, positions, shapes.area(shape), material)


def custom(
    shape: str, goal: Array, goal_area: float, seed: int, robots: int, config: PushConfig, count: int = PARTICLES
) -> Scene:
    """A scene with an object in the middle of the arena and a goal of one's own, such as from an image.

    Raises:
        HorseshoeError: goal outside the arena, or of another size than the object, or robots out of range.
    """
    check_inside(goal, "goal", config)
    ratio = goal_area / shapes.area(shape)
    if not 0.5 < ratio < 2.0:
        raise HorseshoeError(f"goal: its area is {ratio:.2f} times that of the {shape}; it must be within [0.5, 2]")
    rng = np.random.default_rng(seed)
    start = shapes.place(shapes.particles(shape, count), [config.side / 2, config.side / 2], 0.0)
    material = MATERIALS["rope" if shape == "rope" else "box"]
    positions = place_robots(start, robots, config, rng)
    return Scene(f"custom-{seed}", start, goal, positions, shapes.area(shape), material, paired=False)


def place_robots(body: Array, robots: int, config: PushConfig, rng: np.random.Generator) -> Array:
    """Spread robots around an object, near it and clear of each other.

    Raises:
        HorseshoeError: number out of range, or no room.
    """
    if not 1 <= robots <= MAX_ROBOTS:
        raise HorseshoeError(f"robots: {robots} is outside [1, {MAX_ROBOTS}]")
    radius = config.robot_radius
    points = rng.uniform(config.low + radius, config.high - radius, (4000, 2))
    distance = cKDTree(body).query(points)[0]
    points = points[(distance > radius + config.dx) & (distance < 2 * radius + 3 * config.dx)]
    chosen = [points[0]]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < robots:  # each next one far from the others, with some chance in it
        nearest = np.minimum(nearest, np.linalg.norm(points - chosen[-1], axis=1))
        best = int(np.argmax(nearest * rng.uniform(0.7, 1.0, len(points))))
        if nearest[best] < 2 * radius + 0.005:
            raise HorseshoeError(f"robots: no room for {robots} of them around the object")
        chosen.append(points[best])
    return np.array(chosen)


def heavier(scene: Scene, density: float = 1.0, stiffness: float = 1.0) -> Scene:
    """The same scene with an object `density` times as heavy and `stiffness` times as stiff."""
    m = scene.material
    material = replace(m, density=m.density * density, shear=m.shear * stiffness, bulk=m.bulk * stiffness)
    return replace(scene, material=material)
