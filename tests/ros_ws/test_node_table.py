"""The node table for every way to run, without ROS."""

from pathlib import Path

import pytest
import yaml

from horseshoe.errors import HorseshoeError
from horseshoe.ros_ws import node_table


def names(policy: Path, *arguments: str) -> list[str]:
    return [spec.full_name for spec in node_table.nodes(node_table.parse([f"policy:={policy}", *arguments]))]


def test_emulated_arms_get_a_world_and_two_drivers(policy: Path) -> None:
    assert names(policy) == ["/world", "/guard", "/left/arm", "/right/arm", "/policy", "/operator"]


def test_real_arms_get_no_world_and_wait_for_the_operator(policy: Path) -> None:
    arguments = ["robot:=real", "left_ip:=192.168.1.201", "right_ip:=192.168.1.202", "record:=bag"]
    assert names(policy, *arguments) == ["/guard", "/recorder", "/left/arm", "/right/arm", "/policy", "/operator"]
    operator = node_table.nodes(node_table.parse([f"policy:={policy}", *arguments]))[-1]
    assert operator.parameters["wait_for_start"] is True


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
