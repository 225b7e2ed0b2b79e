import numpy as np
import pytest
import warp as wp

from horseshoe.errors import ConfigurationError, HorseshoeError
from horseshoe.sim.push.config import MATERIALS, Material, PushConfig
from horseshoe.sim.push.world import PushWorld

CONFIG = PushConfig()
MIDDLE = CONFIG.side / 2


@wp.kernel
def weighted(x: wp.array3d(dtype=wp.vec2), w: wp.array3d(dtype=wp.vec2), out: wp.array(dtype=wp.float64)):
    t, s, p = wp.tid()
    wp.atomic_add(out, 0, wp.float64(wp.dot(x[t, s, p], w[t, s, p])))


def ring(robots: int, radius: float, turn: float = 0.0) -> np.ndarray:
    angle = np.arange(robots) / robots * 2 * np.pi + turn
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1) * radius + MIDDLE


def squares(scenes: int, particles: int, seed: int = 0, side: float = 0.12) -> np.ndarray:
    return MIDDLE + side * (np.random.default_rng(seed).random((scenes, particles, 2)) - 0.5)


def scene_world(steps: int, scenes: int = 2, robots: int = 3, particles: int = 120, seed: int = 0, **options):
    """A square (box material, then rope) with robots around it that drive inwards."""
    world = PushWorld(CONFIG, scenes, particles, robots, steps, **options)
    turn = np.random.default_rng(seed).random()
    around = np.repeat(ring(robots, 0.12, turn)[None], scenes, 0)
    materials = [MATERIALS["box"], MATERIALS["rope"]] * scenes
    world.reset(squares(scenes, particles, seed), around, [0.12**2] * scenes, materials[:scenes])
    inward = -(around - MIDDLE) / 0.12
    rng = np.random.default_rng(seed)
    return world, (0.6 * inward + rng.uniform(-0.25, 0.25, (steps, scenes, robots, 2))).astype(np.float32)


def vec2(array: np.ndarray, **options) -> wp.array:
    return wp.array(array.astype(np.float32), dtype=wp.vec2, **options)


def gradient(world: PushWorld, actions: np.ndarray, weights: wp.array) -> tuple[float, np.ndarray]:
    given = vec2(actions, requires_grad=True)
    out = wp.zeros(1, dtype=wp.float64, requires_grad=True)
    with wp.Tape() as tape:
        world.rollout(given, tape)
        wp.launch(weighted, world.particles.shape, [world.particles, weights, out])
    tape.backward(out)
    slope = given.grad.numpy().astype(float)
    tape.zero()
    return float(out.numpy()[0]), slope


def value(world: PushWorld, actions: np.ndarray, weights: np.ndarray) -> float:
    world.rollout(vec2(actions))
    return float((world.particles.numpy().astype(float) * weights).sum())


def assert_slope(slope: np.ndarray, world: PushWorld, actions: np.ndarray, weights: np.ndarray, rng) -> None:
    """Central differences along three random directions are what the gradient says, to 1 %."""
    for _ in range(3):
        direction = rng.normal(size=actions.shape)
        ahead = value(world, actions + 1e-3 * direction, weights)
        back = value(world, actions - 1e-3 * direction, weights)
        assert (ahead - back) / 2e-3 == pytest.approx((slope * direction).sum(), abs=0.01 * np.linalg.norm(slope))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_gradients_agree_with_finite_differences_through_contact(seed):
    world, actions = scene_world(steps=5, seed=seed)
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(6, 2, 1, 2)) + 0.3 * rng.normal(size=(6, 2, 120, 2))
    _, slope = gradient(world, actions, vec2(weights))
    assert np.abs(world.particles.numpy()[-1] - world.particles.numpy()[0]).max() > 0.01  # the object was pushed
    assert_slope(slope, world, actions, weights, rng)


