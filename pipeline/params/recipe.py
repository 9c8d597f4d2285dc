"""Resolve and check one recipe of params.yaml: its backbone, its `full:` block, its dataset.

The fields of `net:` are read from the constructor in models/<arch>.py: torch stays out.
"""

from __future__ import annotations

import ast
import copy
import functools
import re
from pathlib import Path
from typing import Any, get_args

from pydantic import Field, create_model

from pipeline.core.errors import ParamsError, hint
from pipeline.params import schema
from pipeline.params.schema import (
    EntryRecipe,
    Head,
    ImageBlock,
    ImageData,
    ImageSet,
    Layer,
    Part,
    RecipeBlock,
    ResolvedTrain,
    SeriesBlock,
    SeriesData,
    Train,
)
from pipeline.params.validation_errors import check_block

MODELS = Path("models")
Sets = dict[str, Any]  # data sets by name, each a member of schema.DataSet


def built_on(name: Any, models: dict[Any, Any], above: tuple[Any, ...] = ()) -> Any:
    """Return the recipe of `models.<name>` with the network and input of its backbone.

    `needs:` names another recipe, whose trained network is the backbone; `backbone:` is an
    architecture with published weights.
    """
    recipe, place = models[name], f"models.{name}"
    if not isinstance(recipe, dict) or not {"needs", "backbone"} & set(recipe):
        return recipe
    if "arch" in recipe or {"needs", "backbone"} <= set(recipe):
        raise ParamsError(
            f"{place}: expected one of arch, needs, backbone, got more; the others follow from it"
        )
    own = {key: value for key, value in recipe.items() if key != "backbone"}
    if "head" not in own:
        kinds = ", ".join(get_args(Head.model_fields["kind"].annotation))
        raise ParamsError(f"{place}.head: missing; add `head: {{kind: ...}}`, one of {kinds}")
    if "backbone" in recipe:
        backbone = check_block(schema.Backbone, recipe["backbone"], f"{place}.backbone")
        return own | backbone.model_dump()
    needs = recipe["needs"]
    if needs not in models or needs in (name, *above):
        raise ParamsError(
            f"{place}.needs: no other recipe {needs!r}; {hint(str(needs), list(models))}"
        )
    base = built_on(needs, models, (name, *above))
    for part, over in ((base, own), (laid_full(base), laid_full(own))):
        given = part.get("data", {})
        for key, value in over.get("data", {}).items():
            if key != "set" and value != given.get(key, value):
                what = f"expected {given[key]!r} as its backbone {needs} takes, got {value!r}"
                raise ParamsError(f"{place}.data.{key}: {what}; leave it out")
    below = {key: base[key] for key in ("arch", "net", "data") if key in base}
    if full := {key: base["full"][key] for key in ("net", "data") if key in base.get("full", {})}:
        full = {key: {k: v for k, v in part.items() if k != "set"} for key, part in full.items()}
        own = {**own, "full": overlay(full, own.get("full", {}))}
    return overlay(below, own)


def check_recipe(name: Any, recipe: Any, sets: Sets, size: str) -> EntryRecipe:
    """Return the recipe of `models.<name>` resolved for `size`; both sizes are checked."""
    place = f"models.{name}"
    if not re.fullmatch(schema.NAME_PATTERN, str(name)) or name in schema.RESERVED:
        raise ParamsError(
            f"{place}: names are lower-case letters, digits and single hyphens, as in"
            f" lenet5-digits, and none of {', '.join(schema.RESERVED)}"
        )
    block = check_block(RecipeBlock, recipe, place)
    check_block(schema.FullBlock, block.full, f"{place}.full")
    small = resolve(place, recipe, sets)
    if not block.full:
        return small
    full = resolve(f"{place} (with its full block)", laid_full(recipe), sets)
    return full if size == "full" else small


def laid_full(recipe: Layer) -> Layer:
    """Return the recipe with its `full:` block laid over it, and without the block."""
    full = recipe.get("full") or {}
    return overlay({key: value for key, value in recipe.items() if key != "full"}, full)


