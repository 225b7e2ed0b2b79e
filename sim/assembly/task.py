"""The assembly task: named reward terms, success and failure, all judged from the true state of the world."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horseshoe.hardware import capsules
from horseshoe.hardware.homing import HOME
from horseshoe.sim.assembly import magnets
from horseshoe.sim.assembly.perception import true_scene
from horseshoe.sim.assembly.scene import GRASP_HEIGHT, Assignment, Scene, SceneObserver
from horseshoe.sim.assembly.world import WorldState

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

JOINED_DISTANCE = 0.004  # [m]
JOINED_ANGLE = np.radians(6.0)
REST_SPEED = 0.03  # [m/s]
REST_TURN = 0.3  # [rad/s]
REST_TIME = 0.5  # [s]
ASTRAY = 0.76  # from the base of its arm: no hand gets to a block that lies there, or to a place for it [m]
TOO_NEAR = 0.2  # likewise, for blocks [m]
TOPPLED = 0.3  # height of the z axis of a base with its sockets up or down, or of a leg that stands on end
HOVER = 0.1  # how far above its block a hand belongs that is turned by 90 degrees from it; 7 cm if beside it [m]
STAND_OFF = 0.08  # how far in front of its socket a block belongs that is turned by 80 degrees from its place [m]
CARRY = 0.06  # how far above its place a block belongs that is not in front of its socket: over all other blocks [m]
CLEAR = 0.04  # how far in front of its socket a block comes down [m]
OUTCOMES = (
    "running", "success", "diverged", "flew_off", "pushed_off", "out_of_reach", "toppled", "collision", "no_grasp",
    "dropped", "misaligned", "time_out",
)  # fmt: skip
LOST = ("diverged", "flew_off", "pushed_off", "collision")
HOPELESS = ("out_of_reach", "toppled")


@dataclass(frozen=True)
class RewardScales:
    """What each named term is worth, per arm and decision."""

    reach: float = 3.0
    down: float = 0.3
    parallel: float = 0.5
    ready: float = 1.0
    held: float = 0.7
    place: float = 7.0
    carry: float = 0.0
    fit: float = 2.0
    connected: float = 16.5  # more than all the terms above together, which it replaces
    partner: float = 6.0
    release: float = 8.0
    retreat: float = 4.0
    lift: float = -4.0
    team: float = 1.0
    action: float = -0.03
    blocked: float = 0.0
    crowd: float = -2.0
    arm_contact: float = -0.5
    table_contact: float = -0.3
    push: float = -6.0
    upset: float = 0.0
    shove: float = -12.0
    speed: float = -0.1


@dataclass(frozen=True)
class TaskConfig:
    """Task settings.

    Attributes:
        horizon: episode length [s].
        rewards: scale of every reward term.
        rest_scale: multiplies the speeds that count as rest; above 1 in training, where exploration shakes the arms.
        max_contact: force between the arms, or of an arm on the table, that ends an episode [N].
        give_up: end an episode as soon as a block is out of reach or has toppled, which saves a beginner's time; the
            other arm may yet push it back, so that otherwise it is only named when time is over.
    """

    horizon: float = field(default=60.0, metadata={"range": (1.0, 120.0)})
    rewards: RewardScales = field(default_factory=RewardScales)
    rest_scale: float = field(default=1.0, metadata={"range": (1.0, 100.0)})
    max_contact: float = field(default=100.0, metadata={"range": (1.0, 1e4)})
    give_up: bool = False


class Task:
    """Judges a batch of cells.

    Args:
        config: settings.
        observer: of the same cell and blueprint.
        latches: the world's magnets.
        decision_rate: [Hz].
    """

    def __init__(
        self, config: TaskConfig, observer: SceneObserver, latches: magnets.Magnets, decision_rate: float
    ) -> None:
        self.config, self._observer, self._latches = config, observer, latches
        self._rest_steps = int(np.ceil(REST_TIME * decision_rate - 1e-9)) + 1  # looks that span that time
        self.contact_scale = 1.0  # of max_contact (curriculum)
        # Indices of the failures that end an episode; others only name what was wrong when time was over.
        self.failures = [OUTCOMES.index(name) for name in (LOST + HOPELESS if config.give_up else LOST)]
        n, arms = len(latches.latched), len(observer.cell.arms)
        self.rest = np.zeros(n, dtype=np.intp)
        self.ever_held: Mask = np.zeros((n, arms), dtype=bool)
        self.held: Mask = np.zeros((n, arms), dtype=bool)

    def reset(self, mask: Mask) -> None:
        """Forget the episodes of mask (n,)."""
        self.rest[mask] = 0
        self.ever_held[mask] = self.held[mask] = False

    def judge(
        self,
        state: WorldState,
        target: Array,
        action: Array,
        blocked: Array,
        assignment: Assignment,
        diverged: Mask,
        late: Mask,
    ) -> tuple[dict[str, Array], NDArray[np.intp]]:
        """Reward terms and outcomes after a decision.

        Args:
            state: the world.
            target: commanded joints and opening (n, R, 7).
            action: what the policy asked for (n, R, 7).
            blocked: how much of it the action path did not allow, in full actions of a joint (n, R).
            assignment: who serves what.
            diverged: where physics exploded (n,).
            late: where the horizon is over (n,).

        Returns:
            Unscaled terms by name, each (n, R); index into `OUTCOMES` (n,), 0 where the episode goes on.
        """
        observer, bp = self._observer, self._observer.blueprint
        scene = true_scene(state, target)
        n, arms = state.q.shape[:2]
        rows = np.arange(n)[:, None]
        pair = np.where(assignment.pair >= 0, assignment.pair, 0)
        serves = assignment.pair >= 0
        block = bp.magnet_block[bp.pairs[pair, 2]]
        size = np.array([b.size for b in bp.blocks])[block]
        tool = observer.tool_poses(state.q)
        frame, centre = scene.rotation[rows, block], state.position[rows, block]
        grasp = centre + np.array([0.0, 0.0, GRASP_HEIGHT])
        off_grasp = tool[..., :3, 3] - grasp
        distance = np.linalg.norm(off_grasp, axis=-1)
        along = np.abs((tool[..., :3, 1] * frame[..., :, 0]).sum(-1))
        down = -tool[..., 2, 2]
        # A hand that is askew or beside its block belongs above: further down it would push it away, or tip it over.
        askew = np.clip((1 - along**2 * np.clip(down, 0, 1) ** 4 - 0.1) / 0.9, 0, 1)
        beside = np.clip((np.linalg.norm(off_grasp[..., :2], axis=-1) - 0.015) / 0.03, 0, 1)
        hover = HOVER * np.maximum(askew, 0.7 * beside)
        way = np.linalg.norm(off_grasp - hover[..., None] * [0.0, 0.0, 1.0], axis=-1)
        snug = np.abs(state.opening - size[..., 0]) < 0.006
        squeezed = target[..., 6] < size[..., 0] - 0.002
        self.held = serves & (distance < 0.025) & (along > 0.85) & snug & squeezed
        self.ever_held |= self.held
        # A hand should be open on its way and close at the block; neither end of the range earns more than it must,
        # or the gripper's command saturates there and exploration never closes (or opens) it again. Arriving with an
        # open hand costs nothing: a dip there would keep the hand hovering above the block.
        at_block = np.exp(-((way / 0.015) ** 2)) * along**2
        wide = np.clip(state.opening / 0.06, 0, 1)
        closed = 1 - np.clip((state.opening - size[..., 0]) / 0.04, 0, 1)
        goal, off = observer.goal_errors(scene, pair)
        error, turn = np.linalg.norm(goal, axis=-1), magnets.rotation_angle(off)
        left, sunk = self._left(scene, pair, goal, turn)
        near = 0.5 * np.clip(1 - left / 0.6, 0, 1) + 0.5 * (1 - turn / np.pi)
        latched = self._latches.latched
        by_connection = bp.pairs[:, 0][None] == np.arange(len(bp.connections))[:, None]
        done = (latched[:, None] & by_connection).any(-1)  # (n, C)
        connected = serves & done[rows, bp.pairs[pair, 0]]
        whole = done.all(1)
        free = serves & ~connected
        place = (0.3 + 0.7 * self.held) * near
        from_home = np.linalg.norm(state.q - HOME, axis=-1)
        other = np.roll(np.arange(arms), 1)
        gap = capsules.gaps_and_gradients(state.q, observer.cell.base_poses)[0][:, 0]
        base = scene.rotation[:, 0]
        height = state.position[:, 0, 2] - observer.cell.table.height - bp.blocks[0].size[2] / 2
        lifted = (np.maximum(height - 0.003, 0.0) + 0.1 * np.hypot(base[:, 0, 2], base[:, 1, 2])) / 0.04
        pushed = np.linalg.norm(state.velocity[:, 0, :3], axis=-1)
        pushed += 0.02 * np.linalg.norm(state.velocity[:, 0, 3:], axis=-1)  # on its edge
        terms = {
            # Two scales: the first pulls from across the table, the second at the block.
            "reach": (0.6 * (1 - np.tanh(2 * way)) + 0.4 * np.exp(-way / 0.05)) * free,
            "down": np.clip(down, 0, 1) * free,
            "parallel": along**2 * free,
            "ready": (at_block * (1 + closed) + (1 - at_block) * wide) * free,
            "held": 1.0 * self.held * free,
            "place": place * free,
            "carry": self.held * np.clip(1 - sunk / CARRY, 0, 1) * free,
            "fit": self.held * np.exp(-error / 0.03) * np.exp(-turn / 0.3) * free,
            "connected": 1.0 * connected,
            # Whoever is connected holds the structure, and gains by how close the other one's goal is: it brings it.
            "partner": connected * np.where(connected, 1.0, place * serves)[:, other],
            # Two arms that go on holding one structure tear at it. What is commanded counts: a hand that is far from
            # opening has to learn the direction first.
            "release": connected * np.clip(target[..., 6] / 0.06, 0, 1),
            # Then it makes room, two hands at one structure are in each other's way, and goes home.
            "retreat": connected * np.clip(distance / 0.2, 0, 1) * (1 - 0.6 * np.clip(from_home / 4, 0, 1)),
            # What is joined stays flat on the table, where the other arm can join to it.
            "lift": connected * np.minimum(lifted, 1.0)[:, None],
            "team": np.repeat(1.0 * whole[:, None], arms, 1),
            "action": (action**2).mean(-1),
            # A hand that is told into the table never rises by exploring: what it is told has to matter.
            "blocked": blocked,
            "crowd": np.repeat(np.clip((0.06 - gap) / 0.035, 0, 1)[:, None], arms, 1),
            "arm_contact": np.repeat(np.minimum(state.arm_contact / 20.0, 1.0)[:, None], arms, 1),
            "table_contact": np.minimum(state.table_contact / 20.0, 1.0),
            "push": np.minimum(pushed / 0.1, 5.0)[:, None]
            * (~connected & (np.linalg.norm(tool[..., :3, 3] - state.position[:, :1], axis=-1) < 0.22)),
            # A base on its side has its sockets where no leg can come.
            "upset": np.repeat(1.0 - np.abs(base[:, None, 2, 2]), arms, 1),
            "shove": np.minimum(np.linalg.norm(state.velocity[rows, block, :2], axis=-1) / 0.1, 1.0)
            * (free & ~self.held),
            "speed": (np.abs(state.qd) > 1.5).any(-1) * 1.0,
        }
        away = np.linalg.norm((centre - observer.base_positions)[..., :2], axis=-1)
        goal_away = np.linalg.norm((centre + goal - observer.base_positions)[..., :2], axis=-1)
        lost = ~self.held & ((away > ASTRAY) | (away < TOO_NEAR))
        astray = (free & (lost | (goal_away > ASTRAY))).any(1)
        toppled = np.asarray((np.abs(scene.rotation[:, :, 2, 2]) < TOPPLED).any(1))
        return terms, self._outcomes(state, whole, diverged, late, serves & ~connected, astray, toppled)

    def _left(self, scene: Scene, pair: NDArray[np.intp], goal: Array, turn: Array) -> tuple[Array, Array]:
        """How far blocks are from where they belong on the way to their place.

        A block turns before it comes to its socket: the socket's block would be in its way there. And it is lifted
        unless it is in front of its socket: along the table it would push the socket's block before it.

        Args:
            scene: true scene.
            pair: served pairs (n, R).
            goal: translation of every block still to go, world [m], (n, R, 3).
            turn: rotation still to go [rad], (n, R).

        Returns:
            Along the table and in height [m], (n, R) each.
        """
        bp, socket = self._observer.blueprint, self._observer.blueprint.pairs[pair, 1]
        rows = np.arange(len(pair))[:, None]
        outward = magnets.rotated(scene.rotation[rows, bp.magnet_block[socket]], bp.magnet_axis[socket])
        ahead = -(goal * outward).sum(-1)
        beside = np.linalg.norm((goal + ahead[..., None] * outward)[..., :2], axis=-1)
        aside = np.maximum((-ahead - 0.004) / 0.02, (beside - 0.015 - 0.3 * np.maximum(ahead, 0.0)) / 0.04)
        high = np.clip(-goal[..., 2] / 0.03, 0, 1)
        stand_off = np.maximum(STAND_OFF * np.clip((turn - 0.2) / 1.2, 0, 1), CLEAR * high)
        way = goal + stand_off[..., None] * outward
        way[..., 2] += CARRY * np.clip(aside, 0, 1)
        # Linear in distance: a long way pays for every centimetre, or the noise of the rest drowns it.
        return np.linalg.norm(way[..., :2], axis=-1), np.abs(way[..., 2])

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Everything `restore` needs to go on exactly from here."""
        return {"rest": self.rest.copy(), "ever_held": self.ever_held.copy(), "held": self.held.copy()}

    def restore(self, snapshot: dict[str, NDArray[Any]], rows: NDArray[np.intp] | slice = slice(None)) -> None:
        """Go back to a snapshot of the environments in rows."""
        self.rest[rows] = snapshot["rest"]
        self.ever_held[rows], self.held[rows] = snapshot["ever_held"], snapshot["held"]

    def joined(self, state: WorldState) -> Mask:
        """Where every wanted connection is latched and the blocks really are in place, shape (n,)."""
        distance, angle = self._latches.gaps(state.position, magnets.matrices(state.quaternion))
        good = self._latches.latched & (distance < JOINED_DISTANCE) & (angle < JOINED_ANGLE)
        connection = self._observer.blueprint.pairs[:, 0]
        count = range(len(self._observer.blueprint.connections))
        return np.asarray(np.stack([good[:, connection == c].any(1) for c in count], 1).all(1))

    def _outcomes(
        self, state: WorldState, whole: Mask, diverged: Mask, late: Mask, unserved: Mask, astray: Mask, toppled: Mask
    ) -> NDArray[np.intp]:
        speed = np.linalg.norm(state.velocity[..., :3], axis=-1).max(1)
        turning = np.linalg.norm(state.velocity[..., 3:], axis=-1).max(1)
        joined, scale = self.joined(state), self.config.rest_scale
        self.rest = np.where(joined & (speed < REST_SPEED * scale) & (turning < REST_TURN * scale), self.rest + 1, 0)
        low = state.position[..., 2].min(1) < self._observer.cell.table.height - 0.02
        far = (np.abs(state.position[..., :2]) > np.array(self._observer.cell.table.size) / 2).any((1, 2))
        flying = (state.position[..., 2].max(1) - self._observer.cell.table.height > 0.6) | (speed > 4.0)
        limit = self.config.max_contact * self.contact_scale
        collision = (state.arm_contact > limit) | (state.table_contact > limit).any(1)
        hopeless = late | self.config.give_up
        # Why an episode ran out of time, judged by the arm that is furthest behind.
        no_grasp = late & (unserved & ~self.ever_held).any(1)
        dropped = late & (unserved & ~self.held & self.ever_held).any(1)
        misaligned = late & ~whole
        choices = [
            (diverged, "diverged"),
            (flying, "flew_off"),
            (low | far, "pushed_off"),
            (collision, "collision"),
            (self.rest >= self._rest_steps, "success"),
            (hopeless & astray, "out_of_reach"),
            (hopeless & toppled, "toppled"),
            (no_grasp, "no_grasp"),
            (dropped, "dropped"),
            (misaligned, "misaligned"),
            (late, "time_out"),
        ]
        return np.select([c for c, _ in choices], [OUTCOMES.index(name) for _, name in choices], 0)
