"""The command: what it says, what it writes, and what the line makes of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import convline
import line
import numpy as np
import pytest
import torch
from PIL import Image
from recipes import ROOT, copy_params

import models
from pipeline.core.errors import ParamsError, StageError
from pipeline.new import __main__ as command
from pipeline.new import images
from pipeline.new.image_folder import ImageFolder
from pipeline.params import load as params
from pipeline.params.schema import FolderSet


@pytest.fixture
def place(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace with params.yaml, a models/ of its own, and no data or weights elsewhere."""
    copy_params(workspace)
    (workspace / "models").unlink()
    (workspace / "models").mkdir()
    for file in (ROOT / "models").glob("*.py"):
        (workspace / "models" / file.name).symlink_to(file)
    monkeypatch.setenv("TORCH_HOME", str(workspace / "weights"))
    monkeypatch.delenv("DATA_ROOT", raising=False)
    return workspace


def write_photos(folder: Path, classes: dict[str, int], side: int = 72, grey: bool = False) -> Path:
    """Write images of noise, whose brightness is that of their class."""
    rng = np.random.default_rng(0)
    for k, (name, count) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 60, (side, side, 3)) + 180 * k // (len(classes) - 1)
            pixels = pixels[:, :, :1].repeat(3, 2) if grey else pixels
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def call(*arguments: object) -> None:
    words = [str(argument) for argument in arguments]
    if words[0] == "net":
        command.network_entry(words[1:], standalone_mode=False)
    else:
        command.data_entry(words, standalone_mode=False)


def recipe(name: str) -> Any:
    return params.load().models[name]


def test_a_dry_run_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = (place / "params.yaml").read_bytes()
    folder = write_photos(place / "photos", {"cat": 8, "dog": 8})
    call("pets", "--images", folder, "--dry-run")
    call("net", "mynet", "--dry-run")
    said = capsys.readouterr().out
    assert "classes   2: cat 8, dog 8" in said and "  pets: {source: folder, path: photos" in said
    assert "class Mynet(nn.Module)" in said and "    arch: mynet\n" in said
    assert (place / "params.yaml").read_bytes() == old and not (place / "models/mynet.py").exists()


