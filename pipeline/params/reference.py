"""The reference of params.yaml, written from the models: a JSON schema for editors, and a page of
tables.

python -m pipeline.params --docs     writes docs/params.schema.json and docs/params.md
"""

from __future__ import annotations

import copy
import json
from typing import Any

from pydantic.json_schema import models_json_schema

from pipeline.params import schema
from pipeline.params.recipe import EFFECTIVE

Json = dict[str, Any]
BLOCKS: tuple[type[schema.Part], ...] = (
    schema.File,
    *schema.SOURCES.values(),
    schema.Camera,
    schema.RecipeBlock,
    schema.FullBlock,
    schema.Setting,
    schema.ImageBlock,
    schema.SeriesBlock,
    schema.Train,
    schema.Augment,
    schema.Head,
    schema.Weights,
    schema.Backbone,
    schema.Check,
    schema.Int8,
    schema.Explain,
    schema.Study,
)


def definitions() -> dict[str, Json]:
    """Return the JSON schema of each block by the name of its class, without titles."""
    _, whole = models_json_schema([(block, "validation") for block in BLOCKS])
    return {name: without_titles(block) for name, block in whole["$defs"].items()}


def without_titles(value: Any) -> Any:
    """Return a schema without pydantic's titles, which repeat the keys."""
    if isinstance(value, dict):
        inner = {key: without_titles(part) for key, part in value.items()}
        return {k: v for k, v in inner.items() if k != "title" or not isinstance(v, str)}
    return [without_titles(part) for part in value] if isinstance(value, list) else value


def json_schema() -> Json:
    """Return the JSON schema (draft 7) of params.yaml.

    Blocks of a recipe may be incomplete in it: keys come from merged blocks, from the recipe that
    `needs:` names, or from the recipe that a study's setting is laid over. Stage params checks what
    is missing.
    """
    defs = definitions()
    for name in ("ImageBlock", "SeriesBlock", "Train", "Head", "Weights", "RecipeBlock"):
        defs[name].pop("required", None)
    data = copy.deepcopy(defs["ImageBlock"])
    data["description"] = "How images or series become the network's input."
    data["properties"] |= defs.pop("SeriesBlock")["properties"]
    defs["RecipeData"], _ = data, defs.pop("ImageBlock")
    homes = {"data": "RecipeData", "train": "Train", "train.augment": "Augment"}
    for name, key, *_ in EFFECTIVE:  # null takes such a key away
        keys = defs[homes[name]]["properties"]
        if not any(kind == {"type": "null"} for kind in keys[key].get("anyOf", [])):
            about = {k: keys[key].pop(k) for k in ("default", "description") if k in keys[key]}
            keys[key] = {"anyOf": [keys[key], {"type": "null"}]} | about
    typed = {
        "data": reference_to("RecipeData"),
        "train": reference_to("Train"),
        "weights": {"anyOf": [reference_to("Weights"), {"type": "null"}]},
        "head": {"anyOf": [reference_to("Head"), {"type": "null"}]},
        "full": reference_to("FullBlock"),
    }
    for name in ("RecipeBlock", "FullBlock", "Setting"):
        keys = defs[name]["properties"]
        keys |= {key: value | describe(keys[key]) for key, value in typed.items() if key in keys}
    defs["RecipeBlock"]["properties"]["backbone"] = reference_to("Backbone") | {
        "description": "An architecture with published weights, in place of `arch` and `needs`"
    }
    study = defs["Study"]["properties"]
    study["base"] = reference_to("Setting") | describe(study["base"])
    study["settings"]["additionalProperties"] = reference_to("Setting")
    file = defs.pop("File")
    sets = [reference_to(kind.__name__) for kind in schema.SOURCES.values()]
    file["properties"]["data"]["additionalProperties"] = {"oneOf": sets}
    file["properties"]["models"]["additionalProperties"] = reference_to("RecipeBlock")
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Convline's params.yaml"}
    return json.loads(
        json.dumps(head | file | {"$defs": defs})
        .replace("#/$defs/", "#/definitions/")
        .replace('"$defs"', '"definitions"')
    )


