"""How good a model is on a user's own labelled images or series (`infer evaluate`).

Images that cannot be read and series that are too short are listed and counted; the metrics cover
the others.
"""

import csv
import difflib
import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from convline.errors import InputError
from convline.images.classifier import Classifier
from convline.images.image_model import Options
from convline.images.sources import ImageSources
from convline.jobs.image_job import answer_sources
from convline.report.confidence_interval import wilson_interval
from convline.report.text_table import format_table
from convline.runtime.host import usable_cores
from convline.runtime.sources import Source
from convline.terminal_text import printable_line
from convline.timeseries.backtest import Forecast, backtest_batches
from convline.timeseries.csv_reader import describe_non_utf8
from convline.timeseries.forecaster import Forecaster
from convline.timeseries.read_options import ReadOptions

Report = dict[str, Any]
LabelledImages = list[tuple[Source, str]]
TOP, TOP_FROM = 5, 10  # top-5 accuracy tells something from 10 classes on
MOST_LISTED = 10  # confusions, and names of what could not be read


def evaluate(
    model: Classifier | Forecaster,
    path: str | None,
    labels: str | None,
    reading: ReadOptions | None = None,
) -> Report:
    """Return the metrics of a model on `path`, or for images on a CSV of labels.

    path: a folder with a folder of images for each class, or a file of series. reading: how the
    file is read.
    """
    if isinstance(model, Classifier):
        images = read_labels(labels) if labels else list_class_folders(str(path))
        return evaluate_images(model, images, str(path or labels))
    if labels:
        got = f"got {model.name!r}, a forecaster; pass a PATH"
        raise InputError(labels, f"expected a classifier for --labels, {got}")
    return evaluate_series(model, str(path), reading)


def list_class_folders(folder: str) -> LabelledImages:
    """Return each image below a folder that holds one folder of images for each class, with its
    class."""
    if not os.path.isdir(folder):
        expected = "expected a folder that holds one folder of images for each class"
        raise InputError(folder, f"{expected}; or use --labels")
    images = []
    for source in ImageSources([os.path.join(folder, "")], io.BytesIO()):
        label, _, name = os.path.relpath(source.path, folder).partition(os.sep)
        if not name:
            reason = f"expected one folder for each class, got {label!r} beside them"
            raise InputError(folder, source.error or f"{reason}; move it into one")
        images.append((source, label))
    return images


