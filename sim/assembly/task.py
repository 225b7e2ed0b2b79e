"""The assembly task: named reward terms, success and failure, all judged from the true state of the world."""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horseshoe.compiled import compiled
from horseshoe.hardware import capsules
from horseshoe.hardware.homing import HOME
from horseshoe.sim.assembly import magnets
from horseshoe.sim.assembly.perception import true_scene
from horseshoe.sim.assembly.scene import GRASP_HEIGHT, Assignment, SceneObserver
from horseshoe.sim.assembly.world import WorldState

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

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
_HOME = np.array(HOME)
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


TERMS = tuple(f.name for f in fields(RewardScales))
(
    REACH, DOWN, PARALLEL, READY, HELD, PLACE, CARRIED, FIT, CONNECTED, PARTNER, RELEASE, RETREAT, LIFT, TEAM, ACTION,
    BLOCKED, CROWD, ARM_CONTACT, TABLE_CONTACT, PUSH, UPSET, SHOVE, SPEED,
) = range(len(TERMS))  # fmt: skip


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
        self._sizes = np.array([block.size for block in observer.blueprint.blocks])
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
        serves = assignment.pair >= 0
        pair = np.where(serves, assignment.pair, 0)
        goal, off = observer.goal_errors(scene, pair)
        gap = capsules.gaps_and_gradients(state.q, observer.cell.base_poses)[0][:, 0]
        terms, (whole, astray) = np.empty((len(TERMS), *pair.shape)), np.zeros((2, len(pair)), dtype=bool)
        unserved = np.empty(pair.shape, dtype=bool)
        # Of one layout, whatever the engine: `_judge` would be compiled for each.
        q, qd, opening, position, velocity, target = (
            np.ascontiguousarray(x) for x in (state.q, state.qd, state.opening, state.position, state.velocity, target)
        )
        _judge(
            q, qd, opening, position, velocity, state.arm_contact, state.table_contact,
            scene.rotation, observer.tool_poses(q), gap, target, action, blocked, serves, pair, goal,
            magnets.rotation_angle(off), self._latches.latched, bp.pairs, bp.magnet_block, bp.magnet_axis,
            self._sizes, _HOME, observer.base_positions, observer.cell.table.height, terms, self.held, whole, astray,
            unserved,
        )  # fmt: skip
        self.ever_held |= self.held
        toppled = np.asarray((np.abs(scene.rotation[:, :, 2, 2]) < TOPPLED).any(1))
        outcome = self._outcomes(state, whole, diverged, late, unserved, astray, toppled)
        return dict(zip(TERMS, terms, strict=True)), outcome

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


@compiled
def _unit(x: float) -> float:
    return min(max(x, 0.0), 1.0)


@compiled
def _length(v: Array) -> float:
    square = 0.0
    for k in range(len(v)):
        square += v[k] * v[k]
    return float(np.sqrt(square))