def resolve(place: str, recipe: Layer, sets: Sets) -> EntryRecipe:
    """Return the complete recipe: blocks checked, defaults filled in, its dataset as
    `data.spec`.
    """
    block = check_block(RecipeBlock, recipe, place)
    if block.arch not in (known := architectures()):
        raise ParamsError(
            f"{place}.arch: unknown architecture {block.arch!r}; {hint(block.arch, known)}"
        )
    set_name = str(block.data.get("set", "none"))
    if set_name not in sets:
        raise ParamsError(
            f"{place}.data.set: unknown data set {set_name!r}; {hint(set_name, list(sets))}"
        )
    image = isinstance(sets[set_name], ImageSet)
    blocks: dict[str, tuple[type[Part], Any]] = {
        "data": (ImageBlock if image else SeriesBlock, block.data),
        "train": (Train, block.train),
        "weights": (schema.Weights, block.weights),
        "head": (Head, block.head),
    }
    made: dict[str, Any] = {}
    problems = []
    for key, (kind, value) in blocks.items():
        try:
            made[key] = None if value is None else check_block(kind, value, f"{place}.{key}")
        except ParamsError as error:  # all that is wrong with the recipe, in one message
            problems.append(str(error))
    if problems:
        raise ParamsError("; ".join(problems))
    whole = ImageData if image else SeriesData
    data = whole.model_construct(**dict(made["data"]), spec=sets[set_name])
    levels = made["data"].quantiles if made["train"].loss == "pinball" else []
    train = ResolvedTrain.model_construct(**dict(made["train"]), levels=levels)
    found = EntryRecipe.model_construct(
        arch=block.arch,
        net=block.net,
        data=data,
        train=train,
        weights=made["weights"],
        needs=block.needs,
        head=made["head"],
        **{key: getattr(block, key) for key in ("saliency", "streaming", "synthesis")},
    )
    check_task(place, found)
    check_net(f"{place}.net", block.arch, block.net, image)
    check_start(place, found)
    return found


def check_task(place: str, recipe: EntryRecipe) -> None:
    """Refuse options of images for series, and of series for images."""
    data, train = recipe.data, recipe.train
    image = isinstance(data, ImageData)
    losses = ("auto", "cross-entropy", "softmax-clip") if image else ("auto", "mse", "pinball")
    if train.loss not in losses:
        kind = "images" if image else "series"
        raise ParamsError(
            f"{place}.train.loss: {train.loss!r} is not for {kind}; choices: {', '.join(losses)}"
        )
    if isinstance(data, SeriesData):
        check_forecast(place, recipe, data)
        if train.augment is not None:
            raise ParamsError(f"{place}.train.augment: there is none for series; leave it out")
    elif data.standardise == "imagenet" and data.colour != "rgb":
        raise ParamsError(
            f"{place}.data.colour: standardise: imagenet is for three channels; set rgb"
        )
    if recipe.saliency and (not image or recipe.on_features):
        raise ParamsError(
            f"{place}.saliency: only a network of images has gradients to export; leave it out"
        )
    if recipe.streaming and image:
        raise ParamsError(f"{place}.streaming: only series come one sample at a time; leave it out")


def check_forecast(place: str, recipe: EntryRecipe, data: SeriesData) -> None:
    """Refuse what the architecture does not offer, by the keywords of its constructor."""
    takes = constructor(recipe.arch).model_fields
    pinball = recipe.train.loss == "pinball"
    asked = {"targets": data.targets, "calendar": data.calendar, "quantiles": pinball}
    for key, value in asked.items():
        if value and key not in takes:
            where = "train.loss" if pinball and key == "quantiles" else f"data.{key}"
            raise ParamsError(
                f"{place}.{where}: models/{recipe.arch}.py takes no `{key}`; leave it out, or use"
                " arch: tcn"
            )
    if pinball and 0.5 not in data.quantiles:
        what = (
            "expected .5 among them for train.loss: pinball, whose forecast is the median, got"
            f" {data.quantiles}"
        )
        raise ParamsError(f"{place}.data.quantiles: {what}")
    normalise = recipe.net.get("normalise", "none")
    if recipe.streaming and normalise != "none":
        what = f"net.normalise: {normalise} needs the whole window at every step"
        raise ParamsError(f"{place}.streaming: {what}; set normalise: none, or leave streaming out")


