"""A model's document as text (`infer info`), and the packages that can be named (`infer list`)."""

import json
from collections.abc import Callable
from typing import Any

from convline.model_file.document import (
    POLICIES,
    CaptionerDocument,
    ClassifierDocument,
    DetectorDocument,
    ForecasterDocument,
    ImageDocument,
    ImageRule,
    SeriesRule,
)
from convline.model_file.onnx_file import ModelFile
from convline.model_file.registry import VARIANTS, packages, read_manifest, variant_file_name
from convline.report.text_table import format_table
from convline.runtime.engine import has_openvino
from convline.runtime.session import available_devices
from convline.terminal_text import printable_line

Rows = list[tuple[str, str]]  # name and value


def describe_model(file: ModelFile) -> str:
    """Return lines of names and values: the model, its input, its output, its provenance, this
    machine's devices."""
    document = file.document
    if isinstance(document, ForecasterDocument):
        about_input = _series_rows(document)
    else:
        assert isinstance(document, ImageDocument)
        about_input = [*_image_rows(document.input), *OUTPUT_ROWS[file.task](document)]
    rows = [
        ("name", file.name),
        ("task", file.task),
        ("file", f"{file.path} ({len(file.content):,} bytes)"),
        ("digest", file.digest),
        *about_input,
        *_provenance_rows(document.provenance),
        *_variant_rows(file),
        *_engine_rows(file),
        ("golden samples", f"{len(document.golden.input)}, within {document.golden.atol:g}"),
        ("devices here", ", ".join(available_devices())),
        ("engines here", ", ".join(("onnxruntime", *(["openvino"] if has_openvino() else [])))),
    ]
    return format_table(rows)


def _image_rows(rule: ImageRule) -> Rows:
    height, width = rule.size
    fit = "stretched"
    if rule.fit != "stretch":
        pixels = " at whole pixels" if rule.fit == "torchvision" else ""
        fit = f"shorter side to {rule.shorter_px} px, centre crop{pixels}"
    size = f"one {rule.colour} image, {height} x {width} px"
    return [
        ("input", f"{size}, {fit}, {rule.interpolation}"),
        ("EXIF orientation", POLICIES["exif"]),
        ("alpha", f"composited over rgb {rule.background}"),
        ("16-bit", POLICIES["sixteen_bit"]),
        ("animation", f"{POLICIES['frames']} frame"),
        ("JPEG draft decoding", "yes" if rule.draft else "no"),
    ]


def _names(kind: str, names: list[str]) -> tuple[str, str]:
    return kind, f"{len(names)}: {printable_line(', '.join(names))}"


def _classifier_rows(document: ClassifierDocument) -> Rows:
    gradient = "in the file, for infer explain" if document.explain else "none in the file"
    return [_names("labels", document.labels), ("gradient", gradient)]


def _detector_rows(document: DetectorDocument) -> Rows:
    finds = f"at most {document.most} in an image, from a score of {document.min_score:g}"
    return [_names("labels", document.labels), ("finds", finds)]


def _captioner_rows(document: CaptionerDocument) -> Rows:
    return [_names("words", document.words), ("caption", f"at most {document.longest - 1} words")]


OUTPUT_ROWS: dict[str, Callable[[Any], Rows]] = {  # by task
    "classification": _classifier_rows,
    "detection": _detector_rows,
    "segmentation": lambda document: [_names("labels", document.labels)],
    "captioning": _captioner_rows,
}


def _series_rows(document: ForecasterDocument) -> Rows:
    rule = document.input
    samples = document.stream_samples
    stream = f"settled after {samples} samples" if samples else "none"
    quantiles = ", ".join(f"{level:g}" for level in document.quantiles)
    return [
        ("input", f"the last {rule.context} rows of {printable_line(', '.join(rule.columns))}"),
        ("id column", rule.id or "none, one series per file"),
        ("time column", rule.time or "none, rows are counted"),
        ("step", f"{rule.step.count} {rule.step.unit}"),
        ("calendar", ", ".join(rule.calendar or []) or "none"),
        ("gaps", rule.gaps),
        ("trained on", _training_range(rule)),
        ("forecast", printable_line(", ".join(document.targets))),
        ("stream", stream),
        ("horizon", f"{document.horizon} steps, quantiles {quantiles}"),
    ]


def _training_range(rule: SeriesRule) -> str:
    """Return the range of the training rows of a forecaster, by column."""
    if rule.range is None:
        return "no range in the file"
    columns = [
        f"{name} {least:.6g} to {greatest:.6g}"
        for name, least, greatest in zip(rule.columns, rule.range.low, rule.range.high, strict=True)
    ]
    return printable_line(f"{rule.range.of} {', '.join(columns)}")


def _provenance_rows(provenance: dict[str, Any]) -> Rows:
    """Return one row per entry. Provenance is free-form: an entry that is no text becomes one line
    of JSON."""
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in provenance.items()
    }
    return [(name, printable_line(text)) for name, text in texts.items()]


def _variant_rows(file: ModelFile) -> Rows:
    """Return what the manifest beside a model file says about each variant of the package."""
    variants = read_manifest(file.path.parent).get("variants")
    rows: Rows = []
    for name, verdict in variants.items() if isinstance(variants, dict) else ():
        sentences = verdict.get("why") if isinstance(verdict, dict) else None
        if isinstance(sentences, list):
            text = "; ".join(str(one).removeprefix(f"{file.name}: {name} ") for one in sentences)
            rows.append((f"variant {name}", printable_line(text, 400)))
    return rows


def _engine_rows(file: ModelFile) -> Rows:
    """Return what the manifest beside a model file says about its engine on each device."""
    engines = read_manifest(file.path.parent).get("engines")
    return [
        (f"engine on {device}", printable_line(str(chosen.get("why")), 400))
        for device, chosen in (engines.items() if isinstance(engines, dict) else ())
        if isinstance(chosen, dict)
    ]


def list_packages() -> list[dict[str, Any]]:
    """Return name, task, metric, variants, recommended, bytes (of fp32) and folder of each package.

    A value is None if the manifest does not state it. No model file is opened.
    """
    found = []
    for name, folder in packages().items():
        manifest = read_manifest(folder)
        found.append(
            {
                "name": name,
                "task": manifest.get("task"),
                "metric": manifest.get("metric"),
                "variants": [v for v in VARIANTS if (folder / variant_file_name(v)).is_file()],
                "recommended": manifest.get("recommended"),
                "bytes": (folder / variant_file_name("fp32")).stat().st_size,
                "folder": str(folder),
            }
        )
    return found


def format_packages(found: list[dict[str, Any]]) -> str:
    """Return what `list_packages` returned as a table."""
    rows: list[list[object]] = [["name", "task", "metric", "variants", "size", "folder"]]
    for package in found:
        metric = package["metric"] if isinstance(package["metric"], dict) else {}
        value, size = metric.get("value"), f"{package['bytes'] / 1e3:,.0f} kB"
        known = f"{metric.get('name')} {value:.4g}" if isinstance(value, float) else None
        variants = ", ".join(package["variants"])
        rows.append([package["name"], package["task"], known, variants, size, package["folder"]])
    return format_table(rows, right_aligned=[4])
