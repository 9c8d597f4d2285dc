"""Stages check, package and infer on a machine with a GPU, with stand-ins for CUDA's libraries.

The stand-ins compute nothing, so in stage check each output of a session on CUDA is replaced by the
CPU's after it was run: placement, refusals and shapes are CUDA's; the numbers and the limits on
them are the CPU's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import line
import numpy as np
import onnx
import pytest
from fake_cuda import FakeCuda

from pipeline.check import parity
from pipeline.export import head_graph
from pipeline.train import head_files, heads

pytestmark = [pytest.mark.usefixtures("root"), pytest.mark.slow]

CHECK = """
import sys
import onnxruntime

run = onnxruntime.InferenceSession.run
rounding = set()

def run_and_answer_from_the_cpu(session, names, given, options=None):
    answers = run(session, names, given, options)
    if session.get_providers()[0] == "CPUExecutionProvider":
        return answers
    rounding.add(session.get_provider_options()["CUDAExecutionProvider"]["use_tf32"])
    if not hasattr(session, "twin"):
        model = session._model_bytes or session._model_path
        session.twin = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    expected = run(session.twin, names, given, options)
    assert [(a.shape, a.dtype) for a in answers] == [(a.shape, a.dtype) for a in expected]
    return expected

onnxruntime.InferenceSession.run = run_and_answer_from_the_cpu
from pipeline.check import roofline
from pipeline.check.__main__ import main
roofline.SIDE, roofline.STREAM = 256, 2**20  # as line.small_limits
main()
print(*sorted(rounding))
"""
INFER = """
import os
from pipeline.infer import shipped_command
from pipeline.infer.__main__ import main

# the stage starts the wheel without PYTHONPATH: the stand-ins' other half is given to it here
site = os.path.join(os.environ["LD_LIBRARY_PATH"], "sitecustomize.py")
program = shipped_command.PROGRAM
shipped_command.PROGRAM = f"import runpy; runpy.run_path({site!r})\\n{program}"
main()
"""
MEASURE = """
import sys
import numpy as np
from pipeline.check import latency, roofline
from convline.model_file.onnx_file import read_model_file
from pipeline.params.schema import Check

roofline.machine_limits = lambda device: {"fp32": 1.0, "stream": 1.0}
limits = Check(batches=[1, 4], threads=[], seconds=0.0)
ops = {"macs": 1, "weights": 1, "moved": 1}
found = latency.measure_file(read_model_file(sys.argv[1]), "fp32", "cuda", np.zeros((4, 8, 8, 1), np.uint8), ops, limits)
print(found["placement"]["CPUExecutionProvider"], found["on_cpu"], found["cuda_graph"])
print(sorted({row["way"] for row in found["rows"]}))
"""
FILES = {line.DIGITS: ["fp32", "int8", "fp16"], line.WAVES: ["fp32"]}
ON_CUDA = {line.DIGITS: ["fp32", "fp16"], line.WAVES: ["fp32"]}


def zero_answers_of_cuda(name: str) -> None:
    """Replace the CUDA outputs that the check recorded by the stand-ins' zeros."""
    path = Path("out", name, "check", "test.npz")
    arrays = dict(np.load(path))
    assert [key for key in arrays if "cuda" in key] == [
        f"predictions_cuda_{variant}" for variant in ON_CUDA[name]
    ]
    np.savez(path, **{key: 0 * array if "cuda" in key else array for key, array in arrays.items()})


def test_check_package_and_infer_run_on_cuda(fake_cuda: FakeCuda) -> None:
    """Both entries; then their pages say what CUDA gains."""
    for name in (line.DIGITS, line.WAVES):
        check_package_and_infer(name, fake_cuda)
    Path("docs").symlink_to(line.REPOSITORY / "docs")
    line.run("report")
    for name in (line.DIGITS, line.WAVES):
        page = Path("out", "report", f"{name}.html").read_text(encoding="utf-8")
        assert "<p>On CUDA <strong>" in page, name


