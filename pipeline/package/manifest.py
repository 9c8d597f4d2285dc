"""The package folder and its manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from convline.model_file.document import Contract
from convline.model_file.registry import MANIFEST, MODEL_FILE, VARIANTS, file_of

from pipeline.core.errors import StageError
from pipeline.core.files import write_json
from pipeline.package.triton import write_triton_model


def require_checked(
    name: str, models: dict[str, Contract], checked: dict[str, Any], digests: dict[str, str]
) -> None:
    """Raise StageError where these files, or others than those whose digests were checked, may not be shipped."""
    if not checked["passed"]:
        raise StageError(f"{name}: not packaged, its check failed: {checked['verdict']}")
    for file, model in models.items():
        if digests.get(file) != model.digest:
            raise StageError(
                f"{name}: {file} is another than was checked; run `dvc repro check@{name}`"
            )
    if models[MODEL_FILE].document["provenance"].get("licence", "") == "":
        cure = "add `licence:` to its set under `data:` in params.yaml"
        raise StageError(f"{name}: not packaged, no licence is stated for its data; {cure}")


def accepted_variants(checked: dict[str, Any]) -> list[str]:
    """Return the variants that may ship: fp32, and those that the check accepts on every device that it tried."""
    others = [
        v
        for v, by in checked["variants"].items()
        if all(found["accepted"] for found in by.values())
    ]
    return ["fp32", *others]


def build_manifest(
    models: dict[str, Contract], checked: dict[str, Any], choice: dict[str, Any]
) -> dict[str, Any]:
    """Return what the package says of itself; `files` are sha256 by name, which `infer` holds the files to."""
    model = models[MODEL_FILE]
    provenance = model.document["provenance"]
    recommended = {
        device: found["variant"]
        for device, found in choice.items()
        if file_of(found["variant"]) in models
    }
    return {
        "name": model.name,
        "task": model.task,
        "files": {
            file: hashlib.sha256(contract.bytes).hexdigest() for file, contract in models.items()
        },
        "recommended": recommended,
        "digest": model.digest,
        "metric": {key: checked["metric"][key] for key in ("name", "value", "low", "high", "n")},
        "verdict": checked["verdict"],
        "variants": {
            v: [found["why"] for found in by.values()] for v, by in checked["variants"].items()
        },
        **{key: provenance[key] for key in ("licence", "revision", "versions")},
    }


def write_package(folder: Path, models: dict[str, Contract], about: dict[str, Any]) -> None:
    """Write the package; the manifest comes last, when everything that it names is there."""
    for variant in (v for v in VARIANTS if file_of(v) in models):
        model, path = models[file_of(variant)], folder / file_of(variant)
        path.write_bytes(model.bytes)
        write_triton_model(folder / "triton", variant, path, model)
    write_json(folder / MANIFEST, about)
