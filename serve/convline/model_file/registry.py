"""Find the model that a user names (a file, a package folder or a package name) and its hash.

Packages are in the folders that the environment variable CONVLINE_MODELS lists, and in out/dist/.
If two packages have the same name, the one in the first folder is used.
"""

import difflib
import json
import os
from pathlib import Path
from typing import Any

from convline.errors import ModelFileError

DIST = Path("out/dist")  # relative to the working directory: the repository whose pipeline made it
FOLDERS = "CONVLINE_MODELS"  # environment variable: folders of packages, separated as in PATH
MODEL_FILE, MANIFEST = "model.onnx", "manifest.json"
VARIANTS = ("fp32", "fp16", "int8")


def variant_file_name(variant: str) -> str:
    """Return the file name of a variant: model.onnx (fp32), model.int8.onnx, model.fp16.onnx."""
    return MODEL_FILE if variant == "fp32" else f"model.{variant}.onnx"


def supports_device(variant: str, device: str) -> bool:
    """Return whether a device can run a variant: int8 is for CPUs only.

    CUDA has no kernels for the 32-bit biases of int8 layers.
    """
    return variant != "int8" or device == "cpu"


def find_model(
    model: str, device: str = "cpu", variant: str = "auto", sha256: str | None = None
) -> tuple[Path, str | None, str]:
    """Return (path of the .onnx file, its expected sha256 or None, variant and reason in words).

    device: cpu or cuda; a package may recommend another variant for each.
    variant: fp32, int8, fp16, or auto for the one that the package recommends.
    sha256: the user's; ModelFileError if the manifest beside the file has another one.

    find_model("lenet5-digits")         # out/dist/lenet5-digits/model.onnx, or a variant of it
    find_model("dist/lenet5-digits/")   # the same of a package folder
    find_model("lenet5.onnx")           # a file
    """
    path = package_folder(model) or Path(model)
    why = ""
    if path.is_dir():
        best = _recommended(path, device) if variant == "auto" else variant
        why = f"{best}, as asked" if variant == best else f"{best}, recommended for {device}"
        if not supports_device(best, device):
            what = f"{best} runs on a CPU alone, got {device}"
            raise ModelFileError(f"{model}: {what}; add --device cpu")
        path = path / variant_file_name(best)
        if not path.exists() and best != "fp32":
            raise ModelFileError(f"{model}: it has no {best} variant; leave --variant out")
    elif variant != "auto":
        what = "--variant is of a package, and this is a file"
        raise ModelFileError(f"{model}: {what}; leave it out")
    if not path.exists():
        close = difflib.get_close_matches(model, names(), 1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        cure = f"{meant}give an .onnx file, a package folder, or {_entries()}"
        raise ModelFileError(f"{model}: no such model; {cure}")
    listed = _manifest_sha256(path)
    if sha256 is not None and listed not in (None, sha256):
        expected = f"expected the sha256 {sha256} as asked, got {listed} in {MANIFEST}"
        raise ModelFileError(f"{path}: {expected}; get the right file, or choose its --variant")
    return path, sha256 or listed, why


def folders() -> list[Path]:
    """Return the folders that hold packages: those that CONVLINE_MODELS lists, then out/dist."""
    listed = os.environ.get(FOLDERS, "").split(os.pathsep)
    return [*(Path(folder).expanduser() for folder in listed if folder), DIST]


def packages() -> dict[str, Path]:
    """Return the folder of each package by its name, in order of names."""
    found = [
        file.parent for folder in reversed(folders()) for file in folder.glob(f"*/{MODEL_FILE}")
    ]
    return dict(sorted({folder.name: folder for folder in found}.items()))


def names() -> list[str]:
    """Return the names of the packages that can be given as MODEL."""
    return [*packages()]


def package_folder(model: str) -> Path | None:
    """Return the folder of the package of a name, None where it is no name or there is none."""
    if "/" in model or model in ("", ".", ".."):
        return None
    return next((folder / model for folder in folders() if (folder / model).is_dir()), None)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a package's manifest; nothing if it cannot be read, which opening the model
    reports."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        manifest = json.loads(text, parse_constant=lambda _: None)  # NaN is not JSON
    except (OSError, ValueError, RecursionError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _recommended(folder: Path, device: str) -> str:
    """Return the variant that the manifest recommends for the device; fp32 if it has none."""
    by_device = read_manifest(folder).get("recommended")
    variant = by_device.get(device) if isinstance(by_device, dict) else None
    return variant if variant in VARIANTS and supports_device(variant, device) else "fp32"


def _entries() -> str:
    if found := names():
        return f"one of: {', '.join(found)}"
    return f"let {FOLDERS} list more folders than {', '.join(map(str, folders()))}"


def _manifest_sha256(path: Path) -> str | None:
    """Return the hash in `{"files": {"model.onnx": sha256}}`, None if there is no manifest.

    ModelFileError if the manifest does not name the file.
    """
    manifest = path.parent / MANIFEST
    if not manifest.exists():
        return None
    files = read_manifest(path.parent).get("files")
    if not isinstance(files, dict) or path.name not in files:
        what = f"expected the sha256 of {path.name}, got none"
        raise ModelFileError(f"{manifest}: {what}; package the model again")
    sha256 = files[path.name]
    if not isinstance(sha256, str) or len(sha256) != 64:
        expected = f"expected a sha256 of 64 hex digits for {path.name}"
        raise ModelFileError(f"{manifest}: {expected}, got {str(sha256)[:80]!r}")
    return sha256
