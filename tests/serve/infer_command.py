"""The command `infer`, run in this process, and inputs that several test files use."""

import csv
import hashlib
import io
import json
from pathlib import Path

from click.testing import CliRunner, Result
from convline.cli.main import main

HISTORY = "ds,y\n" + "".join(f"2024-02-{day},{day}\n" for day in range(20, 30))


def infer(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


def rows_of(result: Result) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(result.stdout, newline="")))


def package(folder: Path, model: bytes, sha256: str | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model)
    manifest = {"files": {"model.onnx": sha256 or hashlib.sha256(model).hexdigest()}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
