"""Heads on features and fine-tuning: what is learned elsewhere, put to ten images a class (FEATURES.md R01-R09)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from recipes import IMAGE_RECIPE, SETS
from torch import nn

from pipeline import data, features, heads, network, params, recipe, train, tuning
from pipeline.schema import ParamsError
from pipeline.stage import StageError

Resolve = Callable[..., dict[str, Any]]
CPU = torch.device("cpu")
LOW = {"source": "digits", "validation": 100, "test": 200, "classes": ["0", "1", "2", "3", "4"]}
HIGH = {"source": "digits", "validation": 100, "test": 200, "classes": ["9", "7", "5"], "per_class": 12}
SPECS = SETS | {"low": LOW, "high": HIGH}
CNN = {"arch": "cnn2", "net": {"dropout": 0.1}, "train": {"epochs": 6, "batch": 32, "lr": 0.005}}
BASE = {**CNN, "data": {"set": "low", "size": [8, 8], "colour": "grey"}}
MODELS = {
    "base": BASE,
    "linear": {
        "needs": "base",
        "data": {"set": "high"},
        "head": {"kind": "linear", "folds": 3},
        "train": {"epochs": 0},
    },
    "tuned": {
        "needs": "base",
        "data": {"set": "high"},
        "head": {"kind": "softmax", "stages": 2},
        "train": {"epochs": 2, "batch": 8},
    },
}


@pytest.fixture(scope="module")
def base_state() -> dict[str, torch.Tensor]:
    """The state of a small network that knows the digits 0 to 4."""
    sets = {name: params.check_set(name, spec) for name, spec in SPECS.items()}
    resolved = params.resolve("base", BASE, sets)
    source = data.make(resolved["data"])[0]
    return train.copy_of(train.fit(resolved, source, on=CPU, label="base")[0])


def built(resolved: Resolve, name: str, **head: Any) -> tuple[dict[str, Any], data.Data]:
    models = {**MODELS, name: {**MODELS[name], "head": MODELS[name]["head"] | head}}
    made = resolved(recipe.built_on(name, models), SPECS)
    return made, data.make(made["data"])[0]


# ---- the task: some classes, few images


def test_a_task_of_some_classes_and_few_images(resolved: Resolve) -> None:
    """Labels are renumbered in the order asked for; only training is thinned; the draw follows its seed."""
    made, source = built(resolved, "linear")
    assert source.about["labels"] == ["9", "7", "5"]
    assert np.bincount(source.y["train"]).tolist() == [12, 12, 12] and len(source.x["validation"]) > 25
    whole = data.make(resolved(IMAGE_RECIPE, SPECS | {"digits": LOW | {"classes": None}})["data"])[0]
    nine = {x.tobytes() for x, y in zip(whole.x["train"], whole.y["train"], strict=True) if y == 9}
    assert {x.tobytes() for x in source.x["train"][source.y["train"] == 0]} <= nine
    other = made["data"] | {"spec": made["data"]["spec"] | {"draw": 5}}
    assert (data.make(other)[0].x["train"] != source.x["train"]).any()
    assert (data.make(other)[0].x["test"] == source.x["test"]).all()


def test_an_unknown_class_names_those_there_are(resolved: Resolve) -> None:
    spec = params.check_set("high", HIGH | {"classes": ["9", "x"]})
    with pytest.raises(StageError, match=r"data.classes: 'x' is no class of the set; choices: 0, 1, 2"):
        data.make({**resolved(BASE, SPECS)["data"], "spec": spec})


# ---- what starts from what


def test_a_recipe_takes_its_backbones_network_and_contract(resolved: Resolve) -> None:
    made, _ = built(resolved, "linear")
    assert (made["arch"], made["net"], made["needs"]) == ("cnn2", {"dropout": 0.1}, "base")
    assert made["data"]["size"] == [8, 8] and made["data"]["set"] == "high"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"needs": "bases"}, "models.linear.needs: no other recipe 'bases'; did you mean 'base'"),
        ({"needs": "linear"}, "models.linear.needs: no other recipe 'linear'"),
        ({"arch": "cnn2"}, "models.linear: expected one of arch, needs, backbone, got more"),
        ({"head": None}, None),
        ({"data": {"set": "high", "size": [9, 9]}}, r"data.size: expected \[8, 8\] as its backbone base takes"),
        ({"head": {"kind": "forests"}}, "head.kind: unknown value 'forests'; did you mean 'forest'"),
        (
            {"head": {"kind": "softmax", "stages": "most"}},
            "head.stages: expected a number of stages or `all`, got 'most'",
        ),
        ({"head": {"kind": "softmax"}}, "head.kind: softmax is trained by the loop; give `train.epochs`"),
    ],
)
def test_recipes_that_cannot_be(resolved: Resolve, change: dict[str, Any], sentence: str | None) -> None:
    models = {**MODELS, "linear": {**MODELS["linear"], **change}}
    if sentence is None:
        models["linear"].pop("head")
        sentence = "models.linear.head: missing; add"
    with pytest.raises(ParamsError, match=sentence):
        resolved(recipe.built_on("linear", models), SPECS)


def test_all_but_the_last_layer_is_taken_over(resolved: Resolve, base_state: dict[str, torch.Tensor]) -> None:
    """R05: weights, statistics and standardisation are the backbone's; the last layer is new, for three classes."""
    made, source = built(resolved, "tuned")
    net = network.build(made, source)
    network.start(net, made, base_state)
    for key, tensor in net.state_dict().items():
        if key.startswith("net.head."):
            assert len(tensor) == 3
        else:
            torch.testing.assert_close(tensor, base_state[key], rtol=0, atol=0)


