"""Policies that are quickly made and graphs of real nodes, shared by the tests of this room."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from horseshoe import contract
from horseshoe.action_config import ActionConfig
from horseshoe.hardware import xarm6
from horseshoe.policies import linear
from horseshoe.sim.assembly.scene import FIELDS


def write_policy(
    folder: Path, rest: float = 0.0, nan: bool = False, horizon: float = 4.0, restless: bool = False, **changes: Any
) -> Path:
    """A linear policy that drives joint 1 of both arms towards `rest` [rad].

    Args:
        folder: to write.
        rest: see above; mirrored arms go the other way.
        nan: answer with NaN instead.
        restless: also turn the last joint to and fro for ever.
        horizon: of an episode [s].
        changes: of contract fields.
    """
    weights = np.zeros((FIELDS.size, 7), dtype=np.float32)
    weights[0, 0] = -2.0  # joint_position is the first field
    if restless:  # it goes on the way it goes until it is too far
        weights[FIELDS.slices["command_error"].start + 5, 5], weights[5, 5] = 60.0, -4.0
    bias = np.zeros(7, dtype=np.float32)
    bias[0], bias[5], bias[6] = 2.0 * rest, float(restless), np.nan if nan else 1.0
    written = contract.Contract(
        version=contract.VERSION,
        env="horseshoe/UShape-v0",
        blueprint="u_shape",
        robots=2,
        action=ActionConfig(tuple(xarm6.JOINT_LOWER.tolist()), tuple(xarm6.JOINT_UPPER.tolist())),
        observation=contract.observation_fields(FIELDS),
        delay=(0.0, 0.2),
        environment={"task": {"horizon": horizon}, "physics": {"servo_lag": [0.01, 0.08]}},
        training={},
        revision="test",
        weights_sha256="",
    )
    return linear.write(folder, weights, bias, written, **changes)


_USED: set[int] = set()


def _fresh(numbers: range) -> int:
    """One of some ROS domains that no test of this process had: nodes of another may still be announced in it."""
    left = sorted(set(numbers) - _USED) or list(numbers)
    _USED.add(chosen := random.SystemRandom().choice(left))
    return chosen


@pytest.fixture
def domain() -> int:
    """A ROS domain and a pair of loopback addresses that no other run on this machine uses, nor an earlier test: a
    service that two announce is not ready.
    """
    return _fresh(range(1, 101))


@pytest.fixture(scope="session")
def make_policy(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`write_policy` into a folder of its own."""
    return lambda **settings: write_policy(tmp_path_factory.mktemp("policy"), **settings)


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that moves joint 1 by half a radian."""
    return write_policy(tmp_path_factory.mktemp("policy"), rest=0.5)


@pytest.fixture(scope="session")
def ahead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy for pushing that drives to the object."""
    from tests.ros_ws import constant_policy

    return constant_policy.write_policy(tmp_path_factory.mktemp("ahead"))


@pytest.fixture
def start_up(domain: int, tmp_path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    """Start `horseshoe up bimanual_assembly` with more arguments; ended after the test if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        ips = [f"left_ip:=127.1.{domain}.1", f"right_ip:=127.1.{domain}.2"]
        command = [
            sys.executable,
            "-m",
            "horseshoe",
            "up",
            "bimanual_assembly",
            *ips,
            *arguments,
            "--log",
            str(tmp_path / "log"),
        ]
        # A domain of its own: nodes that were killed a moment ago are still announced in theirs.
        environment = {**os.environ, "ROS_DOMAIN_ID": str(_fresh(range(101, 201)))}
        process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        started.append(process)
        return process

    yield start  # type: ignore[misc]
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=600)
