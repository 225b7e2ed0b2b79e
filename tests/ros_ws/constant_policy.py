"""A policy for pushing that is quickly made, for tests."""

from pathlib import Path
from typing import Any

import numpy as np

from horseshoe import configuration, contract
from horseshoe.action_config import ActionConfig
from horseshoe.ros_ws import push_table

PERIOD = 0.05  # between two decisions [s]
SIZES = {"self": [5], "robots": [3, 6], "object": [32, 4], "goal": [32, 2]}


def write_policy(
    folder: Path, action: tuple[float, float] = (1.0, 0.0), rate: float = 1 / PERIOD, **changes: Any
) -> Path:
    """A policy that answers every robot the same: by default, straight to the object."""
    import onnx
    from onnx import TensorProto, helper

    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["robots", *s]) for n, s in SIZES.items()]
    weights = [
        onnx.numpy_helper.from_array(np.zeros((5, 2), np.float32), "weights"),
        onnx.numpy_helper.from_array(np.array(action, np.float32), "bias"),
    ]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["self", "weights", "bias"], ["action"])],
        "constant",
        inputs,
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, ["robots", 2])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / contract.WEIGHTS))
    written = contract.Contract(
        version=contract.VERSION,
        env=push_table.ENV,
        blueprint="",
        robots=6,
        action=ActionConfig((), (), decision_rate=rate),
        observation=contract.token_fields(SIZES["robots"][0], SIZES["object"][0]),
        delay=(0.0, 0.5),
        environment={},
        training={},
        revision="test",
        weights_sha256=contract.sha256(folder / contract.WEIGHTS),
    )
    configuration.save_yaml({**configuration.dump(written), **changes}, folder / contract.FILE)
    return folder
