"""docs/params.md and docs/params.schema.json are what `make docs` writes, and fit the shipped
params.yaml.
"""

import copy
import json
from typing import Any

import jsonschema
import pytest
from recipes import ROOT
from ruamel.yaml import YAML

from pipeline.params import reference, schema

PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")
SCHEMA = json.loads((ROOT / "docs/params.schema.json").read_text())


def test_the_files_are_written_from_the_models() -> None:
    assert reference.json_schema() == SCHEMA, "run `make docs`"
    assert reference.reference() == (ROOT / "docs/params.md").read_text(), "run `make docs`"


def test_the_shipped_file_names_the_schema_and_fits_it() -> None:
    """jsonschema, draft 7."""
    first = (ROOT / "params.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=docs/params.schema.json"
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(PARAMS)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("models", "cnn1-digits", "train", "lrr"), 0.1),
        (("models", "cnn1-digits", "train", "lr"), "fast"),
        (("models", "cnn1-digits", "full", "train", "epoch"), 3),
        (("models", "lenet5-digits", "train", "augment", "spin"), 3),
        (("data", "digits", "source"), "digit"),
        (("data", "digits", "seed"), -1),
        (("check", "int8", "methods"), ["Maximum"]),
        (("check", "engines"), []),
        (("studies", "transfer", "settings", "linear"), {"heads": {}}),
        (("size",), "large"),
    ],
    ids=lambda part: ".".join(part) if isinstance(part, tuple) else "",
)
def test_the_schema_refuses_mistakes(path: tuple[str, ...], value: Any) -> None:
    content = copy.deepcopy(PARAMS)
    at = content
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(SCHEMA).validate(content)


@pytest.mark.parametrize("block", reference.BLOCKS, ids=lambda block: block.__name__)
def test_every_key_is_described(block: type[schema.Part]) -> None:
    undescribed = [key for key, field in block.model_fields.items() if not field.description]
    assert undescribed in ([], ["source"])
