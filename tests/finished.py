"""What the stages leave behind for two entries and a study, written by hand: for the tests of
the report.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.params import schema
from pipeline.plots import style

HOSTILE = "<script>alert('&')</script>|$x$"
CLASSIFIER, FORECASTER = "lenet5-digits", "tcn-waves"
RECIPES = {
    CLASSIFIER: schema.EntryRecipe(
        arch="lenet5",
        data=schema.ImageData(
            set="digits", size=(8, 8), colour="grey", spec=schema.DigitsSet(source="digits")
        ),
        train=schema.ResolvedTrain(epochs=1, lr=0.001),
    ),
    FORECASTER: schema.EntryRecipe(
        arch="causal",
        data=schema.SeriesData(
            set="waves", context=8, horizon=4, spec=schema.WavesSet(source="waves")
        ),
        train=schema.ResolvedTrain(epochs=1, lr=0.01),
    ),
}
STUDIES = {
    "dilation": schema.Study(
        claim="The dilated stack sees < 100 steps.",
        recipe="plain-waves",
        settings={"dilated": {}},
        seeds=[1],
        measures=["mse 100 ahead"],
    )
}
STEPS = 6


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_data(root: Path, name: str, task: str, labels: list[str]) -> None:
    """Counts by split; test images of which image i is filled with the grey value i."""
    data = {
        "task": task,
        "source": "digits",
        "train": 1137,
        "validation": 300,
        "test": 20,
        "hash": "ab12",
        "filled": 0,
    }
    data |= {"licence": "CC0", "notes": []}
    if task == "classification":
        data |= {"labels": labels, "balance": {"train": {label: 7 for label in labels}}}
        (root / "out" / name / "data").mkdir(parents=True)
        images = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None, None], (20, 8, 8, 1))
        np.save(root / "out" / name / "data" / "test_x.npy", images)
        names = [f"{HOSTILE}/{row}.png" for row in range(20)]
        write(root / "out" / name / "data" / "test_names.json", names)
    else:
        data |= {"columns": labels, "stride": 3, "forecast": {"horizon": STEPS}, "test": 40}
        data["input"] = {"context": 60, "time": "day", "offset": "none"}
        folder = root / "out" / name / "data"
        folder.mkdir(parents=True)
        np.save(folder / "test_y.npy", np.array([0, 183]))  # 40 windows
        days = np.datetime64("2024-01-01", "s") + np.arange(183) * np.timedelta64(86400, "s")
        np.save(folder / "test_times.npy", days)
    write(root / "results" / name / "data.json", data)


def write_train(root: Path, name: str) -> None:
    rows = [
        {"epoch": e, "lr": 0.1, "train_loss": 1 / e, "validation_loss": 1.2 / e}
        for e in range(1, 6)
    ]
    for row in rows if name == CLASSIFIER else []:
        row |= {"train_accuracy": 0.9, "validation_accuracy": 0.8}
    write(root / "out" / name / "train" / "history.json", rows)
    layers = [{"layer": "stem.conv", "type": "Conv2d", "output": [6, 28, 28], "parameters": 156}]
    write(root / "out" / name / "train" / "layers.json", layers)
    train = {"parameters": 61706, "macs": 423400, "epochs": 5, "best_epoch": 4}
    write(root / "results" / name / "train.json", train)


def write_check(root: Path, name: str, *, passed: bool = True) -> None:
    """The classifier's answers are right but for rows 3 and 5, wrong with probability .6 and .9."""
    rng = np.random.default_rng(0)
    (root / "out" / name / "check").mkdir(parents=True)
    row = {
        "provider": "cpu",
        "variant": "fp32",
        "input": "test",
        "batch": 1,
        "max_difference": 3e-7,
    }
    row |= {"relative": 3e-7, "mean_difference": 1e-8, "limit": 1e-5, "passed": passed}
    metric = {"name": "accuracy", "value": 0.9, "low": 0.699, "high": 0.972, "n": 20, "torch": 0.9}
    variants: dict[str, Any] = {}
    if name == CLASSIFIER:
        row["top1_agreement"] = 1.0
        truth, probabilities = np.zeros(20, np.int64), np.tile(np.float32([0.8, 0.1, 0.1]), (20, 1))
        probabilities[3], probabilities[5] = [0.4, 0.6, 0], [0.05, 0.05, 0.9]
        arrays = {"y": truth, "probabilities": probabilities}
        lost = {
            "accuracy": 0.85,
            "lost": 0.05,
            "lost_low": -0.045,
            "lost_high": 0.145,
            "top1_agreement": 0.95,
        }
        variants = {
            "int8": {
                "cpu": lost | {"accepted": True, "undecided": False, "why": "loses 5.00 points"}
            }
        }
    else:
        metric |= {
            "name": "mse",
            "mae": 0.1,
            "mase": 0.5,
            "smape": 12.0,
            "pinball": 0.2,
            "block": 2,
            "standardised": {"mse": 0.4, "mae": 0.5},
            "intervals": [
                {"nominal": 0.8, "measured": 0.79, "low": 0.7, "high": 0.88, "width": 2.0}
            ],
        }
        rivals = {"last value": 1.5, "seasonal naive": 0.7, "ETS": 0.3}
        metric["baselines"] = {
            name: {"mse": e, "mase": e, "mse_ratio": [2.0, 1.5, 2.5]} for name, e in rivals.items()
        }
        metric["baselines"]["ETS"] |= {"mase_ratio": None, "forms": ["A,N,N", "A,N,N"]}
        target = rng.normal(size=(5, STEPS, 2))
        arrays = {
            "context": rng.normal(size=(5, 60, 2)),
            "target": target,
            "forecast": target + 0.1,
        }
        arrays["quantiles"] = target[..., None] + np.array([-1, 0, 1])
        arrays["quantile_levels"] = np.array([0.1, 0.5, 0.9])
        arrays |= {
            "rows": np.arange(5),
            "steps": np.full((4, STEPS), 0.1),
            "inside": np.full(STEPS, 0.79),
        }
        arrays["residuals"] = rng.normal(size=(40, 2))
        arrays["window_errors"] = np.full(40, 0.1)
        arrays |= {"column_mae": np.array([0.1, 0.3]), "column_mase": np.array([0.5, np.nan])}
        arrays["column_coverage"] = np.array([0.7, 0.88])
    np.savez(root / "out" / name / "check" / "test.npz", **arrays)
    write(
        root / "results" / name / "check.json",
        {
            "passed": passed,
            "verdict": "differs by 3e-07",
            "rows": [row],
            "metric": metric,
            "variants": variants,
        },
    )
    write(root / "results" / name / "speed.json", speed_of(variants))


