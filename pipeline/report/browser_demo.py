"""The model alive: two shipped files in a page of their own, run there by onnxruntime-web, which travels with it.

The runtime is an npm package, fetched once by whatever npm the machine has (so the registry is the machine's own),
held to a hash, and put into the folder as text, because a page that opens from disk may not read other files.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from convline.model_file import document as contract

from pipeline.core.errors import StageError
from pipeline.report.results import Entry

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
PARTS = {
    "script": "ort.wasm.min.js",
    "loader": "ort-wasm-simd-threaded.mjs",
    "wasm": "ort-wasm-simd-threaded.wasm",
}
FETCH = (
    "--fetch-retries=0",
    "--fetch-timeout=30000",
)  # a machine without network has its report at once


def write(entries: list[Entry], site: Path, downloads: Path) -> dict[str, Any]:
    """Write live-data.js (runtime and models) into the site; return what live.html.j2 shows, or why there is nothing.

    Fails where the runtime is not the one that its hash names.
    """
    chosen = [found for found in (first(entries, drawable), first(entries, draggable)) if found]
    if not chosen:
        return {
            "models": [],
            "missing": "no entry on digits and no forecaster of one column is packaged yet",
        }
    parts = runtime(downloads)
    if isinstance(parts, str):
        return {"models": [], "missing": parts}
    models = [
        {"name": name, "document": document, "onnx": text(data)} for name, document, data in chosen
    ]
    wasm = gzip.compress(parts["wasm"], 6, mtime=0)
    live = {"models": models, "loader": parts["loader"].decode(), "wasm": text(wasm)}
    script = f"{parts['script'].decode()}\nwindow.LIVE = {json.dumps(live)};\n"
    (site / "live-data.js").write_text(script, encoding="utf-8")
    return {
        "models": [(name, document["task"]) for name, document, _ in chosen],
        "missing": "",
        "version": VERSION,
    }


def first(entries: list[Entry], wanted: Any) -> tuple[str, dict[str, Any], bytes] | None:
    """Return name, model document and served graph of the first packaged entry whose document is as wanted."""
    for entry in entries:
        path = entry.root / "out" / "dist" / entry.name / "model.onnx"
        if path.is_file() and wanted((found := contract.read(path)).document):
            return entry.name, found.document, found.served
    return None


def drawable(document: dict[str, Any]) -> bool:
    """Whether it reads digits, which the page lets draw, by the one resize that the page knows: square to square."""
    known = {"kind": "image", "colour": "grey", "fit": "stretch", "interpolation": "bilinear"}
    given = document["input"]
    digits = document["provenance"]["data"]["source"] == "digits" and known.items() <= given.items()
    return digits and given["size"][0] == given["size"][1]


def draggable(document: dict[str, Any]) -> bool:
    """Whether it forecasts one series from its own past alone."""
    series = document["task"] == "forecasting" and len(document["input"]["columns"]) == 1
    return series and "calendar" not in document["input"]


def runtime(downloads: Path) -> dict[str, bytes] | str:
    """Return the parts of the runtime, fetched where they are not on disk; or a sentence, where they cannot be had."""
    archive = downloads / f"{PACKAGE}-{VERSION}.tgz"
    if not archive.is_file():
        if not (npm := shutil.which("npm")):
            return f"the browser runtime ({PACKAGE} {VERSION}) is fetched by npm, and npm is not installed"
        downloads.mkdir(parents=True, exist_ok=True)
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", f"--pack-destination={downloads}", *FETCH]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"npm could not fetch the browser runtime ({PACKAGE} {VERSION}): is there a network?"
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != SHA512:
        raise StageError(
            f"{archive}: expected sha512 {SHA512}, got {found}; delete it, it is fetched again"
        )
    with tarfile.open(archive) as files:
        return {
            part: files.extractfile(f"package/dist/{name}").read() for part, name in PARTS.items()
        }


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()
