"""Stage train: it repeats and resumes bit for bit, stops early, and keeps the epoch that params
choose.
"""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipes import IMAGE_RECIPE, SERIES_RECIPE

from pipeline.core.errors import StageError
from pipeline.data import __main__ as data_main
from pipeline.data import dataset, prepare
from pipeline.params import load as params
from pipeline.params.schema import Recipe, Training
from pipeline.train import __main__ as train_main
from pipeline.train import artifacts, checkpoint, loop
from pipeline.train.checkpoint import checkpoint_path

CPU = torch.device("cpu")
Resolve = Callable[..., dict[str, Any]]


def fit(recipe: dict[str, Any], **options: Any) -> tuple[Any, loop.State]:
    source, _ = prepare.make(recipe.data)
    return loop.fit(recipe, source, on=CPU, label="tiny", **options)


def assert_equal(a: tuple[Any, loop.State], b: tuple[Any, loop.State]) -> None:
    """Assert equal histories and weights, bit for bit."""
    assert a[1].history == b[1].history and a[1].gradients == b[1].gradients
    for (name, x), y in zip(a[0].state_dict().items(), b[0].state_dict().values(), strict=True):
        assert torch.equal(x, y), name
    assert a[1].snapshots.keys() == b[1].snapshots.keys()


# Everything that draws random numbers or carries state from step to step.
BUSY = {
    "epochs": 5,
    "optimizer": "sgd",
    "momentum": 0.9,
    "lr": 0.05,
    "schedule": "onecycle",
    "augment": {"rotate": 10, "shift": 0.1, "flip": "horizontal"},
    "snapshots": [1, 4],
}
TODAY = {
    "label_smoothing": 0.1,
    "augment": {"policy": "trivialaugment", "shift": 0.1, "erase": 0.5},
    "mixup": 0.4,
    "cutmix": 1.0,
    "ema": 0.9,
}
RUNS = [
    pytest.param(
        IMAGE_RECIPE, BUSY, id="sgd, dropout, augmentation", marks=pytest.mark.slow
    ),  # imports torchvision
    pytest.param(
        IMAGE_RECIPE,
        {**BUSY, "schedule": "cosine", "warmup": 1, "nesterov": True, **TODAY},
        id="today's recipe",
        marks=pytest.mark.slow,
    ),
    pytest.param(IMAGE_RECIPE, {"epochs": 5, "optimizer": "adadelta", "lr": 1.0}, id="adadelta"),
    pytest.param(
        SERIES_RECIPE, {"epochs": 5, "warmup": 2, "schedule": "cosine"}, id="adam, series"
    ),
]


@pytest.mark.parametrize(("base", "changes"), RUNS)
def test_runs_repeat_and_resume_bit_for_bit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resolved: Resolve,
    base: dict[str, Any],
    changes: dict[str, Any],
) -> None:
    """Compared with the uninterrupted run.

    Stopped in epoch 3 and again in epoch 4, each time with the epoch before saved.
    """
    recipe = resolved(base, train=changes)
    whole = fit(recipe)
    assert_equal(whole, fit(recipe))
    monkeypatch.setattr(loop, "LEAST_S", 0)
    monkeypatch.setattr(loop, "MOST_SHARE", float("inf"))
    checkpoint = tmp_path / "run.pt"
    trained: list[int] = []
    real = loop.one_epoch
    monkeypatch.setattr(loop, "one_epoch", lambda *a: trained.append(a[6].epoch) or real(*a))
    for stop in (3, 4):

        def until(row: dict[str, float], stop: int = stop) -> None:
            if row["epoch"] == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(recipe, checkpoint=checkpoint, on_epoch=until)
    seen: list[dict[str, float]] = []
    assert_equal(whole, fit(recipe, checkpoint=checkpoint, on_epoch=seen.append))
    assert trained == [0, 1, 2, 2, 3, 3, 4]  # an epoch is lost at each stop, no more
    assert seen == whole[1].history  # the curves are whole too


