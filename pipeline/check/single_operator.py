"""Open a graph of one operator, to measure what a device does with it."""

from __future__ import annotations

from typing import Any

import numpy as np
from convline.runtime.session import open_session


def open_operator(
    device: str, operator: str, inputs: dict[str, np.ndarray], output_type: type[np.generic]
) -> Any:
    """Return an onnxruntime session of one operator, whose inputs have these shapes and types.

    Its output is called "out".
    """
    from onnx import helper

    values = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in inputs.items()
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(output_type))
    output = helper.make_tensor_value_info("out", kind, None)
    node = helper.make_node(operator, [*inputs], ["out"])
    graph = helper.make_graph([node], operator, values, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return open_session(model.SerializeToString(), device)
