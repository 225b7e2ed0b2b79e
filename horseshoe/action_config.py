"""What a contract says about actions, apart from `action_path.py` so that it is read without a compiler."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ActionConfig:
    """What a contract says about actions. An action is (joint deltas, gripper) per arm.

    Attributes:
        decision_rate: policy decisions per second [Hz].
        tick_rate: servo targets per second [Hz], a multiple of decision_rate.
        joint_step: joint motion of a full action in one decision [rad], shape (6,).
        reach: furthest the commanded target may be from the measured joints [rad].
        gripper_range: opening at gripper action -1 and +1 [m].
        interpolation: part of a decision over which the target moves to its new value.
        joint_lower, joint_upper: position limits [rad], shape (6,).
        max_speed: joint speed limit [rad/s].
        max_acceleration: joint acceleration limit [rad/s^2].
        max_tool_speed: limit of the tool centre point's speed [m/s].
        max_delay: longest transport delay there is room for [s].
        floor: lowest the hand may be commanded to, z in the arm's base frame [m]. A stiff arm that is told to be a
            centimetre inside the table presses on it with 100 N; here it slides along above instead.
        clearance: closest two arms may be commanded to come [m]; 0 leaves them to themselves.
    """

    joint_lower: tuple[float, ...]
    joint_upper: tuple[float, ...]
    decision_rate: float = field(default=5.0, metadata={"range": (1.0, 50.0)})
    tick_rate: float = field(default=100.0, metadata={"range": (50.0, 250.0)})
    joint_step: tuple[float, ...] = (0.12, 0.12, 0.12, 0.16, 0.16, 0.24)
    reach: float = field(default=0.3, metadata={"range": (0.01, 3.0)})
    gripper_range: tuple[float, float] = (0.0, 0.085)
    interpolation: float = field(default=1.0, metadata={"range": (0.0, 1.0)})
    max_speed: float = field(default=1.8, metadata={"range": (0.01, 3.15)})
    max_acceleration: float = field(default=14.0, metadata={"range": (0.1, 20.0)})
    max_tool_speed: float = field(default=0.7, metadata={"range": (0.01, 1.2)})
    max_delay: float = field(default=0.4, metadata={"range": (0.0, 2.0)})
    floor: float = field(default=-1.0, metadata={"range": (-1.0, 1.0)})
    clearance: float = field(default=0.0, metadata={"range": (0.0, 0.2)})

    def __post_init__(self) -> None:
        ticks = self.tick_rate / self.decision_rate
        if abs(ticks - round(ticks)) > 1e-9:
            raise ValueError(f"tick_rate: {self.tick_rate} Hz is no multiple of decision_rate {self.decision_rate} Hz")

    @property
    def ticks_per_decision(self) -> int:
        """Servo ticks between two decisions."""
        return round(self.tick_rate / self.decision_rate)
