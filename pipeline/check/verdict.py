"""The verdict on one entry's files: parity, accuracy and latency on every device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from convline.loading import load_file, open_model
from convline.model_file.registry import file_of, runs_on
from convline.runtime.session import available_devices

from pipeline.check import latency, roofline
from pipeline.check.latency import Model, predict
from pipeline.check.parity import ROUNDED, parity, rounding, streaming
from pipeline.check.variant_selection import choose, judge
from pipeline.core.errors import StageError
from pipeline.core.files import read_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.data import dataset
from pipeline.data.dataset import RAW_WINDOWS, spread
from pipeline.evaluate import metrics
from pipeline.evaluate.retrieval import measure_retrieval
from pipeline.params.schema import ERROR_LIMIT, Check

LARGE = 256


ACCURACY_LIMIT = (
    0.005  # of the test split: a tie that rounding decides is not a fault, two of 360 images are
)


STREAM_SHARE = 0.1  # of the limit on the difference from torch: 1e-5 of the spread of forecasts


Verdict = tuple[
    dict[str, Any], dict[str, Any], dict[str, np.ndarray], dict[str, str]
]  # the last: digests by file


def refuse_promise(name: str, document: dict[str, Any], about: dict[str, Any]) -> str | None:
    """Return the sentence for a file whose contract is not that of the entry's data, or None."""
    for key in ("name", "task", "labels", "input", "forecast"):
        expected, promised = name if key == "name" else about.get(key), document.get(key)
        if key == "input":  # export measures the range on the network
            promised = {rule: value for rule, value in document["input"].items() if rule != "range"}
        if promised != expected:
            found = f"expected {key} {shown(expected)} as the entry has, got {shown(promised)}"
            return f"{name}: model.onnx: {found}; run `dvc repro export@{name}`"
    return None


