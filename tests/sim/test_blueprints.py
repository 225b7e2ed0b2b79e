"""Blueprints say what is built; a mistake in one is answered by file and field."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from horseshoe import configuration
from horseshoe.errors import ConfigurationError
from horseshoe.sim.assembly import blueprint, cell
from horseshoe.sim.assembly.scene import _mirror_symmetric


def changed(tmp_path: Path, old: str, new: str) -> Path:
    """The U-shape's file with one thing changed."""
    text = (blueprint.DIRECTORY / "u_shape.yaml").read_text()
    assert old in text
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace(old, new, 1))
    return file


@pytest.mark.parametrize("name", blueprint.names())
def test_every_shipped_blueprint_loads(name: str) -> None:
    bp = blueprint.load(name)
    assert bp.name == name
    assert len(bp.pairs) >= len(bp.connections) >= 1


def test_the_u_shape_is_a_base_and_two_legs_of_which_either_goes_to_either_side() -> None:
    bp = blueprint.load("u_shape")
    assert [b.name for b in bp.blocks] == ["base", "leg_a", "leg_b"]
    for c in range(2):
        accepted = {int(bp.magnet_block[a]) for k, _, a in bp.pairs if k == c}
        assert accepted == {1, 2}


def test_joined_blocks_touch_face_to_face() -> None:
    bp = blueprint.load("u_shape")
    for (_, s, a), rotation, position in zip(bp.pairs, bp.goal_rotation, bp.goal_position, strict=True):
        np.testing.assert_allclose(rotation @ bp.magnet_axis[a], -bp.magnet_axis[s], atol=1e-9)
        np.testing.assert_allclose(position + rotation @ bp.magnet_position[a], bp.magnet_position[s], atol=1e-9)
        np.testing.assert_allclose(rotation[:, 2], [0, 0, 1], atol=1e-6)


def test_a_leg_has_four_sides_alike_and_the_base_two() -> None:
    bp = blueprint.load("u_shape")
    degrees = np.array([0, 50, 70, 180, -90, 275])
    rolled = Rotation.from_euler("zy", np.stack([0 * degrees + 30, degrees], 1), degrees=True)
    quaternion = np.tile(rolled.as_quat(scalar_first=True)[:, None], (1, 3, 1))
    turns = bp.quarter_turns(quaternion)
    assert turns[:, 0].tolist() == [0, 0, 0, 2, 0, 0], "upside down its sockets change places"
    assert turns[:, 1].tolist() == [0, 0, 3, 2, 1, 1]
    upright = (rolled * bp.roll(np.ones(6, dtype=np.intp), turns[:, 1])).as_matrix()
    assert upright[:, 2, 2].min() > 0.6
    on_end = Rotation.from_euler("yx", [60, 80], degrees=True).as_quat(scalar_first=True)
    assert bp.quarter_turns(np.tile(on_end, (3, 1)))[1] == 0, "a leg on end has no side up"


def test_an_unknown_blueprint_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"'w_shape' is unknown; choose from \['connect', 'u_shape'.*\]"):
        blueprint.load("w_shape")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("block: leg_b", "block: leg_c", r"magnets: 'leg_b.head' sits on missing block 'leg_c'; blocks are .*leg_b"),
        ("polarity: south", "polarity: north", r"connections: 'base.left' and 'leg_a.head' have the same pole"),
        ("socket: base.left", "socket: base.top", r"connections: 'base.top' is no magnet; magnets are .*base.left"),
        ("mass: 0.16", "weight: 0.16", r"blocks\[0\].weight: unknown key; .*mass"),
        ("mass: 0.16", "mass: -1.0", r"blocks\[0\].mass: -1.0 is outside \[0.001, 10.0\]"),
        ("polarity: south", "polarity: west", r"magnets\[0\].polarity: 'west' is not one of north, south"),
        ("size: [0.20,", "size: [0.0,", r"blocks\[0\].size\[0\]: 0.0 is outside \[0.001, inf\]"),
        ("name: leg_b,", "name: leg_a,", "blocks: the name 'leg_a' is there twice"),
        ("name: leg_b.tail", "name: leg_b.head", "magnets: the name 'leg_b.head' is there twice"),
        ("[leg_a.head, leg_a.tail, leg_b.head, leg_b.tail]", "[]", "connections: 'base.left' accepts no magnet"),
    ],
)
def test_a_mistake_is_named_by_file_and_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = changed(tmp_path, old, new)
    with pytest.raises(ConfigurationError, match=f"{file}.*{message}"):
        blueprint.load(file)
    assert list(tmp_path.iterdir()) == [file]


def test_a_blueprint_without_connections_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(configuration.read_yaml(blueprint.DIRECTORY / "connect.yaml") | {"connections": []}))
    with pytest.raises(ConfigurationError, match=f"{file}: connections: must be one at least"):
        blueprint.load(file)


def test_only_a_blueprint_that_is_its_own_mirror_image_is_taken_for_one(tmp_path: Path) -> None:
    assert _mirror_symmetric(blueprint.load("u_shape"))
    skewed = changed(tmp_path, "position: [0.08, 0.02, 0.0]", "position: [0.05, 0.02, 0.0]")
    assert not _mirror_symmetric(blueprint.load(skewed))


def test_the_shipped_cell_has_two_arms_that_face_each_other() -> None:
    left, right = cell.load().base_poses
    np.testing.assert_allclose(left[:3, 0], -right[:3, 0], atol=1e-12)
    assert (right[:3, 3] - left[:3, 3]) @ left[:3, 0] > 0.5


def test_an_unknown_key_in_a_cell_is_named(tmp_path: Path) -> None:
    file = tmp_path / "cell.yaml"
    data = {
        "arms": [{"name": "left", "position": [0.0, 0.0, 0.0], "yaw": 0.0, "colour": 1}],
        "table": {"size": [1.0, 1.0]},
    }
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigurationError, match=rf"{file}: arms\[0\].colour: unknown key"):
        cell.load(file)


@pytest.mark.parametrize("names", [["left"], ["left", "left"], ["right", "left"], ["left", "right", "third"]])
def test_arms_that_are_not_left_and_right_are_refused(tmp_path: Path, names: list[str]) -> None:
    file = tmp_path / "cell.yaml"
    arms = [{"name": name, "position": [0.0, 0.0, 0.0], "yaw": 0.0} for name in names]
    file.write_text(yaml.safe_dump({"arms": arms, "table": {"size": [1.0, 1.0]}}))
    with pytest.raises(ConfigurationError, match=f"{file}: arms: must be left and right, in this order; got"):
        cell.load(file)


def test_a_table_without_a_size_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "cell.yaml"
    file.write_text((configuration.resource("config/cell.yaml")).read_text().replace("[1.6, 1.2]", "[1.6, 0.0]"))
    with pytest.raises(ConfigurationError, match=rf"{file}: table.size\[1\]: 0.0 is outside"):
        cell.load(file)
