"""docs/model-file.md and its JSON schema describe what serve/convline/model_file/schema.py checks."""

from __future__ import annotations

import copy
import json
import re
from collections import ChainMap
from pathlib import Path
from typing import Any

import jsonschema
from convline.errors import ModelFileError
from convline.model_file import schema
from tiny import (
    captioner_document,
    classifier_document,
    detector_document,
    forecaster_document,
    segmenter_document,
)

DOCS = Path(__file__).parents[3] / "docs"
SPECIFICATION = json.loads((DOCS / "model-file.schema.json").read_text())
OPTIONAL = [rules for by_key in schema.OPTIONAL.values() for rules in by_key.values()]
RULES = dict(ChainMap(*schema.RULES.values(), schema.CROP, *OPTIONAL))
KEYS = {key.split(".")[-1] for key in RULES} | {"unknown"}
VALUES = ("gone", None, "", 0, -1, True, 1.5, "text", [], [1], ["a", "a"], {})
# What is inside of these is not the tables'.
CLOSED = {("provenance",), ("golden", "input"), ("golden", "calendar"), ("golden", "outputs")}


def test_every_key_of_the_schema_is_documented() -> None:
    objects = {
        "input",
        "golden",
        "input.step",
        "input.range",
        "forecast",
        "explain",
        "stream",
        "detection",
        "caption",
    }  # their keys are listed
    keys = {*RULES} - objects
    lines = (DOCS / "model-file.md").read_text().splitlines()
    first = [line.split("|")[1] for line in lines if line.startswith("|")]
    assert {*re.findall(r"`([a-z._]+)`", " ".join(first))} - {"digest"} == keys


def documents() -> list[dict[str, Any]]:
    crop, whole, seeing = classifier_document(), classifier_document(), classifier_document()
    crop["input"] |= {"fit": "crop", "shorter_px": 9}
    whole["input"] |= {"fit": "torchvision", "shorter_px": 9}
    seeing["explain"] = {"saliency": True}
    told, stream, fewer = (
        forecaster_document(),
        forecaster_document(),
        forecaster_document(("y", "z")),
    )
    told["input"] |= {"calendar": ["hour"], "time": "ds", "step": {"unit": "seconds", "count": 60}}
    told["golden"]["calendar"] = told["golden"]["input"]
    stream["stream"] = {"samples": 4}
    fewer["forecast"]["columns"] = ["y"]
    ranged = forecaster_document(range={"of": "values", "low": [0.0], "high": [10.0]})
    zoned = forecaster_document(offset="utc")
    return [
        classifier_document(),
        crop,
        whole,
        seeing,
        forecaster_document(),
        told,
        stream,
        fewer,
        ranged,
        zoned,
        detector_document(),
        segmenter_document(),
        captioner_document(),
    ]


def accepted(document: dict[str, Any]) -> bool:
    try:
        schema.check_document(document, "here")
    except ModelFileError:
        return False
    return True


def mutants(document: dict[str, Any], path: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Yield the document with each key removed, each value replaced by one of another type, and an
    unknown key added to each object.
    """
    made = []
    inside = document
    for key in path:
        inside = inside[key]
    for key, value in [*inside.items(), *dict.fromkeys(KEYS - {*inside}).items()]:
        for other in VALUES if key in inside else (9, True):
            changed = copy.deepcopy(document)
            place = changed
            for step in path:
                place = place[step]
            if other == "gone":
                place.pop(key, None)
            else:
                place[key] = other
            made.append(changed)
        if isinstance(value, dict) and (*path, key) not in CLOSED:
            made += mutants(document, (*path, key))
    return made


def test_the_json_schema_and_the_code_accept_the_same_documents() -> None:
    """Both are asked about a dozen documents and some thousands of changes of them."""
    validator = jsonschema.Draft202012Validator(SPECIFICATION)
    tried = 0
    for document in documents():
        assert accepted(document) and validator.is_valid(document)
        for changed in mutants(document):
            assert accepted(changed) == validator.is_valid(changed), changed
            tried += 1
    assert tried > 1000
