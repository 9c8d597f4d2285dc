"""Fine-tuning: a network trained on other classes, used for ten images a class."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convline.images.decode import read_image
from convline.model_file.document import ImageRule
from PIL import Image
from recipes import BASE, HIGH, IMAGE_RECIPE, LOW, SPECS, TRANSFERS
from torch import nn

from pipeline.core.errors import ParamsError, StageError
from pipeline.data import corruptions, prepare
from pipeline.network import build as network
from pipeline.network import features, modules, pretrained
from pipeline.params import load, recipe
from pipeline.params.schema import Camera
from pipeline.train import finetune, loop

Resolve = Callable[..., dict[str, Any]]
CPU = torch.device("cpu")

# ---- the task: some classes, few images


def test_a_task_of_some_classes_and_few_images(built, resolved: Resolve) -> None:
    """Labels are renumbered in the order of the recipe; only training is reduced; the draw follows
    its seed.
    """
    made, source = built("linear")
    assert source.about["labels"] == ["9", "7", "5"]
    assert (
        np.bincount(source.y["train"]).tolist() == [12, 12, 12] and len(source.x["validation"]) > 25
    )
    whole = prepare.make(resolved(IMAGE_RECIPE, SPECS | {"digits": LOW | {"classes": None}}).data)[
        0
    ]
    nine = {x.tobytes() for x, y in zip(whole.x["train"], whole.y["train"], strict=True) if y == 9}
    assert {x.tobytes() for x in source.x["train"][source.y["train"] == 0]} <= nine
    other = made.data.updated(spec={"draw": 5})
    assert (prepare.make(other)[0].x["train"] != source.x["train"]).any()
    assert (prepare.make(other)[0].x["test"] == source.x["test"]).all()


def test_an_unknown_class_names_those_there_are(resolved: Resolve) -> None:
    spec = load.check_set("high", HIGH | {"classes": ["9", "x"]})
    with pytest.raises(
        StageError, match=r"data.classes: 'x' is no class of the set; choices: 0, 1, 2"
    ):
        prepare.make(resolved(BASE, SPECS).data.updated(spec=spec))


def test_simulated_cameras(resolved: Resolve) -> None:
    """Blur keeps the mean, noise has its deviation, gains are gains, disorder keeps the pixels; all
    repeat.
    """
    picture = Image.fromarray(np.random.default_rng(0).integers(60, 190, (40, 30, 3), np.uint8))
    before = np.asarray(picture, float)

    def seen(**options: Any) -> np.ndarray:
        return np.asarray(
            corruptions.corrupt_image(picture, Camera(**options), 1, 2, (0, 0, 0)), float
        )

    assert (seen() == before).all()
    assert (
        seen(blur=2.0).mean() == pytest.approx(before.mean(), abs=1.5)
        and seen(blur=2.0).std() < before.std() / 3
    )
    assert (seen(noise=9.0) - before).std() == pytest.approx(9, rel=0.05)
    np.testing.assert_allclose(
        seen(colour=[1, 0.5, 0])[..., 1], np.rint(before[..., 1] / 2), atol=1
    )
    mixed = seen(scramble=True)
    assert (mixed != before).any() and (
        np.sort(mixed, axis=None) == np.sort(before, axis=None)
    ).all()
    assert (seen(scramble=True, noise=3.0) == seen(scramble=True, noise=3.0)).all()
    spec = load.check_set("low", LOW | {"camera": {"scramble": True}})
    given = resolved(BASE, SPECS).data
    whole, other = (
        prepare.make(given.updated(spec=s))[0].x["test"].reshape(-1, 64) for s in (given.spec, spec)
    )
    assert (other != whole).any() and (np.sort(other) == np.sort(whole)).all()


def write_turned_jpeg(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (6, 9, 3), np.uint8)).save(
        path, exif=exif
    )


@pytest.mark.parametrize(
    ("name", "write"),
    [
        (
            "deep.png",
            lambda p: Image.fromarray((1213 * np.arange(54)).astype(np.uint16).reshape(6, 9)).save(
                p
            ),
        ),
        (
            "clear.png",
            lambda p: Image.fromarray(np.arange(216, dtype=np.uint8).reshape(6, 9, 4)).save(p),
        ),
        ("turned.jpg", write_turned_jpeg),
        (
            "palette.gif",
            lambda p: (
                Image.fromarray(np.arange(54, dtype=np.uint8).reshape(6, 9)).convert("P").save(p)
            ),
        ),
    ],
)
@pytest.mark.parametrize("colour", ["grey", "rgb"])
def test_a_camera_that_changes_nothing_changes_no_pixel(
    tmp_path: Path, name: str, write: Callable[[Path], None], colour: str
) -> None:
    """`read_image` is the reference; 16-bit pictures were once all white through a camera."""
    write(tmp_path / name)
    taken = corruptions.corrupt_image(tmp_path / name, Camera(), 1, 2, (200, 10, 30))
    rule = ImageRule((6, 5), colour, background=(200, 10, 30))
    np.testing.assert_array_equal(read_image(taken, rule), read_image(tmp_path / name, rule))


# ---- what starts from what


def test_a_recipe_takes_its_backbones_network_and_contract(built, resolved: Resolve) -> None:
    made, _ = built("linear")
    assert (made.arch, made.net, made.needs) == ("cnn2", {"dropout": 0.1}, "base")
    assert made.data.size == (8, 8) and made.data.set == "high"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"needs": "bases"}, "models.linear.needs: no other recipe 'bases'; did you mean 'base'"),
        ({"needs": "linear"}, "models.linear.needs: no other recipe 'linear'"),
        ({"arch": "cnn2"}, "models.linear: expected one of arch, needs, backbone, got more"),
        ({"head": None}, None),
        (
            {"data": {"set": "high", "size": [9, 9]}},
            r"data.size: expected \[8, 8\] as its backbone base takes",
        ),
        (
            {"head": {"kind": "forests"}},
            "head.kind: unknown value 'forests'; did you mean 'forest'",
        ),
        (
            {"head": {"kind": "softmax", "stages": "most"}},
            "head.stages: expected a whole number or all, got 'most'",
        ),
        (
            {"head": {"kind": "softmax"}},
            "head.kind: softmax is trained by the loop; give `train.epochs`",
        ),
    ],
)
def test_contradictory_recipes_are_errors(
    resolved: Resolve, change: dict[str, Any], sentence: str | None
) -> None:
    models = {**TRANSFERS, "linear": {**TRANSFERS["linear"], **change}}
    if sentence is None:
        models["linear"].pop("head")
        sentence = "models.linear.head: missing; add"
    with pytest.raises(ParamsError, match=sentence):
        resolved(recipe.built_on("linear", models), SPECS)


def test_all_but_the_last_layer_is_taken_over(built, base_state: dict[str, torch.Tensor]) -> None:
    """Weights, statistics and normalization are the backbone's; the last layer is new, for three
    classes.
    """
    made, source = built("tuned")
    net = network.build(made, source)
    pretrained.load_start_weights(net, made, source.about["labels"], base_state)
    for key, tensor in net.state_dict().items():
        if key.startswith("net.head."):
            assert len(tensor) == 3
        else:
            torch.testing.assert_close(tensor, base_state.state[key], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("head", "epochs", "refused"),
    [
        (
            {"copied": 2, "stages": 0},
            5,
            "2 of 10 stages are copied, and of the 8 random others 0 train",
        ),
        ({"copied": 8, "stages": 2}, 5, ""),
        (
            {"copied": 8, "stages": 2, "first": 5},
            5,
            "2 random others 0 train within 5 epochs; set head",
        ),
        (
            {"copied": 6, "stages": 4, "unfreeze": 2},
            5,
            "4 random others 3 train within 5 epochs",
        ),
        (
            {"copied": 11},
            5,
            "head.copied: 11 asked for, the network has 10: features.0, features.1, ",
        ),
        ({"copied": "all", "stages": 0}, 5, ""),
        ({"copied": 0, "stages": "all"}, 5, ""),
    ],
)
def test_stages_that_start_at_random_are_not_frozen(
    built, base_state, head: dict[str, Any], epochs: int, refused: str
) -> None:
    """cnn2 has ten stages with weights, and stage `unfreeze` times k opens after epoch `first`."""
    made, source = built("tuned", **head)
    net = network.build(made, source)
    pretrained.load_start_weights(net, made, source.about["labels"], base_state)
    if not refused:
        finetune.parameter_groups(net, made.head, epochs)
        return
    with pytest.raises(StageError) as error:
        finetune.parameter_groups(net, made.head, epochs)
    assert refused in str(error.value)


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (
            {"kind": "linear", "copied": 2},
            "head.copied: expected all for kind: linear, whose backbone never trains, got 2",
        ),
        ({"copied": -1}, "head.copied: expected at least 0, got -1"),
        ({"stages": -3}, "head.stages: expected at least 0, got -3"),
    ],
)
def test_impossible_numbers_of_stages_are_errors(
    built, head: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ParamsError, match=sentence):
        built("tuned", **head)


def test_some_stages_are_copied_and_known_classes_keep_their_weights(built, base_state) -> None:
    """`copied: 4` takes the first two convolutions with their norms.

    With keep, class 3 has its earlier row.
    """
    made, source = built("tuned", copied=4, keep=True)
    torch.manual_seed(0)
    net = network.build(made, source)
    pretrained.load_start_weights(net, made, ["9", "3", "5"], base_state)
    same = {
        key
        for key, tensor in net.state_dict().items()
        if torch.equal(tensor, base_state.state[key])
    }
    parts = {
        key.rsplit(".", 1)[0]
        for key in same
        if key.startswith("net.features") and key.endswith("weight")
    }
    norms = {
        f"net.features.{k}" for k in (8, 11, 16)
    }  # a fresh norm's weights are ones, as they were in the beginning
    assert parts - norms == {f"net.features.{k}" for k in (0, 1, 3, 4)}
    rows = net.net.head.weight
    assert torch.equal(rows[1], base_state.state["net.head.weight"][3])
    assert (
        not torch.isclose(
            rows[[0, 2]], base_state.state["net.head.weight"][:, None].repeat(1, 2, 1)
        )
        .all(2)
        .any()
    )


def test_keys_that_do_not_match_are_named(built, base_state: dict[str, torch.Tensor]) -> None:
    made, source = built("tuned")
    wrong = {f"module.{key}": tensor for key, tensor in base_state.state.items()}
    with pytest.raises(
        StageError,
        match=r"base does not fit models/cnn2.py: missing mean, scale, .* and \d+ more; "
        r"unexpected .*; was module.mean meant for mean\?",
    ):
        pretrained.load_start_weights(
            network.build(made, source), made, [], pretrained.Base(wrong, base_state.labels)
        )


def test_a_file_without_counters_of_batches_fits(built, base_state: pretrained.Base) -> None:
    """Networks saved before PyTorch 0.4.1 have none; all other tensors are required."""
    made, source = built("tuned")
    old = {
        key: tensor
        for key, tensor in base_state.state.items()
        if not key.endswith("num_batches_tracked")
    }
    assert len(old) < len(base_state.state)
    net = network.build(made, source)
    pretrained.load_start_weights(net, made, [], pretrained.Base(old, base_state.labels))
    assert torch.equal(net.state_dict()["net.features.0.weight"], old["net.features.0.weight"])
    del old["net.features.1.running_mean"]
    with pytest.raises(StageError, match=r"missing net\.features\.1\.running_mean"):
        pretrained.load_start_weights(net, made, [], pretrained.Base(old, base_state.labels))


# ---- features


def test_features_of_a_layer(built, base_state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Penultimate: the input of the last layer. A layer of maps: their means over the places."""
    made, source = built("linear")
    net = network.build(made, source)
    pretrained.load_start_weights(net, made, source.about["labels"], base_state)
    net.eval()
    images = source.x["validation"]
    found = features.compute(features.Backbone(net, "penultimate"), images, "v", CPU)
    with torch.no_grad():
        logits = net.net.head(torch.from_numpy(found))
        expected = net.logits(torch.from_numpy(np.array(images)).permute(0, 3, 1, 2))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    maps: list[torch.Tensor] = []
    net.net.features[0].register_forward_hook(lambda module, inputs, output: maps.append(output))
    found = features.compute(features.Backbone(net, "features.0"), images[:5], "v", CPU)
    torch.testing.assert_close(torch.from_numpy(found), maps[-1].mean((2, 3)), rtol=1e-5, atol=1e-6)
    with pytest.raises(
        StageError,
        match=r"head.layer: no layer 'conv9'; there are penultimate, features.0, features.1",
    ):
        features.Backbone(net, "conv9")


