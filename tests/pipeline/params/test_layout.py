"""Where the training split may be in shards, and the keys of `data:` that belong to it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recipes import IMAGE_RECIPE, SETS, TRANSFERS
from ruamel.yaml import YAML

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


def test_an_array_laid_over_shards_drops_their_keys(resolved: Resolve) -> None:
    """A layer cannot take a key away, so what `layout: array` leaves without effect goes with it;
    what stands beside `layout: array` is still refused.
    """
    keys = {"layout": "shards", "shard_mb": 2.0, "longest_side": 64}
    sharded = load.overlay(IMAGE_RECIPE, {"data": keys})
    plain = resolved(IMAGE_RECIPE).data
    assert resolved(sharded, data={"layout": "array"}).data == plain
    assert resolved(sharded, data={"layout": "auto"}).data.shard_mb == 2.0  # type: ignore[union-attr]
    with pytest.raises(ParamsError, match=r"data.shard_mb: it is for layout: shards; leave it out"):
        resolved(sharded, data={"layout": "array", "shard_mb": 3.0})
    skipping = {"on_undecodable": "skip", "max_skipped": 0.5}
    over = resolved(load.overlay(sharded, {"data": skipping}), data={"on_undecodable": "error"})
    assert over.data.max_skipped == plain.max_skipped  # type: ignore[union-attr]


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
