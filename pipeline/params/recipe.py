"""Resolve and check one recipe of params.yaml: its backbone, its `full:` block, its dataset."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any, get_args

from pipeline.core import paths
from pipeline.core.errors import ParamsError, hint
from pipeline.params import network_options, schema
from pipeline.params.network_options import constructor
from pipeline.params.schema import (
    AnnotatedSet,
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
from pipeline.params.validation_errors import Mistakes

Sets = dict[str, Any]  # data sets by name, each a member of schema.DataSet
# Keywords of a constructor that come from the data, by the architecture's task.
DATA_KEYWORDS = {
    "classification": frozenset({"in_channels", "size", "classes"}),
    "detection": frozenset({"in_channels", "size", "classes"}),
    "segmentation": frozenset({"in_channels", "size", "classes"}),
    "captioning": frozenset({"in_channels", "size", "words", "longest"}),
    "forecasting": frozenset(
        {"series", "horizon", "context", "targets", "calendar", "quantiles", "season"}
    ),
}
# Keys of `data:` that say how stage data keeps images: no part of the input that a backbone takes.
LAYOUT = ("layout", "longest_side", "shard_mb", "on_undecodable", "max_skipped")
# Keys that change nothing, unless another key of their block has one of these values. A layer takes
# such a key of the layers below away by null.
EFFECTIVE = (
    ("data", "longest_side", "layout", ("shards", "auto")),
    ("data", "shard_mb", "layout", ("shards", "auto")),
    ("data", "max_skipped", "on_undecodable", ("skip",)),
    ("train", "ridge", "start", ("closed_form",)),
    ("train.augment", "magnitude", "policy", ("randaugment",)),
    ("train.augment", "area", "crop", ("random_resized",)),
    ("train.augment", "aspect", "crop", ("random_resized",)),
)
LOSSES = {  # choices of train.loss; of a task that is not listed the network has its own
    "classification": ("auto", "cross-entropy", "softmax-clip"),
    "forecasting": ("auto", "mse", "pinball"),
}


def built_on(name: Any, models: dict[Any, Any], above: tuple[Any, ...] = ()) -> Any:
    """Return the recipe of `models.<name>` with the network and input of its backbone.

    `needs:` names another recipe, whose trained network is the backbone; `backbone:` is an
    architecture with published weights. An architecture with `start_weights` may stand beside
    `needs:`: it takes weights of that network and nothing else.
    """
    recipe, place = models[name], f"models.{name}"
    if not isinstance(recipe, dict) or not {"needs", "backbone"} & set(recipe):
        return recipe
    if "needs" in recipe and network_options.takes_start_weights(recipe.get("arch")):
        require_other(place, name, recipe["needs"], models, above)
        return recipe  # its own network, part of whose weights are those of the other
    if "arch" in recipe or {"needs", "backbone"} <= set(recipe):
        raise ParamsError(
            f"{place}: expected one of arch, needs, backbone, got more; the others follow from it"
        )
    own = {key: value for key, value in recipe.items() if key != "backbone"}
    mistakes = Mistakes()
    if "head" not in own:
        kinds = ", ".join(get_args(Head.model_fields["kind"].annotation))
        mistakes[f"{place}.head"] = f"missing; add `head: {{kind: ...}}`, one of {kinds}"
    if "backbone" in recipe:
        backbone = mistakes.check(schema.Backbone, recipe["backbone"], f"{place}.backbone")
        arch = recipe["backbone"].get("arch") if isinstance(recipe["backbone"], dict) else None
        if isinstance(arch, str) and not network_options.is_architecture(arch):
            mistakes[f"{place}.backbone.arch"] = network_options.explain_unknown(arch)
        mistakes.raise_any()
        assert backbone is not None
        return own | backbone.model_dump()
    mistakes.raise_any()
    needs = recipe["needs"]
    require_other(place, name, needs, models, above)
    base = built_on(needs, models, (name, *above))
    for part, over in ((base, own), (laid_full(base), laid_full(own))):
        given = part.get("data", {})
        for key, value in over.get("data", {}).items():
            if key not in ("set", *LAYOUT) and value != given.get(key, value):
                what = f"expected {given[key]!r} as its backbone {needs} takes, got {value!r}"
                raise ParamsError(f"{place}.data.{key}: {what}; leave it out")
    below = {key: base[key] for key in ("arch", "net", "data") if key in base}
    if "data" in below:
        below["data"] = {k: v for k, v in below["data"].items() if k not in LAYOUT}
    if full := {key: base["full"][key] for key in ("net", "data") if key in base.get("full", {})}:
        full = {
            key: {k: v for k, v in part.items() if k not in ("set", *LAYOUT)}
            for key, part in full.items()
        }
        own = {**own, "full": overlay(full, own.get("full", {}))}
    return overlay(below, own)


def require_other(
    place: str, name: Any, needs: Any, models: dict[Any, Any], above: tuple[Any, ...]
) -> None:
    """Raise ParamsError where `needs:` does not name another recipe."""
    if needs not in models or needs in (name, *above):
        raise ParamsError(
            f"{place}.needs: no other recipe {needs!r}; {hint(str(needs), list(models))}"
        )


def check_recipe(name: Any, recipe: Any, sets: Sets, size: str) -> EntryRecipe:
    """Return the recipe of `models.<name>` resolved for `size`; both sizes are checked."""
    place = f"models.{name}"
    if not re.fullmatch(schema.NAME_PATTERN, str(name)) or name in schema.RESERVED:
        raise ParamsError(
            f"{place}: names are lower-case letters, digits and single hyphens, as in"
            f" lenet5-digits, and none of {', '.join(schema.RESERVED)}"
        )
    small = resolve(place, recipe, sets)
    if not recipe.get("full"):
        return small
    full = resolve(f"{place} (with its full block)", laid_full(recipe), sets)
    return full if size == "full" else small


def laid_full(recipe: Layer) -> Layer:
    """Return the recipe with its `full:` block laid over it, and without the block."""
    full = recipe.get("full") or {}
    return overlay({key: value for key, value in recipe.items() if key != "full"}, full)


def resolve(place: str, recipe: Any, sets: Sets) -> EntryRecipe:
    """Return the complete recipe: blocks checked, defaults filled in, its dataset as
    `data.spec`, the constructor's defaults in `net`.

    Raises BlockError with all unknown, missing and wrong keys, or ParamsError with all that do not
    go together.
    """
    mistakes = Mistakes()
    mistakes.check(RecipeBlock, recipe, place)
    if not isinstance(recipe, dict):
        mistakes.raise_any()
    recipe = without_nulls(recipe)
    keys = {key: value for key, value in recipe.items() if f"{place}.{key}" not in mistakes}
    block = RecipeBlock.model_construct(**keys)
    image = takes_images(keys, sets)
    kinds = kinds_of_blocks(place, block, image, mistakes)
    values = {key: getattr(block, key) for key in kinds}
    values["train"] = with_epochs(block.train, block.head)
    made: dict[str, Any] = {
        key: None if values[key] is None else mistakes.check(kind, values[key], f"{place}.{key}")
        for key, kind in kinds.items()
    }
    name = block.data.get("set", "")
    if f"{place}.data.set" in mistakes or name not in list(sets):
        what = f"unknown data set {name!r}" if name else "missing"
        mistakes[f"{place}.data.set"] = f"{what}; {hint(str(name), list(sets))}"
    explain_misplaced_keys(place, mistakes, kinds)
    mistakes.raise_any()
    whole = ImageData if image else SeriesData
    task: Any = network_options.task_of(block.arch)
    levels = made["data"].quantiles if made["train"].loss == "pinball" else []
    found = EntryRecipe.model_construct(
        arch=block.arch,
        net=network_options.options_in_effect(made["net"]),
        data=whole.model_construct(
            made["data"].model_fields_set, **dict(made["data"]), task=task, spec=sets[name]
        ),
        train=ResolvedTrain.model_construct(
            made["train"].model_fields_set | {"levels"}, **dict(made["train"]), levels=levels
        ),
        weights=made["weights"],
        needs=block.needs,
        head=made["head"],
        **{key: getattr(block, key) for key in ("saliency", "streaming", "synthesis")},
    )
    check_together(place, found)
    given = found.data
    if isinstance(given, ImageData) and given.layout == "auto" and needs_array(found, given):
        return found.updated(data={"layout": "array"})
    return found


def without_nulls(recipe: Layer) -> Layer:
    """Return a recipe without the keys of EFFECTIVE that are null."""
    found = copy.deepcopy(recipe)
    for name, key, *_ in EFFECTIVE:
        block: Any = found
        for part in name.split("."):
            block = block.get(part) if isinstance(block, dict) else None
        if isinstance(block, dict) and block.get(key, "") is None:
            del block[key]
    return found


def takes_images(recipe: Layer, sets: Sets) -> bool:
    """Return whether a recipe is for images: by its dataset, else by keys, else by architecture."""
    data, arch = recipe.get("data", {}), recipe.get("arch")
    spec = next((spec for name, spec in sets.items() if name == data.get("set")), None)
    if spec:
        return isinstance(spec, ImageSet | AnnotatedSet)
    if data.keys() & {"size", "colour", "context", "horizon"}:
        return not {"context", "horizon"} & set(data)
    known = network_options.is_architecture(arch)
    return not known or "horizon" not in constructor(str(arch)).model_fields


def kinds_of_blocks(
    place: str, block: RecipeBlock, image: bool, mistakes: Mistakes
) -> dict[str, type[Part]]:
    """Return the model of each block of a recipe; that of `net` only of a fitting architecture."""
    kinds: dict[str, type[Part]] = {
        "data": ImageBlock if image else SeriesBlock,
        "train": Train,
        "weights": schema.Weights,
        "head": Head,
        "full": schema.FullBlock,
    }
    arch = getattr(block, "arch", None)
    if arch is None:  # missing, or no text, which is noted already
        return kinds
    if not network_options.is_architecture(arch):
        mistakes[f"{place}.arch"] = network_options.explain_unknown(arch)
        return kinds
    task = network_options.task_of(arch)
    if task is None or image == (task == "forecasting"):
        needed, taken = ("classes", "images") if image else ("horizon", "series")
        what = f"models/{arch}.py does not take {taken}, since its __init__ has no `{needed}`"
        cure = "choose another data set or architecture"
        if task is None:
            cure = f"name the argument `{needed}` that says how many outputs it has"
        mistakes[f"{place}.arch"] = f"{what}; {cure}"
        return kinds
    return {"net": constructor(arch, DATA_KEYWORDS[task]), **kinds}


def with_epochs(train: Layer, head: Any) -> Layer:
    """Return a `train:` block; of a head on features, which no loop trains, with no epochs."""
    on_features = isinstance(head, dict) and head.get("kind", "softmax") != "softmax"
    return {"epochs": 0} | train if on_features else train


def explain_misplaced_keys(place: str, mistakes: Mistakes, kinds: dict[str, type[Part]]) -> None:
    """Name the block that an unknown key belongs to, where another block has such a key."""
    for where, sentence in mistakes.items():
        homes = [
            name
            for name, kind in kinds.items()
            if where.rpartition(".")[2] in kind.model_fields
            and where.rpartition(".")[0] != f"{place}.{name}"
            and name != "full"
        ]
        if sentence.startswith("unknown key") and homes:
            mistakes[where] = f"unknown key here; move it to `{homes[0]}:`"


def check_together(place: str, recipe: EntryRecipe) -> None:
    """Raise ParamsError with all of a recipe's values that do not go together."""
    found = []
    checks: list[Callable[[str, EntryRecipe], None]] = [
        check_task,
        check_crop,
        check_effects,
        check_options,
        check_start,
    ]
    for check in checks:
        try:
            check(place, recipe)
        except ParamsError as error:
            found.append(str(error))
    if found:
        raise ParamsError("; ".join(found))


