"""ONNX runtimes besides torch and onnxruntime: outputs that three runtimes agree on are those of
the file.
"""

from __future__ import annotations

import numpy as np
from convline.runtime.openvino import core


def openvino_answers(model: bytes, x: np.ndarray) -> np.ndarray:
    """Return the first output of an ONNX model for x under OpenVINO's CPU runtime."""
    # bf16 where the processor has it, if not told
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core().compile_model(core().read_model(model), "CPU", settings)
    return np.array(compiled([x])[compiled.output(0)])


def reference_answers(model: bytes, x: np.ndarray) -> np.ndarray:
    """Return the first output under onnx's reference evaluator: each operator's definition, in
    numpy.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(onnx.load_from_string(model))
    return np.asarray(evaluator.run(None, {evaluator.input_names[0]: x})[0])