def check_package_and_infer(name: str, fake_cuda: FakeCuda) -> None:
    """Assert that each file has a row for each device with kernels for it: int8 only on the CPU,
    which emulates fp16.
    """
    done = fake_cuda.run(CHECK, name, cwd=Path.cwd())
    assert done.stdout == "0 1\n"  # TF32 is off, and on in the row that shows what it would change
    checked, speed = line.results(name, "check"), line.results(name, "speed")
    assert checked["passed"] and checked["verdict"].startswith("all limits kept")
    assert checked["rounding"]["cuda"] <= parity.MAX_ROUNDING_ERROR
    compared = [("cpu", variant) for variant in FILES[name]] + [
        ("cuda", variant) for variant in ON_CUDA[name]
    ]
    rows = {
        (row["provider"], row["variant"], row["input"], row["batch"]) for row in checked["rows"]
    }
    assert rows == {
        (*place, kind, batch)
        for place in [*compared, ("cuda", "fp32, TF32")]
        for kind in ("test", "random")
        for batch in (0, 1, 7, 256)
    }
    assert [(row["provider"], row["variant"]) for row in checked["golden"]] == compared
    assert [row["provider"] for row in checked.get("streams", [])] == (
        ["cpu", "cuda"] if name == line.WAVES else []
    )
    assert {variant: [*by] for variant, by in checked["variants"].items()} == (
        {"int8": ["cpu"], "fp16": ["cpu", "cuda"]} if name == line.DIGITS else {}
    )
    timed = [place for place in compared if place != ("cpu", "fp16")]
    assert [(file["device"], file["variant"]) for file in speed["files"]] == timed
    assert all(
        file["cuda_graph"] and not file["on_cpu"]
        for file in speed["files"]
        if file["device"] == "cuda"
    )
    assert {row["way"] for row in speed["rows"] if row["device"] == "cuda"} == {
        "arrays",
        "bound",
        "graph",
    }
    assert [*speed["limits"]["cuda"]] == ["fp32", "fp16", "stream"]

    fake_cuda.run("from pipeline.package.__main__ import main; main()", name, cwd=Path.cwd())
    manifest = json.loads(Path("out", "dist", name, "manifest.json").read_text())
    assert [*manifest["recommended"]] == ["cpu", "cuda"] and manifest["recommended"][
        "cuda"
    ] != "int8"

    zero_answers_of_cuda(name)
    fake_cuda.run(INFER, name, cwd=Path.cwd())
    served: dict[str, Any] = line.results(name, "infer")
    assert served["equal"] and [*served["served"]] == [
        f"{variant} on {device}" for device, variant in timed
    ]


@pytest.mark.parametrize(
    ("kind", "operators"),
    [("forest", ["TreeEnsembleClassifier"]), ("svm-rbf", ["Scaler", "SVMClassifier"])],
)
def test_a_forest_or_svm_runs_on_the_cpu_behind_a_backbone_on_cuda(
    kind: str, operators: list[str], fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ai.onnx.ml has CPU kernels only. The row names them, and no CUDA graph is tried."""
    monkeypatch.setattr(heads, "TREES", 3)
    rng = np.random.default_rng(0)
    y = np.arange(60) % 10
    x = (rng.standard_normal((60, 64)) + 3 * np.eye(10, 64)[y]).astype(np.float32)
    options = {
        "forest": {"max_features": "sqrt", "min_samples_leaf": 1},
        "svm-rbf": {"C": 1.0, "gamma": 1.0},
    }[kind]
    head = heads.Head(kind, options, heads.fit_estimator(kind, options, x, y, 1))

    def put_behind(graph: onnx.ModelProto) -> None:
        """Replace the linear classifier by the head, whose features are the pixels."""
        helper = onnx.helper
        nodes = [
            helper.make_node("Cast", ["images"], ["grey"], to=1),
            helper.make_node("Flatten", ["grey"], ["features"]),
        ]
        value = helper.make_tensor_value_info("features", 1, ["N", 64])
        backbone = helper.make_graph(nodes, "pixels", graph.graph.input, [value])
        opsets = [o for o in graph.opset_import if o.domain == ""]
        made = helper.make_model(backbone, opset_imports=opsets, ir_version=graph.ir_version)
        graph.CopyFrom(
            head_graph.join_head(made, head_files.head_to_onnx(head, 64, opsets[0].version))
        )

    line.change_model(line.DIGITS, graph=put_behind, keep_golden=False)
    done = fake_cuda.run(MEASURE, line.model_path(line.DIGITS), cwd=Path.cwd())
    placed, ways = done.stdout.splitlines()
    count, _, named = placed.partition(" ")
    assert int(count) >= len(operators) and all(repr(operator) in named for operator in operators)
    assert named.endswith("] False") and ways == "['arrays', 'bound']"
