"""The lecture notes' techniques in our code, the measures of studies, and published weights."""

import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from recipes import IMAGE_RECIPE, SETS
from ruamel.yaml import YAML
from torch import nn

import models
from models import layers, stack
from pipeline.core.errors import StageError
from pipeline.data import dataset, prepare
from pipeline.export import graph as export
from pipeline.network import modules, pretrained
from pipeline.params import __main__ as params_main
from pipeline.params import load
from pipeline.study import measures
from pipeline.train import loop
from pipeline.train.checkpoint import State

STACK = {
    "in_channels": 1,
    "size": (9, 8),
    "classes": 3,
    "channels": 4,
    "kernels": [5, 3],
    "activation": "tanh",
}
CIFAR = {
    "family": "cifar",
    "depth": 20,
    "shortcut": "A",
    "batch_norm": True,
    "stride_in": "first",
    "zero_init": False,
}
WEIGHTS = {"file": "published.pth", "licence": "own"}
PUBLISHED = {
    "arch": "resnet",
    "net": CIFAR,
    "weights": WEIGHTS,
    "train": {"epochs": 0},
    "data": IMAGE_RECIPE["data"],
}
FOLDER = {
    "source": "folder",
    "path": "photos",
    "labels": "imagenet",
    "validation": 2,
    "test": 2,
    "licence": "own",
}


def run_of(recipe: Any, source: dataset.Data | None = None) -> measures.Run:
    source = source or prepare.make(recipe.data)[0]
    return measures.Run(
        recipe, source, *loop.fit(recipe, source, on=torch.device("cpu"), label="tiny")
    )


def classifier(net: nn.Module) -> modules.Classifier:
    return modules.Classifier(net.eval(), torch.full((1, 1, 1), 100.0), torch.full((1, 1, 1), 0.02))


@pytest.mark.parametrize(("padding", "edge"), [("circular", 0), ("zeros", 3)])
def test_t04_features_move_with_the_image(padding, edge):
    """Roll, then convolve = convolve, then roll, except for the last digits (measured: 2e-16):
    everywhere on a ring; with zeros, 2 + 1 pixels away from the border.
    """
    convolutions = models.build("stack", **STACK, padding=padding).double().features[:-2]
    x = torch.randn(2, 1, 14, 13, dtype=torch.float64)
    moved, there = convolutions(x.roll((2, 3), (2, 3))), convolutions(x).roll((2, 3), (2, 3))
    inside = (..., slice(2 + edge, 14 - edge), slice(3 + edge, 13 - edge)) if edge else ...
    torch.testing.assert_close(moved[inside], there[inside], rtol=0, atol=1e-12)


def test_t04_locality_and_sharing():
    """One pixel changes the (1 + 4 + 2)^2 outputs that see it, and no other.

    Every place uses the same weights, 25 * 4 + 4 of 5x5 and 9 * 4 * 4 + 4 of 3x3, for any size of
    the image.
    """
    convolutions = models.build("stack", **STACK, padding="zeros").double().features[:-2]
    x = torch.zeros(1, 1, 15, 15, dtype=torch.float64)
    before = convolutions(x)
    x[0, 0, 7, 7] = 1
    changed = (convolutions(x) != before).any(1)[0]
    assert changed[4:11, 4:11].all() and changed.sum() == 49
    assert sum(p.numel() for p in convolutions.parameters()) == 104 + 148


@pytest.mark.parametrize(("kind", "mode"), [("symmetric", "symmetric"), ("circular", "wrap")])
def test_t08_t09_padding_equals_numpy(kind, mode):
    """numpy.pad, every value equal."""
    x = np.random.default_rng(0).random((2, 3, 5, 4), np.float32)
    expected = np.pad(x, ((0, 0), (0, 0), (3, 3), (3, 3)), mode)
    np.testing.assert_array_equal(stack.Pad(3, kind)(torch.from_numpy(x)), expected)


