"""Running an exported policy: ONNX only, no torch."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horseshoe import configuration, tokens
from horseshoe import contract as contracts
from horseshoe.errors import HorseshoeError


@functools.lru_cache(maxsize=1)
def _pretrained() -> Path:
    return Path(__file__).resolve().parent / "pretrained"


def names() -> list[str]:
    """Policies that come with Horseshoe."""
    return sorted(p.parent.name for p in _pretrained().glob(f"*/{contracts.FILE}"))


def find(policy: str | Path) -> Path:
    """Folder of a policy given by name or by path.

    Raises:
        HorseshoeError: there is none; lists the names.
    """
    for folder in (Path(policy), _pretrained() / str(policy)):
        if (folder / contracts.FILE).exists():
            return folder
    raise HorseshoeError(
        f"policy '{policy}': neither a shipped one ({', '.join(names()) or 'none'}) nor a folder with {contracts.FILE}"
    )


def _session(folder: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(folder / contracts.WEIGHTS), options, providers=["CPUExecutionProvider"])


class OnnxPolicy:
    """A policy and its contract.

    Args:
        policy: name of a shipped policy or a folder.

    Raises:
        HorseshoeError: no such policy, or its files do not fit together.
    """

    def __init__(self, policy: str | Path) -> None:
        self.folder = find(policy)
        self.contract = contracts.load(self.folder)
        self._session = _session(self.folder)
        self._size = sum(f.size for f in self.contract.observation)

    def act(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """Deterministic actions in [-1, 1], (..., 7), of observations (..., size).

        Raises:
            HorseshoeError: wrong size, or NaN in or out.
        """
        if observation.shape[-1] != self._size:
            raise HorseshoeError(f"observation: {observation.shape[-1]} numbers, the contract says {self._size}")
        flat = np.ascontiguousarray(observation.reshape(-1, self._size), dtype=np.float32)
        if not np.isfinite(flat).all():
            raise HorseshoeError("observation: contains NaN or infinity")
        action = np.asarray(self._session.run(["action"], {"observation": flat})[0])
        if not np.isfinite(action).all():
            raise HorseshoeError("policy: answered with NaN or infinity")
        return action.reshape(*observation.shape[:-1], -1)


class TokenPolicy:
    """A policy that sees tokens (`horseshoe.tokens`) and answers with a velocity, one robot or many at a time.

    Attributes:
        neighbours, particles: how many of the other robots and of the object's points it sees.

    Args:
        policy: name of a shipped policy or a folder.

    Raises:
        HorseshoeError: no such policy, or one whose inputs are no tokens.
    """

    def __init__(self, policy: str | Path) -> None:
        self.folder = find(policy)
        self.contract = contracts.load(self.folder)
        self._session = _session(self.folder)
        shapes = {i.name: i.shape for i in self._session.get_inputs()}
        features = {"self": tokens.SELF, "robots": tokens.ROBOT, "object": tokens.OBJECT, "goal": tokens.GOAL}
        for name, size in features.items():
            theirs = shapes.get(name, [])
            if len(theirs) != (2 if name == "self" else 3) or theirs[-1] != size or not isinstance(theirs[1], int):
                raise HorseshoeError(
                    f"{self.folder / contracts.WEIGHTS}: input '{name}' is {theirs or 'missing'}; a policy for pushing "
                    f"takes {size} numbers per token there, and a fixed number of tokens"
                )
        self.neighbours, self.particles = shapes["robots"][1], shapes["object"][1]

    def act(self, observation: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Deterministic actions in [-1, 1], shape (batch, 2), of tokens with a leading batch axis.

        Raises:
            HorseshoeError: NaN in or out.
        """
        for name, value in observation.items():
            if not np.isfinite(value).all():
                raise HorseshoeError(f"observation {name}: contains NaN or infinity")
        action = np.asarray(self._session.run(["action"], observation)[0])
        if not np.isfinite(action).all():
            raise HorseshoeError("policy: answered with NaN or infinity")
        return np.clip(action, -1.0, 1.0)


def add_result(folder: Path, result: dict[str, object]) -> None:
    """Write a measured result into a policy's contract, replacing an earlier one of the same command."""
    contract = contracts.load(folder)
    kept = [r for r in contract.results if r.get("command") != result["command"]]
    data = configuration.dump(contract) | {"results": [*kept, result]}
    configuration.save_yaml(configuration.load(contracts.Contract, data), folder / contracts.FILE)