def check_task(place: str, recipe: EntryRecipe) -> None:
    """Refuse a data set of another task, and options of another task."""
    data, train, task = recipe.data, recipe.train, recipe.data.task
    if task not in data.spec.TASKS:
        what = f"{data.set!r} is for {' or '.join(data.spec.TASKS)}, models/{recipe.arch}.py"
        raise ParamsError(f"{place}.data.set: {what} is for {task}; choose another of the two")
    losses = LOSSES.get(task, ("auto",))
    if train.loss not in losses:
        raise ParamsError(
            f"{place}.train.loss: {train.loss!r} is not for {task}; choices: {', '.join(losses)}"
        )
    if train.loss == "softmax-clip" and (train.mixup or train.cutmix):
        what = "expected cross-entropy for mixed labels, got softmax-clip"
        raise ParamsError(f"{place}.train.loss: {what}; or leave mixup and cutmix out")
    if train.nesterov and (train.optimizer != "sgd" or not train.momentum):
        what = f"expected sgd with a momentum, got {train.optimizer}, momentum {train.momentum:g}"
        raise ParamsError(f"{place}.train.nesterov: {what}; leave nesterov out")
    if isinstance(data, SeriesData):
        check_forecast(place, recipe, data)
    elif data.standardise == "imagenet" and data.colour != "rgb":
        raise ParamsError(
            f"{place}.data.colour: standardise: imagenet is for three channels; set rgb"
        )
    elif task != "classification" and data.fit != "stretch":
        what = f"expected stretch for {task}, whose targets would be cut, got {data.fit!r}"
        raise ParamsError(f"{place}.data.fit: {what}")
    if isinstance(data, ImageData):
        check_layout(place, recipe, data)
    augment = train.augment
    own = {  # keys that some tasks alone have
        "train.augment": (["classification", "segmentation"], train.augment),
        "train.augment.policy": (["classification"], augment and augment.policy != "none"),
        "train.augment.erase": (["classification"], augment and augment.erase),
        "train.mixup": (["classification"], train.mixup),
        "train.cutmix": (["classification"], train.cutmix),
        "train.balance": (["segmentation"], train.balance),
        "head": (["classification"], recipe.head),
        "saliency": (["classification"], recipe.saliency),
        "synthesis": (["classification"], recipe.synthesis),
        "streaming": (["forecasting"], recipe.streaming),
        "train.start": (["forecasting"], train.start != "random"),
    }
    for key, (owners, value) in own.items():
        if value and task not in owners:
            whose = " and ".join(owners)
            raise ParamsError(f"{place}.{key}: it is for {whose}, not for {task}; leave it out")
    if recipe.saliency and recipe.on_features:
        raise ParamsError(f"{place}.saliency: a head on features has no gradients; leave it out")


