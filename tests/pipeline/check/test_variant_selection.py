"""Which variants are packaged, which one is recommended, and the timings that decide it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import line
import numpy as np
import onnxruntime
import pytest
from convline.errors import DeviceMemoryError
from convline.model_file.onnx_file import read_model_file
from convline.report.confidence_interval import wilson_interval

from pipeline.check import latency, machine, metric_loss, roofline, variant_selection
from pipeline.check.tasks import classification
from pipeline.params.schema import Check

ROW = {
    "provider": "cpu",
    "variant": "int8",
    "passed": True,
    "max_difference": 0.2,
    "limit": None,
    "finite": True,
}


def judge(variant: str, n: int, wrong: int, **checks: Any) -> dict[str, Any]:
    """Return the verdict on a variant that errs on the first `wrong` of n images, fp32 on none."""
    fp32 = np.tile([0.9, 0.1], (n, 1))
    probabilities = fp32.copy()
    probabilities[:wrong] = [0.1, 0.9]
    source = SimpleNamespace(y={"test": np.zeros(n, int)})
    loss = classification.lose([fp32], [probabilities], source)
    row = ROW | {"variant": variant}
    return variant_selection.judge_variant("x", "accuracy", [row], loss, Check(**checks))


@pytest.mark.parametrize(
    ("variant", "n", "wrong", "ships"),
    [
        ("int8", 400, 2, True),
        ("int8", 400, 3, False),
        ("int8", 2000, 10, True),
        ("int8", 2000, 11, False),
        ("fp16", 300, 2, True),  # its parity limit bounds what it can lose
        ("fp16", 300, 3, False),
    ],
)
def test_a_variant_may_lose_half_a_point(variant: str, n: int, wrong: int, ships: bool) -> None:
    """Half a point of 400 images is two; fp16 may lose two images of any number."""
    verdict = judge(variant, n, wrong)
    assert (verdict["accepted"], verdict["undecided"]) == (ships, False)
    assert verdict["lost"] == wrong / n and verdict["top1_agreement"] == 1 - wrong / n
    why = verdict["why"]
    assert why.startswith(f"x: {variant} loses {100 * wrong / n:.2f} points of accuracy [")
    assert ("it does not ship" in why) != ships
    assert (f"a weak verdict on {n} images" in why) == (n < 1000)


@pytest.mark.parametrize(("n", "wrong"), [(399, 0), (360, 1), (27, 2), (1, 0)])
def test_int8_on_few_images_is_undecided(n: int, wrong: int) -> None:
    """Two images are more than half a point of fewer than 400; only params ship it."""
    left_out, packaged = judge("int8", n, wrong), judge("int8", n, wrong, undecided="package")
    assert left_out["undecided"] and packaged["undecided"]
    assert not left_out["accepted"] and packaged["accepted"]
    sentence = f"{n} test images cannot decide a loss of 0.5 points (400 needed), it loses "
    assert left_out["why"].startswith(
        f"x: int8 is undecided: {sentence}{100 * wrong / n:.2f} points of"
    )
    assert left_out["why"].endswith("; `check.undecided: package` ships it anyway")
    assert packaged["why"].endswith("; it ships because of `check.undecided: package`")


def test_a_certain_loss_is_no_matter_of_few_images() -> None:
    """Of 27 images 20 lost are 74 points, 58 at least: far beyond the budget."""
    verdict = judge("int8", 27, 20, undecided="package")
    assert (verdict["accepted"], verdict["undecided"]) == (False, False)
    assert "loses 74.07 points" in verdict["why"] and "it does not ship" in verdict["why"]


def test_a_gain_is_called_a_gain() -> None:
    """The ends of the loss's interval change places and signs."""
    assert variant_selection.describe_loss(0.0028) == "loses 0.28 points"
    assert variant_selection.describe_loss(-0.0423) == "gains 4.23 points"
    found = variant_selection.describe_loss_with_interval("accuracy", -0.0423, -0.07, 0.01)
    assert found == "gains 4.23 points of accuracy [-1.00, 7.00]"
    found = variant_selection.describe_loss_with_interval("accuracy", 0.0, -0.01, 0.01)
    assert found == "loses 0.00 points of accuracy [-1.00, 1.00]"


