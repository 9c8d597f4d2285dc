"""How good a model file is on a user's own labelled images or series: what `infer evaluate` prints.

Images that cannot be read and series that are too short are named and counted, never dropped in silence; the figures
are over the others.
"""

import csv
import difflib
import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convline.errors import InputError
from convline.images.predict import classify
from convline.images.sources import ImageSources, Source
from convline.report.interval import wilson
from convline.report.text_table import printable, render
from convline.runtime.host import usable_cores
from convline.runtime.model import Classifier, Forecaster
from convline.timeseries.backtest import Forecast, backtest_batches
from convline.timeseries.csv_reader import describe_non_utf8
from convline.timeseries.read_options import ReadOptions

Array = npt.NDArray[np.float64]
Report = dict[str, Any]
TOP, TOP_FROM = 5, 10  # top-5 accuracy says something where there are 10 classes or more
MOST_SHOWN = 10  # confusions, and names of what could not be read


def run(
    model: Classifier | Forecaster,
    path: str | None,
    labels: str | None,
    reading: ReadOptions | None = None,
) -> Report:
    """Return the figures of a folder of class folders or of a CSV of series, `path`, or of a CSV of labels."""
    where = str(path or labels)
    if isinstance(model, Classifier):
        return images(model, of_labels(labels) if labels else of_folder(where), where)
    if labels:
        raise InputError(
            labels,
            f"expected a classifier to have labels, got {model.name!r}, a forecaster; pass a PATH",
        )
    return series(model, where, reading)


def of_folder(folder: str) -> list[tuple[Source, str]]:
    """Return (source, label) of every image below a folder that holds one folder of images for each class."""
    if not os.path.isdir(folder):
        raise InputError(
            folder,
            "expected a folder that holds one folder of images for each class; or use --labels",
        )
    found = []
    for source in ImageSources([os.path.join(folder, "")], io.BytesIO()):
        inside = Path(os.path.relpath(source.path, folder)).parts
        if len(inside) < 2:
            reason = (
                source.error
                or f"expected one folder for each class, got {inside[0]!r} beside them; move it into one"
            )
            raise InputError(folder, reason)
        found.append((source, inside[0]))
    return found


def of_labels(file: str) -> list[tuple[Source, str]]:
    """Return (source, label) of the rows of a CSV with the columns path (or file), from its folder on, and label."""
    root = os.path.realpath(Path(file).parent)
    try:
        rows = list(
            csv.DictReader(
                io.StringIO(Path(file).read_text(encoding="utf-8-sig"), newline=""), strict=True
            )
        )
    except UnicodeDecodeError as error:
        raise InputError(
            file, f"expected UTF-8 text, got {describe_non_utf8(bytes(error.object), error)}"
        ) from error
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(file, f"expected a CSV of paths and labels, got none ({error})") from error
    found = []
    for number, row in enumerate(rows, start=1):
        path, label = row.get("path") or row.get("file"), row.get("label")
        if not path or not label:
            raise InputError(
                file, f"row {number}: expected a path and a label, got {path!r} and {label!r}"
            )
        reason = None
        if "\0" in path:
            reason = "expected a path, got one with a NUL in it"
        elif os.path.commonpath([root, os.path.realpath(os.path.join(root, path))]) != root:
            reason = "the path leads outside of the folder that the CSV is in"
        found.append((Source(os.path.join(Path(file).parent, path), reason), label))
    if not found:
        raise InputError(file, "expected a header path,label and rows, got no row")
    return found


