"""Which nodes there are, for every way to run: the one table behind `ros2 launch` and `horseshoe up`."""

import inspect
import os
import re
import tempfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from horseshoe import configuration
from horseshoe import contract as contracts
from horseshoe.errors import HorseshoeError
from horseshoe.policies import runtime

EMULATED = ("127.0.0.1", "127.0.0.2")
T = TypeVar("T")


@dataclass(frozen=True)
class LaunchArguments:
    """Arguments of the bimanual assembly, `name:=value` on the command line.

    Attributes:
        robot: `emulated` (unmodified SDK, emulated controllers), `sim` (no SDK) or `real`.
        engine: physics of the simulated cell.
        left_ip, right_ip: control boxes; for emulated arms where they answer.
        policy: name of a shipped policy, or a folder.
        blueprint: what is assembled; empty for the policy's own.
        cell: YAML file that says where the arms stand; empty for the shipped one.
        episodes: how many to run, 0 until interrupted.
        seed: of simulated scenes and noise.
        first_episode: number of the first simulated episode; seed and number together say what its scene is.
        noise: scale of the simulated camera's noise.
        record: folder for the bag, which must not exist; empty for none.
        results: file to which every episode adds one line of JSON; empty for none.
        timing: folder for the timing of every servo tick, written at the end; empty for none.
        viewer: RViz.
        speed: share of the arms' speed limits, for first runs.
        allow_out_of_contract: run although a measured delay is outside the contract; logged.
        patience: scale of all time-outs, for machines that cannot keep time (tests); refused with real arms.
    """

    robot: Literal["emulated", "sim", "real"] = "emulated"
    engine: Literal["mujoco", "pybullet"] = "mujoco"
    left_ip: str = ""
    right_ip: str = ""
    policy: str = "u_shape"
    blueprint: str = ""
    cell: str = ""
    episodes: int = field(default=1, metadata={"range": (0, 100000)})
    seed: int = field(default=1, metadata={"range": (0, 2**31)})
    first_episode: int = field(default=1, metadata={"range": (1, 1000000)})
    noise: float = field(default=1.0, metadata={"range": (0.0, 5.0)})
    record: str = ""
    results: str = ""
    timing: str = ""
    viewer: bool = False
    speed: float = field(default=1.0, metadata={"range": (0.05, 1.0)})
    allow_out_of_contract: bool = False
    patience: float = field(default=1.0, metadata={"range": (1.0, 1000.0)})


@dataclass(frozen=True)
class NodeSpec:
    """One process.

    Attributes:
        name, namespace: of the node.
        executable: console script of the package; `module` is what it runs.
        parameters: beside those of the system's file in `config/ros/`.
        remappings: (from, to).
        lifecycle: whether it is a lifecycle node.
    """

    name: str
    executable: str
    namespace: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    lifecycle: bool = False

    @property
    def module(self) -> str:
        """What `python -m` runs."""
        return f"horseshoe.ros_ws.{self.executable}"

    @property
    def full_name(self) -> str:
        """Such as /left/arm."""
        return f"{self.namespace}/{self.name}"

    def save_parameters(self) -> Path:
        """Write the parameters to a temporary file: from a `--params-file` every launcher reads the same types."""
        import yaml

        handle, name = tempfile.mkstemp(suffix=".yaml", prefix=f"horseshoe_{self.name}_")
        with os.fdopen(handle, "w") as file:
            yaml.safe_dump({"/**": {"ros__parameters": self.parameters}}, file)
        return Path(name)


def parse(arguments: list[str] | dict[str, str]) -> LaunchArguments:
    """Launch arguments from `name:=value` texts.

    Raises:
        HorseshoeError: unknown name or a value that does not fit.
    """
    return parse_as(LaunchArguments, arguments)


def parse_as(kind: type[T], arguments: list[str] | dict[str, str]) -> T:
    """The same for the launch arguments of any system."""
    import yaml

    texts = arguments if isinstance(arguments, dict) else dict(_split(a) for a in arguments)
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    values = {}
    for name, text in texts.items():
        if name not in known:
            raise HorseshoeError(f"no launch argument {name!r}; there are {', '.join(known)}")
        values[name] = text if known[name].type is str else yaml.safe_load(text)
    return configuration.load(kind, values)


@dataclass(frozen=True)
class Described:
    """A launch argument for people: its name, default as text, what it is, and the valid texts if they are few."""

    name: str
    default: str
    text: str
    choices: tuple[str, ...]


