"""A contract is written whole, read back exactly, and refuses what does not match it, naming the field."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from horseshoe import configuration
from horseshoe import contract as contracts
from horseshoe.action_config import ActionConfig
from horseshoe.errors import ConfigurationError
from horseshoe.observation import Field, FieldSet
from horseshoe.sim.assembly.starts import StartConfig

FIELDS = FieldSet([Field("joints", 2, "rad", "arm", (1, 1)), Field("block", 3, "m", "block", (1, 1, 1))])
ACTION = ActionConfig((-1.0,) * 6, (1.0,) * 6)


def write(folder: Path, **changes: Any) -> contracts.Contract:
    (folder / contracts.WEIGHTS).write_bytes(b"weights")
    fields: dict[str, Any] = {
        "version": contracts.VERSION,
        "env": "horseshoe/UShape-v0",
        "blueprint": "u_shape",
        "robots": 2,
        "action": ACTION,
        "observation": contracts.observation_fields(FIELDS),
        "delay": (0.0, 0.2),
        "environment": {"noise": {"position": 0.002}},
        "training": {"seed": 0},
        "revision": "abc",
        "weights_sha256": contracts.sha256(folder / contracts.WEIGHTS),
    }
    contract = contracts.Contract(**(fields | changes))
    configuration.save_yaml(contract, folder / contracts.FILE)
    return contract


def test_a_contract_reads_back_as_it_was_written(tmp_path: Path) -> None:
    assert write(tmp_path) == contracts.load(tmp_path)


def test_weights_that_are_not_those_of_the_contract_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / contracts.WEIGHTS).write_bytes(b"others")
    with pytest.raises(ConfigurationError, match=r"contract.yaml: weights_sha256: .*policy.onnx"):
        contracts.load(tmp_path)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / contracts.WEIGHTS).unlink()
    with pytest.raises(ConfigurationError, match=r"policy.onnx: is missing"):
        contracts.load(tmp_path)


def test_a_contract_of_another_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path, version=99)
    with pytest.raises(ConfigurationError, match="version: is 99, this Horseshoe reads 1"):
        contracts.load(tmp_path)


def test_an_unknown_key_in_a_contract_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / contracts.FILE
    file.write_text(file.read_text() + "speed: 3\n")
    with pytest.raises(ConfigurationError, match=r"contract.yaml: speed: unknown key"):
        contracts.load(tmp_path)


def test_a_contract_that_matches_is_accepted(tmp_path: Path) -> None:
    contract = write(tmp_path)
    contracts.check_observation(contract, FIELDS)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ([FIELDS.fields[1], FIELDS.fields[0]], r"observation\[0\]"),
        ([FIELDS.fields[0], Field("block", 3, "mm", "block", (1, 1, 1))], r"observation\[1\]"),
        ([*FIELDS.fields, Field("more", 1, "1", "arm", (1,))], "observation: has 2 fields, expected 3"),
    ],
)
def test_another_observation_is_refused_by_field(tmp_path: Path, fields: list[Field], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"contract.yaml: {named}"):
        contracts.check_observation(write(tmp_path), FieldSet(fields))


def test_a_policy_that_sees_tokens_has_the_same_contract(tmp_path: Path) -> None:
    nothing = ActionConfig((), (), joint_step=())
    contract = write(tmp_path, blueprint="", action=nothing, observation=contracts.token_fields(3, 16))
    assert contracts.load(tmp_path) == contract
    contracts.check_tokens(contract, 3, 16)
    with pytest.raises(ConfigurationError, match=r"contract.yaml: observation\[2\]: is .*count=16.*count=32"):
        contracts.check_tokens(contract, 3, 32)


def test_another_structure_or_number_of_arms_is_refused_by_field(tmp_path: Path) -> None:
    contract = write(tmp_path)
    contracts.check_task(contract, contract.blueprint, contract.robots)
    with pytest.raises(ConfigurationError, match=r"contract.yaml: blueprint: is u_shape, here it is connect"):
        contracts.check_task(contract, "connect", contract.robots)
    with pytest.raises(ConfigurationError, match=r"contract.yaml: robots: is 2, here it is 1"):
        contracts.check_task(contract, contract.blueprint, 1)


def test_every_process_of_a_training_has_a_seed_of_its_own(tmp_path: Path) -> None:
    contract = dataclasses.replace(write(tmp_path), training={"seed": 3, "processes": 2})
    assert contracts.training_seeds(contract) == [3, 3 + contracts.RANK_SEED]


def test_the_whole_task_has_none_of_the_aids_of_training() -> None:
    environment = {
        "starts": {"yaw": 1.0, "above": 0.4, "assisted": 0.85},
        "task": {"horizon": 12.0, "rest_scale": 6.0, "max_contact": 500.0, "give_up": True},
        "noise": {"action": 0.02},
    }
    whole = contracts.whole_task(environment)
    assert whole == {"starts": {"yaw": 1.0}, "task": {"horizon": 12.0}, "noise": {"action": 0.02}}
    everything = {"starts": configuration.dump(StartConfig())}
    assert set(contracts.whole_task(everything)["starts"]) == {"centre_x", "centre_y", "yaw", "spread", "block_yaw"}
