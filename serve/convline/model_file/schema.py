"""The schema of the model document (format 2): which keys there must be, and what each may hold.

There is one table of rules per task. Format 2 added detection, segmentation and captioning; files
of format 1 hold classifiers and forecasters, whose keys are the same in both. Unknown keys outside
`provenance` are refused, because a policy that this version does not know would be ignored
silently. A new key therefore needs a higher FORMAT, unless it is OPTIONAL: an older version then
refuses only the files that have it.
"""

import re
from collections.abc import Callable
from itertools import pairwise
from operator import gt
from typing import Any

from convline.errors import ModelFileError

FORMAT = 2
TASKS = ("classification", "detection", "segmentation", "captioning", "forecasting")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
# Both scale the shorter side and cut the centre; torchvision's at whole pixels.
CROPS = ("crop", "torchvision")
CALENDAR_FEATURES = ("minute", "hour", "weekday", "day", "month", "yearday")
UNITS = ("seconds", "months", "index")
MAX_IMAGE_SIDE = 8192  # bounds what a hostile file can make us allocate: 192 MiB for one rgb image
MAX_STEPS = 1_000_000  # context and horizon, rows
MAX_FINDS = 1000  # boxes of one image
MAX_WORDS = 1000  # of one caption
MAX_MASK_LABELS = 255  # a mask holds class indices as uint8, of which 255 means "not judged"
SPECIAL_WORDS = ("<start>", "<end>", "<unknown>")  # the first words of each captioner
SURROGATES = re.compile("[\ud800-\udfff]")

Rule = tuple[str, Callable[[Any], bool]]  # (what is expected, in words; the test)


def _integer(low: int, high: int) -> Rule:
    return f"an integer from {low} to {high}", lambda v: type(v) is int and low <= v <= high


def _integers(names: str, low: int, high: int) -> Rule:
    """Return the rule of a list of one integer for each name."""
    count, is_in_range = names.count(",") + 1, _integer(low, high)[1]
    expected = f"[{names}], each from {low} to {high}"
    return expected, lambda v: _is_list(v, is_in_range) and len(v) == count


def _one_of(*choices: object) -> Rule:
    typed = [(type(choice), choice) for choice in choices]  # 0 is no False, True is no 1
    return f"one of {', '.join(map(repr, choices))}", lambda v: (type(v), v) in typed


def _is_list(value: Any, is_item: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(is_item, value))


def _is_text(value: Any) -> bool:
    """Return whether a value is non-empty text without lone surrogates.

    JSON can escape a lone surrogate, but no output file could hold it.
    """
    return isinstance(value, str) and value != "" and not SURROGATES.search(value)


def _are_names(value: Any) -> bool:
    return _is_list(value, _is_text) and 0 < len(value) == len({*value})


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e308


def _are_quantiles(value: Any) -> bool:
    """Levels in (0, 1), rising, symmetric about the median, so that outer pairs are intervals."""
    if not value or not _is_list(value, lambda level: type(level) is float and 0 < level < 1):
        return False
    pairs = zip(value, reversed(value), strict=True)
    is_symmetric = all(abs(low + high - 1) < 1e-9 for low, high in pairs)
    return is_symmetric and all(low < high for low, high in pairwise(value))


def _is_packed(value: Any) -> bool:
    return isinstance(value, dict) and {*value} == {"dtype", "shape", "data"}


def _has_samples(value: Any) -> bool:
    if not _is_packed(value):
        return False
    return not isinstance(value["shape"], list) or value["shape"][:1] not in ([], [0])


TEXT: Rule = "a non-empty string", _is_text
TEXT_OR_NULL: Rule = "a non-empty string or null", lambda v: v is None or _is_text(v)
OBJECT: Rule = "an object", lambda v: isinstance(v, dict)
NAMES: Rule = "a list of different non-empty strings", _are_names
QUANTILES: Rule = "rising levels in (0, 1), symmetric about 0.5", _are_quantiles
GOLDEN: Rule = "an object with dtype, shape and data", _is_packed
SAMPLES: Rule = "an object with dtype, shape and data, of one sample or more", _has_samples
GOLDENS: Rule = (
    "an object of packed arrays",
    lambda v: isinstance(v, dict) and v != {} and all(map(_is_packed, v.values())),
)
NUMBERS: Rule = "a list of finite numbers", lambda v: _is_list(v, _is_number)
SHARE: Rule = "a number from 0 to 1", lambda v: _is_number(v) and 0 <= v <= 1
MASK_LABELS: Rule = (
    f"2 to {MAX_MASK_LABELS} different non-empty strings",
    lambda v: _are_names(v) and 2 <= len(v) <= MAX_MASK_LABELS,
)
WORDS: Rule = (
    f"different non-empty strings, the first {', '.join(SPECIAL_WORDS)}",
    lambda v: _are_names(v) and (*v[: len(SPECIAL_WORDS)],) == SPECIAL_WORDS,
)
POSITIVE: Rule = "a number above 0", lambda v: _is_number(v) and v > 0
KNOWN: Rule = (
    f"a list of different names among {', '.join(CALENDAR_FEATURES)}",
    lambda v: _are_names(v) and {*v} <= {*CALENDAR_FEATURES},
)