def describe(kind: type[Any]) -> list[Described]:
    """The launch arguments of a system, as their class documents them."""
    attributes = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    texts: dict[str, str] = {}
    for names, text in re.findall(r"^ {4}([\w, ]+): ((?:.|\n {8})+)", attributes, re.MULTILINE):
        texts |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    hints, described = get_type_hints(kind), []
    for f in fields(kind):
        default = str(f.default).lower() if isinstance(f.default, bool) else str(f.default)
        choices = ("true", "false") if hints[f.name] is bool else tuple(map(str, get_args(hints[f.name])))
        described.append(Described(f.name, default, texts[f.name], choices))
    return described


def _split(argument: str) -> tuple[str, str]:
    name, sign, value = argument.partition(":=")
    if not sign:
        raise HorseshoeError(f"{argument!r} is no launch argument; write name:=value, such as robot:=emulated")
    return name, value


def parameter_file() -> Path:
    """Parameters of all nodes that do not depend on launch arguments."""
    return configuration.resource("config/ros/bimanual_assembly.yaml")


def nodes(arguments: LaunchArguments) -> list[NodeSpec]:
    """All processes, in the order in which they are started.

    Raises:
        HorseshoeError: the policy or an address is missing or wrong.
    """
    a = arguments
    contract = contracts.load(runtime.find(a.policy))
    blueprint, action = a.blueprint or contract.blueprint, contract.action
    ips = (a.left_ip or EMULATED[0], a.right_ip or EMULATED[1])
    if a.robot == "real" and not (a.left_ip and a.right_ip):
        raise HorseshoeError("robot:=real needs left_ip:=... and right_ip:=..., the addresses of the two control boxes")
    if a.robot == "real" and a.patience != 1.0:
        raise HorseshoeError("patience: only for simulated arms on a busy computer; real ones keep their time-outs")
    if a.robot != "sim" and ips[0] == ips[1]:
        raise HorseshoeError(f"left_ip and right_ip are both {ips[0]}; every arm has a control box of its own")
    where = {"cell": a.cell}
    arm = {
        "rate": action.tick_rate,
        "max_speed": max(action.max_speed, 2.5),
        "max_tool_speed": max(action.max_tool_speed, 0.96),
        "speed_share": a.speed,
        "max_jump": max(action.reach + 0.05, 0.25),  # slow arms lag behind the path by up to its reach
        "hold_after": 0.5 * a.patience,
        "stop_after": 1.5 * a.patience,
        "stale_command": 0.3 * a.patience,
        "link_timeout": 0.5 * a.patience,
        "guard_timeout": 0.25 * a.patience,
        "timing": a.timing,
    }
    if a.robot != "real":
        arm["home_speed"] = 1.0
    world = NodeSpec(
        "world",
        "world_node",
        parameters={
            **where,
            "engine": a.engine,
            "blueprint": blueprint,
            "policy": str(runtime.find(a.policy)),
            "noise": a.noise,
            "seed": a.seed,
            "first_episode": a.first_episode,
            "timing": a.timing,
            "direct": a.robot == "sim",
            "controllers": list(ips),
        },
    )
    watch = {"rate": action.tick_rate, "staleness": 0.2 * a.patience, "skew": 0.15 * a.patience}
    if a.patience > 1.0:
        watch["tracking_error"] = min(0.25 * a.patience, 1.0)  # a simulated arm lags when its computer does
    guard = NodeSpec("guard", "guard_node", parameters={**where, **watch})
    arms = [
        NodeSpec("arm", "arm_node", f"/{name}", {**arm, "robot_ip": ip}, lifecycle=True)
        for name, ip in zip(("left", "right"), ips, strict=True)
    ]
    policy = NodeSpec(
        "policy",
        "policy_node",
        parameters={
            **where,
            "policy": str(runtime.find(a.policy)),
            "blueprint": blueprint,
            "tick_rate": action.tick_rate,
            "max_block_age": 0.5 * a.patience,
            "max_joint_age": 0.2 * a.patience,
            "max_frozen": 1.0 * a.patience,
            "allow_out_of_contract": a.allow_out_of_contract,
            "needs_delay": a.robot != "sim",
        },
        lifecycle=True,
    )
    operator = NodeSpec(
        "operator",
        "operator_node",
        parameters={
            "episodes": a.episodes,
            "first_episode": a.first_episode,
            "results": a.results,
            "simulated": a.robot != "real",
            "measure_delay": a.robot != "sim",
            "patience": 30.0 * a.patience,
            # A simulated world ends episodes itself, after the horizon of the policy's contract.
            "episode_time": 60.0 if a.robot == "real" else 150.0 * a.patience,
            **where,
        },
    )
    table = [guard] if a.robot == "real" else [world, guard]
    if a.record:
        table.append(NodeSpec("recorder", "recorder_node", parameters={"folder": a.record}))
    if a.robot == "sim":
        # The world hosts both arm nodes; they take their parameters from it.
        world.parameters.update(arm)
        arms = []
    return [*table, *arms, policy, operator]
