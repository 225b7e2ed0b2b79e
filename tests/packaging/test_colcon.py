"""`colcon build`, as in a ROS workspace, with a colcon of its own: it needs an older setuptools."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from horseshoe.ros_ws import node_table

ROOT = Path(__file__).parents[2]
JUNK = (".*", "__pycache__", "*.egg-info", "build", "dist", "install", "log", "runs", "out", "*.mp4")


def colcon() -> str | None:
    """The colcon that `make test` installs, or any."""
    own = Path(sys.prefix) / "colcon" / "bin" / "colcon"
    return str(own) if own.exists() else shutil.which("colcon")


@pytest.mark.skipif(colcon() is None, reason="no colcon here; `make test` installs it")
def test_colcon_builds_in_ros_ws_what_ros2_launch_looks_for(tmp_path: Path) -> None:
    source = tmp_path / "horseshoe"
    shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(*JUNK))
    command = [str(colcon()), "build", "--base-paths", "..", "--event-handlers", "console_direct+"]
    for _ in range(2):  # the second finds what the first left
        done = subprocess.run(command, cwd=source / "ros_ws", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    installed = source / "ros_ws" / "install" / "horseshoe"
    for arguments in ("robot:=emulated", "robot:=sim"):
        for spec in node_table.nodes(node_table.parse([arguments, "record:=bag"])):
            assert (installed / "lib" / "horseshoe" / spec.executable).exists(), spec.executable
    for file in (ROOT / "launch").glob("*.py"):
        assert (installed / "share" / "horseshoe" / "launch" / file.name).exists()
    assert (installed / "share" / "horseshoe" / "package.xml").exists()
    assert not list(installed.rglob("ros_ws/install")), "the package carries an earlier build of itself"
