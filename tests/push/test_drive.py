"""Differential-drive robots: wheels with limits, and the Twist that follows a velocity."""

import numpy as np
import pytest

from horseshoe.errors import HorseshoeError
from horseshoe.sim.push.drive import TICK, DriveConfig, Drives, to_twist, velocities, wheels

CONFIG = DriveConfig()
PERIOD = 0.05  # [s]


def follow(velocity: np.ndarray, heading: float, config: DriveConfig, decisions: int = 40) -> tuple[np.ndarray, ...]:
    """Ask one robot for the same velocity again and again; ways (n, 2) [m] and headings (n,) [rad]."""
    drives, ways, headings = Drives(config, 1), [], []
    drives.reset([heading])
    for _ in range(decisions):
        linear, angular = to_twist(velocity, drives.heading[0], PERIOD, config)
        drives.command(0, float(linear), float(angular))
        ways.append(drives.advance(PERIOD)[0])
        headings.append(drives.heading[0])
    return np.array(ways), np.array(headings)


def test_wheels_react_late_and_no_faster_than_they_can() -> None:
    drives = Drives(CONFIG, 2)
    drives.command(0, 0.4, 0.0)
    drives.advance(CONFIG.latency)
    assert (drives.wheel == 0.0).all()
    drives.advance(5 * TICK)
    np.testing.assert_allclose(drives.wheel[0], 5 * TICK * CONFIG.acceleration)
    drives.advance(0.2)
    np.testing.assert_allclose(drives.wheel, [[0.4, 0.4], [0.0, 0.0]])


def test_a_twist_beyond_the_wheels_is_driven_slower_along_the_same_arc() -> None:
    linear, angular = velocities(wheels(1.0, 20.0, CONFIG), CONFIG)
    assert linear / angular == pytest.approx(1.0 / 20.0)
    assert np.abs(wheels(1.0, 20.0, CONFIG)).max() == pytest.approx(CONFIG.speed)


def test_a_robot_that_hears_nothing_more_brakes() -> None:
    drives = Drives(CONFIG, 1)
    drives.command(0, 0.3, 1.0)
    drives.advance(0.3)
    assert velocities(drives.wheel, CONFIG)[0] == pytest.approx(0.3)
    drives.advance(CONFIG.timeout + 0.2)
    assert (drives.wheel == 0.0).all()


@pytest.mark.parametrize("bad", [(np.nan, 0.0), (0.0, np.inf)])
def test_a_command_that_is_no_number_is_refused_and_the_one_before_stays(bad: tuple[float, float]) -> None:
    drives = Drives(CONFIG, 3)
    drives.command(2, 0.2, 0.0)
    with pytest.raises(HorseshoeError, match="cmd_vel of robot 3"):
        drives.command(2, *bad)
    drives.advance(0.3)
    np.testing.assert_allclose(drives.wheel[2], 0.2)


def test_turning_on_the_spot_goes_nowhere_and_a_circle_closes() -> None:
    drives = Drives(DriveConfig(latency=0.0, acceleration=50.0, timeout=5.0), 2)
    drives.command(0, 0.0, 3.0)
    drives.command(1, 0.2, 2 * np.pi)
    way = np.sum([drives.advance(PERIOD) for _ in range(20)], axis=0)
    np.testing.assert_allclose(way[0], 0.0, atol=1e-12)
    assert np.linalg.norm(way[1]) < 0.005  # a circle of 0.2 m circumference, but for the run-up


@pytest.mark.parametrize("course", np.radians([0, 40, 80, 120, 179, -60, -100]))
@pytest.mark.parametrize("speed", [0.1, 0.4])
def test_a_robot_follows_a_velocity_in_any_direction(course: float, speed: float) -> None:
    wanted = speed * np.array([np.cos(course), np.sin(course)])
    ways, headings = follow(wanted, 0.5, CONFIG)
    np.testing.assert_allclose(ways[-1] / PERIOD, wanted, atol=0.02 * speed)
    behind = np.linalg.norm(ways.sum(0) - wanted * PERIOD * len(ways))
    assert behind < speed * (CONFIG.latency + 0.15) + CONFIG.ahead
    assert np.abs(np.sin(headings[-10:] - course)).max() < 0.02  # in line with it, forwards or backwards


def test_a_robot_backs_off_instead_of_turning_round() -> None:
    ways, headings = follow(np.array([-0.2, 0.0]), 0.1, CONFIG)
    assert np.abs(headings).max() < 0.2
    assert ways[-1, 0] < 0.0


def test_without_latency_a_robot_turns_without_swinging_over() -> None:
    _, headings = follow(np.array([0.0, 0.3]), 0.2, DriveConfig(latency=0.0))
    assert headings.max() < np.pi / 2 + 0.1
    assert headings[-1] == pytest.approx(np.pi / 2, abs=0.01)


def test_no_velocity_is_no_twist() -> None:
    assert [float(x) for x in to_twist([0.0, 0.0], 1.0, PERIOD, CONFIG)] == [0.0, 0.0]