def speed_of(variants: dict[str, Any]) -> dict[str, Any]:
    """Timings of fp32 and, at twice the speed, of the variants."""
    rows, files = [], []
    for k, variant in enumerate(["fp32", *variants], 1):
        place = {"device": "cpu", "variant": variant}
        row = place | {
            "way": "arrays",
            "batch": 1,
            "threads": 2,
            "stable": True,
            "p50_ms": 0.123 / k,
            "p90_ms": 0.2,
            "p99_ms": 0.3,
        }
        rows.append(
            row
            | {
                "per_second": k * 8130.1,
                "ops_per_second": k * 7e9,
                "intensity": 3.0,
                "share_of_limit": 0.1,
            }
        )
        nodes = {"CPUExecutionProvider": 20}
        files.append(
            place | {"placement": nodes, "first_s": 0.31, "memory_mb": 61.0, "bytes": 250_000 // k}
        )
    return {
        "machine": {"cpu": "test CPU", "cores": 2},
        "limits": {"cpu": {"fp32": 1e11, "int8": 3e11, "stream": 1e10}},
        "rows": rows,
        "files": files,
        "choice": {
            "cpu": {"variant": [*variants, "fp32"][0], "why": "twice as fast", "front": ["fp32"]}
        },
    }


def write_rest(root: Path, name: str) -> None:
    export: dict[str, Any] = {
        "bytes": 250_000,
        "nodes": 20,
        "opset": 20,
        "variants": {"fp32": {"bytes": 250_000}},
    }
    if name == CLASSIFIER:
        export["variants"]["int8"] = {
            "bytes": 125_000,
            "method": "MinMax",
            "kept": ["conv_1"],
            "products": 3,
        }
        write(
            root / "out" / name / "export" / "noise.json",
            {"int8": {"conv_0": 41.0, "conv_1": 33.5, "gemm": 30.0}},
        )
    write(root / "results" / name / "export.json", export)
    style.save_enlarged(
        np.zeros((8, 8, 1), np.uint8), explained_folder(root, name) / "attribution.png", ""
    )
    shown = {
        "file": "attribution.png",
        "width": 112,
        "height": 112,
        "alt": f"Maps of {HOSTILE}",
        "caption": HOSTILE,
        "kind": "photograph",
    }
    sections = [{"title": "Attribution maps", "pictures": [shown]}]
    gain = {
        "deletion": 0.2,
        "deletion_gain": [0.3, 0.1, 0.5],
        "insertion": 0.8,
        "insertion_gain": [0.1, -0.1, 0.3],
    }
    guided = gain | {
        "infidelity": 0.4,
        "hit": 1.0,
        "mass": 0.7,
        "kept": [1.0, 0.9, 0.5],
        "sane": False,
    }
    methods = {
        "guided backpropagation": guided,
        "LIME": gain | {"infidelity": 0.3, "fidelity": 0.81, "stability": 0.44},
    }
    judged = {"images": 8, "planted": 4, "completeness_gap": 0.031, "methods": methods}
    facts = {"attribution": judged} if name == CLASSIFIER else {"temporal_saliency": {"reach": 20}}
    write(root / "results" / name / "explain.json", {"facts": facts})
    write(explained_folder(root, name) / "page.json", {"sections": sections, "facts": facts})
    infer = {
        "metric": "accuracy",
        "value": 0.9,
        "expected": 0.9,
        "n": 20,
        "rows_ok": 20,
        "rows_error": 0,
    }
    infer |= {"equal": True, "served": {"fp32 on cpu": 0.9}}
    infer["example"] = {"input": "007/7.png", "output": "7 (0.990)"}
    write(root / "results" / name / "infer.json", infer)


def explained_folder(root: Path, name: str) -> Path:
    folder = root / "out" / name / "explain"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_study(root: Path) -> None:
    (root / "results" / "studies").mkdir(parents=True)
    csv = (
        "study,setting,seed,measure,x,value\n"
        "dilation,dilated,1,mse 100 ahead,,2\ndilation,last value (waves),,mse 100 ahead,,1\n"
    )
    (root / "results" / "studies" / "dilation.csv").write_text(csv)
    text = "# dilation\n\n| setting | mse |\n| --- | ---: |\n| plain | 1.0 ± .1 |\n| dilated | 2.0 |\n\nIt holds.\n"
    (root / "results" / "studies" / "dilation.md").write_text(text, encoding="utf-8")


def write_all(root: Path) -> None:
    """Both entries and the study, whole, each with a hostile label."""
    write_data(root, CLASSIFIER, "classification", [HOSTILE, "one", "two"])
    write_data(root, FORECASTER, "forecasting", ["y", HOSTILE])
    for name in RECIPES:
        write_train(root, name)
        write_check(root, name)
        write_rest(root, name)
    write_study(root)
