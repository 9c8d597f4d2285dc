"""What may stand in params.yaml: for each section its keys, their types, defaults and choices.

A key maps to a `Field`. `check_section` answers the section with its defaults filled in, or raises `ParamsError` with
the place, what was expected, what was got and the cure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from convline.model_file.schema import CALENDAR_FEATURES, CROPS, MAX_IMAGE_SIDE

from pipeline.core.errors import ParamsError, hint

REQUIRED = object()


SEED = 10**12  # times a million, as training mixes the epoch in, it still fits 64 bits


RESERVED = (
    "params", "scratch", "dist", "wheel", "report", "studies", "claims",
    "checkpoints", "features", "downloads", "gpu", "index", "plots", "compare", "live",
)  # fmt: skip


MEASURES = {  # what a study can measure: of which data, and how it is averaged (the kind of number that it is)
    "accuracy": ("image", "share"),
    "accuracy on old classes": ("image", "share"),
    "training accuracy": ("image", "share"),
    "epochs to 90 %": ("image", "count"),
    "dead units": ("image", "share"),
    "near-zero weights": ("image", "share"),
    "weight diffuseness": ("image", "share"),
    "parameters": ("any", "count"),
    "gradient ratio": ("image", "error"),
    "mse 10 ahead": ("series", "error"),
    "mse 100 ahead": ("series", "error"),
    "validation loss": ("any", "error"),
}


CURVES = (
    "training error",
    "test error",
    "gradient at the start",
    "gradient at the end",
    "epochs to settle",
)


@dataclass(frozen=True)
class Field:
    """One key: its type(s), default (`REQUIRED`: none), choices, and limits, which hold for the items of a list too."""

    type: type | tuple[type, ...]
    default: Any = REQUIRED
    choices: tuple[Any, ...] = ()
    least: float | None = None
    most: float | None = None
    item: type | tuple[type, ...] | None = None  # type of the items of a list
    length: int | None = None  # of a list
    some: bool = False  # the list must not be empty


def fraction_or_count(default: Any) -> Field:
    """A number of samples, or a fraction of them below 1."""
    return Field((int, float), default, least=0)


SPLITS = {
    "validation": fraction_or_count(0.15),
    "test": fraction_or_count(0.15),
    "seed": Field(int, 0, least=0, most=SEED),
}


CAMERA = {
    "blur": Field(float, 0.0, least=0),  # radius of the Gaussian in pixels of the source
    "noise": Field(
        float, 0.0, least=0
    ),  # standard deviation in grey levels, drawn anew for each pixel
    "colour": Field(
        list, [1.0, 1.0, 1.0], item=(int, float), length=3, least=0
    ),  # gains of red, green and blue
    "scramble": Field(
        bool, False
    ),  # one fixed disorder of the pixels: the same numbers without any shape (R17)
}


CHOSEN = {  # a task cut out of a set: some of its classes, few labelled images of each, another camera
    "camera": Field((dict, type(None)), None),
    "classes": Field((list, type(None)), None, item=str, some=True),
    "per_class": Field(
        (int, type(None)), None, least=1
    ),  # training images; validation and test stay whole
}


LICENCE = {
    "licence": Field(str)
}  # of the data, in free text: what is trained on them ships with it


SOURCES: dict[str, dict[str, Field]] = {
    "digits": {
        "validation": Field(int, 300, least=1),
        "test": Field(int, 360, least=1),
        "seed": Field(int, 0, least=0, most=SEED),
        "licence": Field(str, "CC BY 4.0 (UCI optical recognition of handwritten digits)"),
        **CHOSEN,
    },
    "torchvision": {
        "name": Field(str),
        "train": Field((int, type(None)), None, least=1),
        "validation": fraction_or_count(0.1),
        "test": Field((int, type(None)), None, least=1),
        "seed": Field(int, 0, least=0, most=SEED),
        **CHOSEN,
        **LICENCE,
    },
    "folder": {
        "path": Field(str),  # relative: from here, else from DATA_ROOT
        "labels": Field(
            str, "folders", choices=("folders", "imagenet")
        ),  # imagenet: all 1,000, folders named as some
        **SPLITS,
        **CHOSEN,
        **LICENCE,
    },
    "waves": {
        "train": Field(int, 800, least=1),
        "validation": Field(int, 200, least=1),
        "test": Field(int, 200, least=1),
        "length": Field(int, 228, least=2),
        "noise": Field(float, 0.1, least=0),
        "test_noise": Field(float, 0.0, least=0),
        "seed": Field(int, 0, least=0, most=SEED),
        "season": Field(int, 14, least=1),
        "licence": Field(str, "CC0 1.0 (generated)"),
    },
    "statsmodels": {
        "name": Field(str, choices=("sunspots", "co2")),
        "gaps": Field(str, "error", choices=("error", "interpolate")),
        "validation": Field(float, 0.15, least=0),
        "test": Field(float, 0.15, least=0),
        "season": Field(int, 1, least=1),
        "licence": Field(str, "public domain"),
    },
    "csv": {
        "path": Field(str),
        "columns": Field((list, type(None)), None, item=str),
        "time": Field((str, type(None)), None),
        "id": Field((str, type(None)), None),
        "gaps": Field(str, "error", choices=("error", "interpolate")),
        "validation": Field(float, 0.15, least=0),
        "test": Field(float, 0.15, least=0),
        "splits": Field(
            (list, type(None)), None, item=int, length=3, least=1
        ),  # rows where each ends; in their place
        "season": Field(int, 1, least=1),
        **LICENCE,
    },
}


IMAGE_SOURCES = ("digits", "torchvision", "folder")


IMAGE_DATA = {
    "set": Field(str),
    "size": Field(list, item=int, length=2, least=1, most=MAX_IMAGE_SIDE),  # height, width
    "colour": Field(str, choices=("grey", "rgb")),
    "standardise": Field(
        str, "channel", choices=("none", "unit", "mean", "channel", "pixel", "imagenet")
    ),
    "fit": Field(
        str, "stretch", choices=("stretch", *CROPS)
    ),  # torchvision: at whole pixels, as its weights were tested
    "shorter_px": Field((int, type(None)), None, least=1),
    "interpolation": Field(str, "bilinear", choices=("nearest", "bilinear", "bicubic", "lanczos")),
    "background": Field(list, [0, 0, 0], item=int, length=3, least=0, most=255),
    "draft": Field(
        bool, False
    ),  # large JPEGs decoded at 1/2, 1/4 or 1/8: faster, 1 grey level off on average
}


SERIES_DATA = {
    "set": Field(str),
    "context": Field(int, least=1),
    "horizon": Field(int, least=1),
    "quantiles": Field(list, [0.1, 0.5, 0.9], item=float),  # rising, symmetric about 0.5
    "stride": Field(int, 1, least=1),  # steps between the windows that validation and test look at
    "train_stride": Field(int, 1, least=1),  # steps between those that training looks at
    "targets": Field(
        (list, type(None)), None, item=str, some=True
    ),  # columns to forecast, the others are read alone
    "calendar": Field(
        list, [], item=str, choices=CALENDAR_FEATURES
    ),  # what the network knows of each row's time, ahead too
}


AUGMENT = {
    "rotate": Field((int, float), 0, least=0),  # degrees either way
    "shift": Field(float, 0.0, least=0, most=1),  # fraction of height and width either way
    "zoom": Field(
        list, [1.0, 1.0], item=(int, float), length=2, least=0.01
    ),  # least and largest scale
    "flip": Field(str, "none", choices=("none", "horizontal", "vertical", "both")),
    "crop_pad": Field(
        int, 0, least=0
    ),  # pad by this many pixels, then a random crop of the old size
    "colour": Field(
        float, 0.0, least=0
    ),  # AlexNet's colour: standard deviation of the PCA coefficients
}


TRAIN = {
    "epochs": Field(int, least=0),  # 0: published weights as they are
    "batch": Field(int, 64, least=2),  # batch norm cannot train on one sample
    "optimizer": Field(str, "adam", choices=("sgd", "adam", "adamw", "adadelta", "rmsprop")),
    "lr": Field(float, 1e-3, least=0),
    "momentum": Field(float, 0.9, least=0, most=1),  # sgd and rmsprop
    "nesterov": Field(bool, False),  # sgd only
    "weight_decay": Field(
        float, 0.0, least=0
    ),  # the optimizer's own: adds weight_decay * w to the gradient
    "schedule": Field(str, "constant", choices=("constant", "step", "cosine", "onecycle")),
    "warmup": Field(int, 0, least=0),  # epochs of linear warm-up before the schedule
    "steps": Field(
        list, [], item=int
    ),  # `step` only: epochs after which lr is multiplied by `factor`
    "every": Field(
        (int, type(None)), None, least=1
    ),  # `step` only: in place of steps, after each so many epochs
    "factor": Field(float, 0.1, least=0),
    "loss": Field(str, "auto", choices=("auto", "cross-entropy", "softmax-clip", "mse", "pinball")),
    "aux_weight": Field(
        float, 0.3, least=0
    ),  # of the loss of each auxiliary head, or further member
    "label_smoothing": Field(float, 0.0, least=0, most=1),
    "l1": Field(float, 0.0, least=0),  # T23: l1 * sum |w|
    "l2": Field(float, 0.0, least=0),  # T24: l2 * sum w^2, or half of that
    "l2_convention": Field(str, "full", choices=("full", "half")),
    "clip_norm": Field((float, type(None)), None, least=0),
    "patience": Field((int, type(None)), None, least=1),
    "choose": Field(
        str, "best", choices=("best", "last")
    ),  # which epoch's weights ship, by the validation loss
    "precision": Field(str, "auto", choices=("auto", "fast", "fp32", "bf16")),  # loss.py: autocast
    "compile": Field(str, "auto", choices=("auto", "on", "off")),  # torch.compile; auto: device.py
    "augment": Field((dict, type(None)), None),
    "snapshots": Field(list, [], item=int),  # epochs whose weights are kept for the reports
    "seed": Field(int, 1, least=0, most=SEED),
}


WEIGHTS = {  # published weights that training starts from
    "file": Field(
        str
    ),  # a state dict, relative to here or else to TORCH_HOME; or `imagenet`: torchvision's own
    "licence": Field(str),
}


STUDY = {
    "claim": Field(str),
    "recipe": Field(str),
    "base": Field(dict, {}),  # laid over the recipe, under every setting
    "settings": Field(dict),
    "seeds": Field(list, item=int, some=True, least=0, most=SEED),
    "measures": Field(list, item=str, some=True),
    "curves": Field(list, [], item=str),  # drawn beside the measures, by epoch or by layer
    "lines": Field(
        dict, {}
    ),  # name: settings that a line joins, in turn; the other settings become levels
}


def check_section(place: str, section: Any, fields: dict[str, Field]) -> dict[str, Any]:
    """Return `section` with defaults filled in, or raise `ParamsError` that names `place`."""
    if not isinstance(section, dict):
        raise ParamsError(f"{place}: expected a mapping with {', '.join(fields)}, got {section!r}")
    for key in section:
        if key not in fields:
            raise ParamsError(f"{place}.{key}: unknown key; {hint(str(key), list(fields))}")
    return {
        key: _value(f"{place}.{key}", section.get(key, field.default), field)
        for key, field in fields.items()
    }


def _value(place: str, value: Any, field: Field) -> Any:
    if value is REQUIRED:
        raise ParamsError(f"{place}: missing; add it ({_kind(field.type)})")
    types = field.type if isinstance(field.type, tuple) else (field.type,)
    if (
        _is(value, int) and float in types and int not in types
    ):  # a whole number is good where a number is asked for
        value = float(value)
    if not _is(value, field.type):
        raise ParamsError(f"{place}: expected {_kind(field.type)}, got {value!r}")
    for word in (value if isinstance(value, list) else [value]) if field.choices else ():
        if word not in field.choices:
            raise ParamsError(
                f"{place}: unknown value {word!r}; {hint(str(word), [str(c) for c in field.choices])}"
            )
    if isinstance(value, list) and field.item:
        _check_items(place, value, field)
    elif _is(value, (int, float)):
        _check_limits(place, value, field)
    return value


def _is(value: Any, types: type | tuple[type, ...]) -> bool:
    """Python counts True as a whole number; params do not."""
    types = types if isinstance(types, tuple) else (types,)
    return isinstance(value, types) and (
        not isinstance(value, bool) or bool in types or object in types
    )


def _check_items(place: str, values: list[Any], field: Field) -> None:
    assert field.item
    if not all(_is(value, field.item) for value in values):
        raise ParamsError(f"{place}: expected a list of {_kind(field.item)}, got {values!r}")
    if field.some and not values:
        raise ParamsError(f"{place}: expected at least one value, got []")
    if field.length is not None and len(values) != field.length:
        raise ParamsError(f"{place}: expected {field.length} values, got {values!r}")
    for value in values:
        if not isinstance(value, str):
            _check_limits(place, value, field)


def _check_limits(place: str, value: float, field: Field) -> None:
    """Refuse what is outside `least` to `most`, and the numbers that are none (YAML's .nan and .inf)."""
    if not math.isfinite(value):
        raise ParamsError(f"{place}: expected a finite number, got {value!r}")
    if field.least is not None and value < field.least:
        raise ParamsError(f"{place}: expected at least {field.least}, got {value!r}")
    if field.most is not None and value > field.most:
        raise ParamsError(f"{place}: expected at most {field.most}, got {value!r}")


KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
    object: "a value",
    type(None): "null",
}


def _kind(types: type | tuple[type, ...]) -> str:
    types = types if isinstance(types, tuple) else (types,)
    return " or ".join(dict.fromkeys(KINDS[t] for t in types))
