"""The recipe that an error ends with works: pasted, it passes stage params."""

import copy
import random
import re
from pathlib import Path
from typing import Any

import pytest
from recipes import IMAGE_RECIPE, SERIES_RECIPE, SETS
from ruamel.yaml import YAML

from pipeline.core.errors import ParamsError
from pipeline.params import load as params
from pipeline.params.recipe import built_on, check_recipe
from pipeline.params.validation_errors import BlockError
from pipeline.params.working_recipe import describe_working_recipe, flow

BACKBONE = {"arch": "zoo", "net": {"name": "mobilenet_v2"}}
AT8 = {"set": "digits", "size": [8, 8], "colour": "grey"}
MISTAKES = [
    ({}, "{arch: resnet, data: {set: digits, size: [32, 32], colour: grey}}"),
    ({"arch": "tcn"}, "{arch: tcn, data: {set: waves, context: 48, horizon: 12}}"),
    ({"data": {"set": "waves", "context": 20}}, "{arch: tcn, data: {set: waves, context: 20, "),
    ({"arch": "fcn", "data": AT8, "net": {"hiden": 3}}, "{arch: fcnn, data: {set: digits, size: [8, 8]"),
    ({"arch": "fcnn", "data": {**AT8, "set": "digts"}}, "{arch: fcnn, data: {set: digits, size: [8"),
    ({"arch": "fcnn", "data": {**AT8, "size": 9, "x": 1}}, "{arch: fcnn, data: {set: digits, size: [9, 9]"),
    ({"arch": "fcnn", "data": AT8, "epochs": 3}, "{arch: fcnn, data: {set: digits, size: [8, 8], colour: "
     "grey}, train: {epochs: 3}}"),
    ({"arch": "fcnn", "data": [1], "net": 3, "train": "x", "y": 1}, "{arch: fcnn, data: {set: digits, size: [3"),
    ({"arch": "resnet50", "data": AT8}, "{arch: resnet, data: {set: digits, size: [8, 8], colour: grey}}"),
    ({"arch": "mobilenet_v2", "data": {**AT8, "colour": "rgb"}}, "{arch: zoo, net: {name: mobilenet_v2}, "),
    ({"backbone": {"arch": "mobilenet_v2"}}, "{backbone: {arch: zoo, net: {name: mobilenet_v2}, weights: "),
    ({"backbone": BACKBONE, "head": {"kind": "mlp"}, "data": AT8}, "standardise: imagenet}, head: {kind: mlp}}"),
    ({"arch": "fcnn", "data": AT8, "head": None, "kind": "mlp"}, "{arch: resnet, data: {set: digits"),
    ({"backbone": 3, "sed": 1}, "{backbone: {arch: zoo, net: {name: mobilenet_v2}, weights: {file: imagenet"),
]  # fmt: skip


def load(recipe: Any) -> params.Params:
    content = {"line": {}, "data": SETS, "models": {"tiny": recipe}}
    YAML().dump(content, Path("params.yaml"))
    return params.load()


@pytest.mark.parametrize(("recipe", "works"), MISTAKES)
def test_the_recipe_at_the_end_of_an_error_works(
    workspace: Path, recipe: dict[str, Any], works: str
) -> None:
    with pytest.raises(ParamsError) as error:
        load(recipe)
    shown = str(error.value).split("; this works: tiny: ")[1]
    assert works in shown and "\n" not in str(error.value)
    assert load(YAML(typ="safe").load(shown)).models["tiny"].train.epochs in (0, 3, 30)


def test_all_mistakes_of_all_blocks_are_in_one_message(workspace: Path) -> None:
    """One place for each of the eight mistakes."""
    recipe = {
        "arch": "highway",
        "data": {"set": "digts", "size": [8, 8], "color": "grey"},
        "net": {"kind": "banana", "depht": 3},
        "train": {"epochs": "ten", "optimiser": "sgd"},
        "head": {"kind": "tree"},
        "epochs": 3,
    }
    with pytest.raises(ParamsError) as error:
        load(recipe)
    places = re.findall(r"models\.tiny\.([\w.]+): ", str(error.value))
    expected = "data.set data.color data.colour net.kind net.depht train.epochs train.optimiser "
    assert sorted(places) == sorted((expected + "head.kind epochs").split())


def test_what_does_not_go_together_is_in_one_message_too(workspace: Path) -> None:
    recipe = {"arch": "vgg", "data": AT8, "train": {"loss": "mse"}, "head": {"kind": "mlp"}}
    with pytest.raises(ParamsError) as error:
        load(recipe)
    message = str(error.value)
    assert "'mse' is not for classification" in message and "needs a trained backbone" in message
    assert "expected at least 32 x 32 pixels" in message


def test_wrong_values_alone_need_no_recipe(workspace: Path) -> None:
    with pytest.raises(ParamsError) as error:
        load({"arch": "fcnn", "data": {**AT8, "colour": "gray"}, "net": {"dropout": 1.5}})
    assert "did you mean 'grey'" in str(error.value) and "this works" not in str(error.value)
    assert "net.dropout: expected below 1.0, got 1.5" in str(error.value)


