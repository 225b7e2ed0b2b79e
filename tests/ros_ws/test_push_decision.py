"""What the policy node of a pushing robot sees and decides, without ROS."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("warp")

from horseshoe.ros_ws.push_decision import Odometry, PushDecider
from horseshoe.sim.push.drive import DriveConfig
from tests.ros_ws.constant_policy import PERIOD

CENTRE = np.array([0.7, 0.6])  # of the object [m]


def test_a_robot_alone_sees_the_tokens_that_the_environment_shows(ahead: Path) -> None:
    import gymnasium

    import horseshoe.sim  # noqa: F401  registers the environment

    env: Any = gymnasium.make_vec("horseshoe/CoopPush-v0", num_envs=1, robots=4).unwrapped
    observation, _ = env.reset(seed=3)
    deciders = [PushDecider(str(ahead), k, 4) for k in range(4)]
    for k, decider in enumerate(deciders):
        decider._delay = PERIOD * env._radio.ages[0, k]
    rng = np.random.default_rng(0)
    for t in range(15):
        sent = np.zeros((4, 2)) if t == 0 else env._world.sent.numpy()[0, 0].astype(float)
        said = [Odometry(100.0 + t * PERIOD, p, 0.0, v, 0.0) for p, v in zip(env.robot_positions[0], sent, strict=True)]
        for k, decider in enumerate(deciders):
            for other in range(4):
                if other != k:
                    decider.hear(other, said[other])
            seen = decider._tokens(said[k], env.particles[0], env._goal[0])
            for name, value in seen.items():
                np.testing.assert_allclose(value[0], observation[name][0, k], atol=1e-4, err_msg=f"{name}, {t}")
        observation, *_ = env.step(rng.uniform(-1.0, 1.0, (1, 4, 2)))


def test_a_robot_knows_the_others_as_late_as_the_radio_is_and_how_late_that_is(ahead: Path) -> None:
    decider = PushDecider(str(ahead), 0, 3, (0.2, 0.2))
    body = CENTRE + np.zeros((40, 2))

    def at(t: int, x: float) -> Odometry:
        return Odometry(t * PERIOD, np.array([x, 0.3]), 0.0, np.zeros(2), 0.0)

    for t in range(10):
        decider.hear(1, at(t, 0.3 + 0.01 * t))
        seen = decider._tokens(at(t, 0.2), body, body)
    assert decider.ages == {1: pytest.approx(0.2)}  # robot 3 was never heard
    np.testing.assert_allclose(seen["robots"][0, :, 5], [1, 0, 0])
    assert seen["robots"][0, 0, 4] == pytest.approx(0.4)
    assert np.linalg.norm(seen["robots"][0, 0, :2]) == pytest.approx((0.35 - 0.2) / 0.25, abs=1e-6)
    seen = decider._tokens(at(100, 0.2), body, body)
    assert decider.ages[1] == pytest.approx(91 * PERIOD)  # the radio fell silent
    assert seen["robots"][0, 0, 4] == 1.0


def test_a_robot_decides_for_where_it_will_be_when_its_wheels_obey(ahead: Path) -> None:
    body = CENTRE + np.zeros((40, 2))
    own = Odometry(0.0, np.array([0.6, 0.3]), 0.4, np.array([0.2, -0.1]), 1.5)
    there = Odometry(0.0, own.position + 0.2 * own.velocity, own.heading + 0.2 * own.angular, own.velocity, own.angular)
    late = PushDecider(str(ahead), 0, 1, drive=DriveConfig(latency=0.2)).decide(own, body, body)
    prompt = PushDecider(str(ahead), 0, 1, drive=DriveConfig(latency=0.0))
    assert late == pytest.approx(prompt.decide(there, body, body))
    assert late != pytest.approx(prompt.decide(own, body, body), rel=0.02)