NETS = {
    kind: lambda kind=kind: models.build("stack", **STACK, padding=kind) for kind in stack.PADDINGS
}
NETS["LRN"] = lambda: nn.Sequential(
    nn.Conv2d(1, 7, 3), layers.LocalResponseNorm(alpha=0.5), nn.Flatten()
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETS)
def test_t07_t09_t17_exported_layers_equal_torch(kind):
    """Five images, at a batch size other than the exported one. Measured: 6e-8 at most."""
    torch.manual_seed(0)
    net, x = (
        classifier(NETS[kind]()),
        np.random.default_rng(0).integers(0, 256, (5, 9, 8, 1), np.uint8),
    )
    graph = export.export_network(net, x).SerializeToString()
    (got,) = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(
        None, {"images": x}
    )
    np.testing.assert_allclose(got, export.torch_outputs(net, x)[0], rtol=0, atol=1e-6)


def test_t17_gradient_of_local_response_norm():
    """torch's layer, whose alpha is five times the paper's 1e-4; with the paper's own it is another
    layer.
    """
    x = 50 * torch.randn(
        2, 8, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    x.requires_grad_()
    ours, theirs, naive = (
        torch.autograd.grad(norm(x).square().sum(), x)[0]
        for norm in (
            layers.LocalResponseNorm(),
            *(nn.LocalResponseNorm(5, a, 0.75, 2.0) for a in (5e-4, 1e-4)),
        )
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)
    assert (ours - naive).norm() > 0.1 * ours.norm()


@pytest.mark.slow
def test_t23_t25_l1_makes_weights_sparse(resolved):
    """The same six epochs on the digits without a penalty leave .003 of the weights near zero; .15
    with L1, .11 elastic.
    """
    steady = {"epochs": 6, "schedule": "cosine", "choose": "last"}
    penalties = ({}, {"l1": 3e-3}, {"l1": 1e-3, "l2": 1e-2})
    runs = [
        run_of(resolved(IMAGE_RECIPE, net={"dropout": 0.0}, train=steady | p)) for p in penalties
    ]
    none, l1, elastic = map(measures.near_zero_weights, runs)
    assert none < 0.02 and l1 > 0.1 and elastic > 0.05


def test_t24_l2_spreads_weights_evenly(resolved, images_of):
    """CS231n's argument: for equal inputs L2 prefers w = [.25, .25, .25, .25] to [1, 0, 0, 0], L1
    does not. All pixels of an image are equal, so the loss keeps the first differences of their
    weights; L2 shrinks those to nothing. Measured: .93 without, .999 with L2, .70 with L1.
    """
    y = np.arange(600) // 3 % 2
    source = images_of(
        np.broadcast_to(100 * y[:, None, None, None], (600, 4, 4, 1)).astype(np.uint8), y
    )
    base = {"epochs": 20, "schedule": "cosine", "optimizer": "sgd", "lr": 0.05, "choose": "last"}
    net = {"hidden": [], "dropout": 0.0}
    none, l1, l2 = (
        measures.weight_diffuseness(run_of(resolved(IMAGE_RECIPE, net=net, train=base | p), source))
        for p in ({}, {"l1": 0.03}, {"l2": 0.1})
    )
    assert l1 < none < 0.95 and l2 > 0.99


@pytest.mark.parametrize(
    ("weight", "diffuseness", "near_zero"),
    [([[3.0, -3, 3, -3]], 1, 0), ([[0.0, 0, 5, 0]], 1 / 4, 3 / 4)],
)
def test_measures_of_weights(weight, diffuseness, near_zero):
    """Equal sizes give 1, one of n gives 1/n.

    The bias does not count; a second layer counts by its size.
    """
    run = measures.Run({}, None, nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 12)), State())
    run.net[0].weight.data, run.net[1].weight.data = torch.tensor(weight), torch.ones(12, 1)
    assert measures.weight_diffuseness(run) == pytest.approx((4 * diffuseness + 12) / 16, rel=1e-6)
    assert measures.near_zero_weights(run) == 4 * near_zero / 16


