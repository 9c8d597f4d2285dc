"""The task of a recipe: from its architecture, with a data set and options that fit it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recipes import IMAGE_RECIPE, ROOT, SERIES_RECIPE, SETS

from pipeline.core.errors import ParamsError
from pipeline.params import load, network_options
from pipeline.params.schema import DataPart, EntryRecipe

Resolve = Callable[..., EntryRecipe]
MASKS = {"source": "masks", "path": "rooms", "licence": "own"}
COCO = {"source": "coco", "path": "instances.json", "licence": "own"}
ALL = SETS | {"scenes": {"source": "scenes"}, "rooms": MASKS, "own": COCO}
DETECT = {"arch": "fasterrcnn", "data": {"set": "scenes", "size": [80, 80], "colour": "rgb"}}
LABEL = DETECT | {"arch": "farabet"}
CAPTION = DETECT | {"arch": "captioner"}


@pytest.mark.parametrize(
    ("recipe", "task"),
    [
        (IMAGE_RECIPE, "classification"),
        (SERIES_RECIPE, "forecasting"),
        (DETECT, "detection"),
        (LABEL, "segmentation"),
        (CAPTION, "captioning"),
    ],
)
def test_the_architecture_decides_the_task(resolved: Resolve, recipe: Any, task: str) -> None:
    """It stands in what stage data reads; what the data give is no option of the network."""
    made = resolved(recipe, ALL)
    read = DataPart.model_validate_json(made.model_dump_json(include={"data"}))
    assert read.data.task == made.data.task == task
    assert not {"in_channels", "size", "classes", "words", "longest", "horizon"} & made.net.keys()


def test_a_task_of_no_stage_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_options, "MODELS", tmp_path)
    text = 'TASK = "detektion"\n\n\nclass A:\n    def __init__(self, classes):\n        pass\n\n\n'
    (tmp_path / "mine.py").write_text(f"{text}Model = A\n")
    with pytest.raises(ParamsError, match=r"models/mine.py TASK: unknown task 'detektion'; did"):
        network_options.task_of("mine")
    (tmp_path / "mine.py").write_text(text.partition("\n")[2] + "Model = A\n")
    assert network_options.task_of("mine") == "classification"


MISMATCHES: list[tuple[Any, dict[str, Any], str]] = [
    (
        IMAGE_RECIPE | {"data": DETECT["data"]},
        {},
        "data.set: 'scenes' is for detection or segmentation or captioning, models/fcnn.py is for "
        "classification; choose another of the two",
    ),
    (
        DETECT,
        {"data": {"set": "digits"}},
        "data.set: 'digits' is for classification, models/fasterrcnn.py is for detection; choose",
    ),
    (DETECT, {"data": {"set": "rooms"}}, "data.set: 'rooms' is for segmentation, models/fasterr"),
    (
        DETECT,
        {"data": {"fit": "crop", "shorter_px": 90}},
        "data.fit: expected stretch for detection, whose targets would be cut, got 'crop'",
    ),
    (
        CAPTION,
        {"train": {"augment": {"rotate": 5}}},
        "train.augment: it is for classification and segmentation, not for captioning; leave it out",
    ),
    (LABEL, {"saliency": True}, "saliency: it is for classification, not for segmentation; leave"),
    (LABEL, {"synthesis": True}, "synthesis: it is for classification, not for segmentation"),
    (DETECT, {"streaming": True}, "streaming: it is for forecasting, not for detection; leave it"),
    (DETECT, {"train": {"balance": 0.5}}, "train.balance: it is for segmentation, not for detect"),
    (
        CAPTION,
        {"train": {"loss": "mse"}},
        "train.loss: 'mse' is not for captioning; choices: auto",
    ),
    (DETECT, {"net": {"classes": 10}}, "net.classes: unknown key"),
    (
        SERIES_RECIPE,
        {"arch": "fasterrcnn", "net": None},
        "arch: models/fasterrcnn.py does not take series, since its __init__ has no `horizon`",
    ),
]


@pytest.mark.parametrize(("recipe", "blocks", "sentence"), MISMATCHES)
def test_what_does_not_fit_the_task_is_one_sentence(
    resolved: Resolve, recipe: Any, blocks: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ParamsError) as error:
        resolved(recipe, ALL, **blocks)
    assert f"models.tiny.{sentence}" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"source": "scenes", "size": [80, 40]}, "data.mine.size[1]: expected at least 64, got 40"),
        ({"source": "scenes", "digits": [4, 2]}, "expected [least, largest], got [4, 2]"),
        ({"source": "scenes", "digits": [1, 9]}, "data.mine.digits[1]: expected at most 6, got 9"),
        ({"source": "coco", "path": "a.json"}, "data.mine.licence: missing; add it (text)"),
        ({**MASKS, "classes": []}, "data.mine.classes: expected at least one value, got []"),
        ({**COCO, "classes": ["cat"]}, "data.mine.classes: unknown key"),
        ({"source": "scene"}, "data.mine.source: unknown source 'scene'; did you mean 'scenes'?"),
    ],
)
def test_a_malformed_set_is_one_sentence(spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ParamsError) as error:
        load.check_set("mine", spec)
    assert sentence in str(error.value)


def test_a_study_of_another_task_measures_what_any_network_has(
    workspace: Path, resolved: Resolve
) -> None:
    every = load.load(ROOT / "params.yaml")
    study = every.studies["gradient-flow"].updated(
        recipe="farabet-scenes", base={}, settings={"a": {}}, measures=["parameters"]
    )
    load.check_study("mine", study, every)
    with pytest.raises(ParamsError, match=r"studies.mine.measures: 'accuracy' is none for segm"):
        load.check_study("mine", study.updated(measures=["accuracy"]), every)