def test_how_many_images_decide() -> None:
    """Two images are the budget."""
    needed = {0.005: 400, 0.01: 200, 0.003: 667, 1.0: 2}
    assert {budget: variant_selection.images_needed(budget) for budget in needed} == needed


def test_a_variant_beyond_its_limit_is_left_out() -> None:
    row = ROW | {"variant": "fp16", "passed": False, "max_difference": 0.02, "limit": 0.01}
    loss = metric_loss.counted_loss(*np.ones((3, 1000), bool))
    found = variant_selection.judge_variant("x", "accuracy", [row], loss, Check())
    assert (
        not found["accepted"]
        and "x: fp16 differs from torch by 2.0e-02 (limit 1.0e-02); it does not ship"
        in found["why"]
    )


def test_two_files_that_agree_are_not_certainly_equal() -> None:
    """Newcombe's interval for 360 of 360 and 360 of 360: Wilson's lower end, on both sides."""
    low, _ = wilson_interval(360, 360)
    found = judge("int8", 360, 0)
    assert found["lost"] == 0
    ends = low - 1, 1 - low
    assert (found["lost_low"], found["lost_high"]) == pytest.approx(ends, rel=1e-9)
    assert "loses 0.00 points of accuracy [-1.06, 1.06]" in found["why"]


def loss_of(lost: float, low: float, high: float) -> metric_loss.MetricLoss:
    return metric_loss.MetricLoss(0.9 - lost, lost, low, high, 0.99, 200, counted=False)


@pytest.mark.parametrize(
    ("ends", "variant", "ships", "undecided", "sentence"),
    [
        ((0.001, -0.002, 0.004), "int8", True, False, "points of mAP50 [-0.20, 0.40] (limit 0.5"),
        (
            (0.001, -0.002, 0.006),
            "int8",
            False,
            True,
            "200 test images cannot decide a loss of 0.5",
        ),
        ((0.009, 0.004, 0.012), "int8", False, True, "it loses 0.90 points of mAP50 [0.40, 1.20]"),
        ((0.009, 0.006, 0.012), "int8", False, False, "(limit 0.5 points); it does not ship"),
        ((0.009, 0.006, 0.012), "fp16", True, False, "(limit 0.5 points or two images)"),
        ((-0.01, -0.02, -0.002), "int8", True, False, "gains 1.00 points of mAP50 [0.20, 2.00]"),
    ],
)
def test_a_metric_that_is_no_mean_over_images_is_judged_by_its_interval(
    ends: tuple[float, float, float], variant: str, ships: bool, undecided: bool, sentence: str
) -> None:
    """Undecided where the interval of the loss holds the budget, whatever the number of images."""
    row, loss = ROW | {"variant": variant}, loss_of(*ends)
    found = variant_selection.judge_variant("x", "map50", [row], loss, Check())
    assert (found["accepted"], found["undecided"]) == (ships, undecided)
    assert sentence in found["why"] and "weak" not in found["why"] and "needed" not in found["why"]
    assert found["map50"] == loss.value and found["top1_agreement"] == 0.99
    packed = variant_selection.judge_variant("x", "map50", [row], loss, Check(undecided="package"))
    assert packed["accepted"] == (ships or undecided)


def test_the_bootstrap_draws_the_same_images_for_both_files() -> None:
    """A variant that is always a tenth worse loses a tenth in every draw; its width is Newcombe's.

    One that is worse on some images loses their mean, with an interval about it.
    """
    rng = np.random.default_rng(0)
    fp32 = rng.random(300)
    found = metric_loss.drawn_loss(
        lambda rows: float(fp32[rows].mean()), lambda rows: float(fp32[rows].mean()), 300, 1.0
    )
    assert found.lost == 0 and found.low < -0.005 and found.high > 0.005
    worse = fp32 - (rng.random(300) < 0.1) * 0.1
    found = metric_loss.drawn_loss(
        lambda rows: float(fp32[rows].mean()), lambda rows: float(worse[rows].mean()), 300, 0.9
    )
    lost = (fp32 - worse).mean()
    half = 1.96 * (fp32 - worse).std() / np.sqrt(300)
    assert found.lost == pytest.approx(lost) and found.value == pytest.approx(worse.mean())
    assert (found.low, found.high) == pytest.approx((lost - half, lost + half), abs=0.1 * half)