def test_epochs_to_settle(resolved):
    """It ends at 8, so 8 is left after epoch 1; half of that or less from epoch 3, 4 or 5 on."""
    run = run_of(resolved(IMAGE_RECIPE, net={"hidden": []}, train={"snapshots": [1, 2, 3]}))
    assert set(measures.epochs_to_settle(run)) == {"net.head.weight"}
    shape = run.net.state_dict()["net.head.weight"]
    for ends, settled in (([0, 3, 5, 7, 8], 3), ([0, 5, 3, 7, 8], 4), ([0, 0, 0, 0, 8], 5)):
        run.state.snapshots = {
            str(k): {"net.head.weight": torch.full_like(shape, w)} for k, w in enumerate(ends)
        }
        assert measures.epochs_to_settle(run) == {"net.head.weight": settled}
    run.state.snapshots.popitem()
    run.state.snapshots = dict(list(run.state.snapshots.items())[:2])
    with pytest.raises(StageError, match=r"train.snapshots of every epoch"):
        measures.epochs_to_settle(run)


def test_the_settling_lag(resolved):
    """The hidden layer settles in epoch 2 of 4, the output layer in epoch 4: a lag of 2."""
    run = run_of(resolved(IMAGE_RECIPE, train={"epochs": 4, "snapshots": [1, 2, 3, 4]}))
    names = [name for name, p in run.net.named_parameters() if p.dim() > 1]
    ways = {name: [0, 0, 0, 8] for name in names} | {names[0]: [0, 8, 8, 8]}
    for k, weights in enumerate(run.state.snapshots.values()):
        for name, way in ways.items():
            weights[name] = torch.full_like(weights[name], way[k])
    assert measures.settling_lag(run) == 4 - 2


