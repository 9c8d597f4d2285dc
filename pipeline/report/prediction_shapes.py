"""Whether predictions of the test split are of the data that stage data has written since."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]  # content of test.npz
About = dict[str, Any]  # content of results/<entry>/data.json


def fit_classes(arrays: Arrays, about: About) -> bool:
    return arrays["probabilities"].shape == (about["test"], len(about["labels"]))


def fit_windows(arrays: Arrays, about: About) -> bool:
    if "window_errors" not in arrays:  # of an earlier version
        return False
    shape = len(arrays["window_errors"]), arrays["target"].shape[2]
    return shape == (about["test"], len(about["forecast"].get("columns", about["columns"])))


def fit_finds(arrays: Arrays, about: About) -> bool:
    inside = arrays["labels"].max(initial=0) < len(about["labels"])
    return bool(inside) and len(arrays["y"]) == about["test"]


def fit_masks(arrays: Arrays, about: About) -> bool:
    inside = arrays["masks"].max(initial=0) < len(about["labels"])
    return bool(inside) and arrays["y"].shape == (about["test"], *about["input"]["size"])


def fit_captions(arrays: Arrays, about: About) -> bool:
    return len(arrays["captions"]) == about["test"]


# Task -> whether its arrays have the counts of the test split and of its targets. Not in `tasks`,
# whose modules import what reads the arrays.
FITS: dict[str, Callable[[Arrays, About], bool]] = {
    "classification": fit_classes,
    "forecasting": fit_windows,
    "detection": fit_finds,
    "segmentation": fit_masks,
    "captioning": fit_captions,
}
