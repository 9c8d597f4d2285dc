"""Opening the model that a command names."""

from typing import TYPE_CHECKING, Any, NamedTuple

from convline.cli.messages import note
from convline.errors import ServeError
from convline.runtime.engine import ONNXRUNTIME

if TYPE_CHECKING:
    from convline.model_file.onnx_file import ModelFile
    from convline.runtime.engine import Engine


class ModelChoice(NamedTuple):
    """The argument MODEL and the options --device, --variant, --sha256 and --engine."""

    model: str
    device: str = "auto"
    variant: str = "auto"
    sha256: str | None = None
    engine: str = "onnxruntime"


class ChosenFile(NamedTuple):
    """A model file that was read, and where it is to run."""

    file: "ModelFile"
    device: str
    engine: "Engine"


def read_model(choice: ModelChoice, task: str | None) -> ChosenFile:
    """Read a model file and print which variant and engine were chosen.

    task: the one that the model must have, or "images" for any task about images; ServeError if it
    has another one. None accepts all.
    """
    from convline.model_file.onnx_file import read_model_file
    from convline.model_file.registry import find_model
    from convline.runtime.engine import choose_engine
    from convline.runtime.session import choose_device, providers_for

    providers_for(choice.device)  # an unknown device is an error before the file is read
    device = choose_device(choice.device, choice.engine, choice.variant)
    engine, variant, words = choose_engine(choice.model, device, choice.variant, choice.engine)
    path, sha256, reason = find_model(choice.model, device, variant, choice.sha256)
    file = read_model_file(path, sha256)
    command = "series" if file.task == "forecasting" else "images"
    if task not in (None, file.task, command):
        raise ServeError(
            f"{path}: expected a model for {task}, got {file.task}; use `infer {command}`"
        )
    reason = words or reason
    if reason and not reason.startswith("fp32,"):
        rounded = choice.variant == "auto" and not reason.startswith("fp32")
        note(f"variant: {reason}" + "; use --variant fp32 for full precision" * rounded)
    return ChosenFile(file, choice.device if engine == ONNXRUNTIME else device, engine)


def open_model(choice: ModelChoice, task: str | None, *, threads: int | None = None) -> Any:
    """Return the model on its device, and print which device and variant were
    chosen.

    threads: of one operator. It is 1 where worker threads fill the cores; they then wait without
    spinning.
    """
    from convline import loading
    from convline.runtime.host import usable_cores

    file, device, engine = read_model(choice, task)
    model = loading.open_model(
        file, device, engine=engine, threads=threads, spinning=threads != 1,
        streams=usable_cores() if threads == 1 else 1,
    )  # fmt: skip
    if choice.device == "auto":
        note(f"device: {model.device}")
    return model
