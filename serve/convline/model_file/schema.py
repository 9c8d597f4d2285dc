"""The schema of the model document (format 1): which keys there must be, and what each may hold.

There is one table of rules per task. Unknown keys outside `provenance` are refused, because a
policy that this version does not know would be ignored silently. A new key therefore needs a higher
FORMAT, unless it is OPTIONAL: an older version then refuses only the files that have it.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from convline.errors import ModelFileError

FORMAT = 1
TASKS = ("classification", "forecasting")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
CROPS = (
    "crop",
    "torchvision",
)  # both scale the shorter side and cut the centre; torchvision's at whole pixels
CALENDAR_FEATURES = ("minute", "hour", "weekday", "day", "month", "yearday")
UNITS = ("seconds", "months", "index")
MAX_IMAGE_SIDE = 8192  # bounds what a hostile file can make us allocate: 192 MiB for one rgb image
MAX_STEPS = 1_000_000  # context and horizon, rows

Rule = tuple[str, Callable[[Any], bool]]  # (what is expected, in words; the test)


def _integer(low: int, high: int) -> Rule:
    return f"an integer from {low} to {high}", lambda v: type(v) is int and low <= v <= high


def _one_of(*choices: object) -> Rule:
    return f"one of {', '.join(map(repr, choices))}", lambda v: any(
        type(v) is type(c) and v == c for c in choices
    )


def _is_text(value: Any) -> bool:
    """Return whether a value is non-empty text without lone surrogates.

    JSON can escape a lone surrogate, but no output file could hold it.
    """
    return (
        isinstance(value, str)
        and value != ""
        and not any("\ud800" <= char <= "\udfff" for char in value)
    )


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(map(_is_text, value))
        and len({*value}) == len(value)
    )


def _are_integers(value: Any, count: int, low: int, high: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(type(v) is int and low <= v <= high for v in value)
    )


def _are_quantiles(value: Any) -> bool:
    """Levels in (0, 1), rising, symmetric about the median, so that outer pairs are intervals."""
    if not (
        isinstance(value, list) and value and all(type(v) is float and 0 < v < 1 for v in value)
    ):
        return False
    mirrored = all(
        abs(low + high - 1) < 1e-9 for low, high in zip(value, reversed(value), strict=True)
    )
    return mirrored and all(low < high for low, high in pairwise(value))


def _is_golden(value: Any) -> bool:
    return isinstance(value, dict) and {*value} == {"dtype", "shape", "data"}


def _has_samples(value: Any) -> bool:
    return _is_golden(value) and not (
        isinstance(value["shape"], list) and value["shape"][:1] in ([], [0])
    )


TEXT: Rule = "a non-empty string", _is_text
TEXT_OR_NULL: Rule = "a non-empty string or null", lambda v: v is None or _is_text(v)
OBJECT: Rule = "an object", lambda v: isinstance(v, dict)
NAMES: Rule = "a list of different non-empty strings", _are_names
SIZE: Rule = (
    f"[H, W], each from 1 to {MAX_IMAGE_SIDE}",
    lambda v: _are_integers(v, 2, 1, MAX_IMAGE_SIDE),
)
COLOUR: Rule = "[r, g, b], each from 0 to 255", lambda v: _are_integers(v, 3, 0, 255)
QUANTILES: Rule = "rising levels in (0, 1), symmetric about 0.5", _are_quantiles
GOLDEN: Rule = "an object with dtype, shape and data", _is_golden
SAMPLES: Rule = "an object with dtype, shape and data, of one sample or more", _has_samples
GOLDENS: Rule = (
    "an object of packed arrays",
    lambda v: isinstance(v, dict) and v != {} and all(map(_is_golden, v.values())),
)
NUMBERS: Rule = (
    "a list of finite numbers",
    lambda v: isinstance(v, list) and all(type(n) in (int, float) and abs(n) < 1e308 for n in v),
)
POSITIVE: Rule = "a number above 0", lambda v: type(v) in (int, float) and 0 < v < 1e308

COMMON: dict[str, Rule] = {
    "format": _one_of(FORMAT),
    "name": TEXT,
    "task": _one_of(*TASKS),
    "input": OBJECT,
    "provenance": OBJECT,
    "golden": OBJECT,
    "golden.input": SAMPLES,
    "golden.outputs": GOLDENS,
    "golden.atol": POSITIVE,
}
CLASSIFICATION: dict[str, Rule] = COMMON | {
    "labels": NAMES,
    "input.kind": _one_of("image"),
    "input.size": SIZE,
    "input.colour": _one_of("grey", "rgb"),
    "input.fit": _one_of("stretch", *CROPS),
    "input.interpolation": _one_of(*INTERPOLATIONS),
    "input.background": COLOUR,
    "input.exif": _one_of("apply"),
    "input.sixteen_bit": _one_of("high byte"),
    "input.frames": _one_of("first"),
    "input.draft": _one_of(False, True),
}
CROP: dict[str, Rule] = {"input.shorter_px": _integer(1, MAX_IMAGE_SIDE)}
EXPLAIN: dict[str, Rule] = {"explain": OBJECT, "explain.saliency": _one_of(True)}
FORECASTING: dict[str, Rule] = COMMON | {
    "input.kind": _one_of("series"),
    "input.context": _integer(1, MAX_STEPS),
    "input.columns": NAMES,
    "input.id": TEXT_OR_NULL,
    "input.time": TEXT_OR_NULL,
    "input.gaps": _one_of("error", "interpolate"),
    "input.step": OBJECT,
    "input.step.unit": _one_of(*UNITS),
    "input.step.count": _integer(1, 2**53),
    "forecast": OBJECT,
    "forecast.horizon": _integer(1, MAX_STEPS),
    "forecast.quantiles": QUANTILES,
}
STREAM: dict[str, Rule] = {"stream": OBJECT, "stream.samples": _integer(1, MAX_STEPS)}
KNOWN: Rule = (
    f"a list of different names among {', '.join(CALENDAR_FEATURES)}",
    lambda v: _are_names(v) and {*v} <= {*CALENDAR_FEATURES},
)
CALENDAR: dict[str, Rule] = {
    "input.calendar": KNOWN,
    "golden.calendar": GOLDEN,
}  # the graph has an input of this name
RANGE: dict[str, Rule] = {  # of the training inputs, where answers to others mean nothing
    "input.range": OBJECT,
    "input.range.of": _one_of(
        "values", "changes"
    ),  # of each row, or of each row from the window's last
    "input.range.low": NUMBERS,
    "input.range.high": NUMBERS,
}
OFFSET: dict[str, Rule] = {
    "input.offset": _one_of("none", "utc")
}  # whether training's times had one
TARGETS: dict[str, Rule] = {
    "forecast.columns": NAMES
}  # the first of input.columns, where they are fewer
OPTIONAL = {  # task: keys that may be absent, each with the rules that hold where it is there
    "classification": {"explain": EXPLAIN},
    "forecasting": {
        "stream": STREAM,
        "input.calendar": CALENDAR,
        "input.offset": OFFSET,
        "input.range": RANGE,
        "forecast.columns": TARGETS,
    },
}
OPEN = (
    "provenance",
    "golden.input",
    "golden.calendar",
    "golden.outputs",
)  # what is inside is not named above


def check_format(document: Any, where: str) -> None:
    """Raise ModelFileError if the document is no object, or of a newer format."""
    if not isinstance(document, dict):
        raise ModelFileError(
            f"{where}: expected metadata that is a JSON object, got {type(document).__name__}"
        )
    version = document.get("format")
    if type(version) is int and version > FORMAT:
        raise ModelFileError(
            f"{where}: expected metadata format {FORMAT}, got {version}; "
            "install a newer convline, or export again"
        )


def check_document(document: Any, where: str) -> None:
    """Raise ModelFileError that names the first missing, wrong or unknown key."""
    check_format(document, where)
    rules = FORECASTING if document.get("task") == "forecasting" else CLASSIFICATION
    if isinstance(document.get("input"), dict) and document["input"].get("fit") in CROPS:
        rules = rules | CROP
        if document["input"]["fit"] == "torchvision":
            rules = rules | {
                "input.draft": _one_of(False)
            }  # its pixels are those of the whole image
    for key, more in OPTIONAL.get(str(document.get("task")), {}).items():
        rules = rules | more if _look_up(document, key)[0] else rules
    for key, (expected, test) in rules.items():
        found, value = _look_up(document, key)
        if not found or not test(value):
            got = repr(value)[:80] if found else "nothing"
            raise ModelFileError(
                f"{where}: metadata key {key!r}: expected {expected}, got {got}; export it again"
            )
    unknown = sorted(_keys(document) - {*rules} - {"digest"})
    if unknown:
        raise ModelFileError(
            f"{where}: metadata key {unknown[0]!r}: expected only the keys of format {FORMAT}; "
            "export it again"
        )
    if document["task"] == "forecasting":
        _check_forecast(document["input"], document["forecast"], where)


def _check_forecast(given: dict[str, Any], answer: dict[str, Any], where: str) -> None:
    """Raise ModelFileError where a forecaster's keys do not agree with one another."""
    columns = answer.get("columns", given["columns"])
    if columns != given["columns"][: len(columns)]:
        expected = f"the first of {given['columns']!r:.80}, got {columns!r:.80}"
        raise ModelFileError(
            f"{where}: metadata key 'forecast.columns': expected {expected}; export it again"
        )
    if "range" in given:
        low, high = given["range"]["low"], given["range"]["high"]
        pairs = [*zip(low, high, strict=False)]
        if not len(low) == len(high) == len(given["columns"]) or any(a > b for a, b in pairs):
            what = "metadata key 'input.range': expected low <= high for each column, got others"
            raise ModelFileError(f"{where}: {what}; export it again")
    if "calendar" in given and (given["time"] is None or given["step"]["unit"] == "index"):
        what = "metadata key 'input.calendar': expected a time column of dates beside it, got none"
        raise ModelFileError(f"{where}: {what}; export it again")


def _look_up(document: dict[str, Any], key: str) -> tuple[bool, Any]:
    value: Any = document
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return False, None
        value = value[part]
    return True, value


def _keys(value: Any, prefix: str = "") -> set[str]:
    """Every dotted key of a nested object, without those inside OPEN."""
    found = set()
    for key, inner in value.items():
        path = f"{prefix}{key}"
        found.add(path)
        if isinstance(inner, dict) and path not in OPEN:
            found |= _keys(inner, path + ".")
    return found
