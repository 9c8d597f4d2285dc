"""Training in two processes: the curve of one process, one writer, and the end of a run when one is
killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import together
import torch
from recipes import IMAGE_RECIPE, ROOT, SERIES_RECIPE

from pipeline.core.files import write_json
from pipeline.data import dataset, prepare
from pipeline.params import load as params
from pipeline.params.schema import Head, Recipe, Training
from pipeline.train import distributed

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--local-addr=localhost")
# Without batch normalisation and dropout two processes compute what one does, in another order of
# float32 sums: each step differs by some 1e-7 of a weight, and 21 steps make less than a hundred
# times that of a loss.
NOISE = 1e-5
STACK = {"channels": 4, "kernels": [3, 3], "activation": "relu", "padding": "zeros"}
BUSY = {
    "batch": 61,
    "optimizer": "sgd",
    "lr": 0.05,
    "clip_norm": 1.0,
    "l1": 1e-4,
    "l2": 1e-4,
    "schedule": "onecycle",
}
ALL_AUGMENTED = {"rotate": 10, "shift": 0.1, "flip": "horizontal", "crop_pad": 1, "colour": 0.1}
TODAY = {
    "augment": {"policy": "randaugment", "rotate": 5, "erase": 0.5},
    "label_smoothing": 0.1,
    "mixup": 0.4,
    "cutmix": 1.0,
    "ema": 0.9,
}
Resolve = Callable[..., dict[str, Any]]


@pytest.fixture
def recipes(resolved: Resolve) -> dict[str, Any]:
    """400 digits in batches of 61: six of 31 and 30 rows in each process, and one of 34."""
    images = {**IMAGE_RECIPE, "arch": "stack", "net": STACK}
    cut = {**ALL_AUGMENTED, "crop": "random_resized"}
    shards = resolved(
        images,
        data={"layout": "shards", "shard_mb": 0.05},
        train={**BUSY, "augment": cut},
    )
    tuned = Head(kind="softmax", stages=2, first=1, batch_norm="trained")
    return {
        "images": resolved(images, train={**BUSY, "augment": ALL_AUGMENTED}),
        "shards": shards.updated(workers=0),
        "today": resolved(images, train={**BUSY, **TODAY}),
        # wide convolutions to 4 x 4 pixels, which are products (small_maps.py)
        "products": resolved(
            images, data={"size": [4, 4]}, net={"channels": 128}, train={**BUSY, "epochs": 1}
        ),
        "series": resolved(SERIES_RECIPE),
        "batch norm": resolved(IMAGE_RECIPE, net={"dropout": 0.0}),
        "frozen at first": resolved(images).updated(head=tuned, needs="images"),
        "too few": resolved(images, train={"batch": 3}),
    }


@pytest.mark.slow
def test_two_processes_train_as_one(recipes: dict[str, Any], tmp_path: Path) -> None:
    """Compared with one process.

    Batch norm's statistics are each process's own on a CPU, so there only the result is close.
    """
    given = json.dumps(
        {
            name: recipe.model_dump(mode="json", include=set(Recipe.model_fields))
            for name, recipe in recipes.items()
        }
    )
    file, answer = tmp_path / "given.json", tmp_path / "answer.json"
    file.write_text(given)
    words = [
        sys.executable,
        *LAUNCHER,
        "--nproc-per-node=2",
        together.__file__,
        str(file),
        str(answer),
    ]
    # torch 2.15 has given an option another name
    strict = {**os.environ, "PYTHONWARNINGS": "error::FutureWarning"}
    subprocess.run(
        words, cwd=ROOT, check=True, capture_output=True, text=True, timeout=600, env=strict
    )
    found = {1: together.trained(given), 2: json.loads(answer.read_text())}
    assert (
        found[2]
        .pop("too few")["error"]
        .endswith("2 processes share 3 rows, expected two each; lower `processes:`")
    )
    for name in found[2]:
        one, two = found[1][name], found[2][name]
        assert one["products"] == two["products"] == (2 if name == "products" else 0)
        assert two["apart"] == 0  # weights and statistics are the same in both, to the bit
        for key in ("history", "gradients"):
            for a, b in zip(one[key], two[key], strict=True):
                loose = name == "batch norm"
                assert a.keys() == b.keys() and (
                    loose or b == pytest.approx(a, rel=NOISE, abs=1e-7)
                ), (name, a, b)
        if name != "batch norm":
            torch.testing.assert_close(
                torch.tensor(two["weights"]), torch.tensor(one["weights"]), rtol=0, atol=1e-5
            )
    ends = [found[count]["batch norm"]["history"][-1]["validation_loss"] for count in (1, 2)]
    assert ends[1] == pytest.approx(ends[0], rel=0.2) and ends[0] != ends[1]


def lay_out(folder: Path, recipe: Recipe, processes: int) -> None:
    """Write what stages params and data leave for an entry."""
    place = folder / "out/params/tiny"
    place.mkdir(parents=True, exist_ok=True)
    whole = recipe.updated(device="cpu", processes=processes)
    (place / "data.json").write_text(whole.model_dump_json(include={"data"}))
    (place / "train.json").write_text(whole.model_dump_json(include=set(Training.model_fields)))
    source = prepare.make(recipe.data)[0]
    (folder / "out/tiny/data").mkdir(parents=True)
    dataset.save(folder / "out/tiny/data", source)
    write_json(folder / "results/tiny/data.json", source.about)


def train_stage(folder: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "pipeline.train", "tiny"]
    return subprocess.Popen(
        words, cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a stage; return its exit code and its output."""
    said = process.communicate(timeout=300)[1]
    return process.returncode, said


