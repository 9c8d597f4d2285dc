"""One recipe of params.yaml: its `full:` block laid over it, its data set laid out, every block checked.

The fields of `net:` are read from the constructor in models/<arch>.py: torch stays out.
"""

from __future__ import annotations

import ast
import copy
import re
from pathlib import Path
from typing import Any

from convline.model_file.schema import QUANTILES

from pipeline.core.errors import ParamsError, hint
from pipeline.params import schema
from pipeline.params.resolved import image_rule, on_features
from pipeline.params.schema import Field, check_section

MODELS = Path("models")
SETTING = {
    "arch": Field(str, ""),
    **{key: Field(dict, {}) for key in ("data", "net", "train")},
    "weights": Field((dict, type(None)), None),
    "head": Field((dict, type(None)), None),
}
HEADS = ("softmax", "linear", "mlp", "forest", "svm-linear", "svm-rbf", "best")
HEAD = {  # what a backbone that learned something else gets for this task
    "kind": Field(
        str, choices=HEADS
    ),  # softmax: trained by the loop, in place; the others: on the backbone's features
    "layer": Field(
        str, "penultimate"
    ),  # whose output is the features: the head's input, or a layer by its name
    "folds": Field(
        int, 5, least=2
    ),  # of the cross-validation that tunes a head on features, and that chooses the best
    "copied": Field(
        (int, str), "all"
    ),  # softmax: how many of the backbone's first stages come over, weights and all
    "keep": Field(
        bool, False
    ),  # softmax: classes that the backbone knew keep their weights in the last layer
    "stages": Field(
        (int, str), 0
    ),  # softmax: how many of the backbone's last stages train too; or `all`
    "first": Field(int, 0, least=0),  # softmax: epochs in which the head trains alone
    "unfreeze": Field(
        int, 0, least=0
    ),  # softmax: then one more stage every so many epochs; 0: all at once
    "lr_factor": Field(float, 1.0, least=0),  # softmax: of the stages' learning rate to the head's
    "batch_norm": Field(
        str, "frozen", choices=("frozen", "trained")
    ),  # statistics of stages that train
}
BACKBONE = {"arch": Field(str), "net": Field(dict, {}), "weights": Field(dict)}
RECIPE = {
    **SETTING,
    "arch": Field(str),
    "full": Field(dict, {}),
    "needs": Field((str, type(None)), None),
}
RECIPE["saliency"] = Field(
    bool, False
)  # the exported file answers d score / d pixel too, for `infer explain`
RECIPE["streaming"] = Field(
    bool, False
)  # the exported file forecasts from one new sample at a time, too
RECIPE["synthesis"] = Field(
    bool, False
)  # stage explain makes pictures from the network, too: minutes


def built_on(name: Any, models: dict[Any, Any], above: tuple[Any, ...] = ()) -> Any:
    """Return the recipe of `models.<name>` with its backbone's network and input contract laid under it.

    `needs:` names another recipe, whose trained network is the backbone; `backbone:` one with published weights.
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
        raise ParamsError(
            f"{place}.head: missing; add `head: {{kind: ...}}`, one of {', '.join(HEADS)}"
        )
    if "backbone" in recipe:
        return own | check_section(f"{place}.backbone", recipe["backbone"], BACKBONE)
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


def check_recipe(
    name: Any, recipe: Any, sets: dict[str, dict[str, Any]], size: str
) -> dict[str, Any]:
    """Return the recipe of `models.<name>`, resolved for `size`; its `full:` block is checked whatever the size is."""
    place = f"models.{name}"
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", str(name)) or name in schema.RESERVED:
        raise ParamsError(
            f"{place}: names are lower-case letters, digits and single hyphens, as in lenet5-digits, and none of "
            f"{', '.join(schema.RESERVED)}"
        )
    recipe = check_section(place, recipe, RECIPE)
    check_section(f"{place}.full", recipe["full"], SETTING)
    small = resolve(place, recipe, sets)
    if not recipe["full"]:
        return small
    full = resolve(f"{place} (with its full block)", laid_full(recipe), sets)
    return full if size == "full" else small


def laid_full(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe with its `full:` block laid over it, and without the block."""
    full = recipe.get("full") or {}
    return overlay({key: value for key, value in recipe.items() if key != "full"}, full)