def test_a_checkpoint_belongs_to_recipe_data_and_code(resolved: Resolve, workspace: Path) -> None:
    """Any change of the recipe, the data, the device or the torch version gives another file name."""
    recipe = resolved(IMAGE_RECIPE)
    source, _ = prepare.make(recipe.data)
    path = checkpoint_path("tiny", recipe, source, CPU)
    assert path == checkpoint_path("tiny", resolved(IMAGE_RECIPE), source, CPU)
    others = [
        resolved(IMAGE_RECIPE, train={"lr": 0.02}),
        resolved(IMAGE_RECIPE, net={"hidden": [17]}),
    ]
    paths = {path, *(checkpoint_path("tiny", other, source, CPU) for other in others)}
    source.about["hash"] = "another"
    paths.add(checkpoint_path("tiny", recipe, source, CPU))
    paths.add(checkpoint_path("tiny", recipe, source, torch.device("cuda")))
    assert len(paths) == 5


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "adadelta"])
@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "onecycle"])
def test_every_optimizer_and_schedule_learns(
    resolved: Resolve, optimizer: str, schedule: str
) -> None:
    """Ten classes by chance: loss ln 10 = 2.30, accuracy .1."""
    lr = {"sgd": 0.05, "adadelta": 1.0}.get(optimizer, 0.01)
    changes = {
        "epochs": 4,
        "optimizer": optimizer,
        "schedule": schedule,
        "lr": lr,
        "steps": [3],
        "batch": 32,
    }
    _, state = fit(resolved(IMAGE_RECIPE, train=changes))
    assert state.chosen["validation_loss"] < 1.9 and state.chosen["validation_accuracy"] > 0.4
    assert len({row["lr"] for row in state.history}) == {"constant": 1, "step": 2}.get(schedule, 4)


@pytest.mark.parametrize("base", [IMAGE_RECIPE, SERIES_RECIPE], ids=["images", "series"])
@pytest.mark.parametrize(
    "options", [{"precision": "bf16"}, {"clip_norm": 0.1}, {"l1": 1e-4, "l2": 1e-4}], ids=str
)
def test_every_training_option_learns(
    resolved: Resolve, base: dict[str, Any], options: dict[str, Any]
) -> None:
    """The loss falls from first to last epoch, and differs from the run without the option."""
    _, plain = fit(resolved(base))
    _, state = fit(resolved(base, train=options))
    assert state.history[-1]["train_loss"] < state.history[0]["train_loss"]
    assert state.history != plain.history


def test_a_weight_that_is_not_finite_is_an_error(resolved: Resolve) -> None:
    """The message names it, though the loss may not show it: a tap that sees only padding
    multiplies nothing.
    """
    net, _ = fit(resolved(IMAGE_RECIPE))
    loop.require_finite_weights(net, "tiny", 1)
    name, weight = next(iter(net.named_parameters()))
    weight.data.flatten()[0] = float("nan")
    with pytest.raises(
        StageError,
        match=rf"train tiny: {name.removeprefix('net.')} is not finite in epoch 2; lower",
    ):
        loop.require_finite_weights(net, "tiny", 2)


@pytest.mark.parametrize(("base", "accurate"), [(IMAGE_RECIPE, True), (SERIES_RECIPE, False)])
def test_a_watched_split_has_an_accuracy_where_the_task_has_one(
    resolved: Resolve, base: dict[str, Any], accurate: bool
) -> None:
    _, state = fit(resolved(base, train={"epochs": 1}), watch=["test"])
    assert "test_loss" in state.history[0] and ("test_accuracy" in state.history[0]) == accurate


@pytest.mark.parametrize("base", [IMAGE_RECIPE, SERIES_RECIPE], ids=["images", "series"])
def test_a_loss_that_is_not_finite_is_an_error(resolved: Resolve, base: dict[str, Any]) -> None:
    """Plain gradient descent on squared errors with lr 1e6 grows without bound."""
    changes = {"optimizer": "sgd", "lr": 1e30, "epochs": 20}
    with pytest.raises(StageError) as error:
        fit(resolved(base, train=changes))
    message = str(error.value)
    assert message.startswith("train tiny: the loss is not finite in epoch ")
    assert message.endswith("lower train.lr (1e+30), add warmup, or set clip_norm")


def test_training_stops_when_validation_no_longer_improves(resolved: Resolve) -> None:
    """lr 0 never improves after epoch 1: patience 2 stops after epoch 3."""
    _, state = fit(
        resolved(IMAGE_RECIPE, train={"lr": 0, "epochs": 9, "patience": 2}, net={"hidden": []})
    )
    assert (state.epoch, state.best_epoch, state.chosen_epoch) == (3, 1, 1)