def needs_array(recipe: EntryRecipe, data: ImageData) -> str | None:
    """Return why the training split of a recipe cannot be in shards, None where it can."""
    if data.task != "classification":
        return f"{data.task} needs its targets in memory"
    if recipe.on_features:
        return "a head on features needs all images at once"
    if getattr(data.spec, "camera", None):
        return "`camera:` changes decoded images"
    return None


def check_layout(place: str, recipe: EntryRecipe, data: ImageData) -> None:
    """Refuse shards where they cannot be, and keys of stage data that would change nothing."""
    if data.layout == "shards" and (reason := needs_array(recipe, data)):
        raise ParamsError(f"{place}.data.layout: expected array, since {reason}, got shards")
    if data.task != "classification" and data.on_undecodable == "skip":
        what = f"expected error for {data.task}, whose targets are counted, got skip"
        raise ParamsError(f"{place}.data.on_undecodable: {what}")
    if data.on_undecodable == "skip" and getattr(data.spec, "camera", None):
        what = "expected error, since `camera:` decodes every image before, got skip"
        raise ParamsError(f"{place}.data.on_undecodable: {what}")


def check_crop(place: str, recipe: EntryRecipe) -> None:
    """Refuse a random part of a photo where the photo is not kept, or the part has no room."""
    data, augment = recipe.data, recipe.train.augment
    if augment is None or augment.crop == "none" or not isinstance(data, ImageData):
        return
    if data.layout != "shards":
        what = f"{augment.crop} cuts photos, expected data.layout: shards, got {data.layout!r}"
        raise ParamsError(f"{place}.train.augment.crop: {what}")
    if augment.crop == "random" and data.shorter_px is None:
        what = "random cuts out of a photo of data.shorter_px pixels, which is missing"
        raise ParamsError(f"{place}.train.augment.crop: {what}; set it, with fit: crop")