def images(model: Classifier, labelled: list[tuple[Source, str]], where: str) -> Report:
    """Return accuracy, top-5 accuracy, the figures of each class, the confusions, and what could not be read."""
    _check_labels(model, {label for _, label in labelled}, where)
    top = TOP if len(model.labels) >= TOP_FROM else 1
    truths = iter([label for _, label in labelled])
    pairs, unread, within = (
        Counter[tuple[str, str]](),
        [],
        0,
    )  # pairs: (true label, predicted label)
    sources = [source for source, _ in labelled]
    for rows in classify(model, sources, batch=32, workers=usable_cores(), top_k=top):
        for row, truth in zip(
            rows, truths, strict=False
        ):  # the rows of one batch take the next truths
            if row["status"] == "error":
                unread.append({"path": row["path"], "error": row["error"]})
                continue
            pairs[truth, str(row["label"])] += 1
            within += truth in [
                row[f"label_{rank}"] if rank > 1 else row["label"] for rank in range(1, top + 1)
            ]
    if not (n := pairs.total()):
        raise InputError(
            where, f"expected images, none of {len(unread)} could be read: {unread[0]['error']}"
        )
    right = sum(count for (truth, answer), count in pairs.items() if truth == answer)
    report = {
        "task": "classification",
        "model": model.name,
        "images": n,
        "accuracy": _proportion(right, n),
    }
    report |= {"top_5": _proportion(within, n)} if top == TOP else {}
    wrong = Counter({pair: count for pair, count in pairs.items() if pair[0] != pair[1]})
    confusions = [
        {"true": t, "predicted": p, "images": count}
        for (t, p), count in wrong.most_common(MOST_SHOWN)
    ]
    return report | {
        "classes": _classes(model.labels, pairs),
        "confusions": confusions,
        "unread": unread,
    }


