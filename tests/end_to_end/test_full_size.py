"""The papers' sizes: `size: full` on little data, so that `make full` does not fail after hours on
a GPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import line
import onnxruntime
import pytest
from journey import copy_tree, dvc, edit_params
from recipes import copy_params

LINE = ["lenet5-digits", "resnet20-digits", "googlenet-digits", "dilated-co2"]
PLAIN = {"epochs": 1, "batch": 10, "lr": 1e-4, "schedule": "constant", "steps": []}


def reduce(content: dict[str, Any], names: list[str]) -> None:
    """Replace MNIST, CIFAR-10 and ImageNet by a few digits, and hundreds of epochs by one."""
    for name in ("mnist-full", "cifar10", "imagenet"):
        content["data"][name] = {"source": "digits", "validation": 20, "test": 20, "per_class": 3}
    content["line"], content["line_studies"] = dict.fromkeys(names, "scratch"), []
    content["check"] |= {"random": 8, "batches": [1], "threads": [], "seconds": 0.0}
    content["check"]["int8"] = {"images": 8, "tries": 1}
    content["explain"] = {
        "images": 1,
        "steps": 2,
        "samples": 1,
        "perturbations": 8,
        "judged": 4,
        "resamples": 100,
    }
    content["explain"] |= {"searched": 9, "points": 10, "synthesis_steps": 4}
    for name in names:
        recipe = content["models"][name]
        recipe.get("full", recipe).setdefault("train", {}).update(PLAIN)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet5-digits", "resnet20-digits"])
def test_a_full_recipe_is_trained_and_exported(workspace: Path, name: str) -> None:
    """The input's size and channels in the exported file are those of the `full:` block of
    params.yaml.
    """
    copy_params(workspace)
    edit_params(workspace, lambda content: (content.update(size="full"), reduce(content, LINE)))
    line.run("params")
    for stage in ("data", "train", "export"):
        line.run(stage, name)
    size, channels = {"lenet5-digits": (32, 1), "resnet20-digits": (32, 3)}[name]
    session = onnxruntime.InferenceSession(
        line.model_path(name), providers=["CPUExecutionProvider"]
    )
    assert session.get_inputs()[0].shape[1:] == [size, size, channels]
    assert line.results(name, "train")["epochs"] == 1 and line.results(name, "data")["train"] == 30


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_line_runs_at_full_size(tmp_path: Path) -> None:
    """Every stage, as `make full` asks DVC for it: four entries are checked, and served as checked."""
    folder = copy_tree(tmp_path / "con line", git=True)
    edit_params(folder, lambda content: reduce(content, LINE))
    dvc(folder, "exp", "run", "-S", "size=full")
    for name in LINE:
        recipe = json.loads((folder / "out" / "params" / name / "train.json").read_text())
        assert recipe["size"] == "full"
        results = folder / "results" / name
        assert json.loads((results / "check.json").read_text())["passed"]
        assert json.loads((results / "infer.json").read_text())["equal"]
        assert (results / "explain.json").exists() and (
            folder / "out" / "dist" / name / "model.onnx"
        ).exists()
    assert (folder / "out" / "report" / "index.html").exists()
