"""The runtime: ONNX files that Convline made, images and series in, predictions out; `load`, and the `infer` command.

    model = convline.load("lenet5-digits")            # an .onnx file, a package folder, or an entry of out/dist
    model.predict(["a.png", "b.jpg"])              # labels; predict_proba gives (N, K), predict_table rows
    convline.load("dilated-waves").predict("history.csv", horizon=24)    # or a DataFrame, an open file, an array

Reading order: `errors`, `contract` (one file is the model), `image` and `series` (raw files to arrays; `csvfile`,
`parquet` and `frame` are what `series` opens, `reading` which columns a model takes, `calendar` what a time tells),
`session` and `model` (arrays to predictions; `stream`: one sample at a time), `classify` and `forecast` (inputs to
rows), `workers` and `bulk` (any number of them), `follow` (as they come), `output`, `target` and `journal`, `plot`,
`cli`. What judges a model where it is used: `doctor`, `bench`, `evaluate`.
Imports numpy, Pillow, onnxruntime and click, pyarrow for Parquet and large CSV; never torch, never onnx.
"""

import importlib
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convline.errors import DeviceError, InputError, ModelFileError, ServeError

if TYPE_CHECKING:
    from convline.images.classifier import Classifier
    from convline.runtime.streaming import Stream
    from convline.timeseries.forecaster import Forecaster

__all__ = [
    "Classifier",
    "DeviceError",
    "Forecaster",
    "InputError",
    "ModelFileError",
    "ServeError",
    "Stream",
    "__version__",
    "load",
]

LATE = {
    "Classifier": "convline.images.classifier",
    "Forecaster": "convline.timeseries.forecaster",
    "Stream": "convline.runtime.streaming",
}  # these import numpy


def load(
    model: str | Path, device: str = "auto", variant: str = "auto", sha256: str | None = None
) -> "Classifier | Forecaster":
    """Open a model: an .onnx file, a package folder, or the name of a package in CONVLINE_MODELS or out/dist.

    device: auto, cpu, cuda or tensorrt; `model.device` says what was taken. variant: fp32, int8, fp16, or auto for what
    a package recommends; `model.variant` says what was taken, and why. sha256: what the file must have, in hex.
    ModelFileError where the file cannot be trusted, DeviceError where the device is not there.
    """
    from convline.loading import load_file  # numpy and onnxruntime: not for `infer --help`
    from convline.model_file.registry import locate
    from convline.runtime.session import resolve

    path, expected, why = locate(
        str(model), resolve(device), variant, sha256.lower() if sha256 else None
    )
    loaded = load_file(path, device, sha256=expected)
    loaded.variant = why or loaded.variant
    return loaded


def __getattr__(name: str) -> Any:
    """Return what is imported when it is asked for: classes that need numpy, and the version of the distribution."""
    if name == "__version__":
        return importlib.metadata.version("convline")
    if name in LATE:
        return getattr(importlib.import_module(LATE[name]), name)
    raise AttributeError(f"module 'convline' has no attribute {name!r}")
