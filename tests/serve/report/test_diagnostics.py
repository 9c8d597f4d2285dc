"""`infer check`: each fault of an installation or a model is a finding with its cure, and only
errors fail.
"""

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


def test_check_without_a_model() -> None:
    """The packages' own version strings, and Pillow's own list of decoders."""
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


def test_check_of_a_valid_package(classifier_bytes: bytes, tmp_path: Path) -> None:
    """The hash is hashlib's; the tiny graph has 6 nodes, some of which onnxruntime may fold or
    join.
    """
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


def test_check_of_a_forecaster_without_a_manifest(make_forecaster: Callable[..., Path]) -> None:
    """The golden samples are replayed; the missing manifest is a warning."""
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
    """The golden outputs are moved by a quarter, or are nan; exit code 1 and the difference."""
    (tmp_path / "m.onnx").write_bytes(tiny.reseal(moved(by)))
    _, golden = found(tmp_path / "m.onnx", code=1)["cpu"]
    assert (
        golden["state"] == "error"
        and f"differ by {by:.3g} at most" in golden["found"]
        and golden["cure"]
    )


def test_a_damaged_and_a_missing_file_are_errors(classifier: Path) -> None:
    """One bit is flipped; no such name. The installation is reported all the same."""
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
    """Provenance names numpy 1.2 and this Pillow.

    A version that is a shell command never becomes a cure.
    """
    versions = {"numpy": "1.2.3", "pillow": PIL.__version__, "onnxruntime": "1'; rm -rf ~; '"}
    (tmp_path / "m.onnx").write_bytes(
        tiny.reseal(tiny.classifier_document() | {"provenance": {"versions": versions}})
    )
    names = found(tmp_path / "m.onnx")
    assert names["numpy"][0]["state"] == "warning" and "'numpy==1.2.3'" in names["numpy"][0]["cure"]
    assert names["Pillow"][0]["state"] == "ok" and "rm -rf" not in json.dumps(names)


def test_both_distributions_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two real dist-info folders are on the path, as pip leaves them."""
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
    """A GPU is reported where there is none: the CUDA line fails with its cure, and the CPU line
    stays ok.
    """
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
def test_a_container_quota_limits_the_cores(
    tmp_path: Path, quota: str, expected: float | None
) -> None:
    """cpu.max of cgroup 2 holds quota and period; version 1 has two files, and -1 for no quota."""
    (tmp_path / "quota").write_text(quota)
    (tmp_path / "period").write_text("100000\n")
    assert (
        host.core_quota((str(tmp_path / "none"), str(tmp_path / "quota")), str(tmp_path / "period"))
        == expected
    )


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2, reason="needs two cores"
)
def test_unusable_cores_are_reported() -> None:
    """This process is put on one core, as taskset does."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        [finding] = [f for f in diagnostics.check(None) if f.name == "cores"]
    finally:
        os.sched_setaffinity(0, before)
    assert finding.found.startswith("1 of ")