def test_gradients_agree_with_finite_differences_where_an_object_is_pressed_into_a_corner():
    world = PushWorld(CONFIG, 1, 120, 2, 5)
    corner = CONFIG.low + 0.06
    body = squares(1, 120) - MIDDLE + corner
    world.reset(body, np.array([[[corner + 0.12, corner], [corner, corner + 0.12]]]), [0.12**2], [MATERIALS["box"]])
    rng = np.random.default_rng(0)
    actions = np.array([[[-0.7, -0.1], [0.1, -0.7]]]) + rng.uniform(-0.1, 0.1, (5, 1, 2, 2))
    weights = rng.normal(size=(6, 1, 1, 2)) + 0.3 * rng.normal(size=(6, 1, 120, 2))
    _, slope = gradient(world, actions, vec2(weights))
    at = world.particles.numpy()[:, 0]
    free = PushWorld(CONFIG, 1, 120, 2, 5)
    free.reset(body + 0.3, world.robots.numpy()[0] + 0.3, [0.12**2], [MATERIALS["box"]])
    free.rollout(vec2(actions))
    assert np.abs(at - (free.particles.numpy()[:, 0] - 0.3)).max() > 0.005  # the walls held it
    assert_slope(slope, world, actions, weights, rng)


def test_gradients_do_not_depend_on_how_much_is_recomputed():
    weights = vec2(np.random.default_rng(0).normal(size=(7, 2, 120, 2)))
    world, actions = scene_world(steps=6)
    everything = gradient(world, actions, weights)
    world, _ = scene_world(steps=6, memory=0.0)  # a single block
    recomputed = gradient(world, actions, weights)
    assert everything[0] == recomputed[0]
    np.testing.assert_array_equal(everything[1], recomputed[1])


def test_the_kernels_for_cuda_compute_the_same_as_the_fused_ones():
    weights = vec2(np.random.default_rng(0).normal(size=(3, 2, 120, 2)))
    world, actions = scene_world(steps=2)
    staged, _ = scene_world(steps=2, fused=False)
    a, b = gradient(world, actions, weights), gradient(staged, actions, weights)
    np.testing.assert_allclose(world.particles.numpy(), staged.particles.numpy(), atol=1e-6)
    np.testing.assert_allclose(a[1], b[1], atol=1e-3 * np.abs(a[1]).max())


def test_a_scene_moves_the_same_alone_and_in_a_batch():
    world, actions = scene_world(steps=4, scenes=2)
    world.rollout(vec2(actions))
    alone = PushWorld(CONFIG, 1, 120, 3, 4)
    start = world.particles.numpy()[0, 1:], world.robots.numpy()[0, 1:]
    alone.reset(*start, [0.12**2], [MATERIALS["rope"]])
    alone.rollout(vec2(actions[:, 1:]))
    np.testing.assert_array_equal(alone.particles.numpy()[:, 0], world.particles.numpy()[:, 1])


def test_carrying_on_step_by_step_is_the_same_as_one_rollout():
    world, actions = scene_world(steps=3)
    world.rollout(vec2(actions))
    single, _ = scene_world(steps=1)
    for action in actions:
        single.rollout(vec2(action[None]))
        single.carry()
    np.testing.assert_array_equal(single.particles.numpy()[0], world.particles.numpy()[3])
    np.testing.assert_array_equal(single.robots.numpy()[0], world.robots.numpy()[3])


def test_twelve_robots_sent_to_one_place_do_not_pass_through_each_other():
    world = PushWorld(CONFIG, 1, 10, 12, 40)
    start = ring(12, 0.4)[None]
    world.reset(np.full((1, 10, 2), 0.1) + 0.001 * np.arange(10)[:, None], start, [1e-3], [MATERIALS["box"]])
    actions = np.repeat((MIDDLE - start) / 0.4, 40, axis=0)[:, None]
    world.rollout(vec2(actions))
    at = world.robots.numpy()[:, 0]
    gaps = np.linalg.norm(at[:, :, None] - at[:, None], axis=-1) + np.eye(12)
    assert gaps.min() > 0.95 * 2 * CONFIG.robot_radius
    assert np.linalg.norm(at[-1] - MIDDLE, axis=-1).max() < 0.25  # they did meet


def test_robots_keep_to_their_top_speed_and_inside_the_walls():
    world = PushWorld(CONFIG, 1, 10, 2, 60)
    start = np.array([[[0.3, 0.3], [1.0, 1.0]]])
    world.reset(np.full((1, 10, 2), 0.64) + 0.001 * np.arange(10)[:, None], start, [1e-3], [MATERIALS["box"]])
    world.rollout(vec2(np.tile([[-3.0, 0.0], [3.0, 3.0]], (60, 1, 1, 1))))
    assert np.linalg.norm(world.sent.numpy(), axis=-1).max() <= CONFIG.robot_speed * 1.0001
    at = world.robots.numpy()
    assert at.min() > CONFIG.low + CONFIG.robot_radius - 1e-4
    assert at.max() < CONFIG.high - CONFIG.robot_radius + 1e-4
    assert at[-1, 0, 0, 0] == pytest.approx(CONFIG.low + CONFIG.robot_radius, abs=1e-3)


