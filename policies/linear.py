"""Linear policies: no training, but a whole policy folder, to measure and test what lies behind a policy."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from horseshoe import configuration
from horseshoe import contract as contracts


def write(
    folder: Path, weights: NDArray[np.float32], bias: NDArray[np.float32], contract: contracts.Contract, **changes: Any
) -> Path:
    """Write `action = observation @ weights + bias` as ONNX, and its contract.

    Args:
        folder: to write, made if needed.
        weights: shape (numbers in an observation, numbers in an action).
        bias: shape (numbers in an action,).
        contract: of the policy; the digest of the weights is filled in.
        changes: of the contract's fields as they are written, right or wrong.

    Returns:
        The folder.
    """
    import onnx
    from onnx import TensorProto, helper

    folder.mkdir(parents=True, exist_ok=True)
    inputs, outputs = weights.shape
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["observation", "weights", "bias"], ["action"])],
        "linear",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["agents", inputs])],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, ["agents", outputs])],
        [onnx.numpy_helper.from_array(weights, "weights"), onnx.numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / contracts.WEIGHTS))
    digest = contracts.sha256(folder / contracts.WEIGHTS)
    written = {**configuration.dump(contract), "weights_sha256": digest, **changes}
    configuration.save_yaml(written, folder / contracts.FILE)
    return folder
