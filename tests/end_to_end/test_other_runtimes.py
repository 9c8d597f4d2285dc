"""A third and a fourth implementation of ONNX agree with onnxruntime on the files that the line
ships.
"""

from __future__ import annotations

from pathlib import Path

import line
import numpy as np
import onnx
import pytest
import thirds

from pipeline.export import graph_analysis

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "runtime", [thirds.reference_answers, thirds.openvino_answers], ids=["onnx", "openvino"]
)
@pytest.mark.parametrize("name", [line.DIGITS, line.WAVES])
def test_other_runtimes_give_the_same_outputs(name: str, runtime) -> None:
    with line.inside(line.made()):
        file = line.model_path(name).read_bytes()
        key = "test_x" if name == line.DIGITS else None
        x = (
            np.load(f"out/{name}/data/{key}.npy")[:8]
            if key
            else np.load(f"out/{name}/export/torch.npz")["random"][:8]
        )
    expected = graph_analysis.run_graph(onnx.load_from_string(file), x)[0]
    np.testing.assert_allclose(runtime(file, x), expected, atol=1e-5)


def test_int8_files_give_the_same_classes_in_numpy() -> None:
    """QDQ is explicit arithmetic: numpy's rounding of the same file gives the same classes."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else "vnni"
    if "avx2" in flags and "vnni" not in flags:
        pytest.skip("onnxruntime's int8 products saturate on this CPU, which has no VNNI")
    with line.inside(line.made()):
        file = line.model_path(line.DIGITS).with_name("model.int8.onnx").read_bytes()
        x = np.load(f"out/{line.DIGITS}/data/test_x.npy")[:64]
    expected = graph_analysis.run_graph(onnx.load_from_string(file), x)[0]
    got = thirds.reference_answers(file, x)
    assert (
        np.abs(got - expected).max() < 0.02 and (got.argmax(1) == expected.argmax(1)).mean() > 0.98
    )