def check_effects(place: str, recipe: EntryRecipe) -> None:
    """Refuse keys that are set and would change nothing."""
    train = recipe.train
    blocks: dict[str, Part | None] = {"data": recipe.data, "train": train}
    blocks["train.augment"] = train.augment
    for name, key, other, values in EFFECTIVE:
        block = blocks[name]
        given = getattr(block, other, values[0])
        if block and key in block.model_fields_set and given not in values:
            cure = f"leave it out, or write `{key}: null` beside `{other}: {given}`"
            raise ParamsError(f"{place}.{name}.{key}: it is for {other}: {values[0]}; {cure}")


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
    if recipe.streaming and data.intervals == "scaled":
        what = "intervals: scaled needs the whole window at every step"
        raise ParamsError(
            f"{place}.streaming: {what}; set intervals: fixed, or leave streaming out"
        )


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
    if not epochs and not weights and not head and recipe.train.start == "random":
        raise ParamsError(
            f"{place}.train.epochs: 0 is for published weights; add `weights:` or train an epoch"
        )
    standardise = getattr(recipe.data, "standardise", None)
    imagenet = weights and weights.file == "imagenet"
    whole = not head and not network_options.takes_start_weights(recipe.arch)
    known = class_count(recipe.data.spec) if imagenet and whole else None
    if known not in (None, 1000):
        raise ParamsError(
            f"{place}.weights.file: expected weights of {known} classes, as data.set has, got"
            f" ImageNet's 1,000; {head_cure(recipe)}"
        )
    if imagenet and standardise != "imagenet":
        what = f"expected imagenet, as the published weights were trained, got {standardise}"
        raise ParamsError(f"{place}.data.standardise: {what}")


