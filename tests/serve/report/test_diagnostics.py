"""`infer check`: each fault of an environment or a model is a finding with its cure, and only
errors fail."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import PIL
import pytest
import tiny
from convline.model_file.golden import pack_array
from convline.report import diagnostics
from convline.runtime import host, session
from infer_command import infer, package

pytestmark = pytest.mark.usefixtures("no_gpu")  # what is expected below is of the CPU


def found(*arguments: str | Path, code: int = 0) -> dict[str, list[dict[str, str]]]:
    """Return the findings of `infer check` by name."""
    result = infer("check", *arguments, "--json")
    assert result.exit_code == code, result.output
    document = json.loads(result.stdout)
    assert document["ok"] is (code == 0)
    names: dict[str, list[dict[str, str]]] = {}
    for finding in document["findings"]:
        names.setdefault(finding["name"], []).append(finding)
    return names


def test_environment_alone() -> None:
    """Oracle: the packages' own version strings, Pillow's own list of what it decodes."""
    names = found()
    assert (
        names["numpy"][0]["found"] == numpy.__version__
        and names["Pillow"][0]["found"] == PIL.__version__
    )
    [distribution] = session.distributions()
    assert names[distribution][0]["found"] == onnxruntime.__version__
    assert (
        "CPU" in names["providers"][0]["found"]
        and "no NVIDIA GPU is seen" in names["GPU"][0]["found"]
    )
    assert ("WebP" in names["image formats"][0]["found"]) is PIL.features.check("webp")
    assert "model" not in names and "pyarrow" in names


def test_a_good_model_in_its_package(classifier_bytes: bytes, tmp_path: Path) -> None:
    """Oracle: hashlib, and the 6 nodes of the tiny graph, some of which onnxruntime may fold or
    join."""
    package(tmp_path / "good", classifier_bytes)
    names = found(tmp_path / "good")
    assert hashlib.sha256(classifier_bytes).hexdigest() in names["sha256"][0]["found"]
    ran, golden = names["cpu"]
    assert ran["state"] == golden["state"] == "ok" and "1e-05 is allowed" in golden["found"]
    nodes, provider = ran["found"].removeprefix("nodes: ").split(" by ")
    assert 2 <= int(nodes) <= 6 and provider == "CPUExecutionProvider"
    shown = infer("check", tmp_path / "good").stdout.splitlines()
    assert shown[-1].endswith(" 0 error") and all(
        line.split()[0] in ("ok", "warning") for line in shown[:-1]
    )


def test_series_models_and_files_alone(make_forecaster: Callable[..., Path]) -> None:
    """Oracle: a forecaster replays too; without a manifest nothing vouches for the file, which is a
    warning."""
    names = found(make_forecaster())
    assert names["sha256"][0]["state"] == "warning" and names["cpu"][1]["state"] == "ok"


def moved(by: float) -> dict[str, Any]:
    """Return a document whose golden probabilities are off by `by`."""
    document = tiny.classifier_document()
    images = numpy.zeros((2, 8, 8, 1), numpy.uint8)
    wrong = (tiny.classify_by_brightness(images) + by).astype(numpy.float32)
    document["golden"] |= {
        "input": pack_array(images),
        "outputs": {"probabilities": pack_array(wrong)},
    }
    return document


@pytest.mark.parametrize("by", [0.25, float("nan")])
def test_a_golden_sample_that_differs_is_an_error(tmp_path: Path, by: float) -> None:
    """Oracle: the golden outputs are moved by a quarter, or are no numbers; exit code 1 and the
    difference."""
    (tmp_path / "m.onnx").write_bytes(tiny.reseal(moved(by)))
    _, golden = found(tmp_path / "m.onnx", code=1)["cpu"]
    assert (
        golden["state"] == "error"
        and f"differ by {by:.3g} at most" in golden["found"]
        and golden["cure"]
    )


def test_a_damaged_and_a_missing_file_are_errors(classifier: Path) -> None:
    """Oracle: one bit flipped; no such name. The environment is reported all the same."""
    damaged = bytearray(classifier.read_bytes())
    damaged[100] ^= 1
    classifier.write_bytes(damaged)
    names = found(classifier, code=1)
    assert (
        "damaged" in names["model"][0]["found"]
        and "copy it again" in names["model"][0]["cure"]
        and names["numpy"]
    )
    assert "no such model" in found("nonesuch", code=1)["model"][0]["found"]


def test_other_versions_are_warnings(tmp_path: Path) -> None:
    """Oracle: provenance names numpy 1.2 and this Pillow; a version that is a shell command never
    becomes a cure."""
    versions = {"numpy": "1.2.3", "pillow": PIL.__version__, "onnxruntime": "1'; rm -rf ~; '"}
    (tmp_path / "m.onnx").write_bytes(
        tiny.reseal(tiny.classifier_document() | {"provenance": {"versions": versions}})
    )
    names = found(tmp_path / "m.onnx")
    assert names["numpy"][0]["state"] == "warning" and "'numpy==1.2.3'" in names["numpy"][0]["cure"]
    assert names["Pillow"][0]["state"] == "ok" and "rm -rf" not in json.dumps(names)


def test_both_distributions_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Oracle: two real dist-info folders on the path, as pip leaves them."""
    for name in session.DISTRIBUTIONS:
        folder = tmp_path / f"{name.replace('-', '_')}-9.9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    [finding] = found(code=1)["onnxruntime"]
    assert (
        finding["found"].startswith("onnxruntime 9.9, onnxruntime-gpu 9.9")
        and "pip uninstall" in finding["cure"]
    )


def test_a_gpu_that_cannot_be_used_is_an_error(
    classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: told that a GPU is there where none is, the CUDA line fails with its cure and the CPU
    line stands."""
    if os.path.exists("/dev/nvidia0") or "CUDAExecutionProvider" not in session.built_providers():
        pytest.skip("a real GPU is here, or this onnxruntime was built without CUDA")
    monkeypatch.setattr(session, "sees_gpu", lambda: True)
    names = found(classifier, code=1)
    assert names["GPU"][0]["found"] == "visible" and [f["state"] for f in names["cpu"]] == [
        "ok",
        "ok",
    ]
    assert names["cuda"][0]["state"] == "error" and names["cuda"][0]["cure"].endswith(
        "or pass --device cpu"
    )
    assert (
        names["CUDA"][0]["state"] == "warning"
        and names["CUDA"][0]["found"] in names["cuda"][0]["found"]
    )


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000\n", None), ("150000 100000\n", 1.5), ("-1\n", None), ("50000\n", 0.5)],
)
def test_core_quota(tmp_path: Path, quota: str, expected: float | None) -> None:
    """Oracle: cpu.max of cgroup 2 is quota and period in one file; version 1 has two, and -1 for
    none."""
    (tmp_path / "quota").write_text(quota)
    (tmp_path / "period").write_text("100000\n")
    assert (
        host.core_quota((str(tmp_path / "none"), str(tmp_path / "quota")), str(tmp_path / "period"))
        == expected
    )


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2, reason="needs two cores"
)
def test_cores_that_may_not_be_used_are_said() -> None:
    """Oracle: this process is put on one core, as taskset does."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        [finding] = [f for f in diagnostics.check(None) if f.name == "cores"]
    finally:
        os.sched_setaffinity(0, before)
    assert finding.found.startswith("1 of ")