def reference_to(name: str) -> Json:
    return {"$ref": f"#/$defs/{name}"}


def describe(field: Json) -> Json:
    """Return the description of a field, which a reference in its place keeps."""
    return {key: field[key] for key in ("description",) if key in field}


# Heading of each table, and the block that it lists.
TABLES = (
    ("The file", "File"),
    *((f"`data`: source {source}", kind.__name__) for source, kind in schema.SOURCES.items()),
    ("`data.NAME.camera`", "Camera"),
    ("`models.NAME`: a recipe", "RecipeBlock"),
    ("`models.NAME.data` for images", "ImageBlock"),
    ("`models.NAME.data` for series", "SeriesBlock"),
    ("`models.NAME.train`", "Train"),
    ("`models.NAME.train.augment`", "Augment"),
    ("`models.NAME.head`", "Head"),
    ("`models.NAME.weights`", "Weights"),
    ("`models.NAME.backbone`", "Backbone"),
    ("`check`", "Check"),
    ("`check.int8`", "Int8"),
    ("`explain`", "Explain"),
    ("`studies.NAME`", "Study"),
)
INTRODUCTION = """# params.yaml

Every key of `params.yaml`. `make docs` writes this page and [the JSON schema](params.schema.json),
with which an editor completes keys and marks mistakes, from
[the pydantic models](../pipeline/params/schema/__init__.py).
The options of `net:` are keywords of the constructor in `models/<arch>.py`, with the defaults of
the paper; `python -m models lenet5` lists them. A recipe needs `arch` and `data`. What it leaves
out has its default, and `out/params/<entry>/train.json` shows all values in effect. A recipe names
its network in one of three ways: `arch`, `needs` (the trained network of another recipe) or
`backbone` (published weights).
"""


def reference() -> str:
    """Return the page of all keys as Markdown."""
    defs = definitions()
    parts = [INTRODUCTION]
    for heading, name in TABLES:
        block = defs[name]
        parts += [f"\n## {heading}\n\n{block.get('description', '')}\n\n"]
        parts += ["| key | type | default | limits, choices | what it is |\n"]
        parts += ["| --- | --- | --- | --- | --- |\n"]
        for key, field in block["properties"].items():
            default = "required" if key in block.get("required", ()) else default_of(field)
            cells = (f"`{key}`", words(field), default, limits(field), field.get("description", ""))
            parts += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"]
    return "".join(parts)


def default_of(field: Json) -> str:
    if "$ref" in field or isinstance(field.get("default"), dict):
        return "see its table" if field.get("default") else ""
    return f"`{json.dumps(field.get('default'))}`"


WORDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "object": "mapping",
}


def words(field: Json) -> str:
    """Return the type of a field in words: "list of 2 whole numbers", "number or null"."""
    if options := field.get("anyOf"):
        return " or ".join(dict.fromkeys(words(option) for option in options))
    if "$ref" in field:
        return "mapping"
    if field.get("type") == "array":
        items = field.get("prefixItems")
        inner = words(items[0] if items else field["items"])
        return f"list of {f'{len(items)} of ' if items else ''}{inner}"
    return WORDS[field.get("type", "string")]


def limits(field: Json) -> str:
    """Return limits and choices of a field in words."""
    found = []
    for part in (field, *field.get("anyOf", ()), field.get("items", {})):
        choices = part.get("enum", [part["const"]] if "const" in part else [])
        found += [", ".join(f"`{choice}`" for choice in choices)] if choices else []
        found += [f"{part['minimum']:,} or more"] if "minimum" in part else []
        found += [f"below {part['exclusiveMaximum']:,}"] if "exclusiveMaximum" in part else []
        found += [f"{part['maximum']:,} at most"] if "maximum" in part else []
        found += ["not empty"] if part.get("minItems") == 1 or part.get("minProperties") else []
    for item in field.get("prefixItems", [])[:1]:
        found += [limits(item)] if limits(item) else []
    return "; ".join(dict.fromkeys(found))