def head_cure(recipe: schema.Training) -> str:
    """Return how published weights get a layer for other classes."""
    assert recipe.weights
    net = f", net: {{name: {recipe.net['name']}}}" if "name" in recipe.net else ""
    weights = f"{{file: {recipe.weights.file}, licence: {recipe.weights.licence}}}"
    backbone = f"backbone: {{arch: {recipe.arch}{net}, weights: {weights}}}"
    return f"write `{backbone}` and `head: {{kind: best}}` in place of arch, net and weights"


def class_count(spec: Any) -> int | None:
    """Return the number of a dataset's classes, or None where stage data alone finds it out."""
    if named := getattr(spec, "classes", None) or getattr(spec, "names", None):
        return len(named)
    if isinstance(spec, schema.DigitsSet):
        return 10
    if isinstance(spec, schema.FolderSet) and spec.labels == "folders":
        root = paths.located(spec.path)
        train = [path for path in root.glob("*/") if path.name.lower() in ("train", "training")]
        return sum(not path.name.startswith(".") for path in (*train, root)[0].glob("*/")) or None
    return None


def overlay(base: Layer, over: Layer) -> Layer:
    """Return `base` with the keys of `over`, merged mapping by mapping; `augment` is replaced."""
    merged = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "augment"
        merged[key] = overlay(merged[key], value) if both else copy.deepcopy(value)
    return merged


def check_options(place: str, recipe: EntryRecipe) -> None:
    """Refuse options of the network that do not fit each other or the data."""
    data = recipe.data
    if isinstance(data, ImageData):
        channels = 1 if data.colour == "grey" else 3
        known: dict[str, Any] = {"in_channels": channels, "size": tuple(data.size)}
    else:
        known = {"context": data.context, "horizon": data.horizon}
    try:
        network_options.check_rules(recipe.arch, known | recipe.net)
    except ParamsError as error:
        raise ParamsError(f"{place}: {error}") from None