COMMON: dict[str, Rule] = {
    "format": _integer(1, FORMAT),
    "name": TEXT,
    "task": _one_of(*TASKS),
    "input": OBJECT,
    "provenance": OBJECT,
    "golden": OBJECT,
    "golden.input": SAMPLES,
    "golden.outputs": GOLDENS,
    "golden.atol": POSITIVE,
}
IMAGE: dict[str, Rule] = COMMON | {
    "input.kind": _one_of("image"),
    "input.size": _integers("H, W", 1, MAX_IMAGE_SIDE),
    "input.colour": _one_of("grey", "rgb"),
    "input.fit": _one_of("stretch", *CROPS),
    "input.interpolation": _one_of(*INTERPOLATIONS),
    "input.background": _integers("r, g, b", 0, 255),
    "input.exif": _one_of("apply"),
    "input.sixteen_bit": _one_of("high byte"),
    "input.frames": _one_of("first"),
    "input.draft": _one_of(False, True),
}
CLASSIFICATION: dict[str, Rule] = IMAGE | {"labels": NAMES}
# Positions in the input are positions in the whole image.
STRETCHED: dict[str, Rule] = IMAGE | {
    "format": _one_of(FORMAT),
    "input.fit": _one_of("stretch"),
}
DETECTION: dict[str, Rule] = STRETCHED | {
    "labels": NAMES,
    "detection": OBJECT,
    "detection.most": _integer(1, MAX_FINDS),
    "detection.min_score": SHARE,
}
SEGMENTATION: dict[str, Rule] = STRETCHED | {"labels": MASK_LABELS}
CAPTIONING: dict[str, Rule] = STRETCHED | {
    "words": WORDS,
    "caption": OBJECT,
    "caption.longest": _integer(1, MAX_WORDS),
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
# The graph has an input of this name.
CALENDAR: dict[str, Rule] = {"input.calendar": KNOWN, "golden.calendar": GOLDEN}
RANGE: dict[str, Rule] = {  # of the training inputs; predictions for others mean nothing
    "input.range": OBJECT,
    "input.range.of": _one_of("values", "changes"),  # of rows, or from the window's last row
    "input.range.low": NUMBERS,
    "input.range.high": NUMBERS,
}
OPTIONAL = {  # task: keys that may be absent, each with the rules that hold where it is there
    "classification": {"explain": EXPLAIN},
    "forecasting": {
        "stream": STREAM,
        "input.calendar": CALENDAR,
        "input.offset": {"input.offset": _one_of("none", "utc")},  # of the training times
        "input.range": RANGE,
        "forecast.columns": {"forecast.columns": NAMES},  # the first of input.columns
    },
}
RULES = {
    "classification": CLASSIFICATION,
    "detection": DETECTION,
    "segmentation": SEGMENTATION,
    "captioning": CAPTIONING,
    "forecasting": FORECASTING,
}
# The rules name no key inside these.
OPEN = ("provenance", "golden.input", "golden.calendar", "golden.outputs")


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
    values = _flatten(document)
    rules = _rules_for(values)
    for key, (expected, test) in rules.items():
        if key not in values or not test(values[key]):
            got = repr(values[key])[:80] if key in values else "nothing"
            raise _error(where, key, f"{expected}, got {got}")
    if unknown := sorted(values.keys() - rules.keys() - {"digest"}):
        raise _error(where, unknown[0], f"only the keys of format {FORMAT}")
    if document["task"] == "forecasting":
        _check_forecast(document["input"], document["forecast"], where)


def _rules_for(values: dict[str, Any]) -> dict[str, Rule]:
    """Return the rules of a flat document's task, of its crop, and of its optional keys."""
    rules = RULES.get(str(values.get("task")), COMMON)
    if values.get("input.fit") in CROPS:
        rules = rules | CROP
    if values.get("input.fit") == "torchvision":  # its pixels are those of the whole image
        rules = rules | {"input.draft": _one_of(False)}
    for key, more in OPTIONAL.get(str(values.get("task")), {}).items():
        rules = rules | more if key in values else rules
    return rules


def _check_forecast(series: dict[str, Any], forecast: dict[str, Any], where: str) -> None:
    """Raise ModelFileError where a forecaster's keys do not agree with one another."""
    names = series["columns"]
    columns = forecast.get("columns", names)
    if columns != names[: len(columns)]:
        expected = f"the first of {names!r:.80}, got {columns!r:.80}"
        raise _error(where, "forecast.columns", expected)
    if "range" in series:
        low, high = series["range"]["low"], series["range"]["high"]
        if not len(low) == len(high) == len(names) or any(map(gt, low, high)):
            raise _error(where, "input.range", "low <= high for each column, got others")
    if "calendar" in series and (series["time"] is None or series["step"]["unit"] == "index"):
        raise _error(where, "input.calendar", "a time column of dates beside it, got none")


def _error(where: str, key: str, expected: str) -> ModelFileError:
    return ModelFileError(f"{where}: metadata key {key!r}: expected {expected}; export it again")


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a nested object by dotted key, objects too, without those in OPEN.

    A dot inside a key is written as \\., because no key may hide another one.
    """
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        path = prefix + key.replace(".", "\\.")
        flat[path] = inner
        if isinstance(inner, dict) and path not in OPEN:
            flat |= _flatten(inner, f"{path}.")
    return flat
