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
    for net in result["nets"].values():
        assert net["train"]["per_second"] > 0 and net["file_bytes"] > 10_000
        rows = [row for row in net["rows"] if row["runtime"] == "onnxruntime"]
        assert [(row["device"], row["batch"], row["way"]) for row in rows] == [
            (device, batch, way) for device in available_devices() for batch in BATCHES for way in ("arrays", "bound")
        ]
        assert all(row["passed"] and row["max_difference"] < 1e-4 for row in rows)
        assert [row["batch"] for row in net["rows"] if row["runtime"] == "torch eager"] == list(BATCHES)
        assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in net["rows"])


@pytest.mark.slow
def test_every_figure_is_there(gpu: ModuleType) -> None:
    """Oracle: the list of what must be measured; torch's own answers are inside `max_difference`."""
    result = gpu.measure("cpu", epochs=2, seconds=0.0, batches=BATCHES)
    assert_complete(json.loads(json.dumps(result)), "cpu")
    assert set(result["nets"]) == {"lenet5", "causal"}
    assert result["nets"]["lenet5"]["data"] == "digits, from scikit-learn"
    served = [row for row in result["nets"]["lenet5"]["rows"] if row["runtime"] == "infer images"]
    assert [row["device"] for row in served] == available_devices() and all(row["passed"] for row in served)
    text = gpu.table(result)
    assert text.count("onnxruntime  cpu") == 2 * 2 * len(BATCHES) and "lenet5 on digits" in text


@pytest.mark.slow
def test_it_runs_without_what_a_bare_machine_lacks() -> None:
    """Oracle: a process in which these packages cannot be imported; drawn images stand in, and the result says so."""
    lacking = ("sklearn", "statsmodels", "dvc", "dvclive", "matplotlib", "jinja2", "pyarrow")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({lacking!r})); sys.path.insert(0, {str(SCRIPT.parent)!r}); "
        "import gpu, json; gpu.NETS = ('lenet5',); print(json.dumps(gpu.measure('cpu', 1, 0.0, (2,))))"
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
    result = gpu.measure("cuda", epochs=2, seconds=0.0, batches=BATCHES)
    assert_complete(result, "cuda")
    assert all(net["train"]["peak_bytes"] > 0 for net in result["nets"].values())