ZOO = {"arch": "zoo", "net": {"name": "mobilenet_v2"}, "train": {"epochs": 0}}
WEIGHTS = {"file": "imagenet", "licence": "BSD"}
COLOUR = {**AT8, "size": [64, 64], "colour": "rgb", "standardise": "imagenet"}


@pytest.mark.parametrize(("source", "classes"), [("digits", 10), ("low", 2), ("folder", 3)])
def test_weights_of_1000_classes_point_to_backbone_and_head(
    workspace: Path, source: str, classes: int
) -> None:
    """The cure, written into the recipe, passes."""
    for name in ("a", "b", "c", ".hidden"):
        (workspace / "photos" / "train" / name).mkdir(parents=True)
    sets = {
        "digits": SETS["digits"],
        "low": SETS["digits"] | {"classes": ["0", "1"]},
        "folder": {"source": "folder", "path": "photos", "licence": "own"},
    }
    recipe = {**ZOO, "data": {**COLOUR, "set": source}, "weights": WEIGHTS}
    content = {"line": {}, "data": sets, "models": {"tiny": recipe}}
    YAML().dump(content, Path("params.yaml"))
    with pytest.raises(ParamsError) as error:
        params.load()
    assert f"weights.file: expected weights of {classes} classes, as data.set has, got Im" in str(
        error.value
    )
    backbone, head = re.findall(r"`(.*?)`", str(error.value))
    cured = YAML(typ="safe").load(f"{backbone}\n{head}\n") | {"data": recipe["data"]}
    YAML().dump({**content, "models": {"tiny": cured}}, Path("params.yaml"))
    assert params.load().models["tiny"].weights


def test_imagenets_own_classes_need_no_head(workspace: Path) -> None:
    spec = {"source": "folder", "path": "photos", "licence": "own", "labels": "imagenet"}
    recipe = {**ZOO, "data": {**COLOUR, "set": "photos"}, "weights": WEIGHTS}
    content = {"line": {}, "data": {"photos": spec}, "models": {"tiny": recipe}}
    YAML().dump(content, Path("params.yaml"))
    assert params.load().models["tiny"].train.epochs == 0


def test_a_detector_takes_only_features_of_imagenet(workspace: Path) -> None:
    """Its classes may be others; its input is standardised as that of the published network."""
    recipe = {
        "arch": "fasterrcnn",
        "data": {**COLOUR, "set": "scenes"},
        "net": {"backbone": "zoo", "name": "mobilenet_v2", "stride": 8},
        "weights": WEIGHTS,
    }
    content = {"line": {}, "data": {"scenes": {"source": "scenes"}}, "models": {"tiny": recipe}}
    YAML().dump(content, Path("params.yaml"))
    assert params.load().models["tiny"].weights
    recipe["data"]["standardise"] = "channel"
    YAML().dump(content, Path("params.yaml"))
    with pytest.raises(ParamsError, match="expected imagenet, as the published weights were"):
        params.load()


ON_BACKBONE = {
    "backbone": {**BACKBONE, "weights": WEIGHTS},
    "data": COLOUR,
    "head": {"kind": "best"},
}
VALUES = (None, 3, -1, True, "x", "digits", "mobilenet_v2", [], [1], {}, {"a": 1}, 0.5, "softmax")
KEYS = "arch data net train head weights needs backbone full kind size epochs lr set dropout name"


def damage(recipe: dict[Any, Any], chance: random.Random) -> None:
    """Remove a key of some block, or set one to a value that means nothing there."""
    inner = [value for value in recipe.values() if isinstance(value, dict)]
    deeper = [value for block in inner for value in block.values() if isinstance(value, dict)]
    block = chance.choice([recipe, *inner, *deeper])
    if block and chance.random() < 0.3:
        block.pop(chance.choice(list(block)))
    else:
        block[chance.choice([*KEYS.split(), 3, *block])] = copy.deepcopy(chance.choice(VALUES))


@pytest.mark.parametrize("seed", range(4))
def test_no_damage_to_a_recipe_ends_in_a_traceback(workspace: Path, seed: int) -> None:
    """Oracle: a ParamsError or a recipe, and never another error, for 100 damaged recipes."""
    chance, suggested = random.Random(seed), 0
    sets = {name: params.check_set(name, spec) for name, spec in SETS.items()}
    for _ in range(100):
        recipe = copy.deepcopy(chance.choice([IMAGE_RECIPE, SERIES_RECIPE, ON_BACKBONE]))
        for _ in range(chance.randint(1, 4)):
            damage(recipe, chance)
        try:
            check_recipe("tiny", built_on("tiny", {"tiny": recipe}), sets, "small")
        except BlockError as error:
            suggested += bool(describe_working_recipe("tiny", recipe, error.mistakes, sets))
        except ParamsError:
            pass
    assert suggested > 50


def test_a_list_of_mappings_has_braces() -> None:
    """As params.yaml is written; without them YAML allows a mapping of one pair."""
    text = flow({"maps": [{"kind": "rlinear"}, {"kind": "linear", "rank": 2}]})
    assert text == "{maps: [{kind: rlinear}, {kind: linear, rank: 2}]}"
