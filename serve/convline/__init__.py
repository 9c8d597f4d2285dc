"""Predictions of Convline model files, without PyTorch.

>>> import convline
>>> digits = convline.load("lenet5-digits")         # an .onnx file, a package, or its name
>>> digits.predict(["three.png", "seven.png"])      # predict_proba returns float32 (N, K)
array(['3', '7'], dtype='<U1')
>>> scenes = convline.load("fasterrcnn-scenes")
>>> scenes.predict("scene.png")[0].labels           # boxes and scores beside them
['3', '7']
>>> waves = convline.load("dilated-waves")
>>> waves.predict("history.csv", horizon=48).shape  # or a DataFrame, an open file, an array
(1, 48, 1)

The folders, from the lowest: `model_file` (what is read, and refused), `runtime` (sessions and
devices), `images` and `timeseries` (files to arrays, arrays to predictions), `jobs` (tables of any
number of inputs), `explain` and `report`, `cli`. `tests/serve/test_arrows.py` holds that order.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convline.errors import DeviceError, InputError, ModelFileError, ServeError

if TYPE_CHECKING:
    from convline.images.captioner import Captioner
    from convline.images.classifier import Classifier
    from convline.images.detector import Detector
    from convline.images.segmenter import Segmenter
    from convline.loading import AnyModel
    from convline.runtime.streaming import Stream
    from convline.timeseries.forecaster import Forecaster

__all__ = [
    "Captioner",
    "Classifier",
    "Detector",
    "DeviceError",
    "Forecaster",
    "InputError",
    "ModelFileError",
    "Segmenter",
    "ServeError",
    "Stream",
    "__version__",
    "load",
]

LATE = {
    "Captioner": "convline.images.captioner",
    "Classifier": "convline.images.classifier",
    "Detector": "convline.images.detector",
    "Forecaster": "convline.timeseries.forecaster",
    "Segmenter": "convline.images.segmenter",
    "Stream": "convline.runtime.streaming",
}  # these import numpy


def load(
    model: str | Path,
    device: str = "auto",
    variant: str = "auto",
    sha256: str | None = None,
    engine: str = "onnxruntime",
) -> "AnyModel":
    """Open a model: an .onnx file, a package folder, or the name of a package.

    Packages are looked up by name in the folders of CONVLINE_MODELS, then in out/dist.
    device: auto, cpu, cuda or tensorrt; `model.device` states the choice.
    variant: fp32, int8, fp16, or auto for the one that the package recommends; `model.variant`
    states the choice and its reason.
    sha256: the hash that the file must have, in hex.
    engine: onnxruntime, openvino (which also has the variant bf16, on the CPU), or auto for the one
    that the package recommends for many inputs, if it is installed.
    ModelFileError if the file cannot be trusted, DeviceError if the device is not there.
    """
    from convline.loading import load_file  # numpy and onnxruntime: not for `infer --help`
    from convline.model_file.registry import find_model
    from convline.runtime.engine import choose_engine
    from convline.runtime.session import choose_device

    place = choose_device(device, engine, variant)
    chosen, variant, words = choose_engine(str(model), place, variant, engine)
    path, expected, why = find_model(str(model), place, variant, sha256.lower() if sha256 else None)
    loaded = load_file(path, device, sha256=expected, engine=chosen)
    loaded.variant = words or why or loaded.variant
    return loaded


def __getattr__(name: str) -> Any:
    """Return a class whose module imports numpy, or the version of the distribution."""
    if name == "__version__":
        from importlib.metadata import version  # 20 ms, a tenth of the start of a command

        return version("convline")
    if name in LATE:
        return getattr(importlib.import_module(LATE[name]), name)
    raise AttributeError(f"module 'convline' has no attribute {name!r}")
