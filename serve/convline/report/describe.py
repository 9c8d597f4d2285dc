"""A model's contract as text for people: what `infer info` prints; and the packages that `infer list` prints."""

import json
from pathlib import Path
from typing import Any

from convline.model_file.document import Contract
from convline.model_file.registry import MANIFEST, VARIANTS, file_of, packages
from convline.report.text_table import printable, render
from convline.runtime.session import available_devices


def describe(contract: Contract) -> str:
    """Return lines of `name  value`, grouped: the model, its input, its answer, its origin, this machine."""
    document = contract.document
    rows = [
        ("name", contract.name),
        ("task", contract.task),
        ("file", f"{contract.path} ({len(contract.bytes):,} bytes)"),
        ("digest", contract.digest),
        *(_image_rows(contract) if contract.task == "classification" else _series_rows(document)),
        *_provenance_rows(document["provenance"]),
        (
            "golden samples",
            f"{document['golden']['input']['shape'][0]}, within {document['golden']['atol']:g}",
        ),
        ("devices here", ", ".join(available_devices())),
    ]
    return render(rows)


def _image_rows(contract: Contract) -> list[tuple[str, str]]:
    rule = contract.document["input"]
    height, width = rule["size"]
    crop = ", stretched"
    if rule["fit"] != "stretch":
        how = " at whole pixels" if rule["fit"] == "torchvision" else ""
        crop = f", shorter side to {rule['shorter_px']} px, centre crop{how}"
    return [
        ("labels", f"{len(contract.labels)}: {printable(', '.join(contract.labels))}"),
        (
            "input",
            f"one {rule['colour']} image, {height} x {width} px{crop}, {rule['interpolation']}",
        ),
        ("EXIF orientation", rule["exif"]),
        ("alpha", f"composited over rgb {tuple(rule['background'])}"),
        ("16-bit", rule["sixteen_bit"]),
        ("animation", f"{rule['frames']} frame"),
        ("JPEG draft decoding", "yes" if rule["draft"] else "no"),
        ("gradient", "in the file, for infer explain" if contract.explains else "none in the file"),
    ]


def _series_rows(document: dict[str, Any]) -> list[tuple[str, str]]:
    rule, answer = document["input"], document["forecast"]
    return [
        ("input", f"the last {rule['context']} rows of {printable(', '.join(rule['columns']))}"),
        ("id column", rule["id"] or "none, one series a file"),
        ("time column", rule["time"] or "none, rows are counted"),
        ("step", f"{rule['step']['count']} {rule['step']['unit']}"),
        ("calendar", ", ".join(rule.get("calendar", [])) or "none"),
        ("gaps", rule["gaps"]),
        ("trained on", _range(rule)),
        ("forecast", printable(", ".join(answer.get("columns", rule["columns"])))),
        (
            "stream",
            f"settled after {document['stream']['samples']} samples"
            if "stream" in document
            else "none",
        ),
        (
            "horizon",
            f"{answer['horizon']} steps, quantiles {', '.join(f'{q:g}' for q in answer['quantiles'])}",
        ),
    ]


def _range(rule: dict[str, Any]) -> str:
    """Return what a forecaster's inputs were like in training."""
    if "range" not in rule:
        return "no range in the file"
    what, low, high = (rule["range"][key] for key in ("of", "low", "high"))
    spans = zip(rule["columns"], low, high, strict=True)
    return printable(f"{what} " + ", ".join(f"{name} {a:.6g} to {b:.6g}" for name, a, b in spans))


def _provenance_rows(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    """One row per entry, nested objects in one line: provenance is free-form."""
    return [
        (
            name,
            printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)),
        )
        for name, value in provenance.items()
    ]


def catalogue() -> list[dict[str, Any]]:
    """Return name, task, metric, variants, bytes (of fp32) and folder of each package; None where a manifest is silent.

    No model file is opened: its manifest tells.
    """
    found = []
    for name, folder in packages().items():
        about = _manifest(folder / MANIFEST)
        variants = [variant for variant in VARIANTS if (folder / file_of(variant)).is_file()]
        found.append(
            {
                "name": name, "task": about.get("task"), "metric": about.get("metric"), "variants": variants,
                "recommended": about.get("recommended"), "bytes": (folder / file_of("fp32")).stat().st_size,
                "folder": str(folder),
            }
        )  # fmt: skip
    return found


def catalogue_text(found: list[dict[str, Any]]) -> str:
    """Return the packages as a table."""
    rows = [["name", "task", "metric", "variants", "size", "folder"]]
    for one in found:
        metric = one["metric"] if isinstance(one["metric"], dict) else {}
        value = metric.get("value")
        shown = f"{metric.get('name')} {value:.4g}" if isinstance(value, float) else "-"
        variants = ", ".join(one["variants"])
        size = f"{one['bytes'] / 1e3:,.0f} kB"
        rows.append([one["name"], str(one["task"] or "-"), shown, variants, size, one["folder"]])
    return render(rows, numbers=[4])


def _manifest(path: Path) -> dict[str, Any]:
    """Return what a manifest says, nothing where it is missing or cannot be read: opening the model then says why."""
    try:
        found = json.loads(
            path.read_text(encoding="utf-8"), parse_constant=lambda _: None
        )  # NaN is no JSON
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
