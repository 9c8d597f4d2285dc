"""Opening the model that a command names."""

from typing import TYPE_CHECKING, Any, NamedTuple

from convline.cli.messages import note
from convline.errors import ServeError

if TYPE_CHECKING:
    from convline.model_file.onnx_file import ModelFile


class ModelChoice(NamedTuple):
    """The argument MODEL and the options --device, --variant and --sha256."""

    model: str
    device: str = "auto"
    variant: str = "auto"
    sha256: str | None = None


def read_model(choice: ModelChoice, task: str | None) -> "ModelFile":
    """Read a model file and print which variant was chosen.

    task: the one that the model must have, or "images" for any task about images; ServeError if it
    has another one. None accepts all.
    """
    from convline.model_file.onnx_file import read_model_file
    from convline.model_file.registry import find_model
    from convline.runtime.session import choose_device, providers_for

    providers_for(choice.device)  # an unknown device is an error before the file is read
    path, sha256, reason = find_model(
        choice.model, choose_device(choice.device), choice.variant, choice.sha256
    )
    file = read_model_file(path, sha256)
    command = "series" if file.task == "forecasting" else "images"
    if task not in (None, file.task, command):
        raise ServeError(
            f"{path}: expected a model for {task}, got {file.task}; use `infer {command}`"
        )
    if reason and not reason.startswith("fp32"):
        cure = "; use --variant fp32 for full precision" if choice.variant == "auto" else ""
        note(f"variant: {reason}{cure}")
    return file


def open_model(choice: ModelChoice, task: str | None, *, threads: int | None = None) -> Any:
    """Return the model on its device, and print which device and variant were
    chosen.

    threads: of one operator. It is 1 where worker threads fill the cores; they then wait without
    spinning.
    """
    from convline import loading

    file = read_model(choice, task)
    model = loading.open_model(file, choice.device, threads=threads, spinning=threads != 1)
    if choice.device == "auto":
        note(f"device: {model.device}")
    return model
