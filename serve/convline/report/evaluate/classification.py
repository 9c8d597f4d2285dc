"""Classifiers: accuracy on a user's own labelled images."""

import csv
import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

from convline.errors import InputError
from convline.images.classifier import Classifier
from convline.images.image_model import Options
from convline.images.sources import ImageSources
from convline.report.evaluate.answers import (
    Report,
    Truth,
    Unread,
    answers,
    format_proportion,
    label_indices,
    proportion,
)
from convline.report.text_table import format_table
from convline.runtime.sources import Source
from convline.timeseries.csv_reader import describe_non_utf8

LabelledImages = list[tuple[Source, str]]
TOP, TOP_FROM = 5, 10  # top-5 accuracy tells something from 10 classes on
MOST_LISTED = 10  # confusions


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


def evaluate(model: Classifier, truth: Truth) -> Report:
    """Return accuracy, top-5 accuracy, recall and precision of each class, confusions, and unread
    images."""
    truth.require_one()
    images = read_labels(truth.labels) if truth.labels else list_class_folders(truth.where)
    label_indices(model.labels, [label for _, label in images], truth.where)
    top = TOP if len(model.labels) >= TOP_FROM else 1
    columns = ["label", *(f"label_{rank}" for rank in range(2, top + 1))]
    pairs = Counter[tuple[str, str]]()  # images by (true label, predicted label)
    n_within_top, unread = 0, Unread()
    sources = [source for source, _ in images]
    for place, row in answers(model, sources, Options(top_k=top), truth.where, unread):
        label = images[place][1]
        pairs[label, str(row["label"])] += 1
        n_within_top += label in [row[column] for column in columns]
    n = pairs.total()
    wrong = Counter({pair: count for pair, count in pairs.items() if pair[0] != pair[1]})
    return {
        "images": n,
        "accuracy": proportion(n - wrong.total(), n),
        **({"top_5": proportion(n_within_top, n)} if top == TOP else {}),
        "classes": _class_metrics(model.labels, pairs),
        "confusions": [
            {"true": label, "predicted": predicted, "images": count}
            for (label, predicted), count in wrong.most_common(MOST_LISTED)
        ],
        "unread": unread,
    }


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


def tables(report: Report) -> list[str]:
    rows = [["images", report["images"]]]
    for name in ("accuracy", "top_5"):
        if figure := report.get(name):
            rows.append([name.replace("_", "-"), format_proportion(figure)])
    keys = ("label", "images", "recall", "answers", "precision")
    classes = [["class", "images", "recall", "predictions", "precision"]]
    classes += [[one[key] for key in keys] for one in report["classes"]]
    tables = [format_table(rows), format_table(classes, right_aligned=range(1, 5))]
    if report["confusions"]:
        confusions = [["true", "predicted", "images"]]
        confusions += [[one[key] for key in confusions[0]] for one in report["confusions"]]
        tables.append(format_table(confusions, right_aligned=[2]))
    return tables
