"""Stage check: the verdict on the .onnx file itself, under onnxruntime, without torch. A gate.

Reads out/<entry>/export (the file, torch's answers), out/<entry>/data. Writes results/<entry>/check.json (parity,
accuracy or error with its interval), metrics.json (the same in few numbers, for `dvc metrics`), speed.json (latency,
not in git), and out/<entry>/check/test.npz.
Fails when the file cannot be trusted, promises what its data are not, answers what is not finite, or breaks the limit
on its difference from torch (params.yaml `check.atol`) or on its metric's. check.json is written then too, with the
sentence. out/<entry>/check/digest names the file that was looked at: `package` takes no other.

    python -m pipeline.check ENTRY
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import data, params
from pipeline.data import RAW_WINDOWS, spread
from pipeline.metrics import classification, forecasting
from pipeline.retrieval import retrieve
from pipeline.stage import OUT, RESULTS, StageError, fresh, of_entry, run, write_json
from serve.errors import ServeError
from serve.model import Classifier, Forecaster, load
from serve.session import available_devices

ROWS_AT_BATCH = {1: 8, 7: 22, 256: None}  # batch 1, odd (with a rest), large; rows that each is tried on, None: all
LARGE = 256
ACCURACY_LIMIT = 0.005  # of the test split: a tie that rounding decides is not a fault, two of 360 images are
ERROR_LIMIT = 1e-3  # of a forecast's error, relative
WARM_UP, LEAST_RUNS = 5, 20

Model = Classifier | Forecaster
Verdict = tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray], str]  # the last: the file's digest


def predict(model: Model, x: np.ndarray, batch: int) -> list[np.ndarray]:
    """Return the file's outputs for x, run in batches of `batch`."""
    parts = []
    for start in range(0, len(x), batch):
        rows = np.ascontiguousarray(x[start : start + batch])
        parts.append((model.predict_proba(rows),) if isinstance(model, Classifier) else model.predict(rows))
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def parity(
    model: Model, device: str, x: dict[str, np.ndarray], torch_says: dict[str, list[np.ndarray]], usual: float
) -> list[dict[str, Any]]:
    """Return a row for each kind of input and batch size (1, odd, large): the differences from torch's answers."""
    rows = []
    for kind, inputs in x.items():
        for batch, most in ROWS_AT_BATCH.items():
            count = min(len(inputs), most or len(inputs))
            facts = compare(predict(model, inputs[:count], batch), torch_says[kind], count, usual)
            passed = facts["finite"] and facts["max_difference"] <= model.golden_atol
            place = {"provider": device, "input": kind, "batch": batch, "n": count}
            rows.append({**place, **facts, "limit": model.golden_atol, "passed": passed})
    return rows


def compare(got: list[np.ndarray], expected: list[np.ndarray], count: int, usual: float = 1e-4) -> dict[str, Any]:
    """Return the largest and mean difference, the worst row, and top-1 agreement where rows are probabilities.

    Differences are taken over finite values, so that they are numbers in JSON; `finite` says whether that is all.
    """
    gaps = [np.abs(g.astype(np.float64) - e[:count]).reshape(count, -1) for g, e in zip(got, expected, strict=True)]
    finite = all(np.isfinite(gap).all() for gap in gaps)
    worst = np.max([gap.max(1) for gap in gaps], axis=0)
    facts: dict[str, Any] = {
        "finite": finite,
        "max_difference": float(np.where(np.isfinite(worst), worst, 0).max()),
        "mean_difference": float(np.mean([gap[np.isfinite(gap)].mean() if finite else 0.0 for gap in gaps])),
        "worst_row": int(np.where(np.isfinite(worst), worst, np.inf).argmax()),
    }
    if got[0].ndim == 2:
        facts["beyond"] = int((worst > usual).sum())  # rows of a forest where a feature on a split's edge flipped it
        facts["top1_agreement"] = float((got[0].argmax(1) == expected[0][:count].argmax(1)).mean())
    return facts


