"""The schema of the model document: an error names the key that is wrong."""

from typing import Any

import pytest
import tiny
from convline.errors import ModelFileError
from convline.model_file.schema import check_document


def changed(document: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return the document with one dotted key set."""
    *path, last = key.split(".")
    inner = document
    for part in path:
        inner = inner[part]
    inner[last] = value
    return document


def test_valid_documents_pass() -> None:
    """The documents of the other tests, a crop rule, and a forecaster of two columns."""
    check_document(tiny.classifier_document(), "here")
    check_document(
        tiny.forecaster_document(("a", "b"), id="shop", time=None, gaps="interpolate"), "here"
    )
    crop = changed(changed(tiny.classifier_document(), "input.fit", "crop"), "input.shorter_px", 8)
    check_document(crop, "here")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", True), ("format", "1"), ("name", ""), ("name", 3), ("name", "\ud800"),
        ("task", "styling"), ("format", 0), ("labels", []),
        ("labels", ["a", "a"]), ("labels", "abc"), ("input", []), ("input.size", [8]), ("input.size", [8, 0]),
        ("input.size", [8, 1 << 30]), ("input.size", [8.0, 8]), ("input.colour", "cmyk"), ("input.fit", "pad"),
        ("input.interpolation", "area"), ("input.background", [0, 0, 256]), ("input.exif", "ignore"),
        ("input.draft", "yes"), ("input.draft", 0), ("provenance", None), ("golden.atol", 0), ("golden.input", {}),
        ("golden.outputs", {}), ("golden.atol", float("inf")),
        ("golden.atol", 10**400),
    ],
)  # fmt: skip
def test_a_wrong_key_of_a_classifier_is_named(key: str, value: Any) -> None:
    """One key of a valid document is made wrong."""
    with pytest.raises(ModelFileError, match=rf"^here: metadata key '{key}': expected .*, got "):
        check_document(changed(tiny.classifier_document(), key, value), "here")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("input.context", 0), ("input.context", 10**9), ("input.columns", []), ("input.id", 3), ("input.time", ""),
        ("input.gaps", "drop"), ("input.step", None), ("input.step.unit", "weeks"), ("input.step.count", 0),
        ("forecast", 3), ("forecast.horizon", -1), ("forecast.quantiles", []), ("forecast.quantiles", [0.9, 0.5, 0.1]),
        ("forecast.quantiles", [0.1, 0.5]), ("forecast.quantiles", [0, 0.5, 1]),
    ],
)  # fmt: skip
def test_a_wrong_key_of_a_forecaster_is_named(key: str, value: Any) -> None:
    """One key of a valid document is made wrong."""
    with pytest.raises(ModelFileError, match=rf"^here: metadata key '{key}': expected .*, got "):
        check_document(changed(tiny.forecaster_document(), key, value), "here")


@pytest.mark.parametrize(
    ("key", "change", "reason"),
    [
        ("stream.samples", {"stream": {"samples": 0}}, "an integer from 1"),
        ("stream", {"stream": 3}, "an object"),
        (
            "input.calendar",
            {"input.calendar": ["hour", "hour"]},
            "a list of different names among minute, hour",
        ),
        (
            "input.calendar",
            {"input.calendar": ["era"]},
            "a list of different names among minute, hour",
        ),
        ("golden.calendar", {"input.calendar": ["hour"]}, "an object with dtype"),
        (
            "input.calendar",
            {"input.calendar": ["hour"], "golden.calendar": 0, "input.time": None},
            "a time column",
        ),
        (
            "input.calendar",
            {"input.calendar": ["hour"], "golden.calendar": 0, "input.step.unit": "index"},
            "a time",
        ),
        ("input.range.of", {"input.range.of": "rows"}, "one of 'values', 'changes'"),
        ("input.range.low", {"input.range.low": [0, True]}, "a list of finite numbers"),
        ("input.range", {"input.range.low": [0]}, "low <= high for each column"),
        ("input.range", {"input.range.low": [0, 3]}, "low <= high for each column"),
        ("forecast.columns", {"forecast.columns": ["b"]}, "the first of"),
        ("forecast.columns", {"forecast.columns": ["a", "b", "c"]}, "the first of"),
        ("forecast.columns", {"forecast.columns": []}, "a list of different"),
    ],
)
def test_optional_keys_are_checked_if_present(key: str, change: Any, reason: str) -> None:
    """One key is made wrong in a valid document of two columns, the first of which is forecast."""
    good = {
        "stream": {"samples": 9},
        "input.calendar": ["hour"],
        "forecast.columns": ["a"],
        "golden.calendar": 0,
    }
    for keys in (good, change):
        document = tiny.forecaster_document(
            ("a", "b"), range={"of": "changes", "low": [0, -1.5], "high": [0, 2]}
        )
        for name, value in keys.items():
            changed(
                document, name, document["golden"]["input"] if name == "golden.calendar" else value
            )
        if keys is good:
            check_document(document, "here")
    with pytest.raises(ModelFileError, match=rf"^here: metadata key '{key}': expected {reason}"):
        check_document(document, "here")


def test_missing_and_unknown_keys_are_named() -> None:
    """An unknown key could be a policy that this version would ignore, so it is refused.

    Inside provenance any key is allowed.
    """
    document = tiny.classifier_document()
    del document["input"]["exif"]
    with pytest.raises(
        ModelFileError, match=r"'input\.exif': expected one of 'apply', got nothing"
    ):
        check_document(document, "here")
    with pytest.raises(ModelFileError, match=r"'input\.gamma': expected only the keys"):
        check_document(changed(tiny.classifier_document(), "input.gamma", 2.2), "here")
    with pytest.raises(ModelFileError, match=r"'input\.shorter_px'"):
        check_document(changed(tiny.classifier_document(), "input.shorter_px", 9), "here")
    check_document(
        changed(tiny.classifier_document(), "provenance.anything", {"at": ["all"]}), "here"
    )


def test_a_key_with_a_dot_does_not_hide_a_nested_key() -> None:
    """A top-level key named "input.size" is refused, and the size inside `input` is checked."""
    good = tiny.classifier_document()
    with pytest.raises(ModelFileError, match=r"size': expected only the keys"):
        check_document(good | {"input.size": [8, 8]}, "here")
    bad = changed(good, "input.size", [0, 0])
    with pytest.raises(ModelFileError, match=r"'input\.size': expected \[H, W\]"):
        check_document(bad | {"input.size": [8, 8]}, "here")
