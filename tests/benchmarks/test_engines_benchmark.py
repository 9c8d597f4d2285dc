"""benchmarks/engines.py: what stage check measured, as a table of gains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import engines
from pipeline.core.errors import StageError

WHY = "x: int8 loses 3.00 points; it does not ship"


def entry(name: str, engine: str, variant: str, metric: str = "accuracy") -> dict[str, Any]:
    """Write an entry's results: 100 a second in fp32, 300 in bf16 at its best batch."""
    rates = [("onnxruntime", "fp32", 1, 50.0), ("onnxruntime", "fp32", 8, 100.0)]
    rates += [("openvino", "bf16", 1, 300.0), ("openvino", "bf16", 8, 30.0)]
    keys = ("engine", "variant", "batch", "per_second")
    refused = {"accepted": False, "why": f"{name}: fp32 cannot be read"}
    speed = {
        "machine": {"cpu": "a CPU", "cores": 2, "onnxruntime": "1.2.3"},
        "engines": {
            "cpu": {
                "engine": engine, "variant": variant, "why": "", "version": "2026.4.1-22982-x",
                "files": {"fp32": refused, "bf16": {"accepted": True, "why": "loses nothing"}},
                "rates": [dict(zip(keys, row, strict=True)) for row in rates],
            }
        },
    }  # fmt: skip
    int8 = {"cpu": {"accepted": False, "why": WHY.replace("x:", f"{name}:")}}
    checked = {"metric": {"name": metric}, "variants": {"int8": int8}}
    folder = Path("results", name)
    folder.mkdir(parents=True)
    (folder / "check.json").write_text(json.dumps(checked))
    (folder / "speed.json").write_text(json.dumps(speed))
    return speed


def test_gains_are_multiples_of_onnxruntime_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 at batch 1 over 100 at batch 8; forecasters are left out, and who was not measured is
    named.
    """
    monkeypatch.chdir(tmp_path)
    entry("a", "openvino", "bf16")
    entry("b", "onnxruntime", "fp32")
    entry("series", "openvino", "bf16", metric="mse")
    speed = entry("late", "onnxruntime", "fp32")
    del speed["engines"]
    Path("results/late/speed.json").write_text(json.dumps(speed))
    page = Path("results/engines.md")
    engines.write_page(page, *engines.read_entries(()))
    text = page.read_text()
    assert "a CPU, 2 cores; onnxruntime 1.2.3, OpenVINO 2026.4.1." in text
    assert "| a | OpenVINO bf16 | **3.00** | 100 | – | – | 3.00 | – |" in text
    assert "| b | onnxruntime fp32 | **1.00** | 100 | – | – | 3.00 | – |" in text
    assert "Not measured: late." in text and "series" not in text
    assert "- a: int8 loses 3.00 points; it does not ship\n- a: fp32 cannot be read\n" in text
    assert "loses nothing" not in text
    engines.write_page(page, *engines.read_entries(("a",)))
    assert "| b |" not in page.read_text()


def test_a_line_that_measured_none_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match=r"set `check.engines: \[all\]` and run"):
        engines.write_page(tmp_path / "page.md", *engines.read_entries(()))
    with pytest.raises(StageError, match=r"results/absent/check.json: not made yet"):
        engines.read_entries(("absent",))
