"""A model's contract as text for people: what `infer info` prints."""

import json
from typing import Any

from serve.contract import Contract
from serve.session import available_devices
from serve.table import printable, render


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
        ("golden samples", f"{document['golden']['input']['shape'][0]}, within {document['golden']['atol']:g}"),
        ("devices here", ", ".join(available_devices())),
    ]
    return render(rows)


def _image_rows(contract: Contract) -> list[tuple[str, str]]:
    rule = contract.document["input"]
    height, width = rule["size"]
    crop = f", shorter side to {rule['shorter_px']} px, centre crop" if rule["fit"] == "crop" else ", stretched"
    return [
        ("labels", f"{len(contract.labels)}: {printable(', '.join(contract.labels))}"),
        ("input", f"one {rule['colour']} image, {height} x {width} px{crop}, {rule['interpolation']}"),
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
        ("forecast", printable(", ".join(answer.get("columns", rule["columns"])))),
        ("stream", f"settled after {document['stream']['samples']} samples" if "stream" in document else "none"),
        ("horizon", f"{answer['horizon']} steps, quantiles {', '.join(f'{q:g}' for q in answer['quantiles'])}"),
    ]


def _provenance_rows(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    """One row per entry, nested objects in one line: provenance is free-form."""
    return [
        (name, printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
        for name, value in provenance.items()
    ]