def timing(variant: str, p50: float, best: float) -> list[dict[str, Any]]:
    one = {"device": "cpu", "variant": variant, "batch": 1, "p50_ms": p50, "per_second": 1e3 / p50}
    return [one, one | {"batch": 8, "p50_ms": 8e3 / best, "per_second": best}]


@pytest.mark.parametrize(
    ("p50", "best", "accuracy", "variant", "front"),
    [
        (5.0, 1500.0, 0.90, "int8", ["int8"]),  # twice as fast, as good
        (5.0, 1500.0, 0.89, "int8", ["fp32", "int8"]),  # twice as fast, not as good
        (9.5, 525.0, 0.90, "fp32", ["int8"]),  # hardly faster
        (5.0, 300.0, 0.90, "fp32", ["int8"]),  # faster alone, slower in batches
        (20.0, 250.0, 0.89, "fp32", ["fp32"]),
    ],
)
def test_the_recommended_variant(
    p50: float, best: float, accuracy: float, variant: str, front: list[str]
) -> None:
    metric = {"name": "accuracy", "value": 0.9}
    rows = timing("fp32", 10.0, 500.0) + timing("int8", p50, best)
    found = variant_selection.recommend_variant(
        "cpu", rows, metric, {"int8": {"cpu": {"accuracy": accuracy, "accepted": True}}}
    )
    assert (found["variant"], found["front"]) == (variant, front)
    refused = variant_selection.recommend_variant(
        "cpu", rows, metric, {"int8": {"cpu": {"accuracy": accuracy, "accepted": False}}}
    )
    assert (refused["variant"], refused["front"]) == ("fp32", ["fp32"])
    assert (
        variant_selection.recommend_variant("cpu", rows, metric, {})["why"] == "nothing else ships"
    )


def test_the_roofline() -> None:
    """By hand: at batch 2 in fp32, 18e6 bytes a sample: 4 (1e6 / 2 + 4e6)."""
    limit = {"fp32": 1e11, "int8": 4e11, "stream": 1e9}
    assert (
        roofline.attainable_rate(limit, "fp32", 50) == 5e10
        and roofline.attainable_rate(limit, "fp32", 500) == 1e11
    )
    assert roofline.attainable_rate(limit, "int8", 500) == 4e11
    ops = {"macs": 1e9, "weights": 1e6, "moved": 4e6}
    found = roofline.compare_with_limit({"batch": 2, "per_second": 10.0}, "fp32", ops, limit)
    assert found["intensity"] == pytest.approx(2e9 / 18e6) and found[
        "ops_per_second"
    ] == pytest.approx(2e10)
    assert found["share_of_limit"] == pytest.approx(2e10 / 1e11)


def test_a_device_is_measured_in_the_precisions_that_it_computes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """int8 is for CPUs; the CPU emulates float16 in float32."""
    monkeypatch.setattr(roofline, "FILE", tmp_path / "machine.json")
    monkeypatch.setattr(roofline, "measure_product_rate", lambda device, precision: 1.0)
    monkeypatch.setattr(roofline, "measure_memory_rate", lambda device: 1.0)
    assert [*roofline.machine_limits("cpu")] == ["fp32", "int8", "stream"]
    assert (
        [*roofline.machine_limits("cuda")]
        == [*roofline.machine_limits("tensorrt")]
        == ["fp32", "fp16", "stream"]
    )


def test_time_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of the test: calls of 5 ms, and calls that take longer and longer."""
    now = 0.0

    def take(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    found = latency.time_call(lambda: take(0.005), 4, 0.06)
    assert found["stable"] and found["per_second"] == pytest.approx(800)
    assert [found[key] for key in ("p50_ms", "p90_ms", "p99_ms")] == pytest.approx([5, 5, 5])
    pauses = iter(range(1, 10_000))
    assert not latency.time_call(lambda: take(1e-4 * next(pauses)), 1, 0.0)["stable"]


def test_long_calls_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two to warm up and two windows of three, where they never become stable; short calls are
    repeated for 12 windows, and one call that builds an engine is not long.
    """
    now, calls = 0.0, 0

    def grow(seconds: float) -> None:
        nonlocal now, calls
        calls += 1
        now += seconds * 1.1**calls

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    found = latency.time_call(lambda: grow(1.0), 1, 0.3)
    assert calls == 8 and not found["stable"]
    assert found["p50_ms"] == pytest.approx(1e3 * (1.1**5 + 1.1**6) / 2)

    def alternate() -> None:
        nonlocal now, calls
        calls += 1
        # windows of ten calls and of eight in turn
        now += 5.0 if calls == 1 else 0.011 if (calls - 4) % 18 < 10 else 0.013

    now, calls = 0.0, 0
    assert not latency.time_call(alternate, 1, 0.3)["stable"]
    assert calls == 3 + 6 * 18


