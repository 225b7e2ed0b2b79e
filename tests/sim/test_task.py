"""Episodes are judged, and rewarded, by what really stands on the table."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco")

from horseshoe import configuration
from horseshoe.sim.assembly import task
from horseshoe.sim.assembly.config import AssemblyConfig
from horseshoe.sim.assembly.env import AssemblyVectorEnv
from horseshoe.sim.assembly.perception import NoiseConfig
from horseshoe.sim.assembly.starts import HOME
from horseshoe.sim.assembly.task import OUTCOMES, RewardScales
from tests.sim.conftest import SMALL, place, quiet


def pose_of(env: AssemblyVectorEnv, block: int) -> np.ndarray:
    """Position [m] and quaternion of a block in every environment, to read and write, (n, 7)."""
    start = 1 + 16 + 7 * block
    return env.world._state[:, start : start + 7]


def test_every_reward_term_has_a_scale_of_the_same_name_and_every_scale_a_term() -> None:
    env = quiet()
    env.reset(seed=0)
    _, _, _, _, info = env.step(np.ones((2, 2, 7)))
    scales = dataclasses.asdict(RewardScales())
    assert set(info["terms"]) == set(scales)
    total = sum(scales[name] * term for name, term in info["terms"].items())
    np.testing.assert_allclose(info["arm_reward"], total)


def test_every_reward_term_is_filled_in_under_its_own_name() -> None:
    for index, name in enumerate(task.TERMS):
        assert getattr(task, "CARRIED" if name == "carry" else name.upper()) == index, name


def terms_of(env: AssemblyVectorEnv, **state: np.ndarray) -> dict[str, np.ndarray]:
    """Unscaled terms of the left arm, which serves the leg's head, in the world's state but for what is given."""
    no = np.zeros(env.num_envs, dtype=bool)
    changed = dataclasses.replace(env.world.state(), **state)
    env.assignment.pair[:] = 0, -1
    told = env.path.target, np.zeros((env.num_envs, 2, 7)), np.zeros((env.num_envs, 2))
    terms, _ = env.task.judge(changed, *told, env.assignment, no, no)
    return {name: value[:, 0] for name, value in terms.items()}


def test_a_block_gains_by_turning_before_it_comes_to_its_socket() -> None:
    env = quiet(4)
    place(env, [0.0, 0.08, 0.0, 0.08])
    turned = env.world.state().quaternion
    turned[2:, 1] = [np.cos(0.7), 0.0, 0.0, np.sin(0.7)]
    straight_near, straight_far, askew_near, askew_far = terms_of(env, quaternion=turned)["place"]
    assert straight_near > straight_far > askew_far > askew_near


def test_a_hand_beside_its_block_gains_by_staying_above_it() -> None:
    env = quiet(4)
    place(env, 0.05)
    state = env.world.state()
    tool = env.observer.tool_poses(state.q)[0, 0]
    yaw = np.arctan2(tool[1, 1], tool[0, 1])  # the fingers close across the block
    state.quaternion[:, 1] = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
    at, under, aside = np.array([0.0, 0.0, 0.006]), np.array([0.0, 0.0, -0.07]), np.array([0.06, 0.0, 0.0])
    state.position[:, 1] = tool[:3, 3] + np.stack([at, at + under, at + aside, at + aside + under])
    held, above, beside, above_beside = terms_of(env, position=state.position, quaternion=state.quaternion)["reach"]
    assert held > above > beside
    assert above_beside > beside


def test_a_leg_is_carried_above_the_other_block_until_it_is_in_front_of_its_socket() -> None:
    env = quiet(4)
    place(env, 0.05)
    env.path.target[..., 6] = 0.03  # squeezed
    state = env.world.state()
    tool = env.observer.tool_poses(state.q)[0, 0]
    yaw = np.arctan2(tool[1, 1], tool[0, 1])  # the fingers close across the block
    state.quaternion[:] = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
    state.position[:, 1] = tool[:3, 3] + [0.0, 0.0, 0.006]
    ahead = np.array([-np.sin(yaw), np.cos(yaw), 0.0])  # of the base, where its socket is
    behind, in_front, above = -0.08 * ahead, 0.1 * ahead, np.array([0.0, 0.0, 0.06])
    leg = np.stack([behind, behind + above, in_front, in_front + above])
    state.position[:, 0] = state.position[:, 1] - leg
    terms = terms_of(env, position=state.position, quaternion=state.quaternion)
    assert terms["held"].all()
    np.testing.assert_allclose(terms["carry"], [0.0, 1.0, 1.0, 0.0], atol=1e-6)


def test_an_arm_that_has_connected_gains_by_making_room() -> None:
    env = quiet(2)
    place(env, [0.0, 0.05])
    terms = env.step(np.zeros((2, 2, 7)))[4]["terms"]
    serves = env.assignment.pair >= 0
    np.testing.assert_array_equal(terms["connected"][serves], [1.0, 0.0])
    away, at_block = terms["retreat"][serves]
    assert 0.4 < away <= 1.0
    assert at_block == 0.0
    home = np.tile(HOME, (2, 2, 1))
    assert terms_of(env, q=home)["retreat"][0] > terms_of(env, q=home + 0.5)["retreat"][0] > 0.4


def test_success_is_a_joined_structure_at_rest_for_half_a_second() -> None:
    env = quiet(2)
    place(env, [0.0, 0.05])
    outcomes = []
    for _ in range(4):
        outcomes.append([OUTCOMES[o] for o in env.step(np.zeros((2, 2, 7)))[4]["outcome"]])
        if outcomes[-1][0] != "running":
            break
    assert outcomes == [["running", "running"]] * 3 + [["success", "running"]]  # the looks span 0.6 s


def test_a_block_pushed_out_of_its_arms_reach_ends_an_episode_that_gives_up() -> None:
    env = quiet(2, give_up=True)
    place(env, [0.05, 0.05])
    arm = int(env.assignment.pair[1].argmax())  # the other one serves nothing
    block = int(env.blueprint.magnet_block[env.blueprint.pairs[env.assignment.pair[1, arm], 2]])
    pose_of(env, block)[1, :3] = [-0.5 * env.observer.base_positions[arm, 0], 0.3, 0.02]
    _, _, terminated, truncated, info = env.step(np.zeros((2, 2, 7)))
    assert [OUTCOMES[o] for o in info["outcome"]] == ["running", "out_of_reach"]
    assert terminated.tolist() == [False, True]
    assert not truncated.any()


@pytest.mark.parametrize(("block", "height"), [(0, 0.02), (1, 0.04)])
def test_a_base_on_its_side_or_a_leg_on_end_ends_an_episode_that_gives_up(block: int, height: float) -> None:
    env = quiet(2, give_up=True)
    place(env, [0.05, 0.05])
    pose_of(env, block)[1, 2:] = [height, np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0]
    _, _, terminated, _, info = env.step(np.zeros((2, 2, 7)))
    assert [OUTCOMES[o] for o in info["outcome"]] == ["running", "toppled"]
    assert terminated.tolist() == [False, True]


def test_without_giving_up_a_leg_on_end_is_named_when_time_is_over() -> None:
    env = quiet(1, horizon=1.0)
    place(env, 0.05)
    pose_of(env, 1)[:, 2:] = [0.04, np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0]
    outcomes, ends = [], []
    for _ in range(5):
        _, _, terminated, truncated, info = env.step(np.zeros((1, 2, 7)))
        outcomes.append(OUTCOMES[info["outcome"][0]])
        ends.append((bool(terminated[0]), bool(truncated[0])))
    assert outcomes == ["running"] * 4 + ["toppled"]
    assert ends[-1] == (False, True)


def test_a_latch_without_the_pose_is_no_success() -> None:
    env = quiet(2)
    place(env, [0.0, 0.05])
    state = env.world.state()
    env.world.magnets.latched[:, 0] = True
    assert env.task.joined(state).tolist() == [True, False]
    env.world.magnets.latched[:] = False
    assert env.task.joined(state).tolist() == [False, False]


def test_a_block_that_flies_off_ends_the_episode_as_a_failure() -> None:
    env = quiet(2)
    place(env, [0.05, 0.05])
    pose_of(env, 0)[1, :3] = [0.2, 0.0, 1.0]  # the base, thrown up
    _, _, terminated, truncated, info = env.step(np.zeros((2, 2, 7)))
    assert [OUTCOMES[o] for o in info["outcome"]] == ["running", "flew_off"]
    assert terminated.tolist() == [False, True]
    assert not truncated.any()


def test_how_high_a_block_flies_is_measured_from_the_table(tmp_path: Path) -> None:
    text, file = configuration.resource("config/cell.yaml").read_text(), tmp_path / "cell.yaml"
    file.write_text(text.replace("0.0, 0.0]", "0.0, 0.3]").replace("height: 0.0", "height: 0.3"))
    config = AssemblyConfig(blueprint="connect", cell=str(file), noise=NoiseConfig.none())
    env = AssemblyVectorEnv(2, config, **SMALL)
    env.reset(seed=0)
    pose_of(env, 0)[:, :3] = [[0.0, 0.5, 0.9], [0.0, 0.5, 1.3]]  # no arm is there
    info = env.step(np.zeros((2, 2, 7)))[4]
    assert [OUTCOMES[o] for o in info["outcome"]] == ["running", "flew_off"]


def test_a_block_over_the_edge_of_the_table_was_pushed_off() -> None:
    env = quiet(2)
    place(env, [0.05, 0.05])
    pose_of(env, 0)[1, 1] = env.cell.table.size[1] / 2 + 0.01
    info = env.step(np.zeros((2, 2, 7)))[4]
    assert [OUTCOMES[o] for o in info["outcome"]] == ["running", "pushed_off"]
