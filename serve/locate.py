"""Find the model that a user names: a file, a package folder, or an entry of `out/dist/`; and the hash it must have."""

import json
from pathlib import Path

from serve.errors import ModelFileError

DIST = Path("out/dist")  # relative to the working directory: the repository whose pipeline made it
MODEL_FILE, MANIFEST = "model.onnx", "manifest.json"


def locate(model: str) -> tuple[Path, str | None]:
    """Return (path of the .onnx file, the sha256 that a manifest beside it gives, or None without one).

    locate("lenet5-digits")             # out/dist/lenet5-digits/model.onnx
    locate("dist/lenet5-digits/")       # the model.onnx of a package folder
    locate("lenet5.onnx")               # a file
    """
    entry = DIST / model
    path = entry if "/" not in model and model not in ("", ".", "..") and entry.is_dir() else Path(model)
    if path.is_dir():
        path = path / MODEL_FILE
    if not path.exists():
        raise ModelFileError(f"{model}: no such model; give an .onnx file, a package folder, or one of: {_entries()}")
    return path, _manifest_sha256(path)


def _entries() -> str:
    names = sorted(folder.parent.name for folder in DIST.glob(f"*/{MODEL_FILE}"))
    return ", ".join(names) or f"nothing yet in {DIST}/ (`dvc repro package` makes them)"


def _manifest_sha256(path: Path) -> str | None:
    """Return the hash in `{"files": {"model.onnx": sha256}}`; a manifest that does not name the file is refused."""
    manifest = path.parent / MANIFEST
    if not manifest.exists():
        return None
    try:
        sha256 = json.loads(manifest.read_text(encoding="utf-8"))["files"][path.name]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelFileError(
            f"{manifest}: expected the sha256 of {path.name}, got none; package the model again"
        ) from error
    if not isinstance(sha256, str) or len(sha256) != 64:
        raise ModelFileError(
            f"{manifest}: expected a sha256 of 64 hex digits for {path.name}, got {str(sha256)[:80]!r}"
        )
    return sha256