def shown(value: Any, most: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def beyond_float16(path: Path, x: dict[str, np.ndarray]) -> str | None:
    """Return the first node that overflows on some real and random inputs: the CPU's own answers would not show it."""
    import onnx

    from pipeline.export import quantize

    graph = onnx.load(path)
    return next(
        (node for rows in x.values() if (node := quantize.overflow(graph, rows[: quantize.BATCH]))),
        None,
    )


def refuse(name: str, checked: dict[str, Any]) -> str | None:
    """Return the sentence that stops the line, or None."""
    for device, error in checked.get(
        "rounding", {}
    ).items():  # first: every difference below may come of it
        if not error <= ROUNDED:
            cure = "unset NVIDIA_TF32_OVERRIDE, or install another version of onnxruntime-gpu"
            return f"{name}: {device} rounds float32 products, off by {error:.1e} (limit {ROUNDED:.1e}); {cure}"
    where, metric = f"see results/{name}/check.json", checked["metric"]
    broken = [
        row
        for row in checked["rows"]
        if not row["passed"] and (row["variant"] == "fp32" or not row["finite"])
    ]
    if broken:
        row = max(broken, key=lambda r: (not r["finite"], r["max_difference"]))
        who = f"{name}: {row['variant']}: onnxruntime ({row['provider']})"
        place = f"on {row['input']} input at batch {row['batch']}"
        if not row["finite"]:
            cure = (
                ""
                if row["variant"] == "fp32"
                else f"; take {row['variant']} out of check.variants, or retrain"
            )
            return f"{who} answers values that are not finite {place}, first in row {row['worst_row']}; {where}{cure}"
        gap = (
            f"differs from torch by {row['max_difference']:.1e} {place} (limit {row['limit']:.1e})"
        )
        return f"{who} {gap}, worst in row {row['worst_row']}; {where}"
    for row in checked["golden"]:
        if not row["difference"] <= row["limit"]:
            gap = f"{row['difference']:.1e} (limit {row['limit']:.1e})"
            who = f"the golden samples of {row['variant']} replayed on {row['provider']}"
            return f"{name}: {who} differ by {gap}; {where}"
    for row in checked.get("streams", []):
        if not row["difference"] <= row["limit"]:
            gap = f"{row['difference']:.1e} (limit {row['limit']:.1e})"
            return f"{name}: a stream on {row['provider']} differs from whole windows by {gap}; {where}"
    allowed = ACCURACY_LIMIT if metric["name"] == "accuracy" else ERROR_LIMIT * abs(metric["torch"])
    if not abs(metric["value"] - metric["torch"]) <= allowed:
        values = f"{metric['value']:.4g} under onnxruntime, {metric['torch']:.4g} under torch (limit {allowed:.1e})"
        return f"{name}: {metric['name']} is {values}; {where}"
    return None


def refuse_weak(name: str, checked: dict[str, Any], baseline: str) -> str | None:
    """Return the sentence for a network that is no better than its best baseline, where params refuse one."""
    beside = checked["against_baseline"]
    if baseline != "refuse" or beside["better"]:
        return None
    cure = "train it longer, give it more data, ship the baseline, or set `check.baseline: report`"
    return f"{name}: {beside['sentence']}; {cure}"


def try_file(
    name: str,
    place: dict[str, str],
    x: dict[str, np.ndarray],
    torch_says: dict[str, list[np.ndarray]],
    about: dict[str, Any],
    limits: Check,
) -> tuple[Model, list[dict[str, Any]], list[np.ndarray]]:
    """Return the model of one variant on one provider, the rows of its parity, and its answers to the test split."""
    device, precision = place["provider"], place["variant"]
    model = load_file(OUT / name / "export" / file_of(precision), device)
    if broken := refuse_promise(name, model.file.json, about):
        raise StageError(broken)
    limit = {"fp32": model.golden_atol, "fp16": limits.fp16_atol, "int8": None}[precision]
    rows = parity(model, place, x, torch_says, limits.atol, limit)
    if (device, precision) == ("cuda", "fp32"):  # what TF32 would change: a row, not a gate
        rounded = open_model(model.file, device, tf32=True)
        rows += parity(rounded, place | {"variant": "fp32, TF32"}, x, torch_says, limits.atol, None)
    if precision == "fp16" and (node := beyond_float16(model.file.path, x)):
        cure = "take fp16 out of check.variants, or train with a weight decay that keeps it smaller"
        what = f"fp16: the output of node {node!r} leaves float16's range"
        raise StageError(f"{name}: {what}; {cure}; see {model.file.path}")
    return model, rows, predict(model, x["test"], LARGE)


def verdict(name: str, source: dataset.Data, limits: Check) -> Verdict:
    """Return what goes to check.json, speed.json, test.npz and digests.json."""
    count = 1 if source.task == "classification" else 2
    export = read_json(RESULTS / name / "export.json", f"export@{name}")
    with np.load(OUT / name / "export" / "torch.npz") as saved:
        torch_says = {
            kind: [saved[f"{kind}_{i}"] for i in range(count)] for kind in ("test", "random")
        }
        x = {"test": source.served("test"), "random": saved["random"]}
    rows, golden, timings, files, streams = ([] for _ in range(5))
    digests, got = {}, {}
    devices = limits.devices or available_devices()
    for device, precision in [(d, v) for d in devices for v in export["variants"] if runs_on(v, d)]:
        place = {"provider": device, "variant": precision}
        model, tried, got[device, precision] = try_file(
            name, place, x, torch_says, source.about, limits
        )
        rows += tried
        digests[file_of(precision)] = model.file.digest
        if model.file.has_step_graph:
            windows, whole = x["test"][:LARGE], got[device, precision][0][:LARGE]
            gap = streaming(model.file, device, windows, whole)
            streams.append(place | {"difference": gap, "limit": STREAM_SHARE * model.golden_atol})
        golden.append(place | {"difference": model.replay_golden(), "limit": model.golden_atol})
        if roofline.computes(device, precision):
            found = latency.measure(
                model.file, precision, device, x["test"], export["operations"], limits
            )
            timings += found.pop("rows")
            files.append({"device": device, "variant": precision, **found})
    metric, arrays = measure(got[devices[0], "fp32"], torch_says["test"][0], source)
    variants = judged(name, got, rows, source, limits.budget)
    keep = arrays.get(
        "rows", slice(None)
    )  # of a forecaster, the windows whose history stage data keeps as a file
    for (
        device,
        precision,
    ), answers in got.items():  # what stage infer expects of the shipped command
        if roofline.computes(device, precision):
            arrays[f"answers_{device}_{precision}"] = answers[0][keep]
    checked: dict[str, Any] = {
        "golden": golden,
        "rows": rows,
        "metric": metric,
        "variants": variants,
    }
    if (file := OUT / name / "export" / "features.npz").exists():
        with np.load(file) as vectors:
            splits = (np.asarray(source.y[split]) for split in ("train", "test"))
            checked["retrieval"], arrays["nearest"] = measure_retrieval(
                vectors["train"], vectors["test"], *splits
            )
    if streams:
        checked["streams"] = streams
    if (
        "cuda" in devices
    ):  # where onnxruntime has no convolution without TF32 it takes one with it, and says nothing
        checked["rounding"] = {"cuda": rounding("cuda")}
    checked["against_baseline"] = beside = metrics.compare_with_best_baseline(
        metric, source.about.get("labels", [])
    )
    broken = refuse(name, checked) or refuse_weak(name, checked, limits.baseline)
    kept = "all limits kept"
    if source.task == "forecasting" or not beside["better"]:
        kept += f"; {beside['sentence']}"
    if flipped := max(row.get("beyond", 0) for row in rows if row["variant"] == "fp32"):
        kept += f"; {flipped} rows differ from torch by more than {limits.atol:g}: a feature on the edge of a split"
    checked = {"passed": broken is None, "verdict": broken or kept, **checked}
    choice = {device: choose(device, timings, metric["value"], variants) for device in devices}
    described = {
        "machine": roofline.describe(),
        "limits": {device: roofline.limits(device) for device in devices},
    }
    return checked, described | {"rows": timings, "files": files, "choice": choice}, arrays, digests


def judged(
    name: str,
    got: dict[tuple[str, str], list[np.ndarray]],
    rows: list[dict[str, Any]],
    source: dataset.Data,
    budget: float,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return variant -> device -> what it loses against fp32 on the same device, and whether it may ship."""
    found: dict[str, dict[str, dict[str, Any]]] = {
        precision: {} for _, precision in got if precision != "fp32"
    }
    for (device, precision), answers in got.items():
        if precision != "fp32":
            own = [row for row in rows if (row["provider"], row["variant"]) == (device, precision)]
            y, plain = np.asarray(source.y["test"]), got[device, "fp32"][0]
            found[precision][device] = judge(name, own, answers[0], plain, y, budget)
    return found


def measure(
    got: list[np.ndarray], torch_says: np.ndarray, source: dataset.Data
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the metric of the test split, and the answers that `infer` and `report` look at."""
    if source.task == "classification":
        y = np.asarray(source.y["test"])
        return metrics.measure_classification(got[0], torch_says, y), {
            "probabilities": got[0],
            "y": y,
        }
    keep, source = spread(len(got[0]), RAW_WINDOWS), source.alone()
    history, target = source.windows("test", source.about["stride"])
    arrays = {
        "rows": keep,
        "context": history[keep],
        "target": target[keep],
        "forecast": got[0][keep],
        "quantiles": got[1][keep],
        "quantile_levels": np.array(source.about["forecast"]["quantiles"]),
    }
    metric, backtest = metrics.measure_forecasts(got, torch_says, source)
    return metric, arrays | backtest
