"""Mistakes in an architecture's own code: one sentence with file, line and shapes, before the first
step.
"""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from recipes import IMAGE_RECIPE, SERIES_RECIPE

import models
from pipeline.core.errors import StageError
from pipeline.data import prepare
from pipeline.network import build
from pipeline.params.schema import ResolvedTrain, Training
from pipeline.train import device

NETWORK = """import torch
from torch import nn


class Mine(nn.Module):
    def __init__(self, {arguments}):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        {forward}


Model = Mine
"""
GOOD = "return self.layer(x.flatten(1))"


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolved: Any) -> Any:
    """A function that writes models/mine.py and builds its network, as stage train begins."""
    folder = tmp_path / "models"
    folder.mkdir()

    def start(
        forward: str,
        arguments: str = "in_channels, size, classes",
        base: Any = IMAGE_RECIPE,
        text: str = NETWORK,
    ) -> Any:
        file = folder / "mine.py"
        file.write_text(text.format(forward=forward, arguments=arguments))

        def load(arch: str) -> Any:
            spec = importlib.util.spec_from_file_location("mine", file)
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module

        recipe = resolved(base).updated(arch="mine").model_copy(update={"net": {}})
        source, _ = prepare.make(recipe.data)
        monkeypatch.setattr(models, "_file", load)
        return build.build(recipe, source)

    return start


@pytest.mark.parametrize("arguments", ["in_channels, size, classes", "classes", "*, size, classes"])
def test_a_network_gets_the_keywords_that_it_takes(train: Any, arguments: str) -> None:
    assert train(GOOD, arguments).training


@pytest.mark.parametrize(
    ("forward", "sentence"),
    [
        (
            "return self.layer(x.flatten(1))[:, :7]",
            "models/mine.py: expected logits (N, K) of shape (1, 10) for one input (1, 1, 8, 8), got "
            "(1, 7); change what forward returns",
        ),
        ("return self.layer(x.flatten(1))[0]", "of shape (1, 10) for one input (1, 1, 8, 8), got (10,)"),
        ("return self.layer(x.flatten(1)).argmax(1)", "got (1,); change what forward returns"),
        ("self.layer(x.flatten(1))", "got NoneType; change what forward returns"),
        ("return [self.layer(x.flatten(1))]", "got list; change what forward returns"),
        (
            "return self.layer(x)",
            "models/mine.py line 11 does not fit its recipe: ",
        ),
        (
            "return self.leyer(x)",
            "models/mine.py line 11: AttributeError: 'Mine' object has no attribute 'leyer'; correct",
        ),
        ("return self.layer(y)", "models/mine.py line 11: NameError: name 'y' is not defined; correct"),
        ("return {}['a']", "models/mine.py line 11: KeyError: 'a'; correct the line"),
        ("return 1 / 0", "models/mine.py line 11: ZeroDivisionError: division by zero; correct"),
        ("assert x is None", "models/mine.py line 11: AssertionError"),
        ("import torch.nnn", "models/mine.py line 11: ModuleNotFoundError: No module named 'torch.nnn'"),
        ("raise ValueError('mine: no')", "models/mine.py does not fit its recipe: mine: no"),
    ],
)  # fmt: skip
def test_a_mistake_in_forward_is_one_sentence(train: Any, forward: str, sentence: str) -> None:
    with pytest.raises(StageError) as error:
        train(forward)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_class_without_forward_or_super(train: Any) -> None:
    """A missing method, and a missing `super().__init__()`, are one message each."""
    with pytest.raises(
        StageError, match=r"models/mine\.py does not fit its recipe: Module \[Mine\]"
    ):
        train("", text=NETWORK.replace("def forward", "def forwards").replace("{forward}", "pass"))
    with pytest.raises(StageError, match=r"models/mine\.py line 8: AttributeError: cannot assign"):
        train(GOOD, text=NETWORK.replace("super().__init__()", "pass"))


def test_the_shape_of_forecasts(train: Any) -> None:
    """S = 4 steps of one series."""
    with pytest.raises(StageError) as error:
        train("return x[:, -5:]", "horizon", SERIES_RECIPE)
    assert "expected forecasts (N, S, D) of shape (1, 4, 1) for one input (1, 32, 1), got " in str(
        error.value
    )
    text = NETWORK.replace("nn.Linear(64, 10)", "nn.Linear(1, 1)")
    assert train("return self.layer(x[:, -4:])", "horizon", SERIES_RECIPE, text).training


def test_a_mistake_of_ours_keeps_its_traceback(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(build, "require_one_file", broken)
    with pytest.raises(KeyError, match="ours"):
        train(GOOD)


@pytest.mark.parametrize("kind", ["RuntimeError", "AttributeError", "ValueError"])
def test_a_mistake_in_training_alone_is_a_sentence_too(train: Any, kind: str) -> None:
    """`if self.training` hides it from the sample that the build sends through."""
    net = train(f"if self.training: raise {kind}('no')\n        {GOOD}")
    recipe = Training(arch="mine", train=ResolvedTrain())
    with (
        pytest.raises(StageError, match=r"^models/mine\.py line 11.*: no"),
        device.explain_errors("train mine", recipe, torch.device("cpu")),
    ):
        net.net(torch.zeros(2, 1, 8, 8))