def test_the_gaps_of_loss_and_accuracy(images_of, resolved):
    """By hand, a network whose logits are the two pixels: right by 2 nats on all four training
    images, wrong by 2 on one of the four test images.
    """
    net = modules.Classifier(nn.Flatten(), torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    labels = np.array([0, 0, 0, 1, 1, 1] * 2)
    pixels = np.where(labels[:, None] == [0, 1], 2, 0).astype(np.uint8)
    pixels[2] = [0, 2]  # the first test image
    source = images_of(pixels.reshape(12, 1, 2, 1), labels)
    run = measures.Run(resolved(IMAGE_RECIPE), source, net, State())
    right, wrong = np.log1p(np.exp(-2)), np.log1p(np.exp(2))
    assert measures.MEASURES["training loss"](run) == pytest.approx(right, rel=1e-6)
    assert measures.MEASURES["test loss"](run) == pytest.approx((3 * right + wrong) / 4, rel=1e-6)
    assert measures.loss_gap(run) == pytest.approx((wrong - right) / 4, rel=1e-6)
    assert measures.accuracy_gap(run) == 0.25


def test_dead_units(resolved, images_of):
    """One of four hidden units has weights 0 and bias -1, the others pass one pixel each: 1/4."""
    x = np.random.default_rng(0).integers(0, 256, (30, 2, 2, 1), np.uint8)
    hidden = nn.Linear(4, 4)
    hidden.weight.data, hidden.bias.data = (
        torch.diag(torch.tensor([1.0, 1, 1, 0])),
        torch.tensor([0.0, 0, 0, -1]),
    )
    net = classifier(nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(4, 2)))
    run = measures.Run(resolved(IMAGE_RECIPE), images_of(x, np.arange(30) // 3 % 2), net, State())
    assert measures.dead_units(run) == 1 / 4


@pytest.mark.parametrize(
    ("accuracies", "epochs"), [([0.5, 0.92, 0.8], 2), ([0.9], 1), ([0.5, 0.6], 3)]
)
def test_epochs_to_reach(accuracies, epochs):
    """For 90 %: the first epoch that has it, and one more than were trained if none has."""
    state = State(history=[{"validation_accuracy": value} for value in accuracies])
    assert measures.epochs_to_reach(measures.Run({}, None, None, state)) == epochs


class ThreeHeads(nn.Module):
    """Returns its weights as logits, and one and two more sets of them in training."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.aside = (nn.Parameter(torch.tensor([a, 0.0, 0.0])) for a in (1.0, 2.0))

    def forward(self, x: torch.Tensor) -> Any:
        rows = torch.ones(len(x), 1)
        return (
            (rows * self.own, rows * self.aside, rows * -self.aside)
            if self.training
            else rows * self.own
        )


def test_auxiliary_heads_count_three_tenths(resolved):
    """-log softmax of class 0 is log(e^a + 2) - a; the main head + .3 (first + second).

    A step reports the main loss only.
    """
    recipe, net = resolved(IMAGE_RECIPE), classifier(ThreeHeads()).train()
    x, y = torch.zeros(5, 1, 2, 2), torch.zeros(5, dtype=torch.int64)
    own, first, second = (np.log(np.exp(a) + 2) - a for a in (1, 2, -2))
    assert loop.loss_and_outputs(recipe, net, x, y)[0].item() == pytest.approx(
        own + 0.3 * (first + second), rel=1e-6
    )
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    assert tuple(map(float, loop.optimizer_step(recipe, net, sgd, x, y))) == pytest.approx(
        (own, 5), rel=1e-6
    )
    slope = [
        np.exp(a) / (np.exp(a) + 2) - 1 for a in (2, -2)
    ]  # of the loss of class 0 by its logit
    assert net.net.aside[0].item() == pytest.approx(2 - 0.1 * 0.3 * (slope[0] - slope[1]), rel=1e-6)


def write_state(path: Path, channels: int) -> dict[str, torch.Tensor]:
    net = models.build("resnet", in_channels=channels, size=(8, 8), classes=10, **CIFAR)
    net(torch.randn(4, channels, 8, 8))  # batch norm's statistics move
    torch.save(net.state_dict(), path)
    return net.state_dict()


def test_published_weights_ship_as_they_are(resolved, tmp_path, monkeypatch):
    """The file's own tensors, with the statistics of batch norm; one history row, of epoch 0."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    state, run = write_state(tmp_path / "published.pth", 1), run_of(resolved(PUBLISHED))
    assert all(
        torch.equal(run.net.net.state_dict()[name], tensor) for name, tensor in state.items()
    )
    assert [row["epoch"] for row in run.state.history] == [
        0
    ] and run.state.chosen is run.state.history[0]


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (
            lambda p: None,
            "weights: published.pth is not here nor below TORCH_HOME; put the state dict there, "
            "or leave",
        ),
        (
            lambda p: p.write_bytes(pickle.dumps(Path(), 2)),
            r"weights: .*published.pth cannot be read .*; give the file that torch.save wrote",
        ),
        (
            lambda p: write_state(p, 3),
            r"weights: published.pth does not fit models/resnet.py: "
            r"of another shape .* for .*; name the weights",
        ),
        (
            lambda p: torch.save(
                {k: v[:7] if k.startswith("head.") else v for k, v in write_state(p, 1).items()}, p
            ),
            r"weights: .* of another shape head.weight .* for .*; they are of other classes: write "
            r"`backbone: \{arch: resnet, weights: \{file: published.pth, licence: .*` and `head: ",
        ),
        (
            lambda p: torch.save({k: v * float("nan") for k, v in write_state(p, 1).items()}, p),
            r"weights: published.pth: \S+ has values that are not finite; give other weights",
        ),
    ],
    ids=["missing", "a pickle", "of another network", "of other classes", "not finite"],
)
def test_unusable_published_weights_are_an_error(resolved, tmp_path, monkeypatch, write, sentence):
    """The message names the file and what is wrong with it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    write(tmp_path / "published.pth")
    with pytest.raises(StageError, match=f"^{sentence}"):
        run_of(resolved(PUBLISHED))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {"lr": 0.1}},
        lambda s: {"state_dict": {f"module.{key}": tensor for key, tensor in s.items()}},
    ],
    ids=["alone", "state_dict", "model", "DataParallel"],
)
def test_weights_inside_a_checkpoint_are_found(resolved, tmp_path, monkeypatch, wrap):
    """The saved tensors, however a training script has wrapped them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    state = {"layer.weight": torch.ones(2), "layer.bias": torch.zeros(2)}
    torch.save(wrap(state), tmp_path / "published.pth")
    with monkeypatch.context() as patched:
        patched.setattr(pretrained.models, "published", lambda arch, found, net: found)
        found = pretrained.read_published(resolved(PUBLISHED))
    assert found.keys() == state.keys() and all(
        torch.equal(found[key], state[key]) for key in state
    )


