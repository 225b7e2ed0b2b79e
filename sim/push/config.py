"""Settings of the pushing world: arena, discretisation, robots and materials."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horseshoe.errors import ConfigurationError, HorseshoeError

MARGIN = 3  # [cells] between the edge of the grid and the walls; `nodes.py` has the same
MAX_ROBOTS = 12


@dataclass(frozen=True)
class Material:
    """An elasto-plastic sheet seen from above.

    Attributes:
        density: [kg/m^2].
        shear: shear modulus of the sheet [N/m].
        bulk: bulk modulus of the sheet [N/m].
        yield_strain: shear strain above which it flows and keeps its new shape.
        ground: deceleration by friction on the floor [m/s^2] (friction coefficient times gravity).
    """

    density: float = field(default=1.0, metadata={"range": (0.05, 100.0)})
    shear: float = field(default=8.0, metadata={"range": (0.05, 1000.0)})
    bulk: float = field(default=8.0, metadata={"range": (0.05, 1000.0)})
    yield_strain: float = field(default=0.5, metadata={"range": (0.005, 2.0)})
    ground: float = field(default=3.0, metadata={"range": (0.0, 20.0)})

    @property
    def wave_speed(self) -> float:
        """Speed of pressure waves [m/s]."""
        return float(((self.shear + self.bulk) / self.density) ** 0.5)


MATERIALS = {
    "box": Material(),
    "rope": Material(shear=3.0, bulk=6.0, yield_strain=0.1),
}


@dataclass(frozen=True)
class PushConfig:
    """The world: a square of `side` with walls 3 cells inside its edge, origin in a corner, x right, y up.

    Attributes:
        side: edge of the grid [m].
        cells: grid cells along the edge.
        dt: physics step [s].
        control_period: time between two decisions [s].
        robot_radius: [m].
        robot_speed: top speed [m/s].
        robot_friction: Coulomb coefficient between robot and object.
    """

    side: float = field(default=1.28, metadata={"range": (0.2, 100.0)})
    cells: int = field(default=64, metadata={"range": (16, 512)})
    dt: float = field(default=0.0025, metadata={"range": (1e-5, 0.05)})
    control_period: float = field(default=0.05, metadata={"range": (0.005, 1.0)})
    robot_radius: float = field(default=0.035, metadata={"range": (0.005, 1.0)})
    robot_speed: float = field(default=0.4, metadata={"range": (0.01, 5.0)})
    robot_friction: float = field(default=0.3, metadata={"range": (0.0, 2.0)})

    @property
    def dx(self) -> float:
        """Cell size [m]."""
        return self.side / self.cells

    @property
    def low(self) -> float:
        """Coordinate of the left and lower wall [m]."""
        return MARGIN * self.dx

    @property
    def high(self) -> float:
        """Coordinate of the right and upper wall [m]."""
        return self.side - MARGIN * self.dx

    @property
    def substeps(self) -> int:
        """Physics steps per decision."""
        return round(self.control_period / self.dt)

    def __post_init__(self) -> None:
        """Refuse what the discretisation cannot carry."""
        if abs(self.substeps * self.dt - self.control_period) > 1e-6 * self.control_period:
            raise ValueError(f"control_period ({self.control_period} s) is not a multiple of dt ({self.dt} s)")
        if self.robot_radius < 1.2 * self.dx:
            raise ValueError(f"robot_radius ({self.robot_radius} m) is below 1.2 grid cells ({1.2 * self.dx:.3f} m)")

    def check(self, material: Material) -> None:
        """Check the physics step against the material's wave speed.

        Raises:
            ConfigurationError: if a wave crosses more than 0.6 cells in a step.
        """
        longest = 0.6 * self.dx / (material.wave_speed + self.robot_speed)
        if self.dt > longest:
            message = f"{self.dt:g} s is too long for waves of {material.wave_speed:.1f} m/s: at most {longest:.2g} s"
            raise ConfigurationError(None, "dt", message)


def check_inside(points: NDArray[Any], name: str, config: PushConfig, clearance: float = 0.0) -> None:
    """Check that points lie between the walls.

    Raises:
        HorseshoeError: otherwise; names what lies where and what is valid.
    """
    low, high = config.low + clearance, config.high - clearance
    bad = ~((points >= low - 1e-6) & (points <= high + 1e-6))  # NaN is bad too
    if bad.any():
        x, y = points[tuple(np.argwhere(bad)[0][:-1])]
        where = f"({x:.3f}, {y:.3f}) m is outside the arena"
        raise HorseshoeError(f"{name}: {where}: x and y must be within [{low:.3f}, {high:.3f}] m")
