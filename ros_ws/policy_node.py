"""Node of the policy: block poses and joint states in, the servo ticks of one decision out.

Subscribes  /block_poses, /<arm>/joint_states, /<arm>/state, /<arm>/delay
Publishes   /<arm>/command (JointTrajectory), ~/state, ~/contract (String), ~/timing (Float64MultiArray), /stop,
            /diagnostics

configure loads the policy and refuses what does not match its contract; activate checks everything that is needed to
move and seeds the commanded target from the measured joints; any doubt afterwards deactivates it and stops the arms.
The first decision waits for a picture taken since: an older one may show blocks that were still being laid out.
"""

import sys
import time
from typing import Any

import numpy as np
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, Float64MultiArray, Header, MultiArrayDimension, String
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from horseshoe import configuration
from horseshoe.errors import HorseshoeError
from horseshoe.ros_ws.base_node import (
    ARMS,
    ERROR,
    EVENT,
    LATCHED,
    OK,
    WORLD,
    Inbox,
    diagnostics,
    joint_names,
    joints_of,
    parameter,
    poses_of,
    run,
    seconds,
    stamp,
)
from horseshoe.ros_ws.decision import Decider, Seen

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
CLOCKS = 0.1  # [s] by which those of two computers may differ
TIMING = ("left_age", "right_age", "block_age", "skew", "compute")  # of ~/timing [s]