def test_safetensors_are_refused_with_the_call_that_converts_them(resolved, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "net.safetensors").write_bytes(b"x")
    weights = WEIGHTS | {"file": "net.safetensors"}
    call = r"torch.save\(safetensors.torch.load_file\('net.safetensors'\), 'net.pt'\)"
    with pytest.raises(StageError, match=f"got safetensors; convert it: {call}"):
        pretrained.read_published(resolved(PUBLISHED | {"weights": weights}))


@pytest.mark.slow  # imports torchvision
def test_a_folder_of_imagenet_classes_has_imagenets_order(resolved, photo_folder, monkeypatch):
    """tench is 0, jean 608, 1,000 in all. The path is relative, and found below DATA_ROOT."""
    root = photo_folder({"jean": 4, "tench": 4})
    monkeypatch.setenv("DATA_ROOT", str(root.parent))
    source, samples = prepare.make(resolved(IMAGE_RECIPE, {"digits": FOLDER}).data)
    assert len(source.about["labels"]) == 1000 and source.about["labels"][608] == "jean"
    for split in dataset.SPLITS:
        names = [Path(sample.id).parent.name for sample in samples[split]]
        assert [{"tench": 0, "jean": 608}[name] for name in names] == source.y[split].tolist()
    root.joinpath("jean").rename(root / "jeans")
    with pytest.raises(
        StageError, match="photos/jeans is named as no class of ImageNet; nearest of 1000: jean, "
    ):
        prepare.make(resolved(IMAGE_RECIPE, {"digits": FOLDER}).data)


def test_imagenets_statistics_are_for_colour(resolved):
    """Grey images have one channel, ImageNet's statistics three."""
    with pytest.raises(
        load.ParamsError, match=r"data.colour: standardise: imagenet is for three channels; set rgb"
    ):
        resolved(IMAGE_RECIPE, data={"standardise": "imagenet"})


def test_names_leave_out_recipes_without_their_files(workspace, monkeypatch, capsys):
    """`make full` asks for names: recipes without their folder or weights are left out, with a
    note.
    """
    monkeypatch.setattr(sys, "argv", ["params", "--names"])
    for variable in ("DATA_ROOT", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(workspace))
    photos = IMAGE_RECIPE | {"data": IMAGE_RECIPE["data"] | {"set": "photos"}}
    recipes = (
        copy.deepcopy({"tiny": IMAGE_RECIPE})
        | copy.deepcopy({"published": PUBLISHED})
        | {"photos": photos}
    )
    YAML().dump(
        {"line": {}, "data": SETS | {"photos": FOLDER}, "models": recipes}, Path("params.yaml")
    )
    params_main.main()
    out, err = capsys.readouterr()
    assert (
        out == "tiny=scratch\n"
        and err == "left out: published, photos: not below DATA_ROOT or TORCH_HOME\n"
    )
    Path("published.pth").touch()
    Path("photos").mkdir()
    params_main.main()
    assert capsys.readouterr() == ("tiny=scratch\npublished=scratch\nphotos=scratch\n", "")
