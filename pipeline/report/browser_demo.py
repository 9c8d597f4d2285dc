"""The browser runtime of the report, and its Live page, where it runs packaged models.

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
from pathlib import Path
from typing import Any

from convline.model_file.onnx_file import ModelFile, read_model_file

from pipeline.core.errors import StageError
from pipeline.report.live_demo import Demo
from pipeline.report.result_files import Entry
from pipeline.report.tasks import TASKS

# Each file is written into the report as text, which takes 1.2 times its bytes.
MAX_BYTES = 10_000_000
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

    Of each task the first package that the page can run. missing: why the runtime is not in the
    site, or "".
    """
    demos = {} if missing else choose_demos(entries)
    if not demos:
        missing = missing or "no model that this page can run is packaged yet"
        return {"models": [], "missing": missing, "version": VERSION}
    models = [
        {
            "name": name,
            "document": file.json,
            "onnx": base64_text(file.prediction_graph),
            **demo.data,
        }
        for name, file, demo in demos.values()
    ]
    (site / "live-data.js").write_text(f"window.LIVE = {json.dumps(models)};\n", encoding="utf-8")
    contexts = [
        {"name": name, "task": task, "template": demo.template, **demo.context}
        for task, (name, _, demo) in demos.items()
    ]
    return {"models": contexts, "missing": "", "version": VERSION}


def choose_demos(entries: list[Entry]) -> dict[str, tuple[str, ModelFile, Demo]]:
    """Return name, file and demo of the first package of each task that the page can run."""
    found: dict[str, tuple[str, ModelFile, Demo]] = {}
    for entry in filter(is_small, entries):
        file = read_model_file(package_path(entry))
        if file.task not in found and (demo := TASKS[file.task].demo(file)):
            found[file.task] = entry.name, file, demo
    return {task: found[task] for task in TASKS if task in found}


def is_small(entry: Entry) -> bool:
    """Whether the entry is packaged, in a file that is small enough to be written into a page."""
    path = package_path(entry)
    return path.is_file() and path.stat().st_size <= MAX_BYTES


def package_path(entry: Entry) -> Path:
    return entry.root / "out" / "dist" / entry.name / "model.onnx"


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
