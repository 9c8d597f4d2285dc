"""Where the training split may be in shards, and the keys of `data:` that belong to it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recipes import IMAGE_RECIPE, SETS, TRANSFERS
from ruamel.yaml import YAML

from models import ltsflinear
from pipeline.core.errors import ParamsError
from pipeline.params import load, schema
from pipeline.params.recipe import built_on
from pipeline.params.schema import EntryRecipe

Resolve = Callable[..., EntryRecipe]
CAMERA = SETS | {"digits": SETS["digits"] | {"camera": {"noise": 3.0}}}
DETECT = {"arch": "fasterrcnn", "data": {"set": "scenes", "size": [80, 80], "colour": "rgb"}}
HEAD = {"weights": {"file": "w.pth", "licence": "own"}, "head": {"kind": "linear"}}
SCENES = {"scenes": {"source": "scenes"}}

REFUSED: list[tuple[Any, dict[str, Any], dict[str, Any], str]] = [
    (DETECT, SCENES, {"layout": "shards"}, "layout: expected array, since detection needs its tar"),
    (DETECT, SCENES, {"on_undecodable": "skip"}, "on_undecodable: expected error for detection, "),
    (IMAGE_RECIPE | HEAD, SETS, {"layout": "shards"}, "layout: expected array, since a head on f"),
    (IMAGE_RECIPE, CAMERA, {"layout": "shards"}, "layout: expected array, since `camera:` changes"),
    (IMAGE_RECIPE, CAMERA, {"on_undecodable": "skip"}, "on_undecodable: expected error, since `ca"),
    (IMAGE_RECIPE, SETS, {"longest_side": 99}, "longest_side: it is for layout: shards; leave it"),
    (
        IMAGE_RECIPE,
        SETS,
        {"layout": "shards", "longest_side": 7},
        "longest_side: expected at least 8 pixels, the size of the input or of its crop, got 7",
    ),
    (IMAGE_RECIPE, SETS, {"layout": "tar"}, "layout: unknown value 'tar'; .*array, auto, shards"),
    (IMAGE_RECIPE, SETS, {"max_skipped": 2.0}, "max_skipped: "),
    (IMAGE_RECIPE, SETS, {"shard_mb": 0.0}, "shard_mb: "),
]


@pytest.mark.parametrize(("recipe", "sets", "data", "sentence"), REFUSED)
def test_a_layout_that_cannot_be_is_refused(
    resolved: Resolve, recipe: Any, sets: Any, data: Any, sentence: str
) -> None:
    with pytest.raises(ParamsError, match=f"models.tiny.data.{sentence}") as error:
        resolved(recipe, sets, data=data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("recipe", "sets"), [(DETECT, SCENES), (IMAGE_RECIPE | HEAD, SETS), (IMAGE_RECIPE, CAMERA)]
)
def test_auto_is_an_array_where_shards_cannot_be(resolved: Resolve, recipe: Any, sets: Any) -> None:
    """Stage data, which cannot see the head, finds the answer in what is laid out for it."""
    made = resolved(recipe, sets, data={"layout": "auto"})
    assert made.data.layout == "array"  # type: ignore[union-attr]


def test_the_default_is_an_array_and_auto_stays_where_shards_can_be(resolved: Resolve) -> None:
    made = [
        resolved(IMAGE_RECIPE, data=data).data
        for data in ({}, {"layout": "auto"}, {"layout": "shards"})
    ]
    assert [data.layout for data in made] == ["array", "auto", "shards"]  # type: ignore[union-attr]


@pytest.mark.parametrize("layout", ["shards", "auto"])
def test_keys_with_an_effect_are_accepted(resolved: Resolve, layout: str) -> None:
    keys = {"layout": layout, "shard_mb": 2.0, "on_undecodable": "skip", "max_skipped": 0.1}
    augment: dict[str, Any] = {"policy": "randaugment", "magnitude": 5}
    if layout == "shards":
        augment |= {"crop": "random_resized", "area": [0.5, 1.0], "aspect": [1.0, 1.5]}
    made = resolved(IMAGE_RECIPE, data=keys, train={"augment": augment})
    assert made.data.shard_mb == 2.0 and made.train.augment.magnitude == 5  # type: ignore[union-attr]


def test_what_is_built_on_a_backbone_keeps_its_own_images(resolved: Resolve) -> None:
    """A head on features needs arrays, also on a backbone whose training split was in shards."""
    keys = {"layout": "shards", "shard_mb": 2.0, "longest_side": 64, "on_undecodable": "skip"}
    base = TRANSFERS["base"]
    base = base | {
        "data": base["data"] | keys,
        "full": {"data": {"set": "low", "layout": "shards"}},
    }
    built = built_on("linear", TRANSFERS | {"base": base})
    assert not set(keys) & set(built["data"]) and not set(keys) & set(built["full"]["data"])
    assert built["data"]["size"] == base["data"]["size"]
    own = TRANSFERS["tuned"] | {"data": {"set": "high", "layout": "shards"}}
    assert built_on("own", TRANSFERS | {"base": base, "own": own})["data"]["layout"] == "shards"


def test_a_layer_takes_the_keys_of_shards_away_by_null(resolved: Resolve) -> None:
    """The refusal says how; a further layer of shards has the first one's keys again."""
    keys = {"layout": "shards", "shard_mb": 2.0, "longest_side": 64}
    sharded = load.overlay(IMAGE_RECIPE, {"data": keys})
    array = load.overlay(sharded, {"data": {"layout": "array"}})
    again = resolved(load.overlay(array, {"data": {"layout": "shards"}})).data
    assert again == resolved(sharded).data and again.shard_mb == 2.0  # type: ignore[union-attr]
    cure = "leave it out, or write `longest_side: null` beside `layout: array`"
    with pytest.raises(ParamsError, match=f"longest_side: it is for layout: shards; {cure}"):
        resolved(array)
    plain = resolved(IMAGE_RECIPE).data
    nulls = {"shard_mb": None, "longest_side": None, "max_skipped": None}
    assert resolved(array, data=nulls).data == plain == resolved(IMAGE_RECIPE, data=nulls).data
    augment = {"augment": {"flip": "horizontal", "magnitude": None, "area": None}}
    assert resolved(IMAGE_RECIPE, train=augment).train.augment.magnitude == 9  # type: ignore[union-attr]


