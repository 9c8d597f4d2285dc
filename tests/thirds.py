"""ONNX runtimes besides torch and onnxruntime: outputs that three runtimes agree on are those of
the file.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from convline.runtime.openvino import import_openvino


@functools.cache
def openvino_core() -> Any:
    core = import_openvino().Core()
    core.set_property({"INFERENCE_NUM_THREADS": 1})
    core.set_property(
        "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )  # bf16 where the processor has it, if not told
    return core


def openvino_answers(model: bytes, x: np.ndarray) -> np.ndarray:
    """Return the first output of an ONNX model for x under OpenVINO's CPU runtime."""
    core = openvino_core()
    compiled = core.compile_model(core.read_model(model), "CPU")
    return np.array(compiled([x])[compiled.output(0)])


def reference_answers(model: bytes, x: np.ndarray) -> np.ndarray:
    """Return the first output under onnx's reference evaluator: each operator's definition, in
    numpy.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(onnx.load_from_string(model))
    return np.asarray(evaluator.run(None, {evaluator.input_names[0]: x})[0])
