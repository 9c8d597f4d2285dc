"""Open a model file on a device, as the class of its task."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from convline.errors import ModelFileError
from convline.model_file.onnx_file import ModelFile, read_model_file
from convline.runtime.engine import ONNXRUNTIME, Engine
from convline.runtime.model import Model
from convline.runtime.session import describe_device, open_session

if TYPE_CHECKING:
    from convline.images.captioner import Captioner
    from convline.images.classifier import Classifier
    from convline.images.detector import Detector
    from convline.images.segmenter import Segmenter
    from convline.timeseries.forecaster import Forecaster

    AnyModel = Classifier | Detector | Segmenter | Captioner | Forecaster


def load_file(
    path: str | Path,
    device: str = "auto",
    *,
    sha256: str | None = None,
    engine: Engine = ONNXRUNTIME,
) -> "AnyModel":
    """Return the model of an .onnx file; sha256: the hash that the file must have, in hex.

    ModelFileError where the file cannot be trusted, DeviceError where the device is not there.
    """
    return open_model(read_model_file(path, sha256), device, engine=engine)


def open_model(
    file: ModelFile, device: str = "auto", *, engine: Engine = ONNXRUNTIME, **options: Any
) -> "AnyModel":
    """Return the model of a file that was read; options: those of `open_session`."""
    session = open_session(file.prediction_graph, device, engine=engine, **options)
    described = describe_device(session, device, engine)
    try:
        model = kind_of(file.task)(file, session, described)
    except ValueError as error:
        raise ModelFileError(
            f"{file.path}: metadata key 'input': {error}; export the model again"
        ) from error
    model.engine = engine
    return cast("AnyModel", model)


def kind_of(task: str) -> type[Model]:
    """Return the class of a task's models."""
    if task == "forecasting":
        from convline.timeseries.forecaster import Forecaster  # the image path needs no series

        return Forecaster
    from convline.images.kinds import KINDS  # the series path needs no Pillow

    return KINDS[task]
