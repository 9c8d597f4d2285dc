"""The browser runtime of the report, and its Live page, where it runs two packaged models.

npm fetches onnxruntime-web once, from the registry that the machine is configured for, and its hash
is checked. Runtime and models are written into scripts, because a page opened from disk may not
read other files.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convline.model_file.onnx_file import read_model_file

from pipeline.core.errors import StageError
from pipeline.report.result_files import Entry

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
RUNTIME_FILES = {
    "script": "ort.wasm.min.js",
    "loader": "ort-wasm-simd-threaded.mjs",
    "wasm": "ort-wasm-simd-threaded.wasm",
}
# Without a network, npm gives up at once, so the report is not delayed.
NPM_OPTIONS = ("--fetch-retries=0", "--fetch-timeout=30000")


def write_runtime(entries: list[Entry], site: Path, downloads: Path) -> str:
    """Write runtime-data.js into the site; return "", or a sentence why it is missing.

    Raises StageError if the runtime's hash differs from SHA512.
    """
    if not any(package_path(entry).is_file() for entry in entries):
        return "no model is packaged yet"
    parts = onnxruntime_web(downloads)
    if isinstance(parts, str):
        return parts
    wasm = base64_text(gzip.compress(parts["wasm"], 6, mtime=0))
    runtime = json.dumps({"loader": parts["loader"].decode(), "wasm": wasm})
    script = f"{parts['script'].decode()}\nwindow.RUNTIME = {runtime};\n"
    (site / "runtime-data.js").write_text(script, encoding="utf-8")
    return ""


def write_demo(entries: list[Entry], site: Path, missing: str) -> dict[str, Any]:
    """Write the models into live-data.js of the site; return the context of live.html.j2.

    missing: why the runtime is not in the site, or "".
    """
    packages = [first_package(entries, f) for f in (accepts_drawn_digits, accepts_edited_series)]
    chosen = [package for package in packages if package]
    if not chosen:
        missing = missing or "no digits classifier and no forecaster of one series is packaged yet"
    if missing:
        return {"models": [], "missing": missing, "version": VERSION}
    models = [
        {"name": name, "document": document, "onnx": base64_text(data)}
        for name, document, data in chosen
    ]
    (site / "live-data.js").write_text(f"window.LIVE = {json.dumps(models)};\n", encoding="utf-8")
    tasks = [(name, document["task"]) for name, document, _ in chosen]
    return {"models": tasks, "missing": "", "version": VERSION}


def package_path(entry: Entry) -> Path:
    return entry.root / "out" / "dist" / entry.name / "model.onnx"


def first_package(
    entries: list[Entry], wanted: Callable[[dict[str, Any]], bool]
) -> tuple[str, dict[str, Any], bytes] | None:
    """Return (name, model document, served graph) of the first package that `wanted` accepts."""
    for entry in entries:
        path = package_path(entry)
        if path.is_file() and wanted((found := read_model_file(path)).json):
            return entry.name, found.json, found.prediction_graph
    return None


def accepts_drawn_digits(document: dict[str, Any]) -> bool:
    """Whether the model reads square grey digits with the resize that the page implements."""
    known = {"kind": "image", "colour": "grey", "fit": "stretch", "interpolation": "bilinear"}
    given = document["input"]
    digits = document["provenance"]["data"]["source"] == "digits" and known.items() <= given.items()
    return bool(digits and given["size"][0] == given["size"][1])


def accepts_edited_series(document: dict[str, Any]) -> bool:
    """Whether the model forecasts one series from its own past only."""
    series = document["task"] == "forecasting" and len(document["input"]["columns"]) == 1
    return series and "calendar" not in document["input"]


def onnxruntime_web(downloads: Path) -> dict[str, bytes] | str:
    """Return the runtime's files, fetched if not on disk; or a sentence why they are missing."""
    archive, runtime = (
        downloads / f"{PACKAGE}-{VERSION}.tgz",
        f"the browser runtime ({PACKAGE} {VERSION})",
    )
    if not archive.is_file():
        if not (npm := shutil.which("npm")):
            return f"npm fetches {runtime}, and npm is not installed"
        downloads.mkdir(parents=True, exist_ok=True)
        what = f"{PACKAGE}@{VERSION}", f"--pack-destination={downloads}"
        command = [npm, "pack", *what, *NPM_OPTIONS]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return f"npm could not fetch {runtime}; check the network"
    digest = base64_text(hashlib.sha512(archive.read_bytes()).digest())
    if digest != SHA512:
        cure = "delete it, it is fetched again"
        raise StageError(f"{archive}: expected sha512 {SHA512}, got {digest}; {cure}")
    with tarfile.open(archive) as files:
        members = {k: files.extractfile(f"package/dist/{v}") for k, v in RUNTIME_FILES.items()}
        return {part: member.read() for part, member in members.items() if member}


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode()
