"""The planner: a first plan by geometry, then gradient descent on the robots' velocities through the world."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from horseshoe.errors import HorseshoeError
from horseshoe.sim.push.config import PushConfig
from horseshoe.sim.push.scenes import Scene
from horseshoe.sim.push.shapes import SUCCESS, incremental_iou, occupancy
from horseshoe.sim.push.warm_start import VARIETY, paired_goal, warm_start

Array = NDArray[np.float64]

AHEAD = 45  # decisions that `improve` looks ahead


@dataclass(frozen=True)
class PlannerConfig:
    """Settings of the planner.

    Attributes:
        iterations: gradient steps in all; half of them over all restarts, the rest for the best plan of a goal that
            none of these reached.
        patience: gradient steps without better result before the next restart.
        candidates: first plans tried per restart; the best one is improved.
        restarts: how often to begin anew while the goal is not reached.
        good_enough: incremental IoU at which to stop.
        rate: step size of Adam, in shares of the top speed.
        cages: of the first plans, taken in turn; see `warm_start.choose_slots`.
        variety: of the first plans; see there.
        nearby: how little the first plans make robots walk [1/m]; see there.
    """

    iterations: int = field(default=120, metadata={"range": (0, 10000)})
    patience: int = field(default=15, metadata={"range": (1, 10000)})
    candidates: int = field(default=6, metadata={"range": (1, 64)})
    restarts: int = field(default=3, metadata={"range": (1, 100)})
    good_enough: float = field(default=0.97, metadata={"range": (0.0, 1.0)})
    rate: float = field(default=0.05, metadata={"range": (1e-4, 1.0)})
    cages: tuple[float, ...] = field(default=(0.5, 0.1, 0.3), metadata={"range": (0.0, 1.0)})
    variety: float = field(default=VARIETY, metadata={"range": (0.0, 1.0)})
    nearby: float = field(default=0.0, metadata={"range": (0.0, 100.0)})


def receding(robots: int, iterations: int = 0) -> PlannerConfig:
    """Settings for planning anew on the way: one plan without chance, so that equal states get equal answers.

    Many robots keep their places around the object; few ones must walk to where they are needed.
    """
    nearby = 3.0 if robots > 4 else 0.0
    return PlannerConfig(
        iterations, candidates=1, restarts=1, good_enough=0.9, cages=(0.1,), variety=0.0, nearby=nearby
    )


@dataclass(frozen=True)
class Plan:
    """What the planner found for a scene.

    Attributes:
        actions: wanted velocities over the top speed, shape (steps, n_robots, 2).
        particles: the object at every decision [m], shape (steps + 1, n, 2).
        robots: the robots at every decision [m], shape (steps + 1, n_robots, 2).
        score: incremental IoU reached.
        history: best incremental IoU after every gradient step.
        seconds: time it took.
    """

    actions: Array
    particles: Array
    robots: Array
    score: float
    history: list[float]
    seconds: float

    @property
    def success(self) -> bool:
        """Whether the goal counts as reached."""
        return self.score > SUCCESS


def simulate(scene: Scene, actions: Array, config: PushConfig) -> tuple[Array, Array]:
    """Run several action sequences from the start of a scene.

    Args:
        scene: the task.
        actions: shape (k, steps, n_robots, 2).
        config: the world.

    Returns:
        Particles (k, steps + 1, n, 2) and robots (k, steps + 1, n_robots, 2) [m]; NaN where a scene exploded.
    """
    from horseshoe.sim.push.world import PushWorld

    k, steps, robots = actions.shape[:3]
    world = PushWorld(config, k, len(scene.start), robots, steps)
    world.reset(
        np.repeat(scene.start[None], k, 0), np.repeat(scene.robots[None], k, 0), [scene.area] * k, [scene.material] * k
    )
    world.rollout(world.vectors(actions.swapaxes(0, 1)))
    particles = world.particles.numpy().swapaxes(0, 1).astype(float)
    particles[world.exploded] = np.nan
    return particles, world.robots.numpy().swapaxes(0, 1).astype(float)


def plan(
    scene: Scene,
    config: PushConfig,
    settings: PlannerConfig | None = None,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Plan:
    """Find actions that bring the object to its goal; the same for the same arguments.

    Args:
        scene: the task.
        config: the world.
        settings: of the planner.
        seed: of the first plans.
        progress: called after every gradient step with the steps done and the best score.
    """
    settings = settings or PlannerConfig()
    began = time.perf_counter()
    goal = paired_goal(scene)
    score = _scorer(scene, config)
    rng = np.random.default_rng(seed)
    best: Plan | None = None
    history: list[float] = []
    several = replace(settings, iterations=(settings.iterations + 1) // 2)
    for _ in range(settings.restarts):
        first = _candidates(scene, goal, config, settings, rng)
        particles, robots = simulate(scene, first, config)
        error = np.nan_to_num(((particles[:, -1] - goal) ** 2).sum(-1).mean(-1), nan=np.inf)
        scores = score(np.nan_to_num(particles[:, -1], nan=config.side / 2))
        k = int(np.argmin(error))
        found = Plan(first[k], particles[k], robots[k], float(scores[k]), history, 0.0)
        found = _descend(scene, goal, config, several, found, score, progress)
        best = found if best is None or found.score > best.score else best
        if best.score >= settings.good_enough or len(history) >= several.iterations:
            break
    assert best is not None
    if best.score <= SUCCESS and len(history) < settings.iterations:
        # Bending takes a long descent, in which the score rises late.
        patient = replace(settings, patience=settings.iterations)
        best = _descend(scene, goal, config, patient, best, score, progress)
    return replace(best, seconds=time.perf_counter() - began)


def improve(scene: Scene, config: PushConfig, iterations: int) -> Plan:
    """What the law of feedback would do in the next `AHEAD` decisions, made better by gradients.

    Equal states get equal answers: the law has no clock, and the gradients no chance. This bends ropes more often than
    the law alone.

    Args:
        scene: the task from here on.
        config: the world.
        iterations: gradient steps.

    Raises:
        Exploded: if the object explodes.
    """
    found = replace(follow(scene, config, AHEAD), history=[])
    settings = PlannerConfig(iterations, patience=max(iterations, 1))
    return _descend(scene, paired_goal(scene), config, settings, found, _scorer(scene, config), None)


class Exploded(HorseshoeError):
    """The simulated object exploded while something was carried out."""


def replan(
    scene: Scene,
    config: PushConfig,
    settings: PlannerConfig,
    seed: int,
    every: int,
    rounds: int = 8,
    progress: Callable[[int, float], None] | None = None,
    feedback: bool = False,
) -> Plan:
    """Receding horizon: plan, act for some decisions, look where the object went, plan anew.

    Args:
        scene: the task.
        config: the world.
        settings: of each planning round.
        seed: of the first plans; with `feedback` there is no chance.
        every: decisions taken between plans.
        rounds: most planning rounds.
        progress: called after every round with the rounds done and the score.
        feedback: plan by `improve`, with the gradient steps of `settings`.

    Raises:
        HorseshoeError: if `every` is below 1.
        Exploded: if the object explodes.
    """
    from horseshoe.sim.push.world import PushWorld

    if every < 1:
        raise HorseshoeError(f"horizon: {every} decisions; at least 1 is needed")
    began = time.perf_counter()
    goal = paired_goal(scene)
    world = PushWorld(config, 1, len(scene.start), len(scene.robots), every)
    world.reset(scene.start[None], scene.robots[None], [scene.area], [scene.material])
    score = _scorer(scene, config)
    body, robots, actions, history = [scene.start[None]], [scene.robots[None]], [], []
    now = replace(scene, goal=goal, paired=True)
    for _ in range(rounds):
        found = improve(now, config, settings.iterations) if feedback else plan(now, config, settings, seed)
        ahead = found.actions
        rest = np.zeros((max(0, every - len(ahead)), *ahead.shape[1:]))
        taken = np.concatenate([ahead[:every], rest])
        world.rollout(world.vectors(taken[:, None]))
        if world.exploded[0]:
            raise Exploded(f"{scene.name}: the simulated object exploded while a plan was carried out")
        actions.append(taken)
        body.append(world.particles.numpy()[1:, 0].astype(float))
        robots.append(world.robots.numpy()[1:, 0].astype(float))
        world.carry()
        now = replace(now, start=body[-1][-1], robots=robots[-1][-1])
        history.append(float(score(now.start)))
        if progress is not None:
            progress(len(history), history[-1])
        if history[-1] >= settings.good_enough:
            break
    seconds = time.perf_counter() - began
    return Plan(np.concatenate(actions), np.concatenate(body), np.concatenate(robots), history[-1], history, seconds)


def follow(scene: Scene, config: PushConfig, decisions: int) -> Plan:
    """Let the law of feedback (`steer.py`) act.

    Args:
        scene: the task.
        config: the world.
        decisions: how many; the actions found are those that it asked for.

    Raises:
        Exploded: if the object explodes.
    """
    from horseshoe.sim.push.steer import steer
    from horseshoe.sim.push.world import PushWorld

    began = time.perf_counter()
    goal = paired_goal(scene)
    world = PushWorld(config, 1, len(scene.start), len(scene.robots))
    world.reset(scene.start[None], scene.robots[None], [scene.area], [scene.material])
    score = _scorer(scene, config)
    body, robots, actions = [scene.start], [scene.robots], []
    for _ in range(decisions):
        actions.append(steer(body[-1], goal, robots[-1], config))
        world.rollout(world.vectors(actions[-1][None, None]))
        world.carry()
        body.append(world.particles.numpy()[0, 0].astype(float))
        robots.append(world.robots.numpy()[0, 0].astype(float))
    if world.exploded[0]:
        raise Exploded(f"{scene.name}: the simulated object exploded under the law of feedback")
    reached = float(score(body[-1]))
    return Plan(np.array(actions), np.array(body), np.array(robots), reached, [reached], time.perf_counter() - began)


def first_plan(scene: Scene, config: PushConfig, settings: PlannerConfig) -> Array:
    """A plan by geometry alone, not simulated: velocities over the top speed, shape (steps, n_robots, 2)."""
    goal = paired_goal(scene)
    return _candidates(scene, goal, config, replace(settings, candidates=1), np.random.default_rng(0))[0]


def _scorer(scene: Scene, config: PushConfig) -> Callable[[Array], Array]:
    """Incremental IoU of particles (..., n, 2), 0 where they exploded."""
    before, wanted = (occupancy(x, scene.area, config) for x in (scene.start, scene.goal))

    def score(particles: Array) -> Array:
        value = incremental_iou(occupancy(particles, scene.area, config), before, wanted)
        return np.where(np.isfinite(particles).all((-2, -1)), value, 0.0)

    return score


def _candidates(
    scene: Scene, goal: Array, config: PushConfig, settings: PlannerConfig, rng: np.random.Generator
) -> Array:
    """First plans, padded with rest to the longest, shape (candidates, steps, n_robots, 2)."""
    cages = [settings.cages[k % len(settings.cages)] for k in range(settings.candidates)]
    plans = [warm_start(scene, goal, config, cage, rng, settings.variety, settings.nearby) for cage in cages]
    longest = max(len(p) for p in plans)
    return np.stack([np.concatenate([p, np.zeros((longest - len(p), *p.shape[1:]))]) for p in plans])


def _descend(
    scene: Scene,
    goal: Array,
    config: PushConfig,
    settings: PlannerConfig,
    best: Plan,
    score: Callable[[Array], Array],
    progress: Callable[[int, float], None] | None,
) -> Plan:
    """Adam on the actions of a plan, while it gets better."""
    import warp as wp

    from horseshoe.sim.push.loss import Loss
    from horseshoe.sim.push.world import PushWorld

    steps, robots = best.actions.shape[:2]
    world = PushWorld(config, 1, len(scene.start), robots, steps)
    world.reset(scene.start[None], scene.robots[None], [scene.area], [scene.material])
    loss = Loss(world, goal[None], scene.area)
    actions = world.vectors(best.actions[:, None], requires_grad=True)
    value = best.actions.copy()
    mean, square, k = np.zeros_like(value), np.zeros_like(value), 0
    rate, lowest, anchor, worse, since = settings.rate, np.inf, value, 0, 0
    while len(best.history) < settings.iterations:
        if best.score >= settings.good_enough or since >= settings.patience:
            break
        with wp.Tape() as tape:
            world.rollout(actions, tape)
            total = loss()
        particles = world.particles.numpy()[:, 0].astype(float)
        exploded = bool(world.exploded[0])
        if exploded:  # the mark stays until a reset
            world.reset(scene.start[None], scene.robots[None], [scene.area], [scene.material])
        reached = 0.0 if exploded else float(score(particles[-1]))
        since += 1
        if reached > best.score:
            since = 0 if reached > best.score + 0.003 else since
            robots_at = world.robots.numpy()[:, 0].astype(float)
            best = replace(best, actions=value.copy(), particles=particles, robots=robots_at, score=reached)
        best.history.append(best.score)
        if progress is not None:
            progress(len(best.history), best.score)
        if exploded or total.numpy()[0] > lowest:
            worse += 1
        else:
            lowest, anchor, worse = float(total.numpy()[0]), value.copy(), 0
        if worse == 5:  # too bold: back to the best and on with smaller steps
            value, mean, square, k, worse, rate = anchor, np.zeros_like(value), np.zeros_like(value), 0, 0, rate / 2
            actions.assign(value[:, None].astype(np.float32))
            continue
        k += 1
        tape.backward(grads={total: wp.ones_like(total)})
        slope = np.nan_to_num(actions.grad.numpy()[:, 0].astype(float))
        tape.zero()
        slope /= max(1e-12, np.sqrt((slope**2).mean()))  # so that the units of the loss do not matter to Adam
        mean, square = 0.8 * mean + 0.2 * slope, 0.95 * square + 0.05 * slope**2
        # a large epsilon: what hardly matters shall hardly change
        value = value - rate * (mean / (1 - 0.8**k)) / (np.sqrt(square / (1 - 0.95**k)) + 0.3)
        value = np.clip(value, -1.2, 1.2)
        actions.assign(value[:, None].astype(np.float32))
    return best