def check_start(place: str, recipe: EntryRecipe) -> None:
    """Refuse a head without a backbone, zero epochs, and input that published weights do not
    take.
    """
    weights, head, epochs = recipe.weights, recipe.head, recipe.train.epochs
    if head and head.kind == "softmax" and not epochs:
        raise ParamsError(f"{place}.head.kind: softmax is trained by the loop; give `train.epochs`")
    if head and not (recipe.needs or weights):
        raise ParamsError(
            f"{place}.head: a head needs a trained backbone; add `needs:` or `backbone:`"
        )
    if not epochs and not weights and not head:
        raise ParamsError(
            f"{place}.train.epochs: 0 is for published weights; add `weights:` or train an epoch"
        )
    standardise = getattr(recipe.data, "standardise", None)
    if weights and weights.file == "imagenet" and standardise != "imagenet":
        what = f"expected imagenet, as the published weights were trained, got {standardise}"
        raise ParamsError(f"{place}.data.standardise: {what}")


def overlay(base: Layer, over: Layer) -> Layer:
    """Return `base` with the keys of `over`, merged mapping by mapping; `augment` is replaced."""
    merged = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "augment"
        merged[key] = overlay(merged[key], value) if both else copy.deepcopy(value)
    return merged


def check_net(place: str, arch: str, options: Layer, image: bool) -> None:
    """Check `net:` against the keywords of the architecture's constructor, without importing it."""
    given = {"in_channels", "size", "classes"} if image else {"series", "horizon"}
    keywords = set(constructor(arch).model_fields)
    if not given <= keywords:
        kind = "images" if image else "series"
        raise ParamsError(
            f"{place}: models/{arch}.py does not take {kind}; choose another data set or"
            " architecture"
        )
    given |= set() if image else {"context", "targets", "calendar", "quantiles"}
    if options and not keywords - given:
        raise ParamsError(
            f"{place}.{next(iter(options))}: unknown option; models/{arch}.py has none"
        )
    check_block(constructor(arch, frozenset(given)), options, place)


def architectures() -> list[str]:
    """Return the names of the architectures: the files of models/ that bind `Model`."""
    return sorted(
        path.stem
        for path in MODELS.glob("*.py")
        if re.search(r"^Model = \w+", path.read_text(), re.M)
    )


# Annotations of constructor keywords whose values are checked; others are not.
ANNOTATIONS: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "Sequence[int]": list[int],
    "Sequence[str]": list[str],
}


def constructor(arch: str, without: frozenset[str] = frozenset()) -> type[Part]:
    """Return the keywords of `Model.__init__` in models/<arch>.py as a model, less `without`."""
    return options_of((MODELS / f"{arch}.py").read_text(), arch, without)


@functools.cache
def options_of(source: str, arch: str, without: frozenset[str]) -> type[Part]:
    bound = re.findall(r"^Model = (\w+)", source, re.M)[-1]
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == bound:
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    pairs = zip(method.args.kwonlyargs, method.args.kw_defaults, strict=True)
                    fields: Any = {
                        a.arg: keyword(a, default) for a, default in pairs if a.arg not in without
                    }
                    return create_model(arch, __base__=Part, **fields)
    raise ParamsError(
        f"models/{arch}.py: expected a class {bound} with an __init__ of keyword-only options"
    )


def keyword(argument: ast.arg, default: ast.expr | None) -> tuple[Any, Any]:
    """Return the type of one keyword and its field; None stands for its own default."""
    kind = ANNOTATIONS.get(ast.unparse(argument.annotation) if argument.annotation else "", Any)
    return (
        (kind, ...) if default is None else (kind | None if kind is not Any else Any, Field(None))
    )