def test_best_and_last_weights(resolved: Resolve) -> None:
    """A learning rate that jumps 200-fold spoils the last epochs; best keeps the epoch before, last
    does not.
    """
    changes = {
        "epochs": 4,
        "optimizer": "sgd",
        "lr": 0.05,
        "schedule": "step",
        "steps": [2],
        "factor": 200.0,
    }
    recipes = {
        choose: resolved(IMAGE_RECIPE, train={**changes, "choose": choose})
        for choose in ("best", "last")
    }
    runs = {choose: fit(recipe) for choose, recipe in recipes.items()}
    assert runs["best"][1].history == runs["last"][1].history
    losses = [row["validation_loss"] for row in runs["best"][1].history]
    assert (
        int(np.argmin(losses)) + 1 == runs["best"][1].chosen_epoch == 2
        and runs["last"][1].chosen_epoch == 4
    )
    source, _ = prepare.make(recipes["best"].data)
    for choose, (net, state) in runs.items():
        loss, accuracy = loop.evaluate(
            recipes[choose], net, loop.load_batches(source, "validation", net, CPU)
        )
        assert (
            loss == state.chosen["validation_loss"]
            and accuracy == state.chosen["validation_accuracy"]
        )


def test_snapshots_are_the_weights_of_their_epochs(resolved: Resolve) -> None:
    """Compared with a run that ends at that epoch.

    With a constant learning rate it does not matter how many epochs follow.
    """
    _, state = fit(resolved(IMAGE_RECIPE, train={"epochs": 3, "snapshots": [1, 2]}))
    net, _ = fit(resolved(IMAGE_RECIPE, train={"epochs": 2, "choose": "last"}))
    assert list(state.snapshots) == ["001", "002"]
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, state.snapshots["002"][name])


def test_gradients_are_recorded_for_each_weight(resolved: Resolve) -> None:
    """Mean |gradient| of the last batch, for each weight with more than one dimension: two dense
    layers here.
    """
    _, state = fit(resolved(IMAGE_RECIPE))
    assert [list(row) for row in state.gradients] == [["features.1.weight", "head.weight"]] * 3
    assert all(value > 0 for row in state.gradients for value in row.values())


def test_quantiles_have_their_coverage_on_validation(resolved: Resolve) -> None:
    """Of the sorted validation residuals the floor((n + 1) .1)-th, the median, the ceil((n + 1)
    .9)-th; the share below level q is q, to two samples.
    """
    recipe = resolved(SERIES_RECIPE)
    net, _ = fit(recipe)
    source, _ = prepare.make(recipe.data)
    history, target = source.windows("validation", source.about["stride"])
    with torch.no_grad():
        forecast, quantiles = (part.numpy() for part in net(torch.from_numpy(history)))
    gaps, n = np.sort(target - forecast, axis=0), len(target)
    expected = [
        gaps[math.floor((n + 1) * 0.1) - 1],
        np.median(gaps, axis=0),
        gaps[math.ceil((n + 1) * 0.9) - 1],
    ]
    np.testing.assert_allclose(net.offsets.numpy(), np.stack(expected, -1), atol=1e-6)
    share = (target[..., None] <= quantiles + 1e-6).mean(0)  # (S, D, Q)
    np.testing.assert_allclose(
        share, np.broadcast_to([0.1, 0.5, 0.9], share.shape), atol=2 / len(target)
    )


@pytest.mark.parametrize("start", ["random", "closed_form"])
def test_a_forecast_has_no_accuracy(resolved: Resolve, start: str) -> None:
    """Neither one that is trained, nor one that is solved for in no epoch."""
    train = {"epochs": int(start == "random"), "start": start}
    series = SERIES_RECIPE | {"arch": "ltsflinear", "net": {}, "train": train}
    _, state = fit(resolved(series))
    assert [*state.history[0]] == ["epoch", "lr", "train_loss", "validation_loss"]


def test_training_batches_are_normalised_as_the_network_does(resolved: Resolve) -> None:
    """Training sees what the served graph computes: logits of NCHW training batches equal those
    behind forward().
    """
    recipe = resolved(IMAGE_RECIPE)
    net, _ = fit(recipe)
    source, _ = prepare.make(recipe.data)
    batch = loop.load_batches(source, "validation", net, CPU)
    with torch.no_grad():
        inside = net.logits(batch.x).softmax(1)
        served = net(torch.from_numpy(np.array(source.x["validation"])))
    torch.testing.assert_close(inside, served, rtol=0, atol=1e-6)