def latency(model: Model, device: str, x: np.ndarray, batch: int, seconds: float) -> dict[str, Any]:
    """Return the row of speed.json for one device and batch size."""
    rows = np.ascontiguousarray(x[np.arange(batch) % len(x)])
    place = {"device": device, "provider": model.session.get_providers()[0], "batch": batch}
    return place | timed(lambda: predict(model, rows, batch), batch, seconds)


def timed(call: Callable[[], object], samples: int, seconds: float) -> dict[str, Any]:
    """Return p50, p90 and p99 of `call` in ms, and its samples per second at p50, after a warm-up."""
    times: list[float] = []
    for _ in range(WARM_UP):
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < LEAST_RUNS:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    p50, p90, p99 = (float(np.quantile(times, q)) * 1e3 for q in (0.5, 0.9, 0.99))
    return {"runs": len(times), "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "per_second": samples / (p50 / 1e3)}


def machine() -> dict[str, Any]:
    """Return what the timings were measured on."""
    import onnxruntime

    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }


def processor() -> str:
    """Return the processor's model name; Python knows it on Linux only through /proc."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def refuse_promise(name: str, document: dict[str, Any], about: dict[str, Any]) -> str | None:
    """Return the sentence for a file whose contract is not that of the entry's data, or None."""
    for key in ("name", "task", "labels", "input", "forecast"):
        expected = name if key == "name" else about.get(key)
        if document.get(key) != expected:
            found = f"expected {key} {shown(expected)} as the entry has, got {shown(document.get(key))}"
            return f"{name}: model.onnx: {found}; run `dvc repro export@{name}`"
    return None