def test_the_entry_and_the_next_commands(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_photos(place / "photos", {"cat": 8, "dog": 8})
    call("pets", "--images", folder, "--licence", "CC BY 4.0 (me)")
    said = capsys.readouterr().out
    assert "data.pets, models.pets of params.yaml" in said
    next_ones = re.findall(r"^   ([a-z].*?)   +\S", said.partition("\nnext\n")[2], re.M)
    assert next_ones == [
        "dvc repro infer@pets",
        "infer images pets PHOTO",
        "dvc repro explain@pets && python -m pipeline.report",
    ]
    made = params.load()
    assert made.line[-1] == "pets" and made.sets["pets"].licence == "CC BY 4.0 (me)"
    with pytest.raises(StageError, match=r"params\.yaml has models\.pets already"):
        call("pets", "--images", folder)


def test_run_calls_dvc_with_this_python(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages run `python`: it must be this one, in a shell without the virtual environment."""
    calls: list[tuple[list[str], str]] = []

    def fake(words: list[str], env: dict[str, str], **options: Any) -> Any:
        calls.append((words[1:], env["PATH"].split(":")[0]))
        return subprocess.CompletedProcess(words, 3)

    monkeypatch.setattr("subprocess.run", fake)
    folder = write_photos(place / "photos", {"cat": 8, "dog": 8})
    with pytest.raises(SystemExit) as ended:
        call("pets", "--images", folder, "--run")
    here = str(Path(sys.executable).parent)
    assert ended.value.code == 3 and calls == [
        (["-m", "pipeline.line.dvc", "--wait-for-lock", "repro", "infer@pets"], here)
    ]


@pytest.mark.parametrize("better", [True, False])
def test_run_ends_with_what_is_worse_than_its_baseline(
    better: bool, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence of check.json, below all others."""
    sentence = "worse than seasonal naive: ship the baseline? MASE 2 against 1, 2.00 times"
    results = place / "results" / "pets" / "check.json"
    results.parent.mkdir(parents=True)
    beside = {"better": better, "sentence": sentence}
    results.write_text(json.dumps({"against_baseline": beside}), encoding="utf-8")
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr("subprocess.run", lambda words, **options: done)
    call("pets", "--images", write_photos(place / "photos", {"cat": 8, "dog": 8}), "--run")
    last = capsys.readouterr().out.splitlines()[-1]
    assert (last == f"✗ {sentence}") is not better


@pytest.mark.parametrize(
    "arguments, answer",
    [
        ([], "no data named; add --images FOLDER"),
        (["--images", "photos", "--licence", " "], "--licence is empty"),
        (["--images", "photos", "--arch", "mobilenet_v2"], "torchvision are given with --from"),
        (["--images", "photos", "--arch", "resnet20", "--from", "mobilenet_v2"], "give one of them"),
        (["--images", "photos", "--arch", "rsnet20"], "no network 'rsnet20'; did you mean 'resnet20'"),
        (["--images", "photos", "--arch", "tcn"], "no network 'tcn'"),
        (["--images", "photos", "--from", "mobilnet"], "got 'mobilnet'; nearest are mobilenet_v2"),
        (["--images", "photos", "--from", "mobilenet_v2", "--weights", "no.pth"], "no.pth is not here"),
        (["--images", "photos", "--weights", "mine.pth"], "begins with no network's; add --from"),
    ],
)  # fmt: skip
def test_options_that_are_refused(place: Path, arguments: list[str], answer: str) -> None:
    old = (place / "params.yaml").read_bytes()
    write_photos(place / "photos", {"cat": 8, "dog": 8})
    with pytest.raises(StageError, match=re.escape(answer)) as error:
        call("pets", *arguments)
    assert "\n" not in str(error.value) and (place / "params.yaml").read_bytes() == old


def save_weights(place: Path, name: str, file: str, classes: int) -> None:
    size = {"in_channels": 3, "size": (64, 64)}
    net = models.build("zoo", **size, classes=classes, name=name).net
    (place / "weights").mkdir(exist_ok=True)
    torch.save(net.state_dict(), place / "weights" / file)


def test_weights_of_another_number_of_classes_are_a_backbone(place: Path) -> None:
    folder = write_photos(place / "photos", {"cat": 8, "dog": 5})
    save_weights(place, "squeezenet1_1", "squeezenet1_1-mine.pth", classes=17)
    call("pets", "--images", folder, "--weights", "squeezenet1_1-mine.pth")
    made = recipe("pets")
    assert made.net == {"name": "squeezenet1_1"} and made.head.folds == 3  # dogs for training
    assert made.weights.file == "squeezenet1_1-mine.pth" and made.data.standardise == "imagenet"
    with pytest.raises(StageError, match=r"does not fit models/zoo\.py"):
        call("more", "--images", folder, "--from", "mobilenet_v2", "--weights", "squeezenet1_1-mine.pth")  # fmt: skip


def test_weights_at_hand_are_used_for_photos(place: Path) -> None:
    """Not for small or grey images, and not where --arch asks for another network."""
    save_weights(place, "squeezenet1_1", "squeezenet1_1-imagenet.pth", classes=1000)
    photos = write_photos(place / "photos", {"cat": 8, "dog": 8})
    small = write_photos(place / "small", {"cat": 8, "dog": 8}, side=40)
    grey = write_photos(place / "grey", {"cat": 8, "dog": 8}, grey=True)
    call("pets", "--images", photos)
    call("tiny", "--images", small)
    call("grey", "--images", grey)
    call("asked", "--images", photos, "--arch", "resnet20")
    made = params.load().models
    assert made["pets"].weights and made["pets"].weights.licence == "Apache-2.0 (ONNX model zoo)"
    assert not any(made[name].weights for name in ("tiny", "grey", "asked"))


def test_torchvisions_own_weights_are_found(place: Path) -> None:
    (place / "weights/hub/checkpoints").mkdir(parents=True)
    assert images.find_weights("mobilenet_v2") is None
    (place / "weights/hub/checkpoints/mobilenet_v2-7ebf99e0.pth").touch()
    assert images.find_weights("mobilenet_v2") == "imagenet"


@pytest.mark.slow
def test_photos_become_a_served_prediction(place: Path) -> None:
    """By the stages themselves. Two classes that differ in brightness are told apart."""
    folder = write_photos(place / "photos", {"cat": 12, "dog": 12})
    call("pets", "--images", folder)
    line.run("params")
    for stage in ("data", "train", "export", "check", "package"):
        line.run(stage, "pets")
    photos = sorted(folder.glob("*/0.png"))
    assert convline.load("out/dist/pets").predict(photos).tolist() == ["cat", "dog"]


TRAIN = """
import convline
import line
line.run("params")
line.run("data", "my-net-digits")
line.run("train", "my-net-digits")
"""


@pytest.mark.slow
def test_a_new_network_trains_as_it_is(place: Path) -> None:
    """In a process whose models/ is the one here."""
    call("net", "my_net")
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}:{place}"}
    subprocess.run([sys.executable, "-c", TRAIN], env=environment, check=True, capture_output=True)
    history = json.loads((place / "out/my-net-digits/train/history.json").read_text())
    assert history[-1]["validation_accuracy"] > 0.95


def test_a_network_goes_with_its_entry(place: Path) -> None:
    """Where params.yaml cannot be extended, no file is left in models/."""
    text = (place / "params.yaml").read_text()
    (place / "params.yaml").write_text(text.replace("  digits: &digits", "  other: &digits"))
    with pytest.raises(ParamsError):
        call("net", "mynet")
    assert not (place / "models" / "mynet.py").exists()


@pytest.mark.parametrize(
    "count, side, grey, chosen",
    [
        (60_000, 28, True, ("cnn2", [28, 28], "grey", 20, 32, images.TURNED)),
        (300, 100, True, ("cnn2", [64, 64], "grey", 60, 32, images.VARIED)),
        (4500, 32, False, ("resnet", [32, 32], "rgb", 28, 64, images.CROPPED)),
        (4500, 300, False, ("resnet", [64, 64], "rgb", 28, 64, images.VARIED)),
        (234, 256, False, ("cnn2", [64, 64], "rgb", 60, 32, images.VARIED)),
        (50, 5, False, ("cnn2", [8, 8], "rgb", 60, 8, images.CROPPED)),
    ],
)
def test_the_network_follows_number_size_and_colour(
    count: int, side: int, grey: bool, chosen: tuple[Any, ...]
) -> None:
    seen = ImageFolder(
        data_set=FolderSet(source="folder", path="photos", licence="own"),
        counts={"cat": count, "dog": count},
        splits={"train": count, "validation": count, "test": count},
        rarest=count,
        drawn=True,
        widths=(side, side),
        heights=(side, side),
        shorter_side=side,
        grey=grey,
        left_out=0,
    )
    made, why = images.from_scratch(None, seen)
    data, train = made["data"], made["train"]
    got = made["arch"], data["size"], data["colour"], train["epochs"], train["batch"]
    assert (*got, train["augment"]) == chosen and str(count) in why


def test_an_asked_network_keeps_its_options(place: Path) -> None:
    """Net and optimizer of the recipe by which it is called, and its least size of images."""
    taken = params.load()
    folder = write_photos(place / "photos", {"cat": 8, "dog": 8}, side=20)
    made = images.propose("pets", folder, "alexnet2x2", None, None, "own", taken).recipe
    model = taken.models["alexnet2x2-digits"]
    assert made["net"] == model.net and made["net"]["pool"] == "separate"
    assert made["data"]["size"] == [67, 67] and made["train"]["lr"] == model.train.lr
    assert made["train"]["epochs"] == 60