class PolicyNode(LifecycleNode):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("policy")
        self._policy = parameter(self, "policy", "u_shape", "Name of a shipped policy, or a folder.")
        self._blueprint = parameter(self, "blueprint", "u_shape", "Name or file of what is assembled.")
        self._cell = parameter(self, "cell", "", "File that says where the arms are; empty for the shipped one.")
        self._tick_rate = parameter(self, "tick_rate", 100.0, "At which the arms stream [Hz].", 50.0, 250.0)
        self._max_block_age = parameter(
            self, "max_block_age", 0.5, "Older block poses stop the arms [s].", 0.05, 3600.0
        )
        self._max_joint_age = parameter(
            self, "max_joint_age", 0.2, "Older joint states stop the arms [s].", 0.02, 3600.0
        )
        self._max_frozen = parameter(
            self,
            "max_frozen",
            1.0,
            "Time of bit-equal block poses that counts as a frozen camera [s]; 0: never.",
            0.0,
            3600.0,
        )
        self._needs_delay = parameter(
            self, "needs_delay", True, "Refuse to start before every arm's delay was measured."
        )
        self._allow = parameter(
            self, "allow_out_of_contract", False, "Run although a delay is out of contract; logged."
        )
        self.decider: Decider | None = None
        self._joints: dict[str, JointState] = {}
        self._states: dict[str, str] = {}
        self._delays: dict[str, float] = {}
        self._blocks: PoseArray | None = None
        self._changed = 0.0  # when block poses last differed from the ones before
        self._decisions, self._active = 0, False
        self._since: float | None = None  # when it was activated [s, system clock], until the first decision
        self._inboxes = {arm: Inbox(self, JointState, f"/{arm}/joint_states") for arm in ARMS}
        self._pictures = Inbox(self, PoseArray, "/block_poses")
        for arm in ARMS:
            self.create_subscription(String, f"/{arm}/state", lambda m, arm=arm: self._on_state(arm, m.data), LATCHED)
            self.create_subscription(
                Float64, f"/{arm}/delay", lambda m, arm=arm: self._delays.update({arm: m.data}), LATCHED
            )
        self._contract = self.create_publisher(String, "~/contract", LATCHED)
        self._said = self.create_publisher(String, "~/state", LATCHED)
        self._timing = self.create_publisher(Float64MultiArray, "~/timing", EVENT)
        self._stop = self.create_publisher(String, "/stop", EVENT)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", EVENT)
        self._commands: dict[str, object] = {}
        self._timer: Any = None

    # --- lifecycle ----------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the policy and check it against this cell."""
        try:
            self.decider = Decider(self._policy, self._blueprint, self._tick_rate, self._cell or None)
        except (HorseshoeError, ModuleNotFoundError) as error:
            return self._refuse(str(error))
        contract = configuration.dump(self.decider.contract)
        self._contract.publish(String(data=yaml.safe_dump(contract, sort_keys=False)))
        for arm in ARMS:
            self._commands[arm] = self.create_publisher(JointTrajectory, f"/{arm}/command", EVENT)
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check everything, seed the target from the measured joints, begin to decide."""
        try:
            self._check_alone()
            self._check_arms()
            self._check_delays()
            seen, _ = self._look()
            assert self.decider is not None
            self.decider.start(seen)
            self.decider.decide(seen)  # a policy that cannot answer is refused before anything moves
        except HorseshoeError as error:
            return self._refuse(str(error))
        self._active, self._changed, self._since = True, time.monotonic(), time.time()
        self._timer = self.create_timer(1 / self.decider.contract.action.decision_rate, self._decide)
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Send nothing more; the arms hold what they have."""
        self._active = False
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        return super().on_deactivate(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Send nothing more."""
        return self.on_deactivate(state) if self._active else SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the policy."""
        for publisher in self._commands.values():
            self.destroy_publisher(publisher)  # type: ignore[arg-type]
        self._commands, self.decider = {}, None
        return SUCCESS

    def _refuse(self, why: str) -> TransitionCallbackReturn:
        self.get_logger().error(f"policy: {why}")
        self._said.publish(String(data=f"refused: {why}"))
        self._diagnostics.publish(diagnostics("policy", ERROR, f"refused: {why}"))
        return FAILURE

    # --- checks -------------------------------------------------------------------------------------------------------

    def _check_alone(self) -> None:
        for arm in ARMS:
            if (n := self.count_publishers(f"/{arm}/command")) > 1:
                raise HorseshoeError(f"{n} nodes want to command the {arm} arm; end all but one")

    def _check_arms(self) -> None:
        for arm in ARMS:
            if self._states.get(arm) != "streaming":
                raise HorseshoeError(f"the {arm} arm is not active ({self._states.get(arm, 'nothing heard from it')})")

    def _check_delays(self) -> None:
        assert self.decider is not None
        low, high = self.decider.delay_range
        for arm in ARMS:
            if arm not in self._delays:
                if self._needs_delay:
                    raise HorseshoeError(f"the delay of the {arm} arm is not known: call /{arm}/arm/measure_delay")
                continue
            delay = self._delays[arm]
            said = f"{arm} arm: {1000 * delay:.0f} ms from a servo target to its motion"
            trained = f"the contract's delay says {1000 * low:.0f} to {1000 * high:.0f} ms (transport and servo lag)"
            if low <= delay <= high:
                self.get_logger().info(f"{said}; {trained}")
            elif self._allow:
                self.get_logger().warning(f"{said}; {trained}; allowed by allow_out_of_contract")
            else:
                raise HorseshoeError(f"{said}; {trained}; allow_out_of_contract:=true runs it all the same")

    def _look(self) -> tuple[Seen, list[float]]:
        """What is seen now, and how old it is: left, right, blocks, skew [s]."""
        assert self.decider is not None
        self._listen()
        now = time.time()
        if self._blocks is None or len(self._joints) < len(ARMS):
            missing = [f"/{arm}/joint_states" for arm in ARMS if arm not in self._joints]
            missing += ["/block_poses"] if self._blocks is None else []
            raise HorseshoeError(f"nothing received on {', '.join(missing)}")
        position, quaternion = poses_of(self._blocks)
        expected = len(self.decider.observer.blueprint.blocks)
        if len(position) != expected:
            raise HorseshoeError(f"/block_poses: {len(position)} poses, the blueprint has {expected} blocks")
        times = [seconds(self._joints[arm].header.stamp) for arm in ARMS]
        ages = [now - t for t in times]
        block_age = now - seconds(self._blocks.header.stamp)
        for arm, age in zip(ARMS, ages, strict=True):
            if age > self._max_joint_age:
                raise HorseshoeError(f"{arm} arm: joint states are {age:.2f} s old (limit {self._max_joint_age} s)")
        if (frame := self._blocks.header.frame_id) != WORLD:
            raise HorseshoeError(f"/block_poses: is in frame '{frame}', expected '{WORLD}'")
        if ahead := [-age for age in (*ages, block_age) if age < -CLOCKS]:
            raise HorseshoeError(f"a stamp is {max(ahead):.2f} s ahead of this computer's clock: set the clocks (NTP)")
        if block_age > self._max_block_age:
            raise HorseshoeError(
                f"block poses are {block_age:.2f} s old (limit {self._max_block_age} s): see the camera"
            )
        if self._active and self._max_frozen and time.monotonic() - self._changed > self._max_frozen:
            raise HorseshoeError(f"block poses have not changed for {self._max_frozen} s: the camera is frozen")
        joints = np.array([joints_of(self._joints[arm], arm) for arm in ARMS])
        seen = Seen(joints[:, :6], joints[:, 6], position, quaternion)
        return seen, [*ages, block_age, abs(times[0] - times[1])]

    def _listen(self) -> None:
        for arm, inbox in self._inboxes.items():
            if (joints := inbox.newest()) is not None:
                self._joints[arm] = joints
        blocks = self._pictures.newest()
        if blocks is not None:
            if self._blocks is None or blocks.poses != self._blocks.poses:
                self._changed = time.monotonic()
            self._blocks = blocks

    # --- callbacks ----------------------------------------------------------------------------------------------------

    def _on_state(self, arm: str, state: str) -> None:
        self._states[arm] = state
        if self._active and state != "streaming":
            self.get_logger().warning(f"policy: the {arm} arm is {state}; nothing more is sent")
            self.trigger_deactivate()

    def _decide(self) -> None:
        if not self._active or self.decider is None:
            return
        begin, now = time.perf_counter(), time.time()
        try:
            seen, ages = self._look()
            if self._since is not None:
                assert self._blocks is not None
                if seconds(self._blocks.header.stamp) < self._since:
                    return  # until it is too old, which stops the arms
                self.decider.start(seen)
                self._since = None
            ticks = self.decider.decide(seen)
        except HorseshoeError as error:
            self.get_logger().error(f"policy: {error}; the arms are stopped")
            self._stop.publish(String(data=f"the policy stopped: {error}"))
            self._diagnostics.publish(diagnostics("policy", ERROR, str(error)))
            self.trigger_deactivate()
            return
        dt = 1 / self.decider.contract.action.tick_rate
        for r, arm in enumerate(ARMS):
            self._commands[arm].publish(_trajectory(arm, now, ticks[:, r], dt))  # type: ignore[attr-defined]
        self._decisions += 1
        values = [*ages, time.perf_counter() - begin]
        message = Float64MultiArray(data=values)
        message.layout.dim = [MultiArrayDimension(label=",".join(TIMING), size=len(values), stride=1)]
        self._timing.publish(message)
        if self._decisions % 5 == 0:
            numbers = {f"{name} [ms]": f"{1000 * v:.1f}" for name, v in zip(TIMING, values, strict=True)}
            self._diagnostics.publish(diagnostics("policy", OK, f"decision {self._decisions}", numbers))


def _trajectory(arm: str, when: float, ticks: np.ndarray, dt: float) -> JointTrajectory:
    """Ticks (n, 7) [rad, m] as message; tick k is due k + 1 ticks after `when`."""
    points = []
    for k, values in enumerate(ticks.tolist(), start=1):
        point = JointTrajectoryPoint(positions=values)
        point.time_from_start.sec, point.time_from_start.nanosec = int(k * dt), int(k * dt % 1.0 * 1e9)
        points.append(point)
    return JointTrajectory(header=Header(stamp=stamp(when)), joint_names=joint_names(arm), points=points)


def main() -> int:
    """Entry point."""
    return run(PolicyNode, prompt=True)


if __name__ == "__main__":
    sys.exit(main())
