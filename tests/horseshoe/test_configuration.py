"""A configuration that does not fit is refused by file, field and valid values; one that fits survives a round trip."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from horseshoe.configuration import dump, load, read_yaml, resource, save_yaml
from horseshoe.errors import ConfigurationError


@dataclass(frozen=True)
class Magnet:
    position: tuple[float, float, float]
    polarity: Literal["north", "south"] = "north"


@dataclass(frozen=True)
class Block:
    name: str
    mass: float = field(default=0.1, metadata={"range": (0.01, 1.0)})
    magnets: tuple[Magnet, ...] = ()
    colour: str | None = None
    shape: str = field(default="cuboid", metadata={"choices": ("cuboid", "cylinder")})

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"name '{self.name}' is not an identifier")


@dataclass(frozen=True)
class Scene:
    blocks: list[Block]
    scales: dict[str, float] = field(default_factory=dict)
    limit: float = field(default=1.0, metadata={"range": (0.0, None)})
    seed: int = 0
    walls: bool = False


YAML = """
blocks:
  - name: base
    mass: 1e-1
    magnets: [{position: [0, 0.5, 1], polarity: south}]
  - {name: leg, colour: null}
scales: {success: 5}
"""


def test_nested_yaml_becomes_typed_dataclasses(tmp_path: Path) -> None:
    file = tmp_path / "scene.yaml"
    file.write_text(YAML)
    scene = load(Scene, file)
    assert scene.blocks[0] == Block("base", 0.1, (Magnet((0.0, 0.5, 1.0), "south"),))
    assert all(type(x) is float for x in scene.blocks[0].magnets[0].position)
    assert scene.scales == {"success": 5.0}


def test_a_saved_configuration_reads_back_equal(tmp_path: Path) -> None:
    scene = Scene([Block("base", magnets=(Magnet((0, 0, 1e-7)),))], {"success": 1.0}, seed=3)
    save_yaml(scene, tmp_path / "new" / "scene.yaml")
    assert load(Scene, tmp_path / "new" / "scene.yaml") == scene
    assert load(Scene, dump(scene)) == scene


@pytest.mark.parametrize("text", ["85e2625", "1e5", "1e-3", "0123456", "on", "null"])
def test_text_that_looks_like_something_else_stays_text(tmp_path: Path, text: str) -> None:
    save_yaml({"revision": text}, tmp_path / "contract.yaml")
    assert read_yaml(tmp_path / "contract.yaml") == {"revision": text}


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        ({"colour": "red"}, "colour", "unknown key"),
        ({"sede": 1}, "sede", "did you mean 'seed'"),
        ({"blocks": [{"mass": 0.1}]}, "blocks[0].name", "is missing"),
        ({"blocks": [{"name": "a", "mass": "heavy"}]}, "blocks[0].mass", "expected float, got str 'heavy'"),
        ({"blocks": [{"name": "a", "mass": 2}]}, "blocks[0].mass", "outside [0.01, 1.0]"),
        ({"blocks": [{"name": "a", "mass": float("nan")}]}, "blocks[0].mass", "nan"),
        ({"blocks": [{"name": "a", "shape": "cone"}]}, "blocks[0].shape", "cuboid, cylinder"),
        ({"blocks": [{"name": "a b"}]}, "blocks[0]", "not an identifier"),
        ({"blocks": [{"name": "a", "magnets": [{"position": [0, 0]}]}]}, "blocks[0].magnets[0].position", "3 values"),
        (
            {"blocks": [{"name": "a", "magnets": [{"position": [0, 0, 0], "polarity": "up"}]}]},
            "blocks[0].magnets[0].polarity",
            "north, south",
        ),
        ({"scales": {"success": "big"}}, "scales.success", "expected float"),
        ({"limit": -1}, "limit", "outside [0.0, inf]"),
        ({"seed": True}, "seed", "expected int, got bool"),
        ({"seed": None}, "seed", "got null"),
        ({"walls": 1}, "walls", "expected bool"),
        ({"blocks": "base"}, "blocks", "expected a list"),
    ],
)
def test_what_does_not_fit_is_refused_by_file_and_field(
    tmp_path: Path, change: Mapping[str, Any], where: str, says: str
) -> None:
    file = tmp_path / "scene.yaml"
    save_yaml({"blocks": [{"name": "base"}], **change}, file)
    with pytest.raises(ConfigurationError) as refusal:
        load(Scene, file)
    assert refusal.value.field == where
    assert says in refusal.value.message
    assert str(refusal.value).startswith(f"{file}: {where}: ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: 1\nseed: 2\n", "duplicate key 'seed'"),
        ("seed: [1", "line"),
        ("- 1\n", "expected a mapping"),
        ("seed: 1\n? [1, 2]\n: 3\n", "line 2: a key is no plain value"),
        ("{{seed: 1}}\n", "line 1: a key is no plain value"),
    ],
)
def test_broken_documents_are_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "scene.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        load(Scene, file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.yaml: No such file"):
        read_yaml(tmp_path / "absent.yaml")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "scene.yaml"
    save_yaml({"seed": 1}, file)
    with pytest.raises(Exception, match="represent"):
        save_yaml({"seed": object()}, file)
    assert read_yaml(file) == {"seed": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_resource_names_its_neighbours() -> None:
    with pytest.raises(ConfigurationError, match="no such file in horseshoe"):
        resource("config/absent.yaml")
