"""What the tasks of images share: their test files, and the command that serves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.report.result_files import Entry


def describe_classes(about: dict[str, Any]) -> str:
    return f"{len(about['labels'])} classes"


def describe_test(about: dict[str, Any]) -> str:
    return f"{about['test']:,} test images"


def serve_command(entry: Entry) -> str:
    return f"infer images {entry.name} out/{entry.name}/data/raw"


def verdicts(entry: Entry) -> dict[str, str]:
    beside = entry.results.get("check", {}).get("against_baseline")
    return {"Against the baseline": beside["sentence"]} if beside else {}


def test_files(entry: Entry) -> tuple[Any, ...]:
    """Return classes or words, and names and sizes of the raw test files, which do not depend on
    the size at which the network reads them.
    """
    about = entry.results["data"]
    files = entry.raw_test_files or about["hash"]  # arrays that are equal are the same images
    return tuple(about["labels"] if "labels" in about else about["words"]), files


def count_images(entries: list[Entry], picture: Path) -> dict[str, Any]:
    """Return the number of test images: of tasks that are compared by their metrics alone."""
    return {"n": entries[0].results["data"]["test"]}
