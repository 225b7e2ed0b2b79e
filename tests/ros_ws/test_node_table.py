"""The node table for every way to run, without ROS."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from horseshoe.errors import HorseshoeError
from horseshoe.ros_ws import node_table, push_table


def names(policy: Path, *arguments: str) -> list[str]:
    return [spec.full_name for spec in node_table.nodes(node_table.parse([f"policy:={policy}", *arguments]))]


def test_emulated_arms_get_a_world_and_two_drivers(policy: Path) -> None:
    assert names(policy) == ["/world", "/guard", "/left/arm", "/right/arm", "/policy", "/operator"]


def test_real_arms_get_no_world_and_wait_for_the_operator(policy: Path) -> None:
    arguments = ["robot:=real", "left_ip:=192.168.1.201", "right_ip:=192.168.1.202", "record:=bag"]
    assert names(policy, *arguments) == ["/guard", "/recorder", "/left/arm", "/right/arm", "/policy", "/operator"]
    operator = node_table.nodes(node_table.parse([f"policy:={policy}", *arguments]))[-1]
    assert operator.parameters["simulated"] is False


def test_the_simulated_world_hosts_the_arms_itself(policy: Path) -> None:
    assert names(policy, "robot:=sim") == ["/world", "/guard", "/policy", "/operator"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["robot:=real"], "left_ip"),
        (["robot:=real", "left_ip:=10.0.0.1", "right_ip:=10.0.0.1"], "control box of its own"),
        (["robot:=real", "left_ip:=10.0.0.1", "right_ip:=10.0.0.2", "patience:=2"], "real ones keep their time-outs"),
        (["robot:=virtual"], "emulated, sim, real"),
        (["robots:=sim"], "no launch argument 'robots'"),
        (["robot"], "write name:=value"),
        (["speed:=2"], "speed: 2.0 is outside"),
        (["policy:=/nowhere"], "/nowhere"),
    ],
)
def test_a_wrong_argument_is_named(policy: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(HorseshoeError, match=message):
        names(policy, *arguments)


def test_arms_stream_at_the_rate_of_the_contract(policy: Path) -> None:
    table = {spec.full_name: spec for spec in node_table.nodes(node_table.parse([f"policy:={policy}"]))}
    assert table["/left/arm"].parameters["rate"] == table["/policy"].parameters["tick_rate"] == 100.0


def test_the_parameter_file_speaks_of_nodes_that_exist() -> None:
    written = yaml.safe_load(node_table.parameter_file().read_text())
    assert set(written) <= {"/**/arm", "/guard", "/world", "/policy", "/operator", "/recorder"}


def test_parameters_reach_a_node_with_the_types_they_have(policy: Path) -> None:
    table = node_table.nodes(node_table.parse([f"policy:={policy}", "seed:=7"]))
    for spec in table:
        file = spec.save_parameters()
        assert yaml.safe_load(file.read_text()) == {"/**": {"ros__parameters": spec.parameters}}
        file.unlink()


def test_patience_lets_simulated_arms_stray_further(policy: Path) -> None:
    def guard(*arguments: str) -> dict[str, object]:
        table = node_table.nodes(node_table.parse([f"policy:={policy}", *arguments]))
        return {spec.full_name: spec for spec in table}["/guard"].parameters

    assert guard("patience:=100")["tracking_error"] == 1.0
    assert "tracking_error" not in guard()


@pytest.mark.parametrize("table", [node_table, push_table])
def test_every_launch_argument_is_explained(table: Any) -> None:
    described = {a.name: a for a in node_table.describe(table.LaunchArguments)}
    assert set(described) == set(vars(table.LaunchArguments()))
    assert all(a.text.endswith(".") for a in described.values())


class Recorded:
    """Stands for any class of `launch` and `launch_ros`, which pip does not have: what it was made with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs


class Configuration(Recorded):
    """Of a launch argument: the text that a user gave."""

    def perform(self, context: dict[str, str]) -> str:
        return context[self.args[0]]


@pytest.fixture
def launch_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules with the names that launch files import."""
    known = {
        "launch": ("LaunchContext", "LaunchDescription"),
        "launch.actions": (
            "DeclareLaunchArgument", "EmitEvent", "LogInfo", "OpaqueFunction", "RegisterEventHandler",
            "SetEnvironmentVariable",
        ),
        "launch.event_handlers": ("OnProcessExit",),
        "launch.events": ("Shutdown",),
        "launch.events.process": ("ProcessExited",),
        "launch.substitutions": ("EnvironmentVariable",),
        "launch_ros": (),
        "launch_ros.actions": ("LifecycleNode", "Node"),
    }  # fmt: skip
    for name, classes in known.items():
        module = ModuleType(name)
        for each in classes:
            setattr(module, each, type(each, (Recorded,), {}))
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["launch.substitutions"].LaunchConfiguration = Configuration  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("file", "table", "given"),
    [
        ("bimanual_assembly", node_table, {"robot": "emulated", "viewer": "true"}),
        ("cooperative_push", push_table, {"robots": "2"}),
    ],
)
def test_a_launch_file_starts_the_nodes_of_the_table(
    launch_modules: None, file: str, table: Any, given: dict[str, str]
) -> None:
    path = Path(__file__).resolve().parents[2] / "launch" / f"{file}.launch.py"
    names: dict[str, Any] = {"__name__": file}
    exec(compile(path.read_text(), path, "exec"), names)  # as `ros2 launch` does
    *declared, local, opaque = names["generate_launch_description"]().args[0]
    assert local.args[0] == "ROS_AUTOMATIC_DISCOVERY_RANGE"
    assert all(each.kwargs["description"] for each in declared)
    texts = {each.args[0]: each.kwargs["default_value"] for each in declared} | given
    actions = opaque.kwargs["function"](texts)
    started = [action for action in actions if type(action).__name__ in ("Node", "LifecycleNode")]
    expected = [spec.executable for spec in table.nodes(table.parse(texts))]
    expected += ["robot_state_publisher"] * 2 + ["rviz2"] if "viewer" in given else []
    assert [action.kwargs["executable"] for action in started] == expected
    assert sum(type(action).__name__ == "RegisterEventHandler" for action in actions) == len(started)
