"""OpenVINO in stage check: what it may be recommended with, and that results in git do not tell
whether it was there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import line
import numpy as np
import pytest
from convline.runtime import engine
from convline.runtime.engine import Engine

from pipeline.check import engines, entry_results
from pipeline.check.engines import choose_engine
from pipeline.check.entry_results import measures_openvino
from pipeline.check.predictions import LARGE_BATCH
from pipeline.core.errors import StageError
from pipeline.params.schema import Check

with_openvino = pytest.mark.skipif(
    not engine.has_openvino(),
    reason="openvino is not installed: pip install 'convline[openvino]'",
)


def rate(engine: str, variant: str, batch: int, per_second: float) -> dict[str, Any]:
    return {"engine": engine, "variant": variant, "batch": batch, "per_second": per_second}


@pytest.mark.parametrize(
    ("fp32", "bf16", "expected"),
    [
        (150.0, 131.0, ("openvino", "fp32")),
        (150.0, 200.0, ("openvino", "bf16")),
        (109.0, 105.0, ("onnxruntime", "int8")),  # 1.1 times is asked
        (None, None, ("onnxruntime", "int8")),
    ],
)
def test_the_engine_of_the_best_rate(
    fp32: float | None, bf16: float | None, expected: tuple[str, str]
) -> None:
    """onnxruntime's best is 100 a second at batch 8; each engine counts with its own best batch.

    onnxruntime's fp32 is not what is recommended for it, whatever its rate.
    """
    rates = [rate("onnxruntime", "int8", 1, 50.0), rate("onnxruntime", "int8", 8, 100.0)]
    rates += [rate("onnxruntime", "fp32", 8, 500.0)]
    if fp32 and bf16:
        rates += [rate("openvino", "fp32", 1, fp32), rate("openvino", "fp32", 8, 20.0)]
        rates += [rate("openvino", "bf16", 8, bf16)]
    chosen = choose_engine(rates, "int8")
    assert (chosen["engine"], chosen["variant"]) == expected
    assert (f"fp32 {(fp32 or 0) / 100:.2f} times" in chosen["why"]) == bool(fp32)


@pytest.mark.parametrize(
    ("off", "small", "reference", "passed"),
    [
        (-0.009, -0.009, "torch", [True, True]),  # the other side of torch, and nearer to it
        (-0.011, -0.011, "torch", [True, False]),
        (0.018, 0.018, "onnxruntime's int8", [True, True]),
        (0.021, 0.021, "onnxruntime's int8", [True, False]),
        (0.018, 0.007, "onnxruntime's int8", [False, True]),  # nearer to both in small batches
        (-0.009, -0.018, "torch", [True, True]),
        (float("nan"), 0.0, "torch", [False, False]),
    ],
)
def test_int8_is_judged_by_the_nearer_of_torch_and_onnxruntime(
    monkeypatch: pytest.MonkeyPatch, off: float, small: float, reference: str, passed: list[bool]
) -> None:
    """onnxruntime's int8 is .01 off torch; OpenVINO's `off`, in small batches `small`. It predicts
    each batch once.
    """
    predicted = list[tuple[float, int, int]]()

    def predict(model: Any, x: np.ndarray, batch: int) -> list[np.ndarray]:
        predicted.append((model.off, len(x), batch))
        return [np.full((len(x), 2), model.off if batch == LARGE_BATCH else model.small)]

    monkeypatch.setattr(engines, "predict", predict)
    monkeypatch.setattr("pipeline.check.parity.predict", predict)
    monkeypatch.setattr(engines, "load_file", lambda *_: SimpleNamespace(off=0.01))
    model: Any = SimpleNamespace(off=off, small=small, file=SimpleNamespace(task="classification"))
    place = {"provider": "cpu", "variant": "int8"}
    x = {"test": np.zeros((20, 1), np.float32)}
    own: Any = {"input": "test", "n": 20, "mean_difference": 0.01}
    beside = engines.OnnxRuntimeResult([], [own | {"n": 8, "mean_difference": 1.0}, own])
    torch_outputs = {"test": [np.zeros((20, 2))]}
    rows = engines.compare_outputs(model, place, Path(), x, torch_outputs, beside, Check())
    rows = [row for row in rows if row["n"]]
    few, whole = rows[:-1], rows[-1]
    assert {row["reference"] for row in few} == {"itself in large batches"}
    assert whole["reference"] == reference and {row["limit"] for row in rows} == {0.01}
    assert [all(row["passed"] for row in few), whole["passed"]] == passed
    assert len(predicted) == len(set(predicted))


def ask(name: str, asked: str) -> None:
    """Put an engine into the recipe that the stage reads."""
    path = Path("out", "params", name, "check.json")
    part = json.loads(path.read_text())
    part["check"]["engines"] = [asked]
    path.write_text(json.dumps(part))


def checked(name: str) -> dict[str, Any]:
    """Run the stage; return speed.json."""
    line.run("check", name)
    speed: dict[str, Any] = line.results(name, "speed")
    return speed


@with_openvino
@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("name", [line.DIGITS, line.WAVES])
def test_each_variant_is_measured_and_the_results_in_git_stay(name: str) -> None:
    """The default does not measure it: check.json and metrics.json are equal to the byte with
    OpenVINO and without, and the manifest gains the recommendation alone.
    """
    results = [Path("results", name, f"{file}.json") for file in ("check", "metrics")]
    without = [path.read_bytes() for path in results]
    assert "engines" not in line.results(name, "speed")
    ask(name, "openvino")
    found = checked(name)["engines"]["cpu"]
    assert [path.read_bytes() for path in results] == without
    expected = ["fp32", "bf16", "int8"] if name == line.DIGITS else ["fp32"]
    assert [*found["files"]] == expected
    fp32 = found["files"]["fp32"]
    assert fp32["accepted"] and {row["limit"] for row in fp32["rows"]} == {
        line.read_model_file(line.model_path(name)).json["golden"]["atol"]
    }
    if name == line.DIGITS:  # one limit for a kind of input, of all inputs and not of the first few
        own = {
            row["input"]: row["mean_difference"]
            for row in line.results(name, "check")["rows"]
            if row["variant"] == "int8" and row["batch"] == 256
        }
        for row in found["files"]["int8"]["rows"]:
            assert row["limit"] == pytest.approx(own[row["input"]], rel=1e-4)
    for verdict in found["files"].values():
        assert verdict["accepted"] or "no instructions" in verdict["why"]
    timed = {(row["engine"], row["variant"]) for row in found["rates"]}
    assert timed >= {("openvino", "fp32"), ("onnxruntime", "fp32")}
    assert all(row["per_second"] > 0 for row in found["rates"])
    if name == line.DIGITS:
        path = Path("out/dist", name, "manifest.json")
        before = json.loads(path.read_text())
        line.run("package", name)
        manifest = json.loads(path.read_text())
        wanted = {key: found[key] for key in ("engine", "variant", "why")}
        assert "engines" not in before and manifest["engines"] == {"cpu": wanted}


@with_openvino
@pytest.mark.usefixtures("root")
def test_an_engine_that_differs_is_not_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs of OpenVINO that are a little off, for which the line does not stop."""
    run = engines.predict

    def off(model: Any, x: np.ndarray, batch: int) -> list[np.ndarray]:
        outputs = run(model, x, batch)
        by = 0.0 if model.engine == engine.ONNXRUNTIME else 0.2
        return [output + np.float32(by) for output in outputs]

    monkeypatch.setattr("pipeline.check.parity.predict", off)
    monkeypatch.setattr(engines, "predict", off)
    ask(line.DIGITS, "all")
    found = checked(line.DIGITS)["engines"]["cpu"]
    assert found["engine"] == "onnxruntime" and "no variant" in found["why"]
    whys = {variant: verdict["why"] for variant, verdict in found["files"].items()}
    assert "fp32 differs from torch by 2.0e-01 (limit 1.0e-04)" in whys["fp32"]
    # from both: probabilities sum to 1, and last digits decide which is nearer
    assert re.search(r"int8 differs from (torch|onnxruntime's int8) by 2\.0e-01", whys["int8"])
    if "no instructions" not in whys["bf16"]:
        wanted = r".*: bf16 differs from torch by 2\.[01]e-01 \(limit 8\.0e-02\)"
        assert re.fullmatch(wanted, whys["bf16"])


