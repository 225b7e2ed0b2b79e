"""From a policy's normalised actions to servo targets; the simulator and the robot run this very object.

Once a decision:  action in [-1, 1] -> new commanded target (integrated at once, kept near the measured joints)
Once a tick:      target as it was one transport delay ago -> interpolation -> speed and acceleration limits

The delay sits behind the integration: a policy that sees its commanded target can plan around a late transport, but one
whose actions are themselves held back overshoots.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from horseshoe.action_config import ActionConfig
from horseshoe.compiled import Shares, compiled
from horseshoe.errors import HorseshoeError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]
Kinematics = Callable[[Array], tuple[Array, Array]]
Gap = Callable[[Array], tuple[Array, Array]]

_TIP_INSET = 0.008  # of a fingertip's centre outside of half the opening [m]
# Balls of the hand that can touch the table first, as the guard sees them: fingertip, knuckle, both ends of the palm.
# How far beside the middle of the hand and behind the tool centre point, radius [m]; the tip is where the opening says.
_PARTS = np.array([(0.0, 0.012, 0.012), (0.055, 0.072, 0.012), (0.0, 0.097, 0.055), (0.0, 0.147, 0.055)])
_EASE = 8.0  # fastest approach to floor or other arm, per distance left [1/s]: a guard that looks ahead stays calm
_PASSES = 6  # at most, over the constraints of a tick
_LOOK = 5  # ticks between two measurements of those distances; to first order in between


class ActionPath:
    """Batched action path; on the robot n_envs is 1 and the delay 0, because the real transport has its own.

    Args:
        config: see `ActionConfig`.
        n_envs: environments side by side.
        n_arms: arms in each.
        kinematics: maps joints (..., 6) to the tool's pose (..., 4, 4) and geometric Jacobian (..., 6, 6) in the arm's
            base frame, for the floor and the tool speed limit.
        gap: maps joints (n, n_arms, 6) to the distances between the nearest parts of the arms [m] (n, k), nearest
            first, and their gradients (n, k, n_arms, 6), for the clearance.
        n_threads: that the environments are shared out among.
    """

    def __init__(
        self,
        config: ActionConfig,
        n_envs: int,
        n_arms: int,
        kinematics: Kinematics,
        gap: Gap | None = None,
        n_threads: int = 1,
    ) -> None:
        self.config, self.n_envs, self.n_arms, self._kinematics = config, n_envs, n_arms, kinematics
        if config.clearance and gap is None:
            raise HorseshoeError(f"clearance: is {config.clearance} m, but nothing here measures the arms' distance")
        self._gap = gap
        self._step = np.array(config.joint_step)
        self._low, self._high = np.array(config.joint_lower), np.array(config.joint_upper)
        self._shares = Shares(n_envs, n_threads)
        depth = 2 + int(np.ceil(config.max_delay * config.decision_rate)) + 1
        self._history = np.zeros((n_envs, depth, n_arms, 7))  # newest first
        self._delay = np.zeros(n_envs, dtype=np.intp)  # [ticks]
        self._sent = np.zeros((n_envs, n_arms, 6))
        self._velocity = np.zeros((n_envs, n_arms, 6))
        self.blocked: Array = np.zeros((n_envs, n_arms))
        self._spread = np.zeros((n_envs, n_arms))  # of a fingertip's centre from the middle of the hand [m]
        self._ramp = max(round(config.interpolation * config.ticks_per_decision), 1)

    @property
    def target(self) -> Array:
        """Commanded joints and opening, before the delay [rad, m], shape (n_envs, n_arms, 7)."""
        return self._history[:, 0]

    @property
    def delay(self) -> Array:
        """Transport delay of every environment [s], shape (n_envs,)."""
        return self._delay / self.config.tick_rate

    def reset(self, joints: ArrayLike, opening: ArrayLike, delay: ArrayLike = 0.0, mask: Mask | None = None) -> None:
        """Seed from measured joints, at rest.

        Args:
            joints: measured [rad], shape (k, n_arms, 6).
            opening: measured [m], shape (k, n_arms).
            delay: transport delay [s], shape (k,) or scalar.
            mask: environments to reset, shape (n_envs,), k of them True; all without it.

        Raises:
            HorseshoeError: delay beyond `max_delay`.
        """
        mask = np.ones(self.n_envs, dtype=bool) if mask is None else mask
        delay = np.asarray(delay, dtype=np.float64)
        if delay.size and (delay.min() < 0 or delay.max() > self.config.max_delay + 1e-9):
            raise HorseshoeError(f"delay: {delay.max():.3f} s is outside [0, {self.config.max_delay}] s (max_delay)")
        joints = np.asarray(joints, dtype=np.float64)
        self._history[mask] = np.concatenate([joints, np.asarray(opening)[..., None]], axis=-1)[:, None]
        self._delay[mask] = np.round(delay * self.config.tick_rate).astype(np.intp)
        self._sent[mask] = joints
        self._velocity[mask] = 0.0

    def decide(self, action: ArrayLike, measured: Array) -> None:
        """Take a decision: move the commanded target.

        Args:
            action: in [-1, 1], clipped to it, shape (n_envs, n_arms, 7).
            measured: joints now [rad], shape (n_envs, n_arms, 6).

        Raises:
            HorseshoeError: wrong shape, NaN or infinity; the path is left as it was.
        """
        wanted: Array = np.asarray(action, dtype=np.float64)
        if wanted.shape != self.target.shape:
            raise HorseshoeError(f"action: shape {wanted.shape}, expected {self.target.shape}")
        if not np.isfinite(wanted).all():
            raise HorseshoeError("action: contains NaN or infinity")
        self.blocked = np.empty_like(self.blocked)
        self._shares.run(partial(self._decide, np.clip(wanted, -1.0, 1.0), measured))

    def _decide(self, wanted: Array, measured: Array, share: slice) -> None:
        """What `decide` does, for some of the environments."""
        wanted, measured, history, spread = wanted[share], measured[share], self._history[share], self._spread[share]
        before = history[:, 0, :, :6]
        asked = before + wanted[..., :6] * self._step
        joints = np.clip(asked, measured - self.config.reach, measured + self.config.reach)
        closed, opened = self.config.gripper_range
        opening = closed + (wanted[..., 6:] + 1) / 2 * (opened - closed)
        # The hand is at most as wide as it was lately told to be.
        spread[:] = _TIP_INSET + np.maximum(history[..., 6].max(1), opening[..., 0]) / 2
        joints = self._above_floor(self._apart(np.clip(joints, self._low, self._high), before), spread)
        self.blocked[share] = np.linalg.norm((asked - joints) / self._step, axis=-1)
        history[:, 1:] = history[:, :-1]
        history[:, 0] = np.concatenate([joints, opening], axis=-1)

    def _apart(self, joints: Array, before: Array) -> Array:
        """Move targets (n, n_arms, 6) that bring the arms too close apart, by the least joint motion.

        Where that fails they become those `before`, likewise.
        """
        if not self.config.clearance or self._gap is None:
            return joints
        rows = np.arange(len(joints))
        for _ in range(4):  # Newton's method, on one pair of parts after the other
            gap, slope = self._gap(joints[rows])
            close = gap[:, 0] < self.config.clearance - 1e-4
            rows, lack, slope = rows[close], self.config.clearance - gap[close], slope[close]
            if not rows.size:
                return joints
            step = np.zeros_like(joints[rows])
            for k in range(lack.shape[1]):
                left = np.maximum(lack[:, k] - (slope[:, k] * step).sum((1, 2)), 0.0)
                step += (left / np.maximum((slope[:, k] ** 2).sum((1, 2)), 1e-3))[:, None, None] * slope[:, k]
            joints[rows] = np.clip(joints[rows] + step, self._low, self._high)
        # Wedged between several parts: they may come apart, but no closer than they are.
        before = before[rows]
        worse = self._gap(joints[rows])[0][:, 0] < np.minimum(self._gap(before)[0][:, 0], self.config.clearance)
        joints[rows[worse]] = before[worse]
        return joints

    def _above_floor(self, joints: Array, spread: Array) -> Array:
        """Lift targets (n, n_arms, 6) whose hand is below the floor, by the least joint motion; spread: (n, n_arms)."""
        rows = np.arange(len(joints))
        for _ in range(3):  # Newton's method
            height, slope, _ = self._above(joints[rows], spread[rows])
            low = (height < -1e-4).any(1)
            rows, height, slope = rows[low], height[low], slope[low]
            if not rows.size:
                break
            scale = np.maximum(-height, 0.0) / np.maximum((slope**2).sum(-1), 1e-6)
            joints[rows] = np.clip(joints[rows] + scale[..., None] * slope, self._low, self._high)
        return joints

    def _above(self, joints: Array, spread: Array) -> tuple[Array, Array, Array]:
        """Height of the hand's lowest part above the floor [m], its gradient, and the tool's Jacobian."""
        pose, jacobian = self._kinematics(joints)
        height, slope = np.empty(joints.shape[:-1]), np.empty(joints.shape)
        _lowest(pose, jacobian, spread, _PARTS, self.config.floor, height, slope)
        return height, slope, jacobian

    def decision(self, action: ArrayLike, measured: Array) -> Array:
        """`decide`, and what is sent in every servo tick until the next decision.

        Returns:
            Joints and opening of every tick [rad, m], shape (n_envs, n_ticks, n_arms, 7).
        """
        self.decide(action, measured)
        sent = np.empty((self.n_envs, self.config.ticks_per_decision, self.n_arms, 7))
        self._shares.run(partial(self._send, sent))
        return sent

    def _send(self, sent: Array, rows: slice) -> None:
        """Fill in what `decision` returns, for some of the environments."""
        cfg, spread = self.config, self._spread[rows]
        limits = float(cfg.max_speed), float(cfg.max_acceleration), float(cfg.max_tool_speed)
        bounds = self._low, self._high, limits, 1.0 / cfg.tick_rate
        history, delay, now, velocity = self._history[rows], self._delay[rows], self._sent[rows], self._velocity[rows]
        # Distances that the ticks keep an eye on, to first order: to the floor, between the arms.
        between, between_slope = np.zeros((len(now), 0)), np.zeros((len(now), 0, self.n_arms, 6))
        for first in range(0, cfg.ticks_per_decision, _LOOK):
            height, height_slope, jacobian = self._above(now, spread)
            if cfg.clearance and self._gap is not None:
                gap, between_slope = self._gap(now)
                between = gap - cfg.clearance
            watched = jacobian, height, height_slope, between, between_slope
            _advance(sent[rows], history, delay, first, self._ramp, now, velocity, *watched, *bounds)

    def snapshot(self) -> dict[str, Array]:
        """Everything `restore` needs to go on exactly from here."""
        return {
            "history": self._history.copy(),
            "delay": self._delay.astype(np.float64),
            "sent": self._sent.copy(),
            "velocity": self._velocity.copy(),
        }

    def restore(self, snapshot: dict[str, Array], rows: Index | slice = slice(None)) -> None:
        """Go back to a snapshot taken between two decisions, of the environments in rows."""
        self._history[rows], self._sent[rows] = snapshot["history"], snapshot["sent"]
        self._velocity[rows], self._delay[rows] = snapshot["velocity"], snapshot["delay"]


@compiled
def _dot(a: Array, b: Array) -> float:
    total = 0.0
    for i in range(a.size):
        total += a.flat[i] * b.flat[i]
    return total


@compiled
def _lowest(
    pose: Array, jacobian: Array, spread: Array, parts: Array, floor: float, height: Array, slope: Array
) -> None:
    """Fill in how high the lowest part of every hand is above the floor [m], (n, R), and its gradient, (n, R, 6).

    Args:
        pose: of the tools in their arms' base frames, (n, R, 4, 4).
        jacobian: of the tools, (n, R, 6, 6).
        spread: of a fingertip's centre from the middle of the hand [m], (n, R).
        parts: `_PARTS`.
        floor: z in the arms' base frames [m].
        height: to fill in.
        slope: to fill in.
    """
    for i in range(pose.shape[0]):
        for r in range(pose.shape[1]):
            tool, turn = pose[i, r], jacobian[i, r]
            lowest = np.inf
            for part in range(len(parts)):
                beside = spread[i, r] if part == 0 else parts[part, 0]
                beside *= -np.sign(tool[2, 1])  # on the lower side
                low = beside * tool[2, 1] - parts[part, 1] * tool[2, 2] - parts[part, 2]
                if low < lowest:
                    lowest = low
                    x = beside * tool[0, 1] - parts[part, 1] * tool[0, 2]
                    y = beside * tool[1, 1] - parts[part, 1] * tool[1, 2]
            height[i, r] = tool[2, 3] + lowest - floor
            for j in range(slope.shape[2]):
                slope[i, r, j] = turn[2, j] + turn[3, j] * y - turn[4, j] * x


@compiled
def _advance(
    out: Array, history: Array, delay: Index, first: int, ramp: int, sent: Array, velocity: Array, jacobian: Array,
    height: Array, height_slope: Array, between: Array, between_slope: Array,
    low: Array, high: Array, limits: tuple[float, float, float], dt: float,
) -> None:  # fmt: skip
    """The next ticks, `_LOOK` of them at most; all of what is sent and watched moves on in place.

    Args:
        out: what is sent in every tick of the decision [rad, m], to fill in from tick `first` on, (n, n_ticks, R, 7).
        history: commanded joints and opening, newest decision first [rad, m], (n, depth, R, 7).
        delay: of the transport [ticks], (n,).
        first: tick of the decision.
        ramp: ticks in which the target moves to its new value.
        sent: joint targets of the tick before [rad], (n, R, 6).
        velocity: of the tick before [rad/s], (n, R, 6).
        jacobian: of the tools, (n, R, 6, 6).
        height: of the hands above the floor [m], (n, R).
        height_slope: its gradient [m/rad], (n, R, 6).
        between: distances of the nearest parts of the arms, less the clearance [m], (n, K).
        between_slope: their gradients [m/rad], (n, K, R, 6).
        low: position limits [rad], (6,).
        high: position limits [rad], (6,).
        limits: of speed [rad/s], acceleration [rad/s^2] and tool speed [m/s].
        dt: of a tick [s].
    """
    n, ticks, arms, _ = out.shape
    speed = np.empty((arms, sent.shape[2]))
    for i in range(n):
        for tick in range(first, min(first + _LOOK, ticks)):
            # The ramp that reaches its far end now started `delay` ticks ago.
            now = tick + 1 - delay[i]
            back = -((now - 1) // ticks)  # decisions ago
            phase = min((now + back * ticks) / ramp, 1.0)
            new, old = history[i, back], history[i, back + 1]
            for r in range(arms):
                for j in range(sent.shape[2]):
                    error = old[r, j] + phase * (new[r, j] - old[r, j]) - sent[i, r, j]
                    # Fastest speed that still stops at the goal, then speed and acceleration limits.
                    brake = min(np.sqrt(2 * limits[1] * abs(error)), limits[0])
                    wanted, change = min(max(error / dt, -brake), brake), limits[1] * dt
                    speed[r, j] = min(max(wanted, velocity[i, r, j] - change), velocity[i, r, j] + change)
                square = 0.0
                for k in range(3):
                    square += _dot(jacobian[i, r, k], speed[r]) ** 2
                slow = min(1.0, limits[2] / max(np.sqrt(square), 1e-9))
                for j in range(sent.shape[2]):
                    speed[r, j] *= slow
            _ease(speed, sent[i], height[i], height_slope[i], between[i], between_slope[i], low, high, dt)
            for k in range(between.shape[1]):
                between[i, k] += _dot(between_slope[i, k], speed) * dt
            for r in range(arms):
                height[i, r] += _dot(height_slope[i, r], speed[r]) * dt
                for j in range(sent.shape[2]):
                    velocity[i, r, j] = speed[r, j]
                    sent[i, r, j] = min(max(sent[i, r, j] + speed[r, j] * dt, low[j]), high[j])
                    out[i, tick, r, j] = sent[i, r, j]
                out[i, tick, r, 6] = new[r, 6]


@compiled
def _ease(
    speed: Array, sent: Array, height: Array, height_slope: Array, between: Array, between_slope: Array,
    low: Array, high: Array, dt: float,
) -> None:  # fmt: skip
    """Take from joint speeds (R, 6) what brings an arm too fast towards the floor or the other arm.

    What is too close already moves apart, gently. One constraint after the other: what helps one may hurt another, or
    meet a limit. Arguments as those of `_advance`, of one environment.
    """
    for _ in range(_PASSES):
        kept = True
        for k in range(len(between)):
            kept &= _dot(between_slope[k], speed) >= -_EASE * max(between[k], -0.01) - 1e-3
        for r in range(len(height)):
            kept &= _dot(height_slope[r], speed[r]) >= -_EASE * max(height[r], -0.01) - 1e-3
        if kept:
            return
        for k in range(len(between)):
            slope = between_slope[k]
            lack = -_EASE * max(between[k], -0.01) - _dot(slope, speed)
            if lack > 0:
                lack /= max(_dot(slope, slope), 1e-3)
                for r in range(slope.shape[0]):
                    for j in range(slope.shape[1]):
                        speed[r, j] += lack * slope[r, j]
        for r in range(len(height)):
            up = height_slope[r]
            lift = max(-_EASE * max(height[r], -0.01) - _dot(up, speed[r]), 0.0) / max(_dot(up, up), 1e-3)
            for j in range(len(up)):
                wanted = speed[r, j] + lift * up[j]
                speed[r, j] = min(max(wanted, (low[j] - sent[r, j]) / dt), (high[j] - sent[r, j]) / dt)
