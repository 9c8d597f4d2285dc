"""The stand-ins for CUDA's libraries behave as fake_cuda.py says, so that tests with them can fail."""

from pathlib import Path

import line
import pytest
from fake_cuda import FakeCuda
from PIL import Image

OPEN = """
import sys
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

def session(operator, kind, **attributes):
    names = ["a", "b"] if operator in ("Conv", "MatMulInteger") else ["a"]
    nodes = [helper.make_node(operator, names, ["c"], **attributes)]
    given = [helper.make_tensor_value_info(name, kind, ["N", 1, 4, 4]) for name in names]
    made = [helper.make_tensor_value_info("c", TensorProto.INT32 if operator == "MatMulInteger" else kind, None)]
    model = helper.make_model(helper.make_graph(nodes, "one", given, made), ir_version=10,
                              opset_imports=[helper.make_opsetid("", 18)])
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CUDAExecutionProvider"])

onnxruntime.preload_dlls()
ones = lambda n: np.ones((n, 1, 4, 4), np.float32)
"""


def test_existing_kernels_run_and_return_zeros(fake_cuda: FakeCuda) -> None:
    """cuDNN's convolution and a kernel of the provider itself: ones go in, and nothing is computed."""
    code = """
relu, conv = session("Relu", TensorProto.FLOAT), session("Conv", TensorProto.FLOAT)
print(relu.get_providers()[0], relu.run(None, {"a": ones(2)})[0].tolist() == np.zeros((2, 1, 4, 4)).tolist())
print(conv.run(None, {"a": ones(3), "b": ones(1)})[0].shape)
"""
    assert fake_cuda.run(OPEN + code).stdout == "CUDAExecutionProvider True\n(3, 1, 1, 1)\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "session('MatMulInteger', TensorProto.UINT8)",
            "fallback to CPU EP has been explicitly disabled",
        ),
        (
            "session('LRN', TensorProto.FLOAT, size=3).run(None, {'a': ones(0)})",
            "fake cuDNN: dimension 0 is 0",
        ),
    ],
    ids=["no kernel for uint8 products", "no dimension of 0"],
)
def test_the_providers_restrictions_hold(fake_cuda: FakeCuda, code: str, expected: str) -> None:
    """CUDA's MatMulInteger takes int8 only; cuDNN's tensors have sides of at least 1."""
    done = fake_cuda.run(OPEN + code, check=False)
    assert done.returncode == 1 and expected in done.stderr


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"FAKE_CUDA_BYTES": 4096}, "Failed to allocate memory"),
        (
            {"FAKE_CUDA_DRIVER": 12080},
            "CUDA driver version is insufficient for CUDA runtime version",
        ),
        ({"FAKE_CUDA_DRIVER": 0}, "no CUDA-capable device is detected"),
    ],
    ids=["memory", "driver", "device"],
)
def test_faults_of_a_machine_are_simulated(
    fake_cuda: FakeCuda, setting: dict[str, int], expected: str
) -> None:
    """CUDA's own messages for its errors 35 and 100, and that of onnxruntime's arena."""
    done = fake_cuda.run(
        OPEN + "session('Relu', TensorProto.FLOAT).run(None, {'a': ones(64)})",
        check=False,
        **setting,
    )
    assert done.returncode == 1 and expected in done.stderr


def test_a_file_and_the_command_run_in_new_processes(fake_cuda: FakeCuda, tmp_path: Path) -> None:
    """The command names the device; all outputs are 0, so the first label wins, with a score of 0."""
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    model, image = line.made() / line.model_path(line.DIGITS), tmp_path / "black.png"
    done = fake_cuda.infer("images", model, image, "--device", "cuda")
    assert done.stdout.splitlines()[1] == f"{image},0,0,ok," and " cuda" in done.stderr
