"""The contract that lies beside every policy: what it sees, what it does, in which timing and noise it was trained.

Training writes it; evaluation and the robot refuse to run what does not match, naming the field.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from horseshoe import configuration, tokens
from horseshoe.action_config import ActionConfig
from horseshoe.errors import ConfigurationError
from horseshoe.observation import FieldSet

VERSION = 1
FILE = "contract.yaml"
WEIGHTS = "policy.onnx"
RANK_SEED = 1_000_000  # between the seeds of two processes: clear of the small ones that people and evaluation take


@dataclass(frozen=True)
class ObservationField:
    """A field of the observation: name, how many numbers, SI unit, how many tokens of so many numbers."""

    name: str
    size: int
    unit: str
    count: int = 1


@dataclass(frozen=True)
class Contract:
    """See the module.

    Attributes:
        version: of this format.
        env: Gymnasium id of the task.
        blueprint: what is assembled; empty where nothing is.
        robots: how many robots share the policy; for pushing the most that it was trained with.
        action: rates, scale, interpolation and limits of the action path. A mobile robot has no joints: of it only
            decision_rate and max_tool_speed, its top speed, speak.
        observation: fields in the order of the network's input; the normaliser is inside the network.
        delay: transport delay trained with, command to motion [s]; for pushing that of the neighbours' messages.
        environment: the rest of the training environment, noise and physics ranges included.
        training: settings of the learner.
        revision: git revision of the code that trained it.
        weights_sha256: of the ONNX file.
        results: measured, each with the command that measured it.
    """

    version: int
    env: str
    blueprint: str
    robots: int
    action: ActionConfig
    observation: tuple[ObservationField, ...]
    delay: tuple[float, float]
    environment: dict[str, Any]
    training: dict[str, Any]
    revision: str
    weights_sha256: str
    results: list[dict[str, Any]] = field(default_factory=list)


# What only training has: easier starts, rest and contact judged otherwise, an early end.
_AIDS = {
    "starts": ("above", "holding", "joining", "joined", "assisted", "assisted_horizon", "again"),
    "task": ("rest_scale", "max_contact", "give_up"),
}


def whole_task(environment: dict[str, Any]) -> dict[str, Any]:
    """The environment of a contract without the aids of training: defaults, the real task, stand where they were."""
    return {
        part: {k: v for k, v in settings.items() if k not in _AIDS[part]} if part in _AIDS else settings
        for part, settings in environment.items()
    }


def observation_fields(fields: FieldSet) -> tuple[ObservationField, ...]:
    """What a contract says of an observer's fields."""
    return tuple(ObservationField(f.name, f.size, f.unit) for f in fields.fields)


def token_fields(neighbours: int, particles: int) -> tuple[ObservationField, ...]:
    """What a contract says of the tokens of a pushing robot (`horseshoe.tokens`), in the network's order."""
    return (
        ObservationField("self", tokens.SELF, "1"),
        ObservationField("robots", tokens.ROBOT, "1", neighbours),
        ObservationField("object", tokens.OBJECT, "1", particles),
        ObservationField("goal", tokens.GOAL, "1", particles),
    )


def sha256(file: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def load(folder: str | Path) -> Contract:
    """Read the contract of a policy folder and check that the weights are the ones it speaks of.

    Raises:
        ConfigurationError: a file is missing, a field is wrong, or the weights are others.
    """
    folder = Path(folder)
    file = folder / FILE
    contract = configuration.load(Contract, file)
    if contract.version != VERSION:
        raise ConfigurationError(file, "version", f"is {contract.version}, this Horseshoe reads {VERSION}")
    weights = folder / WEIGHTS
    if not weights.exists():
        raise ConfigurationError(weights, "", "is missing")
    if sha256(weights) != contract.weights_sha256:
        raise ConfigurationError(file, "weights_sha256", f"does not belong to {weights.name}; export the policy again")
    return contract


def check_observation(contract: Contract, fields: FieldSet, file: str | Path = FILE) -> None:
    """Refuse a policy that was trained on other observations.

    Raises:
        ConfigurationError: names the first field that differs.
    """
    _check_fields(contract, observation_fields(fields), file)


def check_tokens(contract: Contract, neighbours: int, particles: int, file: str | Path = FILE) -> None:
    """Refuse a policy that was trained on other tokens.

    Raises:
        ConfigurationError: names the first field that differs.
    """
    _check_fields(contract, token_fields(neighbours, particles), file)


def check_rate(contract: Contract, period: float, file: str | Path = FILE) -> None:
    """Refuse a policy that was trained with another time between two decisions [s].

    Raises:
        ConfigurationError: names both rates.
    """
    rate = contract.action.decision_rate
    if abs(rate * period - 1.0) > 1e-6:
        raise ConfigurationError(file, "action.decision_rate", f"is {rate:g} Hz, here it is {1.0 / period:g} Hz")


def _check_fields(contract: Contract, ours: tuple[ObservationField, ...], file: str | Path) -> None:
    for i, (theirs, mine) in enumerate(zip(contract.observation, ours, strict=False)):
        if theirs != mine:
            raise ConfigurationError(file, f"observation[{i}]", f"is {theirs}, the observer gives {mine}")
    if len(contract.observation) != len(ours):
        raise ConfigurationError(file, "observation", f"has {len(contract.observation)} fields, expected {len(ours)}")


def check_task(contract: Contract, blueprint: str, robots: int, file: str | Path = FILE) -> None:
    """Refuse a policy for another structure or number of arms.

    Raises:
        ConfigurationError: names what differs.
    """
    for name, theirs, ours in (("blueprint", contract.blueprint, blueprint), ("robots", contract.robots, robots)):
        if theirs != ours:
            raise ConfigurationError(file, name, f"is {theirs}, here it is {ours}")


def training_seeds(contract: Contract) -> list[int]:
    """Seeds that the processes of the training took."""
    training = contract.training
    return [training["seed"] + RANK_SEED * rank for rank in range(training.get("processes", 1))]
