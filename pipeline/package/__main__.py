"""Stage package: collect what a machine without PyTorch needs in one folder per entry.

Reads out/<entry>/export, out/<entry>/check, results/<entry>/check.json and speed.json. Writes
out/dist/<entry>/: model.onnx, the variants that stage check accepts, manifest.json (hashes,
licence, metric, verdict, the variant recommended for each device) and triton/, a repository for
Triton with one model for each file: <entry>, <entry>-int8, <entry>-fp16, and for a captioner's step
a further one, <entry>-step. Fails when the check did not pass or was of another file, or when no
licence is stated for the data.

    python -m pipeline.package ENTRY
"""

from __future__ import annotations

from convline.model_file.onnx_file import read_model_file
from convline.model_file.registry import variant_file_name

from pipeline.core.files import fresh, read_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.core.stage import entry_of_command_line, run
from pipeline.package.manifest import (
    accepted_variants,
    build_manifest,
    require_checked,
    write_package,
)


def main() -> None:
    with entry_of_command_line("package") as (name, summarize):
        folder = fresh(OUT / "dist" / name)  # emptied first: a refused package must not be served
        made_by = f"check@{name}"
        checked = read_json(RESULTS / name / "check.json", made_by)
        digests = OUT / name / "check" / "digests.json"
        variants = accepted_variants(checked)
        files = [variant_file_name(variant) for variant in variants]
        models = {file: read_model_file(OUT / name / "export" / file) for file in files}
        require_checked(
            name, models, checked, read_json(digests, made_by) if digests.exists() else {}
        )
        speed = read_json(RESULTS / name / "speed.json", made_by)
        write_package(folder, models, build_manifest(models, checked, speed))
        left_out = ", ".join(variant for variant in checked["variants"] if variant not in variants)
        without = f"; left out: {left_out}" if left_out else ""
        summarize(f"{folder}: {', '.join(files)}{without}")


if __name__ == "__main__":
    run(main)