def _check_labels(model: Classifier, labels: set[str], where: str) -> None:
    for label in sorted(labels - {*model.labels}):
        close = difflib.get_close_matches(label, model.labels, 1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        known = printable(", ".join(model.labels), 500)
        raise InputError(
            where, f"expected the model's labels, got {label!r}; {meant}it knows {known}"
        )


def _proportion(right: int, n: int) -> dict[str, float]:
    low, high = wilson(right, n)
    return {"value": right / n, "low": low, "high": high, "right": right, "n": n}


def _classes(labels: list[str], pairs: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return for each label that was there or answered: images, recall, answers, precision (None where of none)."""
    there, answers = Counter[str](), Counter[str]()
    for (truth, answer), count in pairs.items():
        there[truth] += count
        answers[answer] += count
    return [
        {
            "label": label,
            "images": there[label],
            "recall": pairs[label, label] / there[label] if there[label] else None,
            "answers": answers[label],
            "precision": pairs[label, label] / answers[label] if answers[label] else None,
        }
        for label in labels
        if there[label] or answers[label]
    ]


def series(model: Forecaster, file: str, reading: ReadOptions | None = None) -> Report:
    """Return the errors of forecasts from rolling origins over each series of a file, beside those of the last value.

    Each forecast begins where the one before it ends, and the last ends with the series.
    """
    table = (reading or ReadOptions(model.name, model.contract.document["input"])).read(file)
    unread, parts = [], []
    for batch in backtest_batches(model, table, model.horizon, model.horizon, held=model.horizon):
        unread += [
            {"path": one.series.id, "error": _trouble(model, one)} for one in batch if one.error
        ]
        good = [one for one in batch if not one.error]
        parts += [_errors(model, good)] if good else []
    if not parts:
        raise InputError(
            file,
            f"expected a series to forecast, none of {len(unread)} can be: {unread[0]['error']}",
        )
    sums = {name: sum(part[name] for part in parts) for name in parts[0]}
    columns = [{"column": name, **_figures(model, sums, k)} for k, name in enumerate(model.targets)]
    served = len(table.series) - len({one["path"] for one in unread})
    report = {
        "task": "forecasting",
        "model": model.name,
        "series": served,
        "windows": int(sums["windows"]),
    }
    report |= {"filled": table.filled, "notes": table.notes, **_figures(model, sums, slice(None))}
    return report | {"columns": columns, "unread": unread}


def _trouble(model: Forecaster, origin: Forecast) -> str:
    """Return why an origin is not evaluated; it needs the truth after it as well as the history before."""
    rows = len(origin.series.values)
    short = rows < model.context + model.horizon
    return (
        f"{model.context} + {model.horizon} rows are needed, there are {rows}"
        if short
        else origin.error
    )


def _errors(model: Forecaster, origins: list[Forecast]) -> dict[str, Any]:
    """Return sums over windows and steps, each (D,): squared and absolute errors, the last value's, values inside."""
    ahead = [(one.series.values, one.cutoff, one.cutoff + 1 + model.horizon) for one in origins]
    own = len(model.targets)
    target = np.stack(
        [values[cutoff + 1 : end, :own] for values, cutoff, end in ahead]
    )  # (M, S, D)
    last = np.stack([values[cutoff : cutoff + 1, :own] for values, cutoff, _ in ahead])
    forecast = np.stack([one.forecast for one in origins]).astype(np.float64)
    quantiles = np.stack([one.quantiles for one in origins]).astype(np.float64)
    lower, upper = (
        quantiles[..., : len(model.quantiles) // 2],
        quantiles[..., ::-1][..., : len(model.quantiles) // 2],
    )
    inside = (lower <= target[..., None]) & (target[..., None] <= upper)  # (M, S, D, Q // 2)
    with np.errstate(
        over="ignore"
    ):  # of a truth near 1e308: such a figure is infinite, null in JSON
        return {
            "windows": len(target),
            "squared": ((forecast - target) ** 2).sum((0, 1)),
            "absolute": np.abs(forecast - target).sum((0, 1)),
            "last_value": np.abs(last - target).sum((0, 1)),
            "inside": inside.sum((0, 1)),
        }


def _figures(model: Forecaster, sums: dict[str, Any], column: int | slice) -> dict[str, Any]:
    """Return mse, mae, mae over that of the last value (None where that is 0), and coverage, of one column or all."""
    steps = sums["windows"] * model.horizon
    with np.errstate(over="ignore", invalid="ignore"):
        squared, absolute, naive = (
            sums[name][column].mean() / steps for name in ("squared", "absolute", "last_value")
        )
        ratio = float(absolute / naive) if naive else None
    inside = np.atleast_2d(sums["inside"][column]).mean(axis=0) / steps
    levels = [1 - 2 * low for low in model.quantiles[: len(model.quantiles) // 2]]
    return {
        "mse": float(squared),
        "mae": float(absolute),
        "mae_of_last_value": float(naive),
        "mae_ratio": ratio,
        "coverage": [
            {"nominal": round(n, 6), "measured": float(m)}
            for n, m in zip(levels, inside, strict=True)
        ],
    }


def text(report: Report) -> str:
    """Return a report as tables for people."""
    tables = _image_tables(report) if report["task"] == "classification" else _series_tables(report)
    if unread := report["unread"]:
        shown = [["", one["path"], one["error"]] for one in unread[:MOST_SHOWN]]
        more = (
            [["", f"and {len(unread) - MOST_SHOWN} more (--json names all)"]]
            if len(unread) > MOST_SHOWN
            else []
        )
        tables.append(
            f"not evaluated: {len(unread)}, not part of the figures above\n{render([*shown, *more])}"
        )
    return "\n\n".join(tables)


def _image_tables(report: Report) -> list[str]:
    rows = [["images", str(report["images"])]]
    for name in ("accuracy", "top_5"):
        if found := report.get(name):
            interval = f"[{100 * found['low']:.1f}, {100 * found['high']:.1f}] (95 %, Wilson)"
            counts = f"{found['right']} of {found['n']}"
            rows.append(
                [name.replace("_", "-"), f"{100 * found['value']:.1f} % {interval}, {counts}"]
            )
    heading = ["class", "images", "recall", "answers", "precision"]
    classes = [
        [str(_cell(one[name])) for name in ("label", *heading[1:])] for one in report["classes"]
    ]
    tables = [render(rows), render([heading, *classes], numbers=range(1, 5))]
    if report["confusions"]:
        confusions = [
            [one["true"], one["predicted"], str(one["images"])] for one in report["confusions"]
        ]
        tables.append(render([["true", "taken for", "images"], *confusions], numbers=[2]))
    return tables


def _series_tables(report: Report) -> list[str]:
    heading = ["column", "MSE", "MAE", "MAE / last value's"]
    heading += [f"inside {100 * level['nominal']:g} %" for level in report["coverage"]]
    rows = []
    for one in (
        [*report["columns"], {"column": "all", **report}]
        if len(report["columns"]) > 1
        else report["columns"]
    ):
        inside = [f"{100 * level['measured']:.1f} %" for level in one["coverage"]]
        rows.append(
            [one["column"], *(_cell(one[name]) for name in ("mse", "mae", "mae_ratio")), *inside]
        )
    facts = [
        ["series", str(report["series"])],
        ["windows", f"{report['windows']}, one horizon after the other"],
    ]
    facts += [["interpolated", f"{report['filled']} values"]] if report["filled"] else []
    return [render(facts), render([heading, *rows], numbers=range(1, len(heading)))]


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