def test_interrupted_features_are_resumed(built, base_state, tmp_path: Path, monkeypatch) -> None:
    made, source = built("linear")
    net = network.build(made, source)
    pretrained.load_start_weights(net, made, source.about["labels"], base_state)
    backbone, images = features.Backbone(net, "penultimate"), source.x["validation"]
    whole = np.array(features.compute(backbone, images, "v", CPU, tmp_path / "whole.npy"))
    monkeypatch.setattr(features, "BATCH", 1)
    file, seen = tmp_path / "part.npy", []

    def stop(module: nn.Module, inputs: Any) -> None:
        seen.append(len(inputs[0]))
        if len(seen) == 20:
            raise KeyboardInterrupt

    hook = backbone.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        features.compute(backbone, images, "v", CPU, file)
    done = len(seen)
    again = features.compute(backbone, images, "v", CPU, file)
    hook.remove()
    assert (
        isinstance(again, np.memmap) and len(seen) - done == 1 + len(images) - 18
    )  # one to see the width
    np.testing.assert_allclose(again, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("degrees", [0, 20, 60, 100, 140])
def test_hog_finds_the_direction_of_a_grating(degrees: int) -> None:
    """A grating has one direction, 20 degrees a bin; the opposite direction is the same, and so is
    a brighter image; every block has length 1.
    """
    turn = np.deg2rad(degrees)
    across = np.cos(turn) * np.arange(48) + np.sin(turn) * np.arange(48)[:, None]
    image = torch.from_numpy(100 + 40 * np.sin(0.3 * across)).float()[None, None]
    found = features.hog(image)
    blocks = found.reshape(5, 5, 9, 4)
    assert blocks.sum((0, 1, 3)).argmax() == degrees // 20
    torch.testing.assert_close((blocks**2).sum((2, 3)), torch.ones(5, 5))
    torch.testing.assert_close(features.hog(2 * image + 3), found, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(features.hog(-image), found, rtol=1e-3, atol=1e-4)
    assert features.hog(torch.zeros(2, 3, 8, 8)).shape == (2, 3 * 3 * 36)


# ---- fine-tuning


def phases(net: Any, head: dict[str, Any], epochs: int) -> list[int]:
    """Return how many stages train in each epoch."""
    found = []
    for epoch in range(epochs):
        net.train()
        finetune.freeze_stages(net, head, epoch)
        found.append(
            sum(
                all(p.requires_grad for p in part.parameters())
                for part in modules.stages(net.net).values()
            )
        )
    return found


def test_a_schedule_of_unfreezing(built, base_state) -> None:
    """The head alone for two epochs, then one more stage from the last one downwards every second
    epoch.
    """
    made, source = built("tuned", stages=3, first=2, unfreeze=2)
    net = network.build(made, source)
    assert phases(net, made.head, 9) == [0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert phases(net, made.head.updated(unfreeze=0, stages="all"), 4) == [0, 0, 10, 10]
    net.train()
    finetune.freeze_stages(
        net, made.head.updated(batch_norm="trained"), 3
    )  # the last stage, a norm, and its dropout
    assert [k for k, part in enumerate(net.net.features) if part.training] == [16, 17, 18]
    names = [
        name
        for name, part in modules.stages(net.net).items()
        if part in finetune.tuned_stages(net, made.head)
    ]
    assert names == ["features.11", "features.15", "features.16"]
    with pytest.raises(
        StageError, match=r"head.stages: 11 asked for, the backbone has 10: features.0, "
    ):
        finetune.tuned_stages(net, made.head.updated(stages=11))


@pytest.mark.parametrize("batch_norm", ["frozen", "trained"])
def test_frozen_layers_do_not_change(built, base_state, batch_norm: str) -> None:
    """After two epochs only the head and the last two stages differ; statistics only if the recipe
    says so.
    """
    made, source = built("tuned", batch_norm=batch_norm)
    net, _ = loop.fit(made, source, on=CPU, label="tuned", base=base_state)
    same = {
        key
        for key, tensor in net.state_dict().items()
        if torch.equal(tensor, base_state.state[key])
    }
    moved = set(base_state.state) - same - {"net.head.weight", "net.head.bias"}
    statistics = {
        f"net.features.16.{part}" for part in ("running_mean", "running_var", "num_batches_tracked")
    }
    weights = {f"net.features.{layer}.{part}" for layer in (15, 16) for part in ("weight", "bias")}
    assert moved == (weights | statistics if batch_norm == "trained" else weights)


def test_learning_rates_of_head_and_stages(built, base_state) -> None:
    """Plain gradient steps: with lr_factor 0 the stages stay, though they may move."""
    made, source = built("tuned", stages="all", lr_factor=0.0)
    net, _ = loop.fit(made, source, on=CPU, label="tuned", base=base_state)
    for key, tensor in net.state_dict().items():
        assert key.startswith("net.head.") or torch.equal(tensor, base_state.state[key]), key


def test_a_missing_backbone_is_an_error_with_its_command(built, workspace: Path) -> None:
    made, source = built("tuned")
    with pytest.raises(StageError, match=r"weights.pt: not made yet; run `dvc repro train@base`"):
        pretrained.load_start_weights(network.build(made, source), made, [])
