"""Repair a recipe whose keys are wrong, for the error message: its good keys, and what it lacks."""

from __future__ import annotations

import copy
import difflib
import io
import re
from typing import Any

from pipeline.core.errors import ParamsError
from pipeline.params import network_options
from pipeline.params.recipe import Sets, built_on, resolve, takes_images
from pipeline.params.schema import DigitsSet, Layer

# Where a recipe names no architecture that fits: these take images of any size, and any window.
ANY_SIZE = {True: "resnet", False: "tcn"}


def describe_working_recipe(name: str, recipe: Any, mistakes: dict[str, str], sets: Sets) -> str:
    """Return "; this works: NAME: {arch: ...}", or nothing where values alone are wrong."""
    about_keys = any(
        not said.startswith(("expected", "unknown value")) for said in mistakes.values()
    )
    if not sets or not about_keys or not isinstance(recipe, dict) or "needs" in recipe:
        return ""
    paths = {
        where.removeprefix(f"models.{name}.").split("[")[0]: said
        for where, said in mistakes.items()
    }
    repaired = repair(recipe, paths, sets)
    least = {"arch": ANY_SIZE[takes_images(repaired, sets)], "data": repaired["data"]}
    for candidate in (repaired, least):
        try:
            resolve(name, built_on(name, {name: candidate}), sets)
        except ParamsError:
            continue
        return f"; this works: {name}: {flow(candidate)}"
    return ""


def repair(recipe: Layer, mistakes: dict[str, str], sets: Sets) -> Layer:
    """Return a recipe without the keys of mistakes, by dotted path, and with what it then lacks."""
    fixed = {key: copy.deepcopy(value) for key, value in recipe.items() if key != "full"}
    if not isinstance(fixed.get("data"), dict):
        fixed["data"] = {}
    removed = {path: remove(fixed, path.split(".")) for path in mistakes}
    for path, said in mistakes.items():
        if home := re.search(r"move it to `(\w+):`", said):
            block = fixed.get(home[1]) or {}
            fixed[home[1]] = {path.rpartition(".")[2]: removed[path]} | block
    if "arch" in mistakes:
        fixed.pop("net", None)  # the options of another architecture
    data = fixed["data"] if isinstance(fixed.get("data"), dict) else {}
    if data.get("set") not in list(sets):
        image = takes_images({**fixed, "data": data}, {})
        likely = [name for name in sets if takes_images({"data": {"set": name}}, sets) == image]
        near = difflib.get_close_matches(str(removed.get("data.set")), list(sets), 1)
        data["set"] = (near or likely or list(sets))[0]
    image = takes_images({"data": data}, sets)
    if image:
        side = removed.get("data.size")
        size = [side, side] if isinstance(side, int) else [32, 32]
        colour = "grey" if isinstance(sets[data["set"]], DigitsSet) else "rgb"
        data = {"set": "", "size": size, "colour": colour} | data
    else:
        data = {"set": "", "context": 48, "horizon": 12} | data
    rest = {key: value for key, value in fixed.items() if value and key != "data"}
    if "backbone" in recipe:
        return backbone_recipe(recipe["backbone"], data, rest)
    return network_of(str(recipe.get("arch")), rest, image) | {"data": data} | rest


def remove(recipe: Layer, path: list[str]) -> Any:
    """Take the key at a path out of a recipe and return its value, or None."""
    *blocks, key = path
    at: Any = recipe
    for block in blocks:
        at = at.get(block) if isinstance(at, dict) else None
    return at.pop(key, None) if isinstance(at, dict) else None


def network_of(named: str, rest: Layer, image: bool) -> Layer:
    """Return `arch`, with `net` where it is a network of torchvision, that was probably meant."""
    if named in network_options.torchvision_names():
        return {"arch": "zoo", "net": {"name": named}}
    near = difflib.get_close_matches(named, network_options.architectures(), 1)
    return {"arch": rest.get("arch") or (near or [ANY_SIZE[image]])[0]}


def backbone_recipe(backbone: Any, data: Layer, rest: Layer) -> Layer:
    """Return a recipe with torchvision's weights under a head of its own."""
    named = str(backbone.get("arch")) if isinstance(backbone, dict) else ""
    known = named in network_options.torchvision_names()
    return {
        "backbone": {
            "arch": "zoo",
            "net": {"name": named if known else "mobilenet_v2"},
            "weights": {"file": "imagenet", "licence": "BSD-3-Clause (torchvision)"},
        },
        "data": {**data, "colour": "rgb", "standardise": "imagenet"},
        "head": rest.get("head", {"kind": "best"}),
    }


def flow(value: Any) -> str:
    """Return a mapping as YAML on one line: {arch: fcnn, data: {set: digits}}."""
    from ruamel.yaml import YAML  # here: training on a bare GPU machine needs no parser

    yaml, text = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style, yaml.width = True, 10**6
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.brace_single_entry_mapping_in_flow_sequence = True
    yaml.dump(value, text)
    return text.getvalue().strip()