def test_friction_stops_an_object_and_a_current_moves_it():
    world, _ = scene_world(steps=1)
    rest = vec2(np.zeros((1, 2, 3, 2)))
    start = world.particles.numpy()[0].mean(1)
    world.set_current([[0.0, 0.0], [0.0, 8.0]])
    for _ in range(3):
        world.rollout(rest)
        world.carry()
    moved = world.particles.numpy()[0].mean(1) - start
    assert np.linalg.norm(moved[0]) < 1e-3
    assert moved[1, 1] > 0.01
    world.set_current([[0.0, 0.0], [0.0, 0.0]])
    for _ in range(10):
        world.rollout(rest)
        before = world.particles.numpy()[0].mean(1)
        world.carry()
    assert np.linalg.norm(world.particles.numpy()[0].mean(1) - before) < 2e-3


def test_a_plastic_object_keeps_a_dent_that_an_elastic_one_loses():
    soft = {"shear": 4.0, "bulk": 8.0}
    world = PushWorld(CONFIG, 2, 200, 2, 30)
    robots = np.repeat([[[MIDDLE - 0.11, MIDDLE], [MIDDLE + 0.11, MIDDLE]]], 2, axis=0)
    materials = [Material(yield_strain=1.5, **soft), Material(yield_strain=0.02, **soft)]
    world.reset(np.repeat(squares(1, 200), 2, axis=0), robots, [0.12**2] * 2, materials)
    squeeze, release = [[0.4, 0.0], [-0.4, 0.0]], [[-0.6, 0.0], [0.6, 0.0]]
    world.rollout(vec2(np.array([squeeze] * 4 + [release] * 26)[:, None].repeat(2, axis=1)))
    at = world.particles.numpy()
    between = np.abs(at[0, 0, :, 1] - MIDDLE) < 0.02  # the robots
    width = np.ptp(at[:, :, between, 0], axis=-1)
    assert (width[4] < 0.93 * width[0]).all()  # both were squeezed
    assert width[-1, 0] > width[-1, 1] + 0.004


def test_an_exploding_scene_is_reported_and_stays_finite():
    world, actions = scene_world(steps=2)
    world.set_current([[0.0, 0.0], [1e7, 0.0]])
    world.rollout(vec2(actions))
    assert world.exploded.tolist() == [False, True]
    assert np.isfinite(world.particles.numpy()).all()


def test_a_physics_step_too_long_for_the_material_is_refused():
    world = PushWorld(CONFIG, 1, 4, 1)
    with pytest.raises(ConfigurationError, match=r"dt: 0\.0025 s is too long for waves of 20\.0 m/s: at most"):
        world.reset(np.full((1, 4, 2), 0.6), [[[0.3, 0.3]]], [1e-3], [Material(shear=200.0, bulk=200.0)])


def test_bad_starts_are_refused_by_name():
    world = PushWorld(CONFIG, 1, 4, 2)
    inside, apart = np.full((1, 4, 2), 0.6), np.array([[[0.3, 0.3], [0.9, 0.9]]])
    box = [MATERIALS["box"]]
    with pytest.raises(HorseshoeError, match=r"robots 1 and 2 overlap at the start: 0\.010 m apart"):
        world.reset(inside, [[[0.3, 0.3], [0.31, 0.3]]], [1e-3], box)
    with pytest.raises(HorseshoeError, match=r"particles: \(1\.300, 0\.600\) m is outside the arena"):
        world.reset(inside + [0.7, 0.0], apart, [1e-3], box)
    with pytest.raises(HorseshoeError, match="particles"):
        world.reset(inside * np.nan, apart, [1e-3], box)
    for count in (0, 13):
        with pytest.raises(HorseshoeError, match=rf"robots: {count} is outside \[1, 12\]"):
            PushWorld(CONFIG, 1, 4, count)
