"""Stage check: it passes a valid file, and stops each introduced fault with a message."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import line
import numpy as np
import onnx
import onnxruntime
import pytest
from convline.errors import DeviceError, ModelFileError
from convline.loading import load_file
from convline.runtime.session import available_devices

from pipeline.check import limits, parity, single_operator, summary
from pipeline.check.tasks import TASKS, classification
from pipeline.core.errors import StageError
from pipeline.data import dataset
from pipeline.evaluate import metrics

pytestmark = pytest.mark.usefixtures("root")


def assert_refused(name: str, sentence: str, error: type[Exception] = StageError) -> None:
    """Assert that the stage raises the message, and that check.json holds it as the verdict with
    passed false.
    """
    with pytest.raises(error) as refusal:
        line.run("check", name)
    assert re.search(sentence, str(refusal.value)), str(refusal.value)
    checked = line.results(name, "check")
    assert checked["passed"] is False and checked["verdict"] == str(refusal.value)
    assert (
        checked["metric"] or not Path("results", name, "speed.json").exists()
    )  # no figures of another file stay


@pytest.mark.parametrize("name", [line.DIGITS, line.WAVES])
def test_a_valid_file_passes_without_torch(name: str) -> None:
    """numpy on torch's recorded outputs; the process cannot import torch."""
    done = line.run_without_torch("check", name)
    assert done.returncode == 0, done.stderr
    checked, saved = line.results(name, "check"), np.load(f"out/{name}/export/torch.npz")
    beside = checked["against_baseline"]
    assert beside["better"] or name == line.WAVES  # it is trained for seconds
    assert (
        checked["passed"]
        and checked["verdict"]
        == "all limits kept" + (name == line.WAVES) * f"; {beside['sentence']}"
    )
    assert beside["sentence"] in done.stderr or name == line.DIGITS
    if not beside["better"]:  # behind it are the seconds alone
        assert done.stderr.splitlines()[-1].endswith(f"; ✗ {beside['sentence']}")
    variants = ["fp32", "int8", "fp16"] if name == line.DIGITS else ["fp32"]
    assert [row["variant"] for row in checked["golden"]] == variants and checked["golden"][0][
        "difference"
    ] <= 1e-6
    assert [(row["variant"], row["input"], row["batch"]) for row in checked["rows"]] == [
        (variant, kind, batch)
        for variant in variants
        for kind in ("test", "random")
        for batch in (0, 1, 7, 256)
    ]
    assert {row["n"] for row in checked["rows"] if row["batch"] == 256} == {
        len(saved["test_0"]),
        16,
    }
    assert checked["metric"]["n"] == len(saved["test_0"])
    assert checked["metric"]["value"] == pytest.approx(checked["metric"]["torch"], rel=1e-5)
    if name == line.DIGITS:
        y = np.load(f"out/{name}/data/test_y.npy")
        accuracy = (saved["test_0"].argmax(1) == y).mean()  # results have six digits
        assert checked["metric"]["torch"] == pytest.approx(accuracy, rel=1e-5) and accuracy > 0.8
    speed = line.results(name, "speed")
    assert {row["batch"] for row in speed["rows"]} <= {1, 4} and speed["machine"]["cores"] >= 1
    assert {file["variant"] for file in speed["files"]} == {*variants} - {
        "fp16"
    }  # the CPU emulates float16
    assert all(set(file["placement"]) == {"CPUExecutionProvider"} for file in speed["files"])
    assert all(0 < file["first_s"] < 60 and file["memory_mb"] > 10 for file in speed["files"])
    assert all(0 < row["share_of_limit"] < 1 for row in speed["rows"])
    assert all(0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"] for row in speed["rows"])


def nudge(index: Any, by: float) -> Callable[[np.ndarray], None]:
    def change(array: np.ndarray) -> None:
        array[index] += by

    return change


FAULTS = {
    "one weight of 640 changed": (
        lambda graph: line.change_weights(graph, nudge((0, 27), 0.1), "head.weight"),
        r"fp32: onnxruntime \(cpu\) differs from torch by \S+ on test input at batch \d+ "
        r"\(limit 1.0e-04\), worst in",
    ),
    "a wrong mean": (
        lambda graph: line.change_weights(graph, nudge(..., 3.0), "mean"),
        r"fp32: onnxruntime \(cpu\) differs from torch by .*\(limit 1.0e-04\)",
    ),
    "a wrong scale": (
        lambda graph: line.change_weights(
            graph, lambda scale: np.multiply(scale, 1.1, out=scale), "scale"
        ),
        r"fp32: onnxruntime \(cpu\) differs from torch by .*\(limit 1.0e-04\)",
    ),
    "a weight that is not a number": (
        lambda graph: line.change_weights(graph, nudge((3, 20), np.nan), "head.weight"),
        r"fp32: onnxruntime \(cpu\) has outputs that are not finite on test input at batch 1, "
        r"first in row 0",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_graph_is_an_error(fault: str) -> None:
    """The file is sealed again, so that its digest is right."""
    change, sentence = FAULTS[fault]
    line.change_model(line.DIGITS, graph=change)
    assert_refused(
        line.DIGITS, rf"^{line.DIGITS}: {sentence}.*; see results/{line.DIGITS}/check.json$"
    )


def test_an_overflow_of_float16_is_an_error() -> None:
    """64 pixels times 6e4 is beyond 65,504; the fp32 file is untouched."""

    def overflow(graph: onnx.ModelProto) -> None:
        for weight in graph.graph.initializer:
            if weight.data_type == onnx.TensorProto.FLOAT16 and len(weight.dims) == 2:
                large = np.full(tuple(weight.dims), 6e4, np.float16)
                weight.CopyFrom(onnx.numpy_helper.from_array(large, weight.name))

    line.change_model(line.DIGITS, graph=overflow, file="model.fp16.onnx")
    sentence = (
        r"fp16: the output of node '\S+' leaves float16's range; take fp16 out of check.variants"
    )
    assert_refused(line.DIGITS, sentence)


def test_a_variant_that_loses_accuracy_is_left_out() -> None:
    """Reversed scales of weights change int8; fp32 passes and is packaged."""

    def spoil(graph: onnx.ModelProto) -> None:
        for weight in graph.graph.initializer:
            array = onnx.numpy_helper.to_array(weight)
            if array.dtype == np.int8 and array.ndim == 2:
                weight.CopyFrom(onnx.numpy_helper.from_array(array[:, ::-1].copy(), weight.name))

    line.change_model(line.DIGITS, graph=spoil, file="model.int8.onnx", keep_golden=False)
    line.run("check", line.DIGITS)
    checked = line.results(line.DIGITS, "check")
    found = checked["variants"]["int8"]["cpu"]
    assert checked["passed"] and not found["accepted"] and found["lost"] > 0.3
    assert re.search(
        r"int8 loses \d\d\.\d\d points .*; it does not ship, a weak verdict on 360 images",
        found["why"],
    )
    assert line.results(line.DIGITS, "speed")["choice"]["cpu"]["variant"] == "fp32"
    line.run("package", line.DIGITS)
    assert not Path("out/dist", line.DIGITS, "model.int8.onnx").exists()


@pytest.mark.skipif("cuda" in available_devices(), reason="there is a CUDA device here")
def test_a_missing_device_is_an_error() -> None:
    """The message names the device and what is missing."""
    laid_out = Path("out/params", line.DIGITS, "check.json")
    asked = json.loads(laid_out.read_text())
    asked["check"]["devices"] = ["cuda"]
    laid_out.write_text(json.dumps(asked))
    assert_refused(line.DIGITS, "asked for cuda: no NVIDIA GPU is seen", DeviceError)


def test_a_fault_in_the_quantiles_is_an_error() -> None:
    """The forecast itself is untouched. Values that are far from the others are named as a cause."""
    line.change_model(
        line.WAVES,
        graph=lambda graph: line.change_weights(graph, nudge((0, 0, 0), 0.01), "offsets"),
    )
    assert_refused(line.WAVES, r"differs from torch by 1.0e-02 [^;]*; see results")
    about = line.results(line.WAVES, "data") | {"far": {"y": {"train": 1}}}
    Path("results", line.WAVES, "data.json").write_text(json.dumps(about))
    cause = "it may be that column 'y' has values far from the others: 1 train value; see results"
    assert_refused(line.WAVES, rf"differs from torch by 1.0e-02 [^;]*; {cause}")


def freeze(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def test_a_frozen_batch_axis_is_an_error() -> None:
    """The message names the input and the expected shape."""
    line.change_model(line.WAVES, graph=freeze)
    sentence = r"graph input 'series': expected float \['N', 20, 1\].*got .*\[2, 20, 1\]"
    assert_refused(line.WAVES, sentence, ModelFileError)


def test_a_missing_label_is_an_error() -> None:
    """Nine labels for ten probabilities."""
    line.change_model(line.DIGITS, document=lambda document: document["labels"].pop())
    assert_refused(
        line.DIGITS, r"'probabilities': expected float \['N', 9\].*got .*10\]", ModelFileError
    )


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda document: document["labels"].reverse(), "labels"),
        (lambda document: document["input"].update(interpolation="nearest"), "input"),
        (lambda document: document.update(name="lenet5-digits"), "name"),
    ],
)
def test_a_document_of_other_data_is_an_error(
    change: Callable[[dict[str, Any]], None], key: str
) -> None:
    """It differs from what stage data wrote; the graph and its numbers are untouched."""
    line.change_model(line.DIGITS, document=change)
    assert_refused(
        line.DIGITS, rf"model.onnx: expected {key} .* as the entry has, got .*export@{line.DIGITS}"
    )


def test_an_edited_byte_is_an_error() -> None:
    """By the digest."""
    path = line.model_path(line.DIGITS)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert_refused(
        line.DIGITS, "the file is damaged, its digest does not fit|expected an ONNX", ModelFileError
    )


def test_golden_samples_of_another_model_are_an_error() -> None:
    """The graph agrees with torch, the golden outputs do not."""

    def swap(document: dict[str, Any]) -> None:
        ours = load_file(line.model_path(line.DIGITS), "cpu").file.json["golden"]["outputs"][
            "probabilities"
        ]
        rolled = np.roll(line.unpack_array(ours), 1, axis=1)
        document["golden"]["outputs"]["probabilities"] = line.pack_array(rolled)

    line.change_model(line.DIGITS, document=swap)
    assert_refused(
        line.DIGITS, r"golden samples of fp32 replayed on cpu differ by \S+ \(limit 1.0e-04\)"
    )


def test_a_changed_metric_is_an_error() -> None:
    """.005 of accuracy, or a thousandth of an error, may change; of an error that is rounding, the
    square of what the outputs may differ by, 1e-8.
    """
    row = {"passed": True, "limit": 1e-4, "variant": "fp32"}
    for name, torch_value, kept, broken in (
        ("accuracy", 0.9, 0.8951, 0.8949),
        ("mse", 20.0, 20.019, 20.021),
        ("mse", 3.0e-10, 2.7e-10, 1.1e-8),
        ("mse", 2.0e-8, 2.0019e-8, 2.0021e-8),
    ):
        checked = {"rows": [row], "golden": [], "metric": {"name": name, "torch": torch_value}}
        checked["metric"]["value"] = kept
        assert limits.broken_limit("x", checked) is None
        checked["metric"]["value"] = broken
        sentence = f"x: {name} is {broken:.4g} under onnxruntime, {torch_value:.4g} under torch"
        assert sentence in (limits.broken_limit("x", checked) or "")


def test_a_network_no_better_than_its_baseline_is_refused_if_params_say_so() -> None:
    """With `report` the same file passes."""
    beside = {
        "better": False,
        "sentence": "worse than seasonal naive: ship the baseline? MASE 2 against 1, 2.00 times",
    }
    assert limits.no_better_than_baseline("x", {"against_baseline": beside}, "report") is None
    sentence = limits.no_better_than_baseline("x", {"against_baseline": beside}, "refuse") or ""
    assert (
        sentence.startswith(f"x: {beside['sentence']}; train it longer")
        and "check.baseline: report" in sentence
    )
    assert (
        limits.no_better_than_baseline(
            "x", {"against_baseline": beside | {"better": True}}, "refuse"
        )
        is None
    )


@pytest.mark.parametrize("name", [line.DIGITS, line.WAVES])
def test_the_last_line_says_what_is_no_better_than_its_baseline(name: str) -> None:
    """A network that answers noise, in the stage's own files of the line."""
    checked, speed = line.results(name, "check"), line.results(name, "speed")
    metric = checked["metric"]
    if name == line.DIGITS:
        metric["value"] = 0.05  # of ten classes
    else:
        metric |= {"value": 1e9, "mase": 1e9}
        for baseline in metric["baselines"].values():
            baseline |= {"mse_ratio": None, "mase_ratio": None}  # the errors alone decide
    beside = TASKS[dataset.load(name).task].compare_with_baseline(metric, dataset.load(name))
    last = summary.describe_result(checked | {"against_baseline": beside}, speed).split("; ✗ ")[1]
    assert last == beside["sentence"]
    assert last.startswith("no better than" if name == line.DIGITS else "worse than")
    beside["better"] = True
    better = summary.describe_result(checked | {"against_baseline": beside}, speed)
    assert "✗" not in better


def test_rounded_float32_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that rounds to 10 fraction bits is 2^-12 off."""
    assert parity.float32_rounding_error("cpu") <= 1e-6

    class Rounding:
        def __init__(self, model: bytes, device: str) -> None:
            self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

        def run(self, names: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
            return self.session.run(
                names, {name: np.rint(x * 1024) / np.float32(1024) for name, x in given.items()}
            )

    monkeypatch.setattr(single_operator, "open_session", Rounding)
    error = parity.float32_rounding_error("cuda")
    assert error == pytest.approx(2.0**-12, rel=1e-3)
    checked = {
        "rounding": {"cuda": error},
        "rows": [],
        "golden": [],
        "metric": {"name": "accuracy"},
    }
    sentence = "x: cuda rounds float32 products, off by 2.4e-04 (limit 6.1e-05); unset NVIDIA_TF32"
    assert (limits.broken_limit("x", checked) or "").startswith(sentence)


def test_wilson_against_a_published_value() -> None:
    """Wilson's interval for 81 of 263 is .2553 to .3662 (Newcombe 1998, table I)."""
    assert metrics.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    low, high = metrics.wilson_interval(0, 20)
    assert low == pytest.approx(0, abs=1e-12) and high == pytest.approx(
        0.1611, abs=5e-5
    )  # the same table: 0 of 20


def test_differences_of_probabilities() -> None:
    """Two rows of two probabilities, by hand."""
    expected = [np.array([[0.9, 0.1], [0.4, 0.6]], np.float32)]
    found = [np.array([[0.9, 0.1], [0.7, 0.3]], np.float32)]
    facts = classification.compare(None, found, expected, 2, 1e-4)
    assert facts["finite"] and facts["worst_row"] == 1 and facts["top1_agreement"] == 0.5
    assert facts["beyond"] == 1
    assert facts["max_difference"] == pytest.approx(0.3, rel=1e-6)
    assert facts["mean_difference"] == pytest.approx(0.15, rel=1e-6)
    found[0][0, 0] = np.inf
    facts = classification.compare(None, found, expected, 2, 1e-4)
    assert not facts["finite"] and facts["worst_row"] == 0