def test_an_error_of_the_network_is_one_message(resolved: Resolve) -> None:
    """The network's own sentence, before the first step; stage params cannot know it."""
    recipe = resolved(SERIES_RECIPE, data={"context": 13, "horizon": 14})
    with pytest.raises(StageError) as error:
        fit(recipe)
    assert str(error.value).startswith(
        "models/causal.py does not fit its recipe: causal: expected at least 14 steps, got 13"
    )


def test_one_image_left_over_is_not_a_batch(resolved: Resolve) -> None:
    """400 images in batches of 57 leave one: batch norm cannot train on it, so it is left out in
    this epoch.
    """
    _, state = fit(resolved(IMAGE_RECIPE, train={"batch": 57, "epochs": 2}))
    assert state.epoch == 2


@pytest.mark.slow
def test_the_stage_resumes_and_cleans_up(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, resolved: Resolve
) -> None:
    """The command, stopped by Ctrl-C and run again: the same results/ and weights as those of an
    uninterrupted run.
    """
    monkeypatch.setattr(loop, "LEAST_S", 0)
    monkeypatch.setattr(loop, "MOST_SHARE", float("inf"))
    recipe = resolved(IMAGE_RECIPE, train={"snapshots": [2]})
    folder = workspace / "out/params/tiny"
    folder.mkdir(parents=True)
    recipe = recipe.updated(device="cpu")
    (folder / "data.json").write_text(recipe.model_dump_json(include={"data"}))
    (folder / "train.json").write_text(recipe.model_dump_json(include=set(Training.model_fields)))
    monkeypatch.setattr(sys, "argv", ["stage", "tiny"])
    data_main.main()
    train_main.main()
    results, weights = (
        workspace / "results/tiny/train.json",
        workspace / "out/tiny/train/weights.pt",
    )
    whole = results.read_text(), torch.load(weights, weights_only=True)
    real = loop.one_epoch

    def stopped(*arguments: Any) -> Any:
        if arguments[6].epoch == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    checkpoint.CHECKPOINTS.mkdir(exist_ok=True)
    (checkpoint.CHECKPOINTS / "tiny@old.pt").write_bytes(b"of another recipe")
    monkeypatch.setattr(loop, "one_epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_main.main()
    key = checkpoint_path("tiny", params.entry("tiny", Recipe), dataset.load("tiny"), CPU)
    assert list(checkpoint.CHECKPOINTS.iterdir()) == [key]
    monkeypatch.setattr(loop, "one_epoch", real)
    train_main.main()
    assert results.read_text() == whole[0] and not list(checkpoint.CHECKPOINTS.iterdir())
    for name, tensor in torch.load(weights, weights_only=True).items():
        assert torch.equal(tensor, whole[1][name])
    assert len(json.loads((workspace / "out/tiny/train/history.json").read_text())) == 3
    assert (workspace / "out/tiny/train/snapshots/epoch-002.pt").exists()
    facts = json.loads(whole[0])
    assert facts["parameters"] == 64 * 16 + 16 + 32 + 16 * 10 + 10  # dense, batch norm, dense
    assert facts["macs"] == 64 * 16 + 16 * 10
    rows = (workspace / "results/tiny/curves/validation/loss.tsv").read_text().splitlines()
    assert len(rows) == 1 + 3


def test_curves_are_tables_of_metrics_by_epoch(workspace: Path) -> None:
    """The files that DVCLive 3.49 wrote of these rows.

    Epoch 0 is a network that was not trained.
    """
    for first in (0, 1):
        append = artifacts.curve_writer(Path(f"curves{first}"))
        for epoch in range(first, 3):
            append({"epoch": epoch, "lr": 1e-05, "validation_loss": 0.123456789})
        plots = Path(f"curves{first}")
        epochs = range(first, 3)
        loss = "".join(f"{epoch}\t0.123457\n" for epoch in epochs)
        rate = "".join(f"{epoch}\t1e-05\n" for epoch in epochs)
        assert (plots / "validation/loss.tsv").read_text() == f"step\tloss\n{loss}"
        assert (plots / "lr.tsv").read_text() == f"step\tlr\n{rate}"
