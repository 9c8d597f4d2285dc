"""Options of networks, read from their source without torch: defaults, choices, limits, rules."""

import inspect
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from recipes import ROOT, SETS

import models
from models import summary
from pipeline.core.errors import ParamsError
from pipeline.params import load as params
from pipeline.params import network_options
from pipeline.params.recipe import DATA_KEYWORDS, resolve

IMAGES = {"set": "digits", "size": [304, 304], "colour": "rgb"}  # what the largest stem needs
SERIES = {"set": "waves", "context": 48, "horizon": 12}
DATA = {"classification": IMAGES, "forecasting": SERIES}
SCENES = IMAGES | {"set": "scenes"}  # of the other tasks
# What the data give: the keywords of a constructor that have no default.
GIVEN = {"in_channels": 3, "size": (304, 304), "classes": 10, "words": 21, "longest": 14}
GIVEN_SERIES = dict(series=1, targets=1, calendar=0, horizon=12, context=48, quantiles=1, season=7)
EVERY = [(arch, option) for arch in models.names() for option in network_options.constructor(
    arch, frozenset().union(*DATA_KEYWORDS.values())
).model_fields]  # fmt: skip
# Half a second each to build; their options are choices, probabilities and true or false.
HEAVY = {"alexnet", "densenet", "googlenet", "inception3", "inceptionresnet", "vgg", "zoo"}
# Values of every kind that YAML has; each option must refuse what its constructor cannot take.
VALUES = (
    *("banana", "3", "", True, None, 0, -1, 1, 2, 3, 21, 2.5, 1.5, -0.1, 1.0),
    *([], [0], [2], [3, -1], ["none"], ["banana"], [1.5], {"a": 1}),
)


@pytest.fixture(autouse=True)
def in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def recipe_of(arch: str, **net: Any) -> dict[str, Any]:
    """Return a recipe of `arch` and `data`, with `net` where an option is asked for."""
    data = DATA.get(str(network_options.task_of(arch)), SCENES)
    return {"arch": arch, "data": data} | ({"net": net} if net else {})


def resolved(arch: str, **net: Any) -> Any:
    specs = SETS | {"scenes": {"source": "scenes"}}
    sets = {name: params.check_set(name, spec) for name, spec in specs.items()}
    return resolve("models.tiny", recipe_of(arch, **net), sets)


def built(arch: str, net: dict[str, Any]) -> Any:
    """Return the network on the meta device, with the keywords that stage train gives."""
    given = {k: v for k, v in (GIVEN | GIVEN_SERIES).items() if k in models.takes(arch)}
    return summary.on_meta(arch, given | net)


@pytest.mark.parametrize("arch", models.names())
def test_a_recipe_needs_arch_and_data_alone(arch: str) -> None:
    """The constructor's own defaults, and it builds without any option."""
    recipe = resolved(arch)
    defaults = {
        name: list(keyword.default) if isinstance(keyword.default, tuple) else keyword.default
        for name, keyword in models.takes(arch).items()
        if keyword.default is not inspect.Parameter.empty
    }
    assert recipe.net == defaults and recipe.train.epochs == 30
    shapes = [
        {k: v.shape for k, v in built(arch, net).state_dict().items()} for net in ({}, recipe.net)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("arch", "option"), EVERY, ids=map("-".join, EVERY))
def test_a_wrong_value_is_refused_before_training(arch: str, option: str) -> None:
    """What stage params lets pass, the constructor takes; what it refuses, it names."""
    refused = []
    for value in VALUES:
        try:
            net = resolved(arch, **{option: value}).net
        except ParamsError as error:
            assert option in str(error) and "\n" not in str(error)
            refused.append(value)
        else:
            if arch not in HEAVY:
                built(arch, net)
    assert {"a": 1} in refused and len(refused) >= 9


