"""All metadata of the package. Ruff, mypy and pytest are configured in pyproject.toml."""

import re
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent  # `colcon build --symlink-install` runs a link to this file elsewhere

# Read rather than imported; and not `attr:` in setup.cfg, which makes setuptools print what colcon cannot parse.
VERSION = re.findall(r'__version__ = "(.+)"', (ROOT / "horseshoe/__init__.py").read_text(encoding="utf-8"))[0]

DATA = ["yaml", "onnx", "npz", "safetensors", "json", "md", "png", "j2", "html", "js", "rviz", "xml", "urdf", "stl"]

extras = {
    # MuJoCo worlds, environments, evaluation and its reports. MuJoCo 4 has no wheels for Python 3.10.
    "sim": [
        "mujoco>=4.0; python_version >= '3.11'",
        "mujoco>=3.17,<4; python_version < '3.11'",
        "gymnasium>=1.0",
        "matplotlib>=3.6",
        "imageio>=2.31",
        "imageio-ffmpeg>=0.5",
        "jinja2>=3.1",
    ],
    # The second engine. There are no wheels from Python 3.12 on.
    "twin": ["pybullet>=3.2.7; python_version < '3.12'"],
    # Differentiable soft body.
    "push": ["warp-lang>=1.19", "gymnasium>=1.0", "matplotlib>=3.6", "imageio>=2.31", "imageio-ffmpeg>=0.5"],
    # What `horseshoe bench push` compares the soft body with.
    "taichi": ["taichi==1.7.4; python_version < '3.14'"],
    # Driver of the real (or emulated) arm.
    "robot": ["xarm-python-sdk>=1.18.4"],
    # ROS 2 Kilted by pip, for machines without a ROS 2 installation. x86-64 only.
    "ros": [
        "ros-rclpy[fastrtps]~=9.1.2",
        "ros-rmw-fastrtps-cpp~=9.3.3",
        "ros-sensor-msgs~=5.5.1",
        "ros-std-msgs~=5.5.1",
        "ros-std-srvs~=5.5.1",
        "ros-geometry-msgs~=5.5.1",
        "ros-diagnostic-msgs~=5.5.1",
        "ros-lifecycle-msgs~=2.3.0",
        "ros-nav-msgs~=5.5.1",
        "ros-trajectory-msgs~=5.5.1",
        "ros-visualization-msgs~=5.5.1",
        "rosbags>=0.11",
    ],
    "train": [
        "warp-lang>=1.19",
        "torch>=2.4",
        "stable-baselines3>=2.9",
        "tensorboard>=2.14",
        "onnx>=1.16",
        "safetensors>=0.4",
    ],
    "dev": ["pytest>=8", "ruff>=0.9", "mypy>=1.14", "types-PyYAML", "types-tqdm", "setuptools>=70.1", "mkdocs>=1.6"],
}

# What `ros2 run` and `ros2 launch` start.
nodes = sorted(p.stem for p in (ROOT / "ros_ws").glob("*_node.py") if "base" not in p.stem.split("_"))

setup(
    name="horseshoe",
    version=VERSION,
    description="Sim-to-real control for robots that manipulate together, on ROS 2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The Horseshoe developers",
    maintainer="The Horseshoe developers",
    maintainer_email="horseshoe@example.org",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    # horseshoe/<room> is a link to <room>/, so this finds every room.
    packages=find_packages(include=["horseshoe", "horseshoe.*"]),
    package_data={"horseshoe": [f"**/*.{suffix}" for suffix in DATA] + ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["horseshoe/resource/horseshoe"]),
        ("share/horseshoe", ["package.xml"]),
        ("share/horseshoe/launch", sorted(glob("launch/*.py"))),
        ("share/horseshoe/config", sorted(glob("config/*.yaml"))),
    ],
    zip_safe=False,
    # Lower bounds are those of Ubuntu 24.04, scipy's aside, so that a ROS 2 installation keeps its own numpy.
    install_requires=[
        "numba>=0.60",
        "numpy>=1.26",
        "scipy>=1.14",
        "pyyaml>=6",
        "click>=8.1",
        "tqdm>=4.66",
        "onnxruntime>=1.18",
    ],
    extras_require=extras,
    entry_points={
        "console_scripts": ["horseshoe = horseshoe.cli:main", *(f"{n} = horseshoe.ros_ws.{n}:main" for n in nodes)]
    },
    exclude_package_data={"horseshoe": ["ros_ws/build/*", "ros_ws/install/*", "ros_ws/log/*"]},  # of colcon
)