def workers(of: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """Return the processes that a stage has started, by rank."""
    found = {}
    for process in psutil.Process(of.pid).children(recursive=True):
        if rank := process.environ().get("RANK"):
            found[rank] = process
    return found


@pytest.mark.long
def test_one_of_two_processes_is_killed(resolved: Resolve, workspace: Path) -> None:
    """The same two processes, undisturbed, are the reference.

    The killed run says what happened, leaves no process, and can be resumed.
    """
    recipe = resolved(
        IMAGE_RECIPE, train={"epochs": 150, "choose": "last", "augment": {"rotate": 10}}
    )
    lay_out(workspace, recipe, 2)
    assert ended(train_stage(workspace))[0] == 0
    train, results = workspace / "out/tiny/train", workspace / "results/tiny/train.json"
    weights, history = torch.load(train / "weights.pt", weights_only=True), train / "history.json"
    whole = history.read_text(), results.read_text()
    assert not list((workspace / "out/checkpoints").iterdir())
    broken, began = train_stage(workspace), time.monotonic()
    while not list((workspace / "out/checkpoints").glob("tiny@*.pt")):
        assert broken.poll() is None and time.monotonic() - began < 120
        time.sleep(0.02)
    both = workers(broken)
    assert sorted(both) == ["0", "1"]
    both["1"].send_signal(signal.SIGKILL)
    code, said = ended(broken)
    assert code == 1
    cure = "and the others were stopped; `dvc repro` goes on from the last checkpoint"
    assert (
        said.splitlines()[-1]
        == f"tiny | error: train tiny: process 2 of 2 was ended by SIGKILL (is there memory?), {cure}"
    )
    assert "Traceback" not in said and not any(process.is_running() for process in both.values())
    code, said = ended(train_stage(workspace))
    assert code == 0 and said.count("from the checkpoint of an interrupted run") == 1
    assert (history.read_text(), results.read_text()) == whole
    for name, tensor in torch.load(train / "weights.pt", weights_only=True).items():
        assert torch.equal(tensor, weights[name])


@pytest.mark.long
def test_an_error_of_all_processes_is_printed_once(resolved: Resolve, workspace: Path) -> None:
    """The message is that of one process, without ranks, a traceback, or a second copy."""
    lay_out(
        workspace, resolved(IMAGE_RECIPE, train={"optimizer": "sgd", "lr": 1e30, "epochs": 20}), 2
    )
    code, said = ended(train_stage(workspace))
    assert (
        code == 1 and said.count("the loss is not finite in epoch") == 1 and "Traceback" not in said
    )
    assert said.splitlines()[-1].startswith(
        "tiny | error: train tiny: the loss is not finite in epoch "
    )


def failure(exitcode: int, message: Any = "", name: str = "N/A") -> SimpleNamespace:
    return SimpleNamespace(exitcode=exitcode, message=message, signal_name=lambda: name)


def test_the_first_cause_of_a_failure_is_reported() -> None:
    """A recorded message comes before a signal, and a signal before a failure that follows from it."""
    told = failure(1, {"message": "StageError: train tiny: no: memory", "extraInfo": {}})
    killed, follower = failure(-9, "Signal 9", "SIGKILL"), failure(1, "To enable traceback see")
    assert (
        distributed.failure_message({0: killed, 1: told}, 2, "train x") == "train tiny: no: memory"
    )
    stopped = failure(-15, "Signal 15", "SIGTERM")
    killed_third = distributed.failure_message({0: follower, 1: stopped, 2: killed}, 3, "train x")
    assert killed_third.startswith(
        "train x: process 3 of 3 was ended by SIGKILL (is there memory?), and"
    )
    assert distributed.failure_message({0: stopped, 1: follower}, 2, "train x").startswith(
        "train x: process 2 of 2 failed, as"
    )


def test_processes_reach_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = (ROOT / "params.yaml").read_text()
    for count in (1, 4):
        changed = tmp_path / "params.yaml"
        changed.write_text(text.replace("\nprocesses: 1 ", f"\nprocesses: {count} "))
        laid = params.lay_out(params.load(changed), "lenet5-digits")["train"]
        assert laid["processes"] == count
