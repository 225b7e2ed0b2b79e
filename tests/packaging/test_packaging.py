"""What a user installs is the whole package: rooms behind links, data files, ROS markers."""

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import pytest

import horseshoe

ROOT = Path(__file__).parents[2]
ROOMS = ("hardware", "sim", "policies", "ros_ws")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in the wheel that is built from the sdist, as an index would serve it."""
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    junk = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "out", "*.mp4")
    shutil.copytree(ROOT, source, symlinks=True, ignore=junk)
    sdist = "from setuptools import build_meta as b; b.build_sdist('..')"
    subprocess.run([sys.executable, "-c", sdist], cwd=source, check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(archive),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(file).namelist())


def test_every_tracked_file_of_every_room_is_in_the_wheel(wheel: set[str]) -> None:
    git = subprocess.run(["git", "ls-files", *ROOMS, "config"], cwd=ROOT, capture_output=True, text=True)
    if git.returncode != 0:
        pytest.skip("not a git checkout")
    expected = {f"horseshoe/{name}" for name in git.stdout.splitlines() if (ROOT / name).exists()}
    assert {f"horseshoe/{room}/__init__.py" for room in ROOMS} <= expected
    assert expected <= wheel, f"not in the wheel: {sorted(expected - wheel)}; is the suffix in setup.py's DATA?"


def test_the_wheel_brings_what_ros_looks_for(wheel: set[str]) -> None:
    data = f"horseshoe-{horseshoe.__version__}.data/data/share"
    expected = {f"{data}/horseshoe/package.xml", f"{data}/ament_index/resource_index/packages/horseshoe"}
    expected |= {f"{data}/horseshoe/launch/{file.name}" for file in (ROOT / "launch").glob("*.py")}
    assert expected <= wheel


def test_nothing_but_the_package_is_importable_from_the_wheel(wheel: set[str]) -> None:
    version = horseshoe.__version__
    assert {name.split("/")[0] for name in wheel} == {
        "horseshoe",
        f"horseshoe-{version}.dist-info",
        f"horseshoe-{version}.data",
    }


def test_package_xml_has_the_version_of_the_package() -> None:
    assert ET.parse(ROOT / "package.xml").findtext("version") == horseshoe.__version__