def read_labels(file: str) -> LabelledImages:
    """Return the image and label of each row of a CSV with columns path (or file) and label.

    Paths are relative to the CSV's folder. One that leads out of that folder becomes a source with
    an error.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except UnicodeDecodeError as error:
        reason = f"expected UTF-8 text, got {describe_non_utf8(bytes(error.object), error)}"
        raise InputError(file, reason) from error
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(file, f"expected a CSV of paths and labels, got none ({error})") from error
    folder = Path(file).parent
    root = os.path.realpath(folder)
    images = []
    for number, row in enumerate(rows, start=1):
        path, label = row.get("path") or row.get("file"), row.get("label")
        if not path or not label:
            expected = f"expected a path and a label, got {path!r} and {label!r}"
            raise InputError(file, f"row {number}: {expected}")
        error_text = None
        if "\0" in path:
            error_text = "expected a path, got one with a NUL in it"
        elif os.path.commonpath([root, os.path.realpath(os.path.join(root, path))]) != root:
            error_text = "the path leads outside of the folder that the CSV is in"
        images.append((Source(os.path.join(folder, path), error_text), label))
    if not images:
        raise InputError(file, "expected a header path,label and rows, got no row")
    return images


def evaluate_images(model: Classifier, images: LabelledImages, where: str) -> Report:
    """Return accuracy, top-5 accuracy, recall and precision of each class, confusions, and unread
    images."""
    _check_labels(model, {label for _, label in images}, where)
    top = TOP if len(model.labels) >= TOP_FROM else 1
    columns = ["label", *(f"label_{rank}" for rank in range(2, top + 1))]
    pairs = Counter[tuple[str, str]]()  # images by (true label, predicted label)
    n_within_top, unread = 0, []
    answers = answer_sources(
        model,
        [source for source, _ in images],
        batch=32,
        workers=usable_cores(),
        options=Options(top_k=top),
    )
    for row, (source, label) in zip(answers, images, strict=True):
        if isinstance(row, str):
            unread.append({"path": source.path, "error": row})
            continue
        pairs[label, str(row["label"])] += 1
        n_within_top += label in [row[column] for column in columns]
    if not (n := pairs.total()):
        reason = f"none of {len(unread)} could be read: {unread[0]['error']}"
        raise InputError(where, f"expected images, {reason}")
    wrong = Counter({pair: count for pair, count in pairs.items() if pair[0] != pair[1]})
    return {
        "task": "classification",
        "model": model.name,
        "images": n,
        "accuracy": _proportion(n - wrong.total(), n),
        **({"top_5": _proportion(n_within_top, n)} if top == TOP else {}),
        "classes": _class_metrics(model.labels, pairs),
        "confusions": [
            {"true": label, "predicted": predicted, "images": count}
            for (label, predicted), count in wrong.most_common(MOST_LISTED)
        ],
        "unread": unread,
    }


def _check_labels(model: Classifier, labels: set[str], where: str) -> None:
    """Raise InputError if a label is not one of the model's."""
    for label in sorted(labels - {*model.labels}):
        close = difflib.get_close_matches(label, model.labels, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        known = printable_line(", ".join(model.labels), 500)
        reason = f"expected the model's labels, got {label!r}; {hint}it knows {known}"
        raise InputError(where, reason)


def _proportion(right: int, n: int) -> dict[str, float]:
    low, high = wilson_interval(right, n)
    return {"value": right / n, "low": low, "high": high, "right": right, "n": n}


def _class_metrics(labels: list[str], pairs: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return images, recall, answers (predictions) and precision of each label that occurs.

    Recall is None for a class without images, precision for one that was never predicted.
    """
    images, predictions = Counter[str](), Counter[str]()
    for (label, predicted), count in pairs.items():
        images[label] += count
        predictions[predicted] += count
    return [
        {
            "label": label,
            "images": images[label],
            "recall": pairs[label, label] / images[label] if images[label] else None,
            "answers": predictions[label],
            "precision": pairs[label, label] / predictions[label] if predictions[label] else None,
        }
        for label in labels
        if images[label] or predictions[label]
    ]


def evaluate_series(model: Forecaster, file: str, reading: ReadOptions | None = None) -> Report:
    """Return the errors of a backtest over each series of a file, beside those of repeating the
    last value.

    Each forecast begins where the one before it ends; the last one ends with the series.
    """
    table = (reading or ReadOptions(model.name, model.document.input)).read(file)
    unread, parts = [], []
    for batch in backtest_batches(model, table, model.horizon, model.horizon, held=model.horizon):
        good = [forecast for forecast in batch if not forecast.error]
        for forecast in (one for one in batch if one.error):
            reason = _reason_not_evaluated(model, forecast)
            unread.append({"path": forecast.series.id, "error": reason})
        parts += [_error_sums(model, good)] if good else []
    if not parts:
        reason = f"none of {len(unread)} can be: {unread[0]['error']}"
        raise InputError(file, f"expected a series to forecast, {reason}")
    sums = {name: sum(part[name] for part in parts) for name in parts[0]}
    return {
        "task": "forecasting",
        "model": model.name,
        "series": len(table.series) - len({one["path"] for one in unread}),
        "windows": int(sums["windows"]),
        "filled": table.filled,
        "notes": table.notes,
        **_series_metrics(model, sums, slice(None)),
        "columns": [
            {"column": name, **_series_metrics(model, sums, k)}
            for k, name in enumerate(model.targets)
        ],
        "unread": unread,
    }


def _reason_not_evaluated(model: Forecaster, forecast: Forecast) -> str:
    """Return why a forecast is not evaluated; it needs the rows after it as well as those
    before."""
    rows = len(forecast.series.values)
    if rows < model.context + model.horizon:
        return f"{model.context} + {model.horizon} rows are needed, there are {rows}"
    return forecast.error


def _error_sums(model: Forecaster, forecasts: list[Forecast]) -> dict[str, Any]:
    """Return the number of windows, and sums over windows and steps.

    squared, absolute, last_value (D,): errors of the forecast, and absolute ones of repeating the
    last value. inside (D, Q // 2): values inside each interval, the widest first.
    """
    columns, half = len(model.targets), len(model.quantiles) // 2
    rows = np.stack(  # (M, 1 + S, D): the last row of each window, and those of its horizon
        [o.series.values[o.cutoff : o.cutoff + 1 + model.horizon, :columns] for o in forecasts]
    )
    last, target = rows[:, :1], rows[:, 1:]
    forecast = np.stack([one.forecast for one in forecasts]).astype(np.float64)
    quantiles = np.stack([one.quantiles for one in forecasts]).astype(np.float64)
    lower, upper = quantiles[..., :half], quantiles[..., ::-1][..., :half]
    inside = (lower <= target[..., None]) & (target[..., None] <= upper)  # (M, S, D, Q // 2)
    # A target near 1e308 has an infinite squared error, which is null in JSON.
    with np.errstate(over="ignore"):
        return {
            "windows": len(target),
            "squared": ((forecast - target) ** 2).sum((0, 1)),
            "absolute": np.abs(forecast - target).sum((0, 1)),
            "last_value": np.abs(last - target).sum((0, 1)),
            "inside": inside.sum((0, 1)),
        }


def _series_metrics(model: Forecaster, sums: dict[str, Any], column: int | slice) -> dict[str, Any]:
    """Return mse, mae, mae of the last value, their ratio and the coverage, of one column or all.

    The ratio is None if the last value has no error.
    """
    steps = sums["windows"] * model.horizon
    with np.errstate(over="ignore", invalid="ignore"):
        squared, absolute, naive = (
            sums[name][column].mean() / steps for name in ("squared", "absolute", "last_value")
        )
        ratio = float(absolute / naive) if naive else None
    inside = np.atleast_2d(sums["inside"][column]).mean(axis=0) / steps
    coverage = [
        {"nominal": round(1 - 2 * low, 6), "measured": float(measured)}
        for low, measured in zip(model.quantiles, inside, strict=False)  # the lower half
    ]
    return {
        "mse": float(squared),
        "mae": float(absolute),
        "mae_of_last_value": float(naive),
        "mae_ratio": ratio,
        "coverage": coverage,
    }


def format_text(report: Report) -> str:
    """Return a report as tables."""
    tables = _image_tables(report) if report["task"] == "classification" else _series_tables(report)
    if unread := report["unread"]:
        rows = [["", one["path"], one["error"]] for one in unread[:MOST_LISTED]]
        if len(unread) > MOST_LISTED:
            rows.append(["", f"and {len(unread) - MOST_LISTED} more (--json lists all)"])
        tables.append(
            f"not evaluated: {len(unread)}, not in the metrics above\n{format_table(rows)}"
        )
    return "\n\n".join(tables)


def _image_tables(report: Report) -> list[str]:
    rows = [["images", report["images"]]]
    for name in ("accuracy", "top_5"):
        if figure := report.get(name):
            interval = f"[{100 * figure['low']:.1f}, {100 * figure['high']:.1f}] (95 %, Wilson)"
            value = f"{100 * figure['value']:.1f} % {interval}, {figure['right']} of {figure['n']}"
            rows.append([name.replace("_", "-"), value])
    keys = ("label", "images", "recall", "answers", "precision")
    classes = [["class", "images", "recall", "predictions", "precision"]]
    classes += [[one[key] for key in keys] for one in report["classes"]]
    tables = [format_table(rows), format_table(classes, right_aligned=range(1, 5))]
    if report["confusions"]:
        confusions = [["true", "predicted", "images"]]
        confusions += [[one[key] for key in confusions[0]] for one in report["confusions"]]
        tables.append(format_table(confusions, right_aligned=[2]))
    return tables


def _series_tables(report: Report) -> list[str]:
    heading = ["column", "MSE", "MAE", "MAE / last value's"]
    heading += [f"inside {100 * level['nominal']:g} %" for level in report["coverage"]]
    columns = report["columns"]
    if len(columns) > 1:
        columns = [*columns, {"column": "all", **report}]
    rows = [
        [
            *(one[name] for name in ("column", "mse", "mae", "mae_ratio")),
            *(f"{100 * level['measured']:.1f} %" for level in one["coverage"]),
        ]
        for one in columns
    ]
    windows = f"{report['windows']}, one horizon after the other"
    facts = [["series", report["series"]], ["windows", windows]]
    if report["filled"]:
        facts.append(["interpolated", f"{report['filled']} values"])
    errors = format_table([heading, *rows], right_aligned=range(1, len(heading)))
    return [format_table(facts), errors]
