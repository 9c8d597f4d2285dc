"""What `import serve` gives: the names of its first page, no side effects, and models that say what they are."""

import hashlib
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

import serve
from serve.errors import ModelFileError


def test_the_public_names_are_importable_and_sorted() -> None:
    """Oracle: `__all__` itself, the distribution's own metadata, and the marker file of PEP 561."""
    assert serve.__all__ == sorted(serve.__all__)
    assert all(getattr(serve, name) is not None for name in serve.__all__)
    assert serve.__version__ == importlib.metadata.version("convline")
    assert issubclass(serve.InputError, serve.ServeError) and serve.Forecaster.__module__ == "serve.model"
    assert Path(serve.__file__).with_name("py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        serve.nonesuch  # noqa: B018


def test_a_package_says_its_variant_and_why(classifier_bytes: bytes, tmp_path: Path) -> None:
    """Oracle: the manifest written here; a wrong hash is refused whether it is the user's or the manifest's."""
    digest = hashlib.sha256(classifier_bytes).hexdigest()
    for file in ("model.onnx", "model.int8.onnx"):
        (tmp_path / file).write_bytes(classifier_bytes)
    files = {"model.onnx": digest, "model.int8.onnx": digest}
    (tmp_path / "manifest.json").write_text(json.dumps({"files": files, "recommended": {"cpu": "int8"}}))
    assert serve.load(tmp_path, "cpu", sha256=digest.upper()).variant == "int8, recommended for cpu"
    assert serve.load(tmp_path, "cpu", "fp32").variant == "fp32, as asked"
    assert serve.load(tmp_path / "model.onnx", "cpu").variant == "as in the file"
    with pytest.raises(ModelFileError, match=r"expected the sha256 1{64} as asked, got .* in manifest\.json"):
        serve.load(tmp_path, "cpu", sha256="1" * 64)


SIDE_EFFECTS = """
import csv, os, signal, sys, threading, warnings
import numpy, PIL.Image, PIL.ImageFile
def state():
    return (
        dict(os.environ), csv.field_size_limit(), PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES,
        [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)], warnings.filters[:],
        threading.active_count(), sys.getrecursionlimit(), numpy.geterr(), os.getcwd(), sys.path[:],
    )
before = state()
import serve, serve.model, serve.stream, serve.evaluate, serve.bulk, serve.forecast, serve.follow, serve.cli
assert state() == before, [(a, b) for a, b in zip(before, state()) if a != b]
print("onnxruntime" in sys.modules)
"""


def test_an_import_changes_nothing_outside(tmp_path: Path) -> None:
    """Oracle: environment, signal handlers, limits of csv and Pillow, filters and threads before and after."""
    command = [sys.executable, "-W", "error", "-c", SIDE_EFFECTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
