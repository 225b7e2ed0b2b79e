"""What defines an assembly environment, and what training makes of it."""

from dataclasses import dataclass, field

from horseshoe.action_config import ActionConfig
from horseshoe.hardware import xarm6
from horseshoe.sim.assembly.perception import NoiseConfig
from horseshoe.sim.assembly.starts import StartConfig
from horseshoe.sim.assembly.task import TaskConfig
from horseshoe.sim.assembly.world import TICK, PhysicsRange

FLOOR = 0.01  # of the open fingertips over the table that the arms stand on [m]
CLOSED = 0.02  # narrowest opening; the fingers of a hand that closes further advance into the table [m]
# Of a full action in one decision [rad]. A faster hand shoves its block away before it has closed on it.
JOINT_STEP = (0.084, 0.084, 0.084, 0.112, 0.112, 0.25)
CLEARANCE = 0.025  # between the arms as commanded [m]; the guard stops them at 1 cm


def default_action_config() -> ActionConfig:
    """Action path of the xArm6 at the simulator's tick rate."""
    return ActionConfig(
        joint_lower=tuple(xarm6.JOINT_LOWER.tolist()),
        joint_upper=tuple(xarm6.JOINT_UPPER.tolist()),
        tick_rate=round(1 / TICK),
        joint_step=JOINT_STEP,
        gripper_range=(CLOSED, xarm6.GRIPPER_STROKE),
        floor=FLOOR,
        clearance=CLEARANCE,
    )


@dataclass(frozen=True)
class AssemblyConfig:
    """Everything that defines an assembly environment."""

    blueprint: str = "u_shape"
    cell: str | None = None
    action: ActionConfig = field(default_factory=default_action_config)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    physics: PhysicsRange = field(default_factory=PhysicsRange)
    starts: StartConfig = field(default_factory=StartConfig)
    task: TaskConfig = field(default_factory=TaskConfig)

    def __post_init__(self) -> None:
        if self.noise.delay[1] > self.action.max_delay:
            room = f"[0, {self.action.max_delay:g}] (action.max_delay)"
            raise ValueError(f"noise.delay: {list(self.noise.delay)} s is outside {room}")
        for name in ("joint_lower", "joint_upper", "joint_step"):
            if (count := len(getattr(self.action, name))) != len(JOINT_STEP):
                raise ValueError(f"action.{name}: expected {len(JOINT_STEP)} values, got {count}")
        if beyond := xarm6.limit_beyond(self.action.joint_lower, self.action.joint_upper):
            raise ValueError("action.{}: {}".format(*beyond))


TRAINING_PHYSICS = PhysicsRange(
    mass=(0.6, 1.8),
    size=(0.98, 1.02),
    pad_friction=(0.7, 1.3),
    table_friction=(0.25, 0.6),
    servo_stiffness=(0.5, 1.3),
    servo_damping=(0.7, 1.4),
    servo_lag=(0.005, 0.06),
    finger_force=(15.0, 35.0),
    magnet=(0.85, 1.15),
)
