"""From a perceived scene to the servo ticks of one decision: what the policy node does, without ROS."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from horseshoe import contract as contracts
from horseshoe.action_path import ActionPath
from horseshoe.errors import ConfigurationError, HorseshoeError
from horseshoe.hardware import capsules, xarm6
from horseshoe.policies.runtime import OnnxPolicy
from horseshoe.sim.assembly import blueprint as blueprints
from horseshoe.sim.assembly import cell as cells
from horseshoe.sim.assembly.scene import Assignment, Scene, SceneObserver

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """What the sensors say at one moment (R arms, B blocks).

    q: [rad], (R, 6); opening: [m], (R,); position: [m], (B, 3); quaternion: (w, x, y, z), (B, 4).
    """

    q: Array
    opening: Array
    position: Array
    quaternion: Array


class Decider:
    """A policy, the observer and the action path of one cell; refuses what the policy was not trained for.

    Args:
        policy: name or folder.
        blueprint: what shall be assembled, must be the contract's.
        tick_rate: servo targets per second that the arms stream [Hz], must be the contract's.
        cell: file, or None for the shipped one.

    Raises:
        HorseshoeError: the policy's contract and this cell do not match; names the field.
    """

    def __init__(self, policy: str, blueprint: str, tick_rate: float, cell: str | None = None) -> None:
        self.policy = OnnxPolicy(policy)
        contract, file = self.policy.contract, self.policy.folder / contracts.FILE
        cell_, blueprint_ = cells.load(cell), blueprints.load(blueprint)
        if contract.blueprint != blueprint_.name:
            raise ConfigurationError(
                file, "blueprint", f"is {contract.blueprint}, this cell assembles {blueprint_.name}"
            )
        if contract.robots != len(cell_.arms):
            raise ConfigurationError(file, "robots", f"is {contract.robots}, this cell has {len(cell_.arms)} arms")
        if contract.action.tick_rate != tick_rate:
            raise ConfigurationError(
                file, "action.tick_rate", f"is {contract.action.tick_rate} Hz, the arms stream at {tick_rate} Hz"
            )
        if beyond := xarm6.limit_beyond(contract.action.joint_lower, contract.action.joint_upper):
            raise ConfigurationError(file, f"action.{beyond[0]}", beyond[1])
        self.observer = SceneObserver(cell_, blueprint_)
        contracts.check_observation(contract, self.observer.fields, file)
        self.contract = contract
        # The real transport has a delay of its own, so the path has none.
        gap = partial(capsules.gaps_and_gradients, bases=cell_.base_poses)
        self.path = ActionPath(contract.action, 1, contract.robots, xarm6.tool_pose_and_jacobian, gap)
        self.assignment = Assignment(np.full((1, contract.robots), -1))
        # What is compiled at its first call is so now, and not when arms wait for it.
        blocks, arms = len(blueprint_.blocks), contract.robots
        nowhere = Seen(np.zeros((arms, 6)), np.zeros(arms), np.zeros((blocks, 3)), np.tile([1.0, 0, 0, 0], (blocks, 1)))
        self.start(nowhere)
        self.path.decision(np.zeros((1, arms, 7)), nowhere.q[None])

    @property
    def delay_range(self) -> tuple[float, float]:
        """From a servo target to its motion, as trained: transport and servo lag together [s]."""
        lag = self.contract.environment.get("physics", {}).get("servo_lag", (0.0, 0.0))
        return self.contract.delay[0] + lag[0], self.contract.delay[1] + lag[1]

    def start(self, seen: Seen) -> None:
        """Seed the commanded target from what is measured, and share the connections among the arms."""
        self.path.reset(seen.q[None], seen.opening[None])
        self.assignment = self.observer.assign(self._scene(seen))

    def decide(self, seen: Seen) -> Array:
        """Take one decision.

        Returns:
            Joints and opening of every servo tick until the next decision [rad, m], shape (n_ticks, R, 7).

        Raises:
            HorseshoeError: NaN or infinity in what is seen or in what the policy answers.
        """
        for name, value in vars(seen).items():
            if not np.isfinite(value).all():
                raise HorseshoeError(f"{name}: contains NaN or infinity")
        scene = self._scene(seen)
        self.assignment = self.observer.reconsider(scene, self.assignment)
        observation = self.observer.observe(scene, self.assignment).astype(np.float32)
        action = self.observer.unmirror(self.policy.act(observation).astype(np.float64), self.assignment)
        return self.path.decision(action, seen.q[None])[0]

    def _scene(self, seen: Seen) -> Scene:
        turns = self.observer.blueprint.quarter_turns(seen.quaternion)
        roll = self.observer.blueprint.roll(np.arange(len(turns)), turns)
        rotation = (Rotation.from_quat(seen.quaternion, scalar_first=True) * roll).as_matrix()
        return Scene(seen.q[None], seen.opening[None], seen.position[None], rotation[None], self.path.target.copy())
