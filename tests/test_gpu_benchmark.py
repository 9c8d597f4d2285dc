"""benchmarks/gpu.py on the CPU with tiny settings: the lines that a GPU runs, since the device is a value."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import models
from serve.session import available_devices

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
BATCHES = (1, 3)


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def assert_complete(result: dict[str, Any], trained_on: str) -> None:
    """Every device that onnxruntime offers has a row for each way and batch, and all agree with torch."""
    assert result["kind"] == trained_on and result["versions"]["torch"]
    assert result["onnxruntime"]["ran_on"] == available_devices()
    for arch, net in result["nets"].items():
        assert net["file_bytes"] > 10_000 and (arch == "resnet") == (net["train"]["per_second"] is None)
        rows = [row for row in net["rows"] if row["runtime"] == "onnxruntime"]
        ways = {"cpu": ("arrays", "bound"), "cuda": ("arrays", "bound", "graph"), "tensorrt": ("arrays", "bound")}
        precisions = ["fp32"] if "waves" in net["data"] else ["fp32", "fp16"]
        assert [(row["device"], row["precision"], row["batch"], row["way"]) for row in rows] == [
            (device, precision, batch, way)
            for device in available_devices() for precision in precisions for batch in BATCHES for way in ways[device]
        ]  # fmt: skip
        allowed = {"fp32": 1e-4, "fp16": 1e-2}
        assert all(row["passed"] and row["max_difference"] < allowed[row["precision"]] for row in rows)
        assert [row["batch"] for row in net["rows"] if row["runtime"] == "torch eager"] == list(BATCHES)
        assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in net["rows"])


@pytest.mark.slow
def test_every_figure_is_there(gpu: ModuleType) -> None:
    """Oracle: the list of what must be measured; torch's own answers are inside `max_difference`."""
    result = gpu.measure("cpu", epochs=2, seconds=0.0, batches=BATCHES, minutes=0)
    assert_complete(json.loads(json.dumps(result)), "cpu")
    assert set(result["nets"]) == {"lenet5", "causal", "resnet"}
    assert result["training"]["nets"] == {key: {"not_measured": "out of time"} for key in models.names()}
    assert result["nets"]["lenet5"]["data"] == "digits, from scikit-learn"
    served = [row for row in result["nets"]["lenet5"]["rows"] if row["runtime"] == "infer images"]
    assert [row["device"] for row in served] == available_devices() and all(row["passed"] for row in served)
    text = gpu.table(result)
    assert text.count("onnxruntime   fp32  cpu") == 3 * 2 * len(BATCHES) and "lenet5 on digits" in text


@pytest.mark.slow
def test_how_fast_an_architecture_trains(gpu: ModuleType) -> None:
    """Oracle: each way's rate is there and of one step's order; shares follow from them."""
    cpu = torch.device("cpu")
    for arch, least in (("lenet5", 416_520), ("causal", 1)):  # the products of its layers alone
        found = gpu.training.measure(arch, cpu, 0.0, reduced=True, compiled=False)
        whole, memory, plain = (found["per_second"][way] for way in ("whole", "memory", "plain"))
        assert min(whole, memory, plain) > 1 and max(whole, memory, plain) < 1e6
        assert found["input_share"] == 1 - whole / memory and found["of_plain"] == whole / plain
        assert found["share_of_peak"] == pytest.approx(6 * found["macs"] * whole / found["peak_operations_per_second"])
        assert 1e8 < found["peak_operations_per_second"] < 1e14
        assert least <= found["macs"] < 3e6
    nets = {"causal": found, "vgg": {"not_measured": "x"}}
    shown = gpu.training.table({"nets": nets})
    assert "causal plain" in shown and shown.splitlines()[-1].split() == ["vgg", "x"]
    for arch in models.names():
        _, options, shape = gpu.training.published(arch, True)
        assert shape[1:] == (32, 32) or len(shape) == 2 or (shape[1] > 32 and options["size"] == shape[1:])


@pytest.mark.slow
def test_it_runs_without_what_a_bare_machine_lacks() -> None:
    """Oracle: a process in which these packages cannot be imported; drawn images stand in, and the result says so."""
    lacking = ("sklearn", "statsmodels", "dvc", "dvclive", "matplotlib", "jinja2", "pyarrow", "ray", "vl_convert")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({lacking!r})); sys.path.insert(0, {str(SCRIPT.parent)!r}); "
        "import gpu, json; gpu.NETS = ('lenet5',); print(json.dumps(gpu.measure('cpu', 1, 0.0, (2,), 0)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    net = json.loads(done.stdout)["nets"]["lenet5"]
    assert net["data"] == "images, generated" and net["train"]["samples"] == 1000
    assert all(row["passed"] for row in net["rows"] if row["runtime"] == "onnxruntime")


def test_a_gpu_that_is_not_there_is_an_error(gpu: ModuleType, tmp_path: Path) -> None:
    """Oracle: exit code 1, one sentence with the cure, and no file."""
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    done = CliRunner().invoke(gpu.main, ["--device", "cuda", "--out", str(tmp_path)])
    assert done.exit_code == 1 and "asked for cuda, " in done.output and "nvidia-smi" in done.output
    assert not list(tmp_path.iterdir())


def test_the_file_is_named_by_the_device(gpu: ModuleType) -> None:
    """Oracle: by hand."""
    assert gpu.slug("NVIDIA H200") == "nvidia-h200"
    assert gpu.slug("Intel(R) Xeon(R) CPU @ 2.20GHz") == "intel-r-xeon-r-cpu-2-20ghz"


def test_drawn_images_can_be_told_apart(gpu: ModuleType) -> None:
    """Oracle: class k < 5 has row k white, k >= 5 column k - 5; splits hold 1000, 200 and 200 in ten equal classes."""
    splits = gpu.drawn_images()
    assert {split: len(samples) for split, samples in splits.items()} == {"train": 1000, "validation": 200, "test": 200}
    for sample in splits["test"]:
        for k in range(10):
            strip = [(i, k) if k < 5 else (k - 5, i) for i in range(8)]  # Pillow counts (x, y)
            assert all(sample.image.getpixel(at) == 255 for at in strip) == (sample.label == k)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_every_figure_is_there_on_a_gpu(gpu: ModuleType) -> None:
    """Oracle: as on the CPU; training's peak memory is known besides."""
    result = gpu.measure("cuda", epochs=2, seconds=0.0, batches=BATCHES, minutes=0)
    assert_complete(result, "cuda")
    assert all(net["train"]["peak_bytes"] > 0 for net in result["nets"].values())