def test_a_ridge_is_for_the_closed_form(of_shop: Callable[..., EntryRecipe]) -> None:
    cure = "it is for start: closed_form; leave it out, or write `ridge: null` beside `start: rand"
    with pytest.raises(ParamsError, match=f"train.ridge: {cure}"):
        of_shop(train={"ridge": 0.1})
    assert of_shop(train={"ridge": None}).train.ridge == 1e-3
    assert of_shop(train={"ridge": 0.1, "start": "closed_form"}).train.ridge == 0.1


def test_an_unknown_kind_of_map_is_refused(of_shop: Callable[..., EntryRecipe]) -> None:
    """Before stage train, with the kinds that ltsflinear has."""
    for kind in ltsflinear.KINDS:
        of_shop(arch="ensemble", net={"normalise": [], "maps": [{"kind": kind}]})
    needed = f"expected maps of kind {', '.join(ltsflinear.KINDS)}, rank from 0, .*got .*'ridge'"
    with pytest.raises(ParamsError, match=needed):
        of_shop(arch="ensemble", net={"normalise": [], "maps": [{"kind": "ridge"}]})


def test_a_study_trains_on_arrays(workspace: Path) -> None:
    study = {
        "claim": "none",
        "recipe": "tiny",
        "settings": {"a": {}, "b": {"data": {"layout": "shards"}}},
        "seeds": [0],
        "measures": ["accuracy"],
    }
    file = {
        "line": {"tiny": "scratch"},
        "data": SETS,
        "models": {"tiny": IMAGE_RECIPE},
        "studies": {"one": study},
    }
    YAML().dump(file, workspace / "params.yaml")
    with pytest.raises(
        ParamsError,
        match=r"studies.one.settings.b.data.layout: expected array, as studies train on",
    ):
        load.load(workspace / "params.yaml")


def test_names_of_classes_are_counted(spec_of: Callable[..., Any]) -> None:
    from pipeline.params.recipe import class_count

    spec = spec_of("webdataset", path="x", names=["hat", "shoe", "sock"])
    assert class_count(spec) == 3 and isinstance(spec, schema.PackedSet)
    assert class_count(spec_of("parquet", path="x")) is None