def test_keys_that_do_not_match_are_named(resolved: Resolve, base_state: dict[str, torch.Tensor]) -> None:
    made, source = built(resolved, "tuned")
    wrong = {f"module.{key}": tensor for key, tensor in base_state.items()}
    with pytest.raises(
        StageError,
        match=r"base does not fit models/cnn2.py: missing mean, scale, .* and \d+ more; "
        r"unexpected .*; was module.mean meant for mean\?",
    ):
        network.start(network.build(made, source), made, wrong)


# ---- features


def test_features_of_a_layer(resolved: Resolve, base_state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Penultimate: what the last layer turns into logits. A layer of maps: their means over the places."""
    made, source = built(resolved, "linear")
    net = network.build(made, source)
    network.start(net, made, base_state)
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
        StageError, match=r"head.layer: no layer 'conv9'; there are penultimate, features.0, features.1"
    ):
        features.Backbone(net, "conv9")


def test_features_go_on_where_they_stopped(resolved: Resolve, base_state, tmp_path: Path, monkeypatch) -> None:
    made, source = built(resolved, "linear")
    net = network.build(made, source)
    network.start(net, made, base_state)
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
    assert isinstance(again, np.memmap) and len(seen) - done == 1 + len(images) - 16  # one to see the width
    np.testing.assert_allclose(again, whole, rtol=1e-5, atol=1e-6)


# ---- heads


@pytest.fixture(scope="module")
def clouds() -> tuple[np.ndarray, np.ndarray]:
    """Features of three classes that overlap a little."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    return (rng.standard_normal((120, 10)) + 2.5 * np.eye(3, 10)[y]).astype(np.float32), y


@pytest.mark.slow
@pytest.mark.parametrize("kind", heads.GRIDS)
def test_a_head_is_tuned_and_its_graph_answers_as_it_does(kind: str, resolved, base_state) -> None:
    """Probabilities of the joined graph, from uint8 images on, against scikit-learn on torch's features."""
    made, source = built(resolved, "linear", kind=kind)
    headed, state = heads.learn(made, source, on=CPU, label=kind, base=base_state)
    assert len(headed.head.table) == np.prod([len(v) for v in heads.GRIDS[kind].values()])
    assert {"kind": headed.head.kind, "options": headed.head.options}.items() <= max(
        headed.head.table, key=lambda row: row["accuracy"]
    ).items()
    images = np.array(source.x["test"])
    with torch.no_grad():
        expected = headed(torch.from_numpy(images)).numpy()
    graph = heads.to_graph(headed, images)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for rows in (images, images[:1], images[:7]):
        (got,) = session.run(None, {"images": rows})
        flipped = np.abs(got - expected[: len(rows)]).max(1) > 1e-4  # of a forest: a feature on a split's edge
        assert flipped.sum() <= (2 if kind == "forest" else 0)
        assert (got.argmax(1) != expected[: len(rows)].argmax(1)).sum() <= flipped.sum()
        np.testing.assert_allclose(got.sum(1), 1, atol=1e-5)
    assert (expected.argmax(1) == source.y["test"]).mean() > 0.6  # chance is .33
    assert state.history[0]["validation_accuracy"] > 0.5


def test_best_is_the_best_of_all_kinds(clouds, monkeypatch) -> None:
    """The candidate of the highest cross-validated accuracy; of equals, the one that stands first."""
    ranks = {"linear": 0.7, "mlp": 0.6, "forest": 0.9, "svm-linear": 0.9, "svm-rbf": 0.5}
    monkeypatch.setattr(heads, "cross_validate", lambda kind, *rest: (ranks[kind], 0.0))
    monkeypatch.setattr(heads, "TREES", 5)
    head = heads.fit({"kind": "best", "folds": 3}, *clouds, ["a", "b", "c"], 1, "here")
    assert head.kind == "forest" and head.options == {"max_features": "sqrt", "min_samples_leaf": 1}
    assert len(head.table) == sum(np.prod([len(v) for v in grid.values()]) for grid in heads.GRIDS.values())


def test_cross_validation_does_not_look_at_the_fold_it_scores(clouds) -> None:
    """Oracle: on three clouds most is right; labels without signal stay at chance."""
    x, y = clouds
    shuffled = np.random.default_rng(1).permutation(y)
    assert heads.cross_validate("linear", {"C": 1.0}, x, y, 4, 1)[0] > 0.75
    assert heads.cross_validate("forest", {"max_features": "sqrt", "min_samples_leaf": 1}, x, shuffled, 4, 1)[0] < 0.5


@pytest.mark.parametrize(
    ("labels", "y", "folds", "sentence"),
    [
        (["a"], [0] * 6, 3, r"here: a head needs two classes or more, got \['a'\]"),
        (["a", "b", "c"], [0, 1] * 5, 3, "here: class 'c' has no training image"),
        (["a", "b"], [0] * 9 + [1] * 2, 3, r"class 'b' has 2 training image\(s\), fewer than head.folds \(3\)"),
    ],
)
def test_data_that_no_head_can_learn(labels, y, folds, sentence) -> None:
    x = np.zeros((len(y), 4), np.float32)
    with pytest.raises(StageError, match=sentence):
        heads.fit({"kind": "linear", "folds": folds}, x, np.array(y), labels, 1, "here")


# ---- fine-tuning


def phases(net: Any, head: dict[str, Any], epochs: int) -> list[int]:
    """Return how many stages train in each epoch."""
    found = []
    for epoch in range(epochs):
        net.train()
        tuning.set_phase(net, head, epoch)
        found.append(sum(all(p.requires_grad for p in part.parameters()) for part in features.stages(net).values()))
    return found


def test_a_schedule_of_unfreezing(resolved: Resolve, base_state) -> None:
    """R09: the head alone for two epochs, then from the last stage downwards one more every second epoch."""
    made, source = built(resolved, "tuned", stages=3, first=2, unfreeze=2)
    net = network.build(made, source)
    assert phases(net, made["head"], 9) == [0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert phases(net, made["head"] | {"unfreeze": 0, "stages": "all"}, 4) == [0, 0, 10, 10]
    names = [name for name, part in features.stages(net).items() if part in tuning.parts(net, made["head"])]
    assert names == ["features.11", "features.15", "features.16"]
    with pytest.raises(StageError, match=r"head.stages: 11 asked for, the backbone has 10: features.0, "):
        tuning.parts(net, made["head"] | {"stages": 11})


@pytest.mark.parametrize("batch_norm", ["frozen", "trained"])
def test_what_is_frozen_does_not_move(resolved: Resolve, base_state, batch_norm: str) -> None:
    """R05, R06: after two epochs only the head and the last two stages differ; statistics only where asked for."""
    made, source = built(resolved, "tuned", batch_norm=batch_norm)
    net, _ = train.fit(made, source, on=CPU, label="tuned", base=base_state)
    same = {key for key, tensor in net.state_dict().items() if torch.equal(tensor, base_state[key])}
    moved = set(base_state) - same - {"net.head.weight", "net.head.bias"}
    statistics = {f"net.features.16.{part}" for part in ("running_mean", "running_var", "num_batches_tracked")}
    weights = {f"net.features.{layer}.{part}" for layer in (15, 16) for part in ("weight", "bias")}
    assert moved == (weights | statistics if batch_norm == "trained" else weights)


def test_learning_rates_of_head_and_stages(resolved: Resolve, base_state) -> None:
    """Plain gradient steps: with lr_factor 0 the stages stay, though they are free to move."""
    made, source = built(resolved, "tuned", stages="all", lr_factor=0.0)
    net, _ = train.fit(made, source, on=CPU, label="tuned", base=base_state)
    for key, tensor in net.state_dict().items():
        assert key.startswith("net.head.") or torch.equal(tensor, base_state[key]), key


def test_a_missing_backbone_says_what_makes_it(resolved: Resolve, workspace: Path) -> None:
    made, source = built(resolved, "tuned")
    with pytest.raises(StageError, match=r"weights.pt: not made yet; run `dvc repro train@base`"):
        network.start(network.build(made, source), made)


def test_a_joined_graph_keeps_one_opset_of_each_domain(clouds) -> None:
    head = heads.fit({"kind": "linear", "folds": 3}, *clouds, ["a", "b", "c"], 1, "here")
    graph = heads.to_onnx(head, 10, 18)
    assert [o.name for o in graph.graph.output] == ["probabilities"]
    onnx.checker.check_model(graph)
