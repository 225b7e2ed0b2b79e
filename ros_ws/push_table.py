"""Which nodes push together: the table behind `ros2 launch horseshoe cooperative_push.launch.py` and `horseshoe up`."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from horseshoe import configuration
from horseshoe import contract as contracts
from horseshoe.errors import ConfigurationError
from horseshoe.policies import runtime
from horseshoe.ros_ws import node_table
from horseshoe.ros_ws.node_table import NodeSpec

ENV = "horseshoe/CoopPush-v0"  # what a policy must be trained for


@dataclass(frozen=True)
class LaunchArguments:
    """Arguments of cooperative pushing, `name:=value` on the command line.

    Attributes:
        policy: name of a shipped policy, or a folder.
        robots: how many; each has a policy node of its own.
        goals: goal set; its scenes are those kept for evaluation.
        seed: of scenes, headings, shoves and radio delays.
        episodes: how many to run, 0 until interrupted.
        shove: push the object half-way through every episode.
        pace: real-time factor to keep at most; 0: as fast as robots answer.
        record: folder for states, summary and film, which must not exist; empty for none.
        patience: scale of all time-outs, for machines that cannot keep time (tests).
    """

    policy: str = "push"
    robots: int = field(default=6, metadata={"range": (1, 12)})
    goals: str = "wide"
    seed: int = field(default=0, metadata={"range": (0, 100000)})
    episodes: int = field(default=1, metadata={"range": (0, 10000)})
    shove: bool = False
    pace: float = field(default=1.0, metadata={"range": (0.0, 100.0)})
    record: str = ""
    patience: float = field(default=1.0, metadata={"range": (1.0, 800.0)})


def parse(arguments: list[str] | dict[str, str]) -> LaunchArguments:
    """Launch arguments from `name:=value` texts.

    Raises:
        HorseshoeError: unknown name or a value that does not fit.
    """
    return node_table.parse_as(LaunchArguments, arguments)


def parameter_file() -> Path:
    """Parameters of all nodes that do not depend on launch arguments."""
    return configuration.resource("config/ros/cooperative_push.yaml")


def nodes(arguments: LaunchArguments) -> list[NodeSpec]:
    """All processes, in the order in which they are started.

    Raises:
        HorseshoeError: the policy is missing or for another task.
    """
    a, folder = arguments, runtime.find(arguments.policy)
    contract = contracts.load(folder)
    if contract.env != ENV:
        raise ConfigurationError(folder / contracts.FILE, "env", f"is {contract.env}; pushing robots need {ENV}")
    common = {"robots": a.robots, "seed": a.seed}
    record = str(Path(a.record).absolute()) if a.record else ""
    world = NodeSpec(
        "world",
        "push_world_node",
        parameters={
            **common,
            "goals": a.goals,
            "shove": a.shove,
            "pace": a.pace,
            "record": record,
            "answer_timeout": 0.5 * a.patience,
        },
        lifecycle=True,
    )
    policies = [
        NodeSpec(
            "policy",
            "push_policy_node",
            f"/robot_{k}",
            {**common, "robot": k, "policy": str(folder.absolute()), "max_silence": 1.0 * a.patience},
            lifecycle=True,
        )
        for k in range(1, a.robots + 1)
    ]
    operator = NodeSpec(
        "operator",
        "push_operator_node",
        parameters={
            "robots": a.robots,
            "episodes": a.episodes,
            "record": record,
            "settings": json.dumps(configuration.dump(a)),
            "patience": 120.0 * a.patience,
            "episode_time": 120.0 * a.patience,
        },
    )
    return [world, *policies, operator]