def shown(value: Any, most: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def refuse(name: str, checked: dict[str, Any]) -> str | None:
    """Return the sentence that stops the line, or None."""
    where, metric = f"see results/{name}/check.json", checked["metric"]
    if broken := [row for row in checked["rows"] if not row["passed"]]:
        row = max(broken, key=lambda r: (not r["finite"], r["max_difference"]))
        place = f"on {row['input']} input at batch {row['batch']}"
        if not row["finite"]:
            got = f"onnxruntime ({row['provider']}) answers values that are not finite {place}"
            return f"{name}: {got}, first in row {row['worst_row']}; {where}"
        gap = f"differs from torch by {row['max_difference']:.1e} {place} (limit {row['limit']:.1e})"
        return f"{name}: onnxruntime ({row['provider']}) {gap}, worst in row {row['worst_row']}; {where}"
    for device, gap in checked["golden"].items():
        if not gap <= (limit := checked["rows"][0]["limit"]):
            return f"{name}: the golden samples replayed on {device} differ by {gap:.1e} (limit {limit:.1e}); {where}"
    allowed = ACCURACY_LIMIT if metric["name"] == "accuracy" else ERROR_LIMIT * abs(metric["torch"])
    if not abs(metric["value"] - metric["torch"]) <= allowed:
        values = f"{metric['value']:.4g} under onnxruntime, {metric['torch']:.4g} under torch (limit {allowed:.1e})"
        return f"{name}: {metric['name']} is {values}; {where}"
    return None


def verdict(name: str, source: data.Data, limits: dict[str, Any]) -> Verdict:
    """Return what goes to check.json, speed.json and test.npz."""
    count = 1 if source.task == "classification" else 2
    with np.load(OUT / name / "export" / "torch.npz") as saved:
        torch_says = {kind: [saved[f"{kind}_{i}"] for i in range(count)] for kind in ("test", "random")}
        x = {"test": source.served("test"), "random": saved["random"]}
    rows, golden, timings, got, digest = [], {}, [], [], ""
    for device in available_devices():
        model = load(OUT / name / "export" / "model.onnx", device)
        if broken := refuse_promise(name, model.contract.document, source.about):
            raise StageError(broken)
        digest = model.contract.digest
        golden[device] = model.replay_golden()
        rows += parity(model, device, x, torch_says, limits["atol"])
        got = predict(model, x["test"], LARGE)
        timings += [
            latency(model, device, x["test"], batch, limits["latency_s"]) for batch in limits["latency_batches"]
        ]
    metric, arrays = measure(got, torch_says["test"][0], source)
    checked: dict[str, Any] = {"golden": golden, "rows": rows, "metric": metric}
    if (file := OUT / name / "export" / "features.npz").exists():
        with np.load(file) as vectors:
            splits = (np.asarray(source.y[split]) for split in ("train", "test"))
            checked["retrieval"], arrays["nearest"] = retrieve(vectors["train"], vectors["test"], *splits)
    broken = refuse(name, checked)
    kept = "all limits kept"
    if flipped := max(row.get("beyond", 0) for row in rows):
        kept += f"; {flipped} rows differ from torch by more than {limits['atol']:g}: a feature on the edge of a split"
    checked = {"passed": broken is None, "verdict": broken or kept, **checked}
    return checked, {"machine": machine(), "rows": timings}, arrays, digest


def measure(
    got: list[np.ndarray], torch_says: np.ndarray, source: data.Data
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the metric of the test split, and the answers that `infer` and `report` look at."""
    if source.task == "classification":
        y = np.asarray(source.y["test"])
        return classification(got[0], torch_says, y), {"probabilities": got[0], "y": y}
    keep = spread(len(got[0]), RAW_WINDOWS)
    history, target = source.windows("test", source.about["stride"])
    arrays = {
        "rows": keep,
        "context": history[keep],
        "target": target[keep],
        "forecast": got[0][keep],
        "quantiles": got[1][keep],
        "quantile_levels": np.array(source.about["forecast"]["quantiles"]),
    }
    return forecasting(got, torch_says, source), arrays


def headline(checked: dict[str, Any]) -> dict[str, float]:
    """Return the few flat numbers that `dvc metrics show` prints, one row an entry; errors are in own units."""
    metric = checked["metric"]
    name = metric["name"]
    facts = {f"test_{name}": metric["value"], f"test_{name}_low": metric["low"], f"test_{name}_high": metric["high"]}
    if name == "mse":
        naive = metric["baselines"]["seasonal naive"]
        facts |= {"coverage": metric["coverage"]["measured"]}
        facts |= {"mase": metric["mase"]} if np.isfinite(metric["mase"]) else {}
        facts |= (
            {"mse_vs_seasonal_naive": metric["value"] / naive} if naive else {}
        )  # 0: the test repeats itself exactly
    if found := checked.get("retrieval"):
        facts |= {"precision_at_5": found["precision"], "mean_average_precision": found["mean_average_precision"]}
    return facts | {"parity": max(row["max_difference"] for row in checked["rows"])}


def main() -> None:
    with of_entry("check") as name:
        source = data.load(name)
        folder, results = fresh(OUT / name / "check"), RESULTS / name / "check.json"
        try:
            checked, speed, arrays, digest = verdict(name, source, params.load().check)
        except (ServeError, StageError) as error:  # no numbers then, but a verdict
            nothing: dict[str, Any] = {"golden": {}, "rows": [], "metric": None}
            write_json(results, {"passed": False, "verdict": str(error), **nothing})
            for stale in ("speed", "metrics", "infer"):  # of another file
                (RESULTS / name / f"{stale}.json").unlink(missing_ok=True)
            raise
        np.savez_compressed(folder / "test.npz", **arrays)
        (folder / "digest").write_text(digest)  # out of results: it changes with the git revision inside the file
        write_json(results, checked)
        write_json(RESULTS / name / "metrics.json", headline(checked))
        write_json(RESULTS / name / "speed.json", speed)
        if not checked["passed"]:
            raise StageError(checked["verdict"])
        metric = checked["metric"]
        print(
            f"   {metric['name']} {metric['value']:.4g} [{metric['low']:.4g}, {metric['high']:.4g}] on {metric['n']}, "
            f"parity {max(r['max_difference'] for r in checked['rows']):.1e}, p50 {speed['rows'][0]['p50_ms']:.2f} ms",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run(main)
