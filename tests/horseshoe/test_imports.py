"""Imports point one way, and nobody pays for a library they do not use."""

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What a room may import besides itself; "spine" is horseshoe/ without the rooms. ros_ws sees all.
MAY_IMPORT = {
    "spine": set(),
    "hardware": {"spine"},
    "sim": {"spine", "hardware"},
    "policies": {"spine"},
}
HEAVY = ("torch", "mujoco", "pybullet", "warp", "rclpy", "xarm", "matplotlib", "stable_baselines3")


def room_of(module: str) -> str:
    """The room of a module's dotted name, "spine" if it belongs to none."""
    names = module.split(".")
    return names[1] if len(names) > 1 and names[1] in (*MAY_IMPORT, "ros_ws") else "spine"


def imports_of(file: Path, package: str) -> Iterator[tuple[int, str]]:
    """Every (line, horseshoe module) a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "horseshoe")


def wrong_imports(room: str, file: Path, package: str) -> list[str]:
    """Imports of `file`, which lies in `room`, that point the wrong way."""
    allowed = MAY_IMPORT[room] | {room}
    return [
        f"{file}:{line}: {room} must not import {name}"
        for line, name in imports_of(file, package)
        if room_of(name) not in allowed
    ]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room: str) -> None:
    folder = ROOT / ("horseshoe" if room == "spine" else room)
    files = folder.glob("*.py") if room == "spine" else folder.rglob("*.py")
    wrong = []
    for file in files:
        inside = ".".join(file.parent.relative_to(ROOT).parts)
        package = "horseshoe" if room == "spine" else f"horseshoe.{inside}"
        wrong += wrong_imports(room, file, package)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    [
        "import horseshoe.sim",
        "from horseshoe import sim",
        "def f():\n    from horseshoe.sim.assembly import task",
        "from ..sim import x",
    ],
)
def test_an_import_against_the_direction_is_found(tmp_path: Path, line: str) -> None:
    file = tmp_path / "module.py"
    file.write_text(line)
    assert wrong_imports("hardware", file, "horseshoe.hardware")


def test_importing_the_spine_and_the_robot_loads_no_heavy_library() -> None:
    names = ["horseshoe", "horseshoe.sim", "horseshoe.policies", "horseshoe.ros_ws"]
    names += [f"horseshoe.{file.stem}" for file in (ROOT / "horseshoe").glob("[!_]*.py")]
    names += [m.name for m in pkgutil.walk_packages([str(ROOT / "hardware")], "horseshoe.hardware.")]
    code = f"""
import sys, importlib
for name in {names!r}:
    importlib.import_module(name)
    loaded = set(sys.modules) & {set(HEAVY)!r}
    assert not loaded, f"{{name}} loads {{loaded}}"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
