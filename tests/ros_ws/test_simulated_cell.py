"""The simulated cell, stepped by hand instead of by the clock."""

import numpy as np
import pytest

from horseshoe.ros_ws.simulated_cell import SimulatedCell

HOME = np.array([0.0, -0.35, -0.9, 0.0, 1.25, 0.0])


@pytest.fixture
def cell() -> SimulatedCell:
    return SimulatedCell("mujoco", "u_shape", {"task": {"horizon": 1.0}}, np.array([HOME, HOME]), noise=0.0)


def run(cell: SimulatedCell, seconds: float) -> None:
    for _ in range(round(seconds / 0.01)):
        cell.step()


def test_arms_go_where_their_controllers_send_them(cell: SimulatedCell) -> None:
    goal = HOME + [0.2, 0.05, 0.0, 0.1, 0.0, 0.3]
    cell.arms[0].command(goal, 0.04)
    run(cell, 3.0)
    np.testing.assert_allclose(cell.arms[0].measured().joints, goal, atol=0.01)
    np.testing.assert_allclose(cell.arms[1].measured().joints, HOME, atol=0.01)
    assert cell.arms[0].measured().opening == pytest.approx(0.04, abs=0.003)


def test_an_episode_lays_blocks_out_and_leaves_the_arms_alone(cell: SimulatedCell) -> None:
    run(cell, 0.2)
    before = [arm.measured().joints for arm in cell.arms]
    assert np.abs(cell.truth()[0][:, 1]).min() > 0.5  # parked at the edge
    assert cell.next_episode() == 1
    run(cell, 0.1)
    assert np.abs(cell.truth()[0][:, :2]).max() < 0.65
    np.testing.assert_allclose([arm.measured().joints for arm in cell.arms], before, atol=1e-3)


def test_the_clock_of_an_episode_waits_for_the_arms(cell: SimulatedCell) -> None:
    cell.next_episode()
    run(cell, 1.5)
    assert cell.outcome is None
    cell.arms[1].command(HOME + 0.05, 0.085)
    run(cell, 1.3)
    assert cell.outcome is not None
    assert (cell.outcome.episode, cell.outcome.name) == (1, "no_grasp")
    assert cell.outcome.seconds == pytest.approx(1.0, abs=0.21)


def test_every_episode_is_another_and_seed_and_number_repeat_it() -> None:
    def layout(first: int, looks: int) -> list[np.ndarray]:
        cell = SimulatedCell("mujoco", "u_shape", {}, np.array([HOME, HOME]), seed=7, first=first)
        layouts = []
        for _ in range(2):
            cell.next_episode()
            layouts.append(cell.truth()[0].copy())
            for _ in range(looks):  # a camera that looks more often draws more noise
                cell.look()
        return layouts

    one, two = layout(1, looks=0)
    assert np.abs(one - two).max() > 0.01
    np.testing.assert_array_equal(layout(2, looks=3)[0], two)
    np.testing.assert_array_equal(layout(1, looks=3)[1], two)


def test_a_camera_is_late_and_noisy_as_configured() -> None:
    noise = {"block_latency": [0.1, 0.1], "position": 0.002, "dropout": 0.0}
    cell = SimulatedCell("mujoco", "u_shape", {"noise": noise}, np.array([HOME, HOME]))
    cell.next_episode()
    run(cell, 0.5)
    times = [when for when, _ in cell._history]
    assert cell.look()[0] == times[-11]
    spread = np.std([cell.look()[1] for _ in range(200)], axis=0)
    assert spread.mean() == pytest.approx(0.002, rel=0.2)