@with_openvino
@pytest.mark.usefixtures("root")
def test_a_file_that_openvino_does_not_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is in speed.json; onnxruntime stays the engine."""
    from convline.errors import ModelFileError
    from convline.runtime import openvino

    def refuse(*_: Any, **__: Any) -> None:
        raise ModelFileError("model: OpenVINO 1 cannot read it (it does not convert Scaler)")

    monkeypatch.setattr(openvino, "OpenVinoSession", refuse)
    ask(line.DIGITS, "all")
    found = checked(line.DIGITS)["engines"]["cpu"]
    assert found["engine"] == "onnxruntime"
    assert "does not convert Scaler" in found["files"]["fp32"]["why"]


@pytest.mark.usefixtures("root")
def test_openvino_that_is_asked_for_and_missing_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(entry_results, "has_openvino", lambda: False)
    ask(line.WAVES, "openvino")
    with pytest.raises(StageError, match=r"check.engines: .* got openvino; pip install"):
        line.run("check", line.WAVES)
    ask(line.WAVES, "all")
    assert "engines" not in checked(line.WAVES)


def test_only_a_cpu_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one, openvino by name is an error; the default does not measure it."""
    monkeypatch.setattr(entry_results, "has_openvino", lambda: True)
    with pytest.raises(StageError, match=r"got the devices cuda; add cpu to check\.devices"):
        measures_openvino(Check(engines=["openvino"]), ["cuda"])
    assert not measures_openvino(Check(engines=["all"]), ["cuda"])
    assert measures_openvino(Check(engines=["all"]), ["cuda", "cpu"])
    assert not measures_openvino(Check(), ["cpu"])


def test_bf16_is_an_engine_of_its_own() -> None:
    assert str(Engine("openvino", bf16=True)) == "openvino in bf16" != str(Engine("openvino"))
