"""The package of an entry: its model files and a manifest, which states their hashes and their
verdict.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from convline.model_file.onnx_file import ModelFile
from convline.model_file.registry import MANIFEST, MODEL_FILE, VARIANTS, variant_file_name
from convline.runtime.engine import BF16

from pipeline.core.errors import StageError
from pipeline.core.files import write_json
from pipeline.package.triton import write_triton_models


def accepted_variants(checked: dict[str, Any]) -> list[str]:
    """Return fp32 and the variants that stage check accepts on every device it tried."""
    others = [
        variant
        for variant, by_device in checked["variants"].items()
        if all(verdict["accepted"] for verdict in by_device.values())
    ]
    return ["fp32", *others]


def require_checked(
    name: str, models: dict[str, ModelFile], checked: dict[str, Any], digests: dict[str, str]
) -> None:
    """Raise StageError unless these very files passed the check and their data have a licence.

    digests: of the files that stage check looked at, by file name.
    """
    if not checked["passed"]:
        raise StageError(f"{name}: not packaged, its check failed: {checked['verdict']}")
    for file, model in models.items():
        if digests.get(file) != model.digest:
            raise StageError(
                f"{name}: {file} is not the file that was checked; run `dvc repro check@{name}`"
            )
    if not models[MODEL_FILE].json["provenance"].get("licence"):
        cure = "add `licence:` to its set under `data:` in params.yaml"
        raise StageError(f"{name}: not packaged, no licence is stated for its data; {cure}")


def build_manifest(
    models: dict[str, ModelFile], checked: dict[str, Any], speed: dict[str, Any]
) -> dict[str, Any]:
    """Return the manifest; `files` holds the sha256 by which `infer` recognises each file.

    `engines` is there where stage check measured other engines than onnxruntime, for which
    `recommended` is. models: by file name; checked: check.json; speed: speed.json.
    """
    model = models[MODEL_FILE]
    provenance = model.json["provenance"]
    return {
        "name": model.name,
        "task": model.task,
        "files": {
            file: hashlib.sha256(model.content).hexdigest() for file, model in models.items()
        },
        "recommended": {
            device: chosen["variant"]
            for device, chosen in speed["choice"].items()
            if variant_file_name(chosen["variant"]) in models
        },
        **recommended_engines(models, speed),
        "digest": model.digest,
        "metric": {key: checked["metric"][key] for key in ("name", "value", "low", "high", "n")},
        "verdict": checked["verdict"],
        "variants": {
            variant: {
                "packaged": variant_file_name(variant) in models,
                "undecided": any(verdict["undecided"] for verdict in by_device.values()),
                "why": [verdict["why"] for verdict in by_device.values()],
            }
            for variant, by_device in checked["variants"].items()
        },
        **{key: provenance[key] for key in ("licence", "revision", "versions")},
    }


def recommended_engines(
    models: dict[str, ModelFile], speed: dict[str, Any]
) -> dict[str, dict[str, dict[str, str]]]:
    """Return {"engines": {device: {"engine", "variant", "why"}}}, or {} where none was measured."""
    engines = {
        device: {key: chosen[key] for key in ("engine", "variant", "why")}
        for device, chosen in speed.get("engines", {}).items()
        if chosen["variant"] == BF16 or variant_file_name(chosen["variant"]) in models
    }
    return {"engines": engines} if engines else {}


def write_package(folder: Path, models: dict[str, ModelFile], manifest: dict[str, Any]) -> None:
    """Write the files, the Triton repository, and last the manifest that names them."""
    for variant in (variant for variant in VARIANTS if variant_file_name(variant) in models):
        model, path = models[variant_file_name(variant)], folder / variant_file_name(variant)
        path.write_bytes(model.content)
        write_triton_models(folder / "triton", variant, path, model)
    write_json(folder / MANIFEST, manifest)