@compiled
def _judge(
    q: Array, qd: Array, opening: Array, position: Array, velocity: Array, arm_contact: Array, table_contact: Array,
    rotation: Array, tool: Array, gap: Array, target: Array, action: Array, blocked: Array, serves: Mask, pair: Index,
    goal: Array, turn: Array, latched: Mask, pairs: Index, magnet_block: Index, magnet_axis: Array, sizes: Array,
    home: Array, bases: Array, table: float, terms: Array, held: Mask, whole: Mask, astray: Mask, unserved: Mask,
) -> None:  # fmt: skip
    """Fill in the reward terms of every arm, and what is asked for outcomes.

    Args:
        q: and what follows to table_contact: as in `WorldState`.
        rotation: of the blocks, (n, B, 3, 3).
        tool: poses of the tool centre points, (n, R, 4, 4).
        gap: between the nearest parts of the arms [m], (n,).
        target: and what follows to blocked: as those of `Task.judge`.
        serves: which arms serve a pair, (n, R).
        pair: which one, 0 for none, (n, R).
        goal: translation of every served block still to go, world [m], (n, R, 3).
        turn: rotation still to go [rad], (n, R).
        latched: (n, P).
        pairs: and what follows to magnet_axis: as in `Blueprint`.
        sizes: of the blocks [m], (B, 3).
        home: joints of the resting arm [rad], (6,).
        bases: of the arms [m], (R, 3).
        table: height of the table [m].
        terms: to fill in, (TERMS, n, R).
        held: to fill in: which arms hold the block they serve, (n, R).
        whole: to fill in: where every connection is latched, (n,).
        astray: to fill in: where no hand gets to a block or to its place, (n,).
        unserved: to fill in: which arms have yet to join what they serve, (n, R).
    """
    n, arms = pair.shape
    done, connected = np.empty(1 + pairs[:, 0].max(), dtype=np.bool_), np.empty(arms, dtype=np.bool_)
    place, off, way, outward = np.empty(arms), np.empty(3), np.empty(3), np.empty(3)
    for i in range(n):
        for c in range(len(done)):
            done[c] = False
        for p in range(len(pairs)):
            done[pairs[p, 0]] |= latched[i, p]
        whole[i] = done.all()
        base = rotation[i, 0]
        height = position[i, 0, 2] - table - sizes[0, 2] / 2
        lifted = (max(height - 0.003, 0.0) + 0.1 * np.hypot(base[0, 2], base[1, 2])) / 0.04
        pushed = _length(velocity[i, 0, :3]) + 0.02 * _length(velocity[i, 0, 3:])  # the second: on its edge
        for r in range(arms):
            t, p = terms[:, i, r], pair[i, r]
            b, size = magnet_block[pairs[p, 2]], sizes[magnet_block[pairs[p, 2]]]
            connected[r] = serves[i, r] and done[pairs[p, 0]]
            free = serves[i, r] and not connected[r]
            unserved[i, r] = free
            hand, centre = tool[i, r], position[i, b]
            along = 0.0
            for k in range(3):
                off[k] = hand[k, 3] - centre[k]
                along += hand[k, 1] * rotation[i, b, k, 0]
            off[2] -= GRASP_HEIGHT
            along, down, distance = abs(along), -hand[2, 2], _length(off)
            # A hand that is askew or beside its block belongs above: further down it would push it away, or tip it.
            askew = _unit((1 - along**2 * _unit(down) ** 4 - 0.1) / 0.9)
            beside = _unit((_length(off[:2]) - 0.015) / 0.03)
            off[2] -= HOVER * max(askew, 0.7 * beside)
            above = _length(off)
            snug = abs(opening[i, r] - size[0]) < 0.006
            squeezed = target[i, r, 6] < size[0] - 0.002
            held[i, r] = serves[i, r] and distance < 0.025 and along > 0.85 and snug and squeezed
            hold = 1.0 if held[i, r] else 0.0
            # How far the block is from where it belongs on the way to its place. It turns before it comes to its
            # socket: the socket's block would be in its way there. And it is lifted unless it is in front of its
            # socket: along the table it would push the socket's block before it.
            socket = rotation[i, magnet_block[pairs[p, 1]]]
            axis = magnet_axis[pairs[p, 1]]
            ahead = 0.0
            for k in range(3):
                outward[k] = socket[k, 0] * axis[0] + socket[k, 1] * axis[1] + socket[k, 2] * axis[2]
                ahead -= goal[i, r, k] * outward[k]
            for k in range(3):
                way[k] = goal[i, r, k] + ahead * outward[k]
            aside = max((-ahead - 0.004) / 0.02, (_length(way[:2]) - 0.015 - 0.3 * max(ahead, 0.0)) / 0.04)
            high = _unit(-goal[i, r, 2] / 0.03)
            stand_off = max(STAND_OFF * _unit((turn[i, r] - 0.2) / 1.2), CLEAR * high)
            for k in range(3):
                way[k] = goal[i, r, k] + stand_off * outward[k]
            sunk = abs(way[2] + CARRY * _unit(aside))
            # Linear in distance: a long way pays for every centimetre, or the noise of the rest drowns it.
            near = 0.5 * _unit(1 - _length(way[:2]) / 0.6) + 0.5 * (1 - turn[i, r] / np.pi)
            place[r] = (0.3 + 0.7 * hold) * near if serves[i, r] else 0.0
            t[:] = 0.0
            if free:
                # Two scales: the first pulls from across the table, the second at the block.
                t[REACH] = 0.6 * (1 - np.tanh(2 * above)) + 0.4 * np.exp(-above / 0.05)
                t[DOWN] = _unit(down)
                t[PARALLEL] = along**2
                # A hand should be open on its way and close at the block; neither end of the range earns more than it
                # must, or the gripper's command saturates there and exploration never closes (or opens) it again.
                # Arriving with an open hand costs nothing: a dip there would keep the hand hovering above the block.
                at_block = np.exp(-((above / 0.015) ** 2)) * along**2
                closed, wide = 1 - _unit((opening[i, r] - size[0]) / 0.04), _unit(opening[i, r] / 0.06)
                t[READY] = at_block * (1 + closed) + (1 - at_block) * wide
                t[HELD], t[PLACE], t[CARRIED] = hold, place[r], hold * _unit(1 - sunk / CARRY)
                t[FIT] = hold * np.exp(-_length(goal[i, r]) / 0.03) * np.exp(-turn[i, r] / 0.3)
                if not held[i, r]:
                    t[SHOVE] = min(_length(velocity[i, b, :2]) / 0.1, 1.0)
            if connected[r]:
                t[CONNECTED] = 1.0
                # Two arms that go on holding one structure tear at it. What is commanded counts: a hand that is far
                # from opening has to learn the direction first.
                t[RELEASE] = _unit(target[i, r, 6] / 0.06)
                # Then it makes room, two hands at one structure are in each other's way, and goes home.
                t[RETREAT] = _unit(distance / 0.2) * (1 - 0.6 * _unit(_length(q[i, r] - home) / 4))
                # What is joined stays flat on the table, where the other arm can join to it.
                t[LIFT] = min(lifted, 1.0)
            elif _length(hand[:3, 3] - position[i, 0]) < 0.22:
                t[PUSH] = min(pushed / 0.1, 5.0)
            t[TEAM] = 1.0 if whole[i] else 0.0
            t[ACTION] = _length(action[i, r]) ** 2 / action.shape[2]
            # A hand that is told into the table never rises by exploring: what it is told has to matter.
            t[BLOCKED] = blocked[i, r]
            t[CROWD] = _unit((0.06 - gap[i]) / 0.035)
            t[ARM_CONTACT], t[TABLE_CONTACT] = min(arm_contact[i] / 20.0, 1.0), min(table_contact[i, r] / 20.0, 1.0)
            t[UPSET] = 1.0 - abs(base[2, 2])  # a base on its side has its sockets where no leg can come
            for j in range(qd.shape[2]):
                if abs(qd[i, r, j]) > 1.5:
                    t[SPEED] = 1.0
            away = np.hypot(centre[0] - bases[r, 0], centre[1] - bases[r, 1])
            goal_away = np.hypot(centre[0] + goal[i, r, 0] - bases[r, 0], centre[1] + goal[i, r, 1] - bases[r, 1])
            lost = not held[i, r] and (away > ASTRAY or away < TOO_NEAR)
            astray[i] |= free and (lost or goal_away > ASTRAY)
        for r in range(arms):
            # Whoever is connected holds the structure, and gains by how close the other one's goal is: it brings it.
            if connected[r]:
                terms[PARTNER, i, r] = 1.0 if connected[r - 1] else place[r - 1]
