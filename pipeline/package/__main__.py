"""Stage package: what a machine without PyTorch is given, one folder per entry.

Reads out/<entry>/export, results/<entry>/check.json and speed.json. Writes out/dist/<entry>/: model.onnx, the variants
that the check accepts, manifest.json (hashes, licence, metric, verdict, the variant recommended for each device) and
triton/, a Triton model repository with one model for each of them: <entry>, <entry>-int8, <entry>-fp16.
Fails when the check was not passed, was of another file, or a field of the contract or the licence is missing.

    python -m pipeline.package ENTRY
"""

from __future__ import annotations

import json
import sys

from convline.model_file import document as contract
from convline.model_file.registry import file_of

from pipeline.core.files import fresh, read_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.core.stage import of_entry, run
from pipeline.package.manifest import (
    accepted_variants,
    build_manifest,
    require_checked,
    write_package,
)


def main() -> None:
    with of_entry("package") as name:
        folder = fresh(
            OUT / "dist" / name
        )  # emptied first: what is refused leaves nothing that could be served
        checked = read_json(RESULTS / name / "check.json", f"check@{name}")
        files = [file_of(v) for v in accepted_variants(checked)]
        models = {file: contract.read(OUT / name / "export" / file) for file in files}
        checked_files = OUT / name / "check" / "digests.json"
        require_checked(
            name,
            models,
            checked,
            json.loads(checked_files.read_text()) if checked_files.exists() else {},
        )
        choice = read_json(RESULTS / name / "speed.json", f"check@{name}")["choice"]
        write_package(folder, models, build_manifest(models, checked, choice))
        print(f"   {folder}: {', '.join(files)}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