def test_calls_of_microseconds_are_a_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    """.05 s to warm up, in which clocks rise, and two windows of 500, not of .1 s; longer ones fill
    their windows.
    """
    now, calls = 0.0, 0

    def take(seconds: float) -> None:
        nonlocal now, calls
        calls += 1
        now += seconds

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert latency.time_call(lambda: take(2.1e-5), 1, 0.3)["stable"]
    assert calls == 2381 + 2 * 500
    now, calls = 0.0, 0
    assert latency.time_call(lambda: take(0.0011), 1, 0.3)["stable"]
    assert calls == 46 + 2 * 91
    now, calls = 0.0, 0
    assert latency.time_call(lambda: take(0.03), 1, 0.3)["stable"]
    assert calls == 3 + 2 * 4


def test_the_sweep_ends_where_a_batch_gains_nothing() -> None:
    speeds = {1: 100.0, 8: 300.0, 32: 310.0, 128: 900.0}
    found = latency.sweep_batches(
        lambda batch: {"batch": batch, "per_second": speeds[batch]}, [*speeds]
    )
    assert [row["batch"] for row in found] == [1, 8, 32]


@pytest.mark.slow
def test_measure_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(line.copy_to(tmp_path))
    model = read_model_file(line.model_path(line.DIGITS))
    ops = json.loads(Path("results", line.DIGITS, "export.json").read_text())["operations"]
    images = np.load(f"out/{line.DIGITS}/data/test_x.npy")
    limits = Check(batches=[1, 16], threads=[1], seconds=0.01)
    found = latency.measure_file(model, "fp32", "cpu", images, ops, limits)
    assert (
        set(found["placement"]) == {"CPUExecutionProvider"}
        and found["placement"]["CPUExecutionProvider"] >= 2
    )
    assert (
        found["bytes"] == len(model.content) and found["first_s"] > 0.05 and found["memory_mb"] > 20
    )
    assert [row["batch"] for row in found["rows"]][:2] == [1, 16]
    row = latency.time_bound_batch(model, "cpu", images[:4], "bound", 0.01)  # as on a GPU
    assert row["per_second"] == pytest.approx(4e3 / row["p50_ms"])
    assert (
        roofline.machine_limits("cpu") == roofline.machine_limits("cpu") and roofline.FILE.exists()
    )


def test_describe_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files like those of the driver; without a GPU none is described."""
    monkeypatch.setattr(machine, "sees_gpu", lambda: False)
    assert machine.describe_gpu() == {} and "gpu" not in machine.describe_machine()
    for place in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   \t\t 16\n")
    monkeypatch.setattr(machine, "GPUS", tmp_path)
    monkeypatch.setattr(machine, "sees_gpu", lambda: True)
    monkeypatch.setattr(machine, "driver_version", lambda: "580.65.06")
    monkeypatch.setattr(machine, "driver_cuda", lambda: (13, 0))
    found = machine.describe_machine()
    assert found["gpu"] == "NVIDIA H200, NVIDIA H200" and found["driver"] == "580.65.06"
    assert found["driver_cuda"] == "13.0" and found["onnxruntime_cuda"] == onnxruntime.cuda_version


def test_a_batch_that_does_not_fit_ends_the_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    """With memory for 8 samples there are rows of 1 and 8, and a message about 32."""

    def row_of(batch: int) -> dict[str, int]:
        if batch > 8:
            raise DeviceMemoryError(
                "tiny: the device's memory is too small for it; run a smaller batch"
            )
        return {"batch": batch, "per_second": 10 * batch}

    assert [row["batch"] for row in latency.sweep_batches(row_of, [1, 8, 32, 128])] == [1, 8]
    assert "run a smaller batch; batches from 32 on are not measured" in capsys.readouterr().err
    with pytest.raises(DeviceMemoryError):
        latency.sweep_batches(row_of, [32, 128])