def resolve(place: str, recipe: Any, sets: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a recipe complete: arch, data (with its set laid out as "spec"), net, train, weights."""
    recipe = check_section(place, recipe, RECIPE)
    arch = recipe["arch"]
    if arch not in (known := architectures()):
        raise ParamsError(f"{place}.arch: unknown architecture {arch!r}; {hint(arch, known)}")
    set_name = str(recipe["data"].get("set", "none"))
    if set_name not in sets:
        raise ParamsError(
            f"{place}.data.set: unknown data set {set_name!r}; {hint(set_name, list(sets))}"
        )
    image = sets[set_name]["source"] in schema.IMAGE_SOURCES
    data = check_section(
        f"{place}.data", recipe["data"], schema.IMAGE_DATA if image else schema.SERIES_DATA
    )
    check_geometry(f"{place}.data", data) if image else check_quantiles(f"{place}.data", data)
    if not image:
        check_forecast(place, arch, recipe, data)
    if data.get("standardise") == "imagenet" and data["colour"] != "rgb":
        raise ParamsError(
            f"{place}.data.colour: standardise: imagenet is for three channels; set rgb"
        )
    train = check_train(f"{place}.train", recipe["train"], image)
    if train["loss"] == "pinball":
        train["levels"] = data["quantiles"]
    check_net(f"{place}.net", arch, recipe["net"], image)
    weights = recipe["weights"] and check_section(
        f"{place}.weights", recipe["weights"], schema.WEIGHTS
    )
    head = recipe["head"] and check_head(f"{place}.head", recipe["head"], train)
    if head and not (recipe["needs"] or weights):
        raise ParamsError(
            f"{place}.head: a head needs a trained backbone; add `needs:` or `backbone:`"
        )
    if not train["epochs"] and not weights and not head:
        raise ParamsError(
            f"{place}.train.epochs: 0 is for published weights; add `weights:` or train an epoch"
        )
    if weights and weights["file"] == "imagenet" and data.get("standardise") != "imagenet":
        what = f"expected imagenet, as the published weights were trained, got {data.get('standardise')}"
        raise ParamsError(f"{place}.data.standardise: {what}")
    if recipe["saliency"] and (not image or on_features(recipe | {"head": head})):
        raise ParamsError(
            f"{place}.saliency: only a network of images has gradients to export; leave it out"
        )
    if recipe["streaming"] and image:
        raise ParamsError(f"{place}.streaming: only series come one sample at a time; leave it out")
    return {
        "arch": arch,
        "data": {**data, "spec": sets[set_name]},
        "net": recipe["net"],
        "train": train,
        "weights": weights,
        "needs": recipe["needs"],
        "head": head,
        # off, nothing of the line changes
        **{key: True for key in ("saliency", "streaming", "synthesis") if recipe[key]},
    }


def check_head(place: str, section: Any, train: dict[str, Any]) -> dict[str, Any]:
    head = check_section(place, section, HEAD)
    for key in ("stages", "copied"):
        if isinstance(head[key], str) and head[key] != "all":
            raise ParamsError(
                f"{place}.{key}: expected a number of stages or `all`, got {head[key]!r}"
            )
        if isinstance(head[key], int) and head[key] < 0:
            raise ParamsError(f"{place}.{key}: expected at least 0, got {head[key]!r}")
    if head["kind"] != "softmax" and head["copied"] != "all":
        what = f"expected all for kind: {head['kind']}, whose backbone never trains, got {head['copied']!r}"
        raise ParamsError(f"{place}.copied: {what}; leave it out, or set kind: softmax")
    if head["kind"] == "softmax" and not train["epochs"]:
        raise ParamsError(f"{place}.kind: softmax is trained by the loop; give `train.epochs`")
    return head


def check_geometry(place: str, data: dict[str, Any]) -> None:
    try:
        image_rule(data)
    except ValueError as error:
        raise ParamsError(f"{place}: {str(error).removeprefix('ImageRule.')}") from None


def check_quantiles(place: str, data: dict[str, Any]) -> None:
    expected, holds = QUANTILES
    if not holds(data["quantiles"]):
        raise ParamsError(f"{place}.quantiles: expected {expected}, got {data['quantiles']!r}")


def check_forecast(place: str, arch: str, recipe: dict[str, Any], data: dict[str, Any]) -> None:
    """Refuse what the architecture does not offer, by the keywords of its constructor."""
    takes = constructor(arch)
    pinball = recipe["train"].get("loss") == "pinball"
    asked = {"targets": data["targets"], "calendar": data["calendar"], "quantiles": pinball}
    for key, value in asked.items():
        if value and key not in takes:
            where = "train.loss" if pinball and key == "quantiles" else f"data.{key}"
            raise ParamsError(
                f"{place}.{where}: models/{arch}.py takes no `{key}`; leave it out, or use arch: tcn"
            )
    if pinball and 0.5 not in data["quantiles"]:
        what = f"expected .5 among them for train.loss: pinball, whose forecast is the median, got {data['quantiles']}"
        raise ParamsError(f"{place}.data.quantiles: {what}")
    normalise = recipe["net"].get("normalise", "none")
    if recipe["streaming"] and normalise != "none":
        what = f"net.normalise: {normalise} needs the whole window at every step"
        raise ParamsError(f"{place}.streaming: {what}; set normalise: none, or leave streaming out")


def check_train(place: str, section: Any, image: bool) -> dict[str, Any]:
    """Return the `train:` block with defaults; a loss or an augmentation of the other task is a mistake."""
    train = check_section(place, section, schema.TRAIN)
    losses = ("auto", "cross-entropy", "softmax-clip") if image else ("auto", "mse", "pinball")
    if train["loss"] not in losses:
        kind = "images" if image else "series"
        raise ParamsError(
            f"{place}.loss: {train['loss']!r} is not for {kind}; choices: {', '.join(losses)}"
        )
    if train["steps"] and train["steps"][-1] >= train["epochs"]:
        raise ParamsError(
            f"{place}.steps: expected epochs below {train['epochs']}, got {train['steps']}; drop the last"
        )
    if train["augment"] is not None:
        if not image:
            raise ParamsError(f"{place}.augment: there is none for series; leave it out")
        train["augment"] = check_section(f"{place}.augment", train["augment"], schema.AUGMENT)
        if train["augment"]["zoom"][0] > train["augment"]["zoom"][1]:
            raise ParamsError(
                f"{place}.augment.zoom: expected [least, largest], got {train['augment']['zoom']}"
            )
    return train


def overlay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid on it, mapping by mapping; everything else of `over`, and augment, replaces."""
    merged = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "augment"
        merged[key] = overlay(merged[key], value) if both else copy.deepcopy(value)
    return merged


def check_net(place: str, arch: str, options: dict[str, Any], image: bool) -> None:
    """Compare `net:` with the keywords of the architecture's constructor, read from its source: torch stays out."""
    given = {"in_channels", "size", "classes"} if image else {"series", "horizon"}
    keywords = constructor(arch)
    if not given <= set(keywords):
        kind = "images" if image else "series"
        raise ParamsError(
            f"{place}: models/{arch}.py does not take {kind}; choose another data set or architecture"
        )
    given |= set() if image else {"context", "targets", "calendar", "quantiles"}
    fields = {key: field for key, field in keywords.items() if key not in given}
    if options and not fields:
        raise ParamsError(
            f"{place}.{next(iter(options))}: unknown option; models/{arch}.py has none"
        )
    check_section(place, options, fields)


def architectures() -> list[str]:
    """Return the names of models/*.py that define an architecture (their last line binds `Model`)."""
    return sorted(
        path.stem
        for path in MODELS.glob("*.py")
        if re.search(r"^Model = \w+", path.read_text(), re.M)
    )


# How a keyword of a constructor may be annotated so that params are checked against it; others are not.
ANNOTATIONS: dict[str, tuple[type, type | None]] = {
    "int": (int, None),
    "float": (float, None),
    "bool": (bool, None),
    "str": (str, None),
    "Sequence[int]": (list, int),
    "Sequence[str]": (list, str),
}


def constructor(arch: str) -> dict[str, Field]:
    """Return the keywords of `Model.__init__` in models/<arch>.py as fields, from its annotations and defaults."""
    source = (MODELS / f"{arch}.py").read_text()
    bound = re.findall(r"^Model = (\w+)", source, re.M)[-1]
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == bound:
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    pairs = zip(method.args.kwonlyargs, method.args.kw_defaults, strict=True)
                    return {a.arg: keyword(a, default) for a, default in pairs}
    raise ParamsError(
        f"models/{arch}.py: expected a class {bound} with an __init__ of keyword-only options"
    )


def keyword(argument: ast.arg, default: ast.expr | None) -> Field:
    """Return the field of one keyword; None stands for its own default."""
    annotation = ast.unparse(argument.annotation) if argument.annotation else ""
    kind, item = ANNOTATIONS.get(annotation, (object, None))
    return Field(kind, item=item) if default is None else Field((kind, type(None)), None, item=item)
