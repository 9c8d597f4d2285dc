"""A complete tiny line, made once a test run: a linear classifier on the digits and a causal
forecaster on waves.

Nothing is faked: the stages' own `main` make it, in a folder of its own. Tests copy it and break
the copy.
"""

from __future__ import annotations

import csv
import fcntl
import functools
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
from convline.model_file.golden import pack_array, unpack_array
from convline.model_file.onnx_file import read_model_file, seal

from pipeline.check import roofline
from pipeline.report import browser_demo

REPOSITORY = Path(__file__).parents[1]
DIGITS, WAVES = "fcnn0-digits", "causal-waves"
# Those of one entry; params and wheel run once.
STAGES = ("data", "train", "export", "check", "package", "infer")
PARAMS = """
device: cpu
line: {fcnn0-digits: scratch, causal-waves: scratch}
data:
  digits: {source: digits}
  waves: {source: waves, train: 40, validation: 20, test: 12, length: 40, season: 14, seed: 1}
check:
  {random: 16, batches: [1, 4], threads: [], seconds: 0.0, undecided: package, int8: {methods: [MinMax], images: 32, tries: 4}}
models:
  fcnn0-digits:
    arch: fcnn
    data: {set: digits, size: [8, 8], colour: grey}
    net: {hidden: [], dropout: 0.0}
    train: {epochs: 2, batch: 64, lr: 0.02}
  causal-waves:
    arch: causal
    data: {set: waves, context: 20, horizon: 4}
    net: {channels: 4, kernel_size: 3, dilations: [1, 2], activation: relu}
    train: {epochs: 2, batch: 32, lr: 0.01}
    streaming: true
"""


@functools.cache
def made() -> Path:
    """Return the folder of the finished line, which the processes of a test run share.

    The first one that needs it makes it, and others wait. conftest.py removes it at the end.
    """
    shared = Path(os.environ["CONVLINE_TESTS"])
    with (shared / "line.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "line.finished").exists():
            shutil.rmtree(shared / "line", ignore_errors=True)  # of a process that failed
            make(shared / "line")
            (shared / "line.finished").touch()
    return shared / "line"


@functools.cache
def downloads() -> Path | str:
    """Return the folder of what stage report fetches, once for all reports and processes, or a
    sentence that says why it cannot be fetched.
    """
    shared = Path(os.environ["CONVLINE_TESTS"])
    folder, failed = shared / "downloads", shared / "downloads.failed"
    with (shared / "downloads.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if failed.exists():
            return failed.read_text()
        if not folder.exists():
            folder.mkdir()
            for archive in REPOSITORY.glob("out/downloads/*.tgz"):  # of an earlier `make`
                shutil.copy(archive, folder)
        found = browser_demo.onnxruntime_web(folder)
        if isinstance(found, str):
            failed.write_text(found)
    return found if isinstance(found, str) else folder


def share_downloads(root: Path) -> None:
    """Let the reports in a folder find what is fetched already."""
    if isinstance(folder := downloads(), Path):
        (root / "out").mkdir(exist_ok=True)
        (root / "out" / "downloads").symlink_to(folder)


def make(root: Path) -> None:
    """Run all stages in a new folder."""
    root.mkdir()
    share_downloads(root)
    for folder in ("models", "pipeline"):
        (root / folder).symlink_to(REPOSITORY / folder)
    shutil.copytree(
        REPOSITORY / "serve", root / "serve", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(REPOSITORY / "pyproject.toml", root)
    (root / "params.yaml").write_text(PARAMS)
    with inside(root):
        run("params")
        run("wheel")
        for name in (DIGITS, WAVES):
            for stage in STAGES:
                run(stage, name)


@contextmanager
def inside(root: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(root)
    try:
        yield
    finally:
        os.chdir(before)


def copy_to(folder: Path) -> Path:
    """Return a copy of the line that a test may break."""
    root = folder / "a line"  # paths with spaces are a way to use the project
    shutil.copytree(made(), root, symlinks=True)
    return root


def run(stage: str, *arguments: str) -> None:
    """Run a stage's `main` in this process and the working directory; its errors are raised."""
    before, sys.argv = sys.argv, [f"pipeline/{stage}/__main__.py", *arguments]
    try:
        with small_limits():
            importlib.import_module(f"pipeline.{stage}.__main__").main()
    finally:
        sys.argv = before


def small_limits() -> AbstractContextManager[object]:
    """Let stage check measure the machine's limits on small arrays: that takes it seconds, once a
    folder. Small ones are in the cache, so that a network is not above the limits.
    """
    return patch.multiple(roofline, SIDE=256, STREAM=2**20)


def run_without_torch(stage: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a stage as its command does, in a new process in which torch cannot be imported."""
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; from pipeline.core.stage import run; "
        f"import pipeline.{stage}.__main__ as stage; run(stage.main)"
    )
    command = [sys.executable, "-c", code, stage, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def results(name: str, stage: str) -> Any:
    return json.loads(Path("results", name, f"{stage}.json").read_text())


def rows(path: str | Path) -> list[dict[str, str]]:
    """Return the rows of a CSV or JSON lines file by column."""
    if Path(path).suffix == ".jsonl":
        return [json.loads(row) for row in Path(path).read_text(encoding="utf-8").splitlines()]
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def model_path(name: str) -> Path:
    return Path("out", name, "export", "model.onnx")


def change_model(
    name: str,
    graph: Callable[[onnx.ModelProto], None] = lambda graph: None,
    document: Callable[[dict[str, Any]], None] = lambda document: None,
    *,
    file: str = "model.onnx",
    keep_golden: bool = True,
) -> None:
    """Change an exported file's graph or document and seal it again, with a valid digest."""
    path = model_path(name).with_name(file)
    proto, about = onnx.load(path), read_model_file(path).json
    graph(proto)
    document(about)
    if not keep_golden:  # the answers of the changed file
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        given = unpack_array(about["golden"]["input"])
        names = [*about["golden"]["outputs"]]
        answers = session.run(names, {session.get_inputs()[0].name: given})
        about["golden"]["outputs"] = dict(zip(names, map(pack_array, answers), strict=True))
    path.write_bytes(seal(proto.SerializeToString(), about))


def change_weights(
    proto: onnx.ModelProto, change: Callable[[np.ndarray], None], ending: str
) -> None:
    """Apply `change` to the float weights whose names have this ending; there must be one."""
    found = [w for w in proto.graph.initializer if w.name.endswith(ending)]
    assert found, [w.name for w in proto.graph.initializer]
    for weight in found:
        array = onnx.numpy_helper.to_array(weight).copy()
        change(array)
        weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