BESIDE: dict[Any, dict[str, Any]] = {  # what a choice or an option needs beside it
    "imagenet": {"depth": 18, "shortcut": "B"},
    "stride": {"backbone": "zoo", "name": "mobilenet_v2"},
}
CHOICES = [
    pytest.param(arch, option, choice, marks=[pytest.mark.slow] * (arch in HEAVY))
    for arch, option in EVERY
    for kind in [network_options.constructor(arch).model_fields[option].annotation]
    if get_origin(kind) is Literal and arch != "zoo"
    for choice in get_args(kind)
]


@pytest.mark.parametrize(("arch", "option", "choice"), CHOICES)
def test_every_choice_builds(arch: str, option: str, choice: Any) -> None:
    """The tables in models/, which the `Literal` repeats."""
    net = {option: choice} | BESIDE.get(choice, BESIDE.get(option, {}))
    built(arch, resolved(arch, **net).net)


def test_the_names_of_torchvision_are_torchvisions() -> None:
    """torchvision's own list; models/zoo.py repeats it for stage params."""
    import torchvision

    assert network_options.torchvision_names() == torchvision.models.list_models(
        module=torchvision.models
    )


@pytest.mark.parametrize(
    ("arch", "net", "size", "sentence"),
    [
        ("resnet", {"depth": 21}, 8, "expected depth 6n + 2 in family cifar, got 21; choose 20, 32"),
        ("resnet", {"depth": 18}, 8, "choose 20, 32, 44, 56, 110, or set family: imagenet"),
        ("resnet", {"family": "imagenet"}, 8, "expected depth 18, 34, 50, 101, 152, got 20; choose"),
        ("resnet", {"shortcut": "none", "zero_init": True}, 8, "for zero_init, got neither or one"),
        ("alexnet", {}, 66, "alexnet: expected at least 67 x 67 pixels, got 66 x 66; enlarge size"),
        ("alexnet", {"pool": "separate"}, 38, "expected at least 39 x 39 pixels, got 38 x 38"),
        ("googlenet", {}, 78, "at least 79 x 79 pixels, got 78 x 78; enlarge size, or set aux: false"),
        ("inception3", {}, 298, "at least 299 x 299 pixels, got 298 x 298; enlarge size, or set aux"),
        ("highway", {"kind": "conv", "depth": 2}, 8, "expected depth 3 or more, got 2; add layers"),
        ("stack", {"kernels": [4]}, 8, "expected kernels of odd sides, one and more, got [4]"),
        ("vgg", {"configuration": "A"}, 31, "expected at least 32 x 32 pixels, got 31 x 31"),
        ("zoo", {"name": "vit_b_16"}, 220, "expected a square of a multiple of 16 pixels, got 220"),
        ("ensemble", {"look_backs": [49]}, 0, "look-backs up to context 48, got look_backs [49]"),
        ("ensemble", {"maps": [{"arch": "tcn"}]}, 0, "of kind, rank, bias, look_back, got arch; correct"),
        ("ensemble", {"maps": [{"kind": "x"}]}, 0, ", dlinear, rank from 0, look_back from 1"),
        ("ensemble", {"maps": [{"bias": 1}]}, 0, "bias true or false, got {'bias': 1}; correct"),
        ("ensemble", {"maps": [{"look_back": 49}]}, 0, "up to context 48, got look_backs [48, 49]"),
        ("ltsflinear", {"rank": 13}, 0, "expected rank up to context 48 and horizon 12, got 13"),
        ("tcn", {"patch": 2, "stride": 4}, 0, "expected patch >= stride >= 1 and kernel_size of 2"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_before_training(
    arch: str, net: dict[str, Any], size: int, sentence: str
) -> None:
    """The default is that of the constructor."""
    recipe = recipe_of(arch, **net)
    recipe["data"] = recipe["data"] | ({"size": [size, size]} if size else {})
    sets = {name: params.check_set(name, spec) for name, spec in SETS.items()}
    with pytest.raises(ParamsError) as error:
        resolve("models.tiny", recipe, sets)
    assert sentence in str(error.value)
    given = {k: v for k, v in (GIVEN | GIVEN_SERIES).items() if k in models.takes(arch)}
    with pytest.raises(ValueError, match=r"^" + arch):
        summary.on_meta(arch, given | net | ({"size": (size, size)} if size else {}))


NETWORK = """from models import options
{before}
class Mine:
    def __init__({arguments}):
        pass


{last}
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that writes models/mine.py and resolves a recipe of it."""
    monkeypatch.setattr(network_options, "MODELS", tmp_path)

    def write(arguments: str, before: str = "", last: str = "Model = Mine", **net: Any) -> Any:
        text = NETWORK.format(arguments=arguments, before=before, last=last)
        (tmp_path / "mine.py").write_text(text)
        recipe = {"arch": "mine", "data": {"set": "digits", "size": [8, 8], "colour": "grey"}}
        sets = {name: params.check_set(name, spec) for name, spec in SETS.items()}
        return resolve("models.tiny", recipe | {"net": net}, sets)

    return write


def test_arguments_by_position_are_options_too(mine: Any) -> None:
    recipe = mine(
        "self, in_channels, size, classes, width: int = 3, *, deep=WIDTH, flag: bool = True"
    )
    assert recipe.net == {"width": 3, "flag": True}  # deep: Python alone knows its default


@pytest.mark.parametrize(
    ("default", "good", "bad"),
    [("3", 2.5, "wide"), ("0.1", 1, True), ("'a'", "b", 3), ("True", False, 1), ("(3, 4)", [5], 5)],
)
def test_the_default_of_an_option_gives_its_type(
    mine: Any, default: str, good: Any, bad: Any
) -> None:
    """Without an annotation; oracle: types by hand. A whole number may become any number."""
    arguments = f"self, classes, width={default}"
    assert mine(arguments, width=good).net == {"width": good}
    with pytest.raises(ParamsError, match=r"models\.tiny\.net\.width: expected "):
        mine(arguments, width=bad)


def test_a_network_need_not_take_size_or_channels(mine: Any) -> None:
    assert mine("self, classes").net == {}


def test_rules_see_literals_and_their_own_functions(mine: Any) -> None:
    before = (
        "MOST = {'width': 4}\nNET = make_net()\ndef limit(): return MOST['width']\n"
        "def check_options(width, size):\n"
        "    if width > limit() or min(size) < 8: raise ValueError(f'mine: expected 4, got {width}')"
    )
    assert mine("self, classes, width: int = 3", before).net == {"width": 3}
    with pytest.raises(ParamsError, match=r"models\.tiny: mine: expected 4, got 5"):
        mine("self, classes, width: int = 3", before, width=5)


def test_rules_that_need_torch_are_left_to_the_constructor(mine: Any) -> None:
    before = "import torch\ndef check_options(width): torch.zeros(width)"
    assert mine("self, classes, width: int = -3", before).net == {"width": -3}


@pytest.mark.parametrize(
    ("arguments", "last", "sentence"),
    [
        ("self, classes", "", r"expected a last line `Model = Mine` in models/mine.py, got none; add"),
        ("self, horizon", "Model = Mine", "models/mine.py does not take images, since its __init__"),
        ("self, classes", "Model = Mine\nif x:", "models/mine.py line 9: expected Python, got "),
        ("self, classes", "Model = Other", "models/mine.py: expected a class Other with an __init__"),
        ("self, classes, width: int", "Model = Mine", "models.tiny.net.width: missing; add it"),
        ("self, num_classes", "Model = Mine", "has no `classes`; name the argument `classes` that"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_network_says_why(
    mine: Any, arguments: str, last: str, sentence: str
) -> None:
    with pytest.raises(ParamsError) as error:
        mine(arguments, last=last)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_options_are_read_without_torch() -> None:
    """A process in which torch cannot be imported."""
    code = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        "from pipeline.params.load import load; load()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


def test_every_annotation_of_models_is_checked() -> None:
    """An option whose type stage params cannot read takes any value: there is none."""
    kinds = {
        (arch, option): network_options.constructor(arch).model_fields[option].annotation
        for arch, option in EVERY
    }
    assert [key for key, kind in kinds.items() if kind is Any] == []
    assert len(list(itertools.chain(kinds))) > 50
