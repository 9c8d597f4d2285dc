"""Training steps on the meta device, which shows what a GPU would do: for every recipe, at both
sizes. The meta device runs every operation without values: reading one back, as `.item()` does,
raises there, and copies from the CPU are recorded. One thing differs from a GPU: autocast is off.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from recipes import ROOT
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.gpu.recipes import like, noise
from pipeline.network import build as network
from pipeline.params import load as params
from pipeline.params.schema import Augment, Recipe
from pipeline.train import augment, averaging, finetune, loop, losses, mixing
from pipeline.train.checkpoint import State

pytestmark = pytest.mark.slow
META = torch.device("meta")
TODAY = {  # what no recipe of the file has
    "augment": Augment(policy="randaugment", shift=0.1, erase=0.5),
    "mixup": 0.2,
    "cutmix": 1.0,
    "ema": 0.9,
}
# By the name in torch's list of what raises in deterministic mode: the operators of ATen that raise
# on a GPU.
RAISING = {
    "torch.nn.AvgPool3d": ("avg_pool3d_backward",),
    "torch.nn.AdaptiveAvgPool2d": ("_adaptive_avg_pool2d_backward",),
    "torch.nn.AdaptiveAvgPool3d": ("_adaptive_avg_pool3d_backward",),
    "torch.nn.AdaptiveMaxPool2d": ("adaptive_max_pool2d_backward",),
    "torch.nn.FractionalMaxPool2d": ("fractional_max_pool2d_backward",),
    "torch.nn.FractionalMaxPool3d": ("fractional_max_pool3d_backward",),
    "torch.nn.MaxUnpool1d": ("max_unpool2d",),
    "torch.nn.MaxUnpool2d": ("max_unpool2d",),
    "torch.nn.MaxUnpool3d": ("max_unpool3d",),
    "torch.nn.functional.interpolate": (
        "upsample_linear1d_backward",
        "upsample_bilinear2d_backward",
        "_upsample_bilinear2d_aa_backward",
        "upsample_bicubic2d_backward",
        "_upsample_bicubic2d_aa_backward",
        "upsample_trilinear3d_backward",
    ),
    "torch.nn.ReflectionPad1d": ("reflection_pad1d_backward",),
    "torch.nn.ReflectionPad2d": ("reflection_pad2d_backward",),
    "torch.nn.ReflectionPad3d": ("reflection_pad3d_backward",),
    "torch.nn.NLLLoss": ("nll_loss2d_forward",),  # of maps: the kernel for (N, K) is another
    "torch.nn.CTCLoss": ("_ctc_loss_backward", "_cudnn_ctc_loss"),
    "torch.nn.EmbeddingBag": (
        "_embedding_bag_dense_backward",
        "_embedding_bag_per_sample_weights_backward",
    ),
    "torch.Tensor.put_": ("put", "put_"),
    "torch.histc": ("histc",),
    "torch.bincount": ("bincount",),
    "torch.median": ("median", "nanmedian"),
    "torch.nn.functional.grid_sample": ("grid_sampler_2d_backward", "grid_sampler_3d_backward"),
    "torch.Tensor.scatter_reduce": ("scatter_reduce", "scatter_reduce_"),
}


class Watch(TorchDispatchMode):
    """Records the name of every operator that runs, and the copies between devices, each with
    `non_blocking`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.copies: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        self.names.add(name)
        if name.startswith(
            "_fused_"
        ):  # an optimizer's whole step, in place; the meta device does not know all of them
            return None
        result = func(*args, **kwargs)
        given = {x.device.type for x in tree_leaves(args) if isinstance(x, Tensor)}
        if name in ("_to_copy", "copy_") and len(given | {result.device.type}) > 1:
            self.copies.append(
                bool(kwargs.get("non_blocking", args[2] if len(args) > 2 else False))
            )
        return result


class Literals(TorchFunctionMode):
    """Counts tensors made of Python numbers on another device than the CPU, because each waits for
    a copy.
    """

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count += func in (torch.tensor, torch.as_tensor) and result.device.type != "cpu"
        return result


def raising(doc: str) -> set[str]:
    """Return the operators that raise on a GPU in deterministic mode, from the docstring that lists
    them.
    """
    listed = re.search(
        r"will throw a\s+:class:`RuntimeError` when ``mode=True``:(.*?)\n    In addition", doc, re.S
    )
    assert listed, "torch words its list anew: read it, and change this test"
    names: set[str] = set()
    for entry in re.split(r"\n {8}\* ", listed[1])[1:]:
        if "CUDA" in entry or not re.search("MPS|quantized", entry):
            names |= set(re.findall(r":(?:class|func):`([\w.]+)`", entry))
    unknown = names - set(RAISING)
    assert not unknown, (
        f"torch lists what this test does not know: {unknown}; name their operators in RAISING"
    )
    return {operator for name in names for operator in RAISING[name]}


def trained(recipe: Recipe) -> tuple[Watch, int]:
    """Return what was recorded in an epoch of one step in the loop's own lines, and how many
    tensors were made of numbers.
    """
    fitting = noise(recipe, recipe.train.batch, META)
    with META:
        net = network.assemble(recipe, like(recipe))
    net = net.to(META).train()
    optimizer = loop.optimizer_of(recipe, net)
    if recipe.head:
        finetune.freeze_stages(net, recipe.head, recipe.train.epochs)
    average = averaging.copy_network(net, recipe.train)
    with pytest.MonkeyPatch.context() as patch:  # a policy keeps a copy of the images on the CPU
        patch.setattr(Tensor, "cpu", lambda images: torch.zeros(images.shape, dtype=images.dtype))
        change = augment.build(recipe.train.augment, fitting.x)
    mix = mixing.build(recipe.train, len(like(recipe).about.get("labels", [])))
    minimise = partial(loop.loss_and_outputs, recipe, net)
    if recipe.train.loss == "pinball":
        losses.level_column(tuple(recipe.train.levels), META)  # once a process
    with Watch() as watch, Literals() as literals:
        loop.take_steps(
            recipe, net, optimizer, fitting, change, State(), minimise, mix=mix, average=average
        )
    return watch, literals.count


def recipes() -> Iterator[tuple[str, Recipe]]:
    """Yield every recipe that is trained, small and full, and every setting of a study; equal ones
    once.
    """
    seen: set[str] = set()
    for size in ("small", "full"):
        text = (ROOT / "params.yaml").read_text().replace("\nsize: small", f"\nsize: {size}", 1)
        Path("params.yaml").write_text(text)
        every = params.load()
        found = dict(every.models)
        found["today"] = every.models["resnet20-digits"].updated(train=TODAY)
        for study, of in every.studies.items():
            for setting, layer in of.settings.items():
                found[f"{study}, {setting}"] = params.resolve(
                    study, params.lay_over(of.recipe, of.base, layer, every), every.sets
                )
        for name, recipe in found.items():
            key = recipe.model_dump_json(include={"arch", "net", "data", "train", "head"})
            if recipe.train.epochs and not recipe.on_features and key not in seen:
                seen.add(key)
                yield f"{name}, {size}", recipe


def kind(recipe: Recipe) -> str:
    """Return what decides which operators a recipe runs: of its numbers, such as the depth, only
    whether they are 0.
    """

    def outline(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: outline(own) for key, own in value.items()}
        return value if isinstance(value, str | bool | None) else bool(value)

    parts = recipe.model_dump(include={"arch", "net", "head"})
    parts |= recipe.data.model_dump(include={"colour", "calendar", "targets"})
    parts |= recipe.train.model_dump(
        include={"optimizer", "loss", "augment", "clip_norm", "l1", "l2", "mixup", "cutmix", "ema"}
    )
    return json.dumps(outline(parts), sort_keys=True)


def lightest(every: dict[str, Recipe]) -> dict[str, Recipe]:
    """Return one recipe of each kind: the one of the smallest depth."""
    found: dict[str, tuple[float, str, Recipe]] = {}
    for name, recipe in every.items():
        size = recipe.net.get("depth", 0)
        if kind(recipe) not in found or size < found[kind(recipe)][0]:
            found[kind(recipe)] = (size, name, recipe)
    return {name: recipe for _, name, recipe in found.values()}


@pytest.fixture(scope="module")
def on_meta(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Training in deterministic mode, where some functions of torch choose other operators; without
    autocast, which the meta device does not have, and with fused optimizers.
    """
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("work")
        (folder / "models").symlink_to(ROOT / "models")
        patch.chdir(folder)
        patch.setattr(loop, "autocast", lambda precision, on: nullcontext())
        optimizer = importlib.import_module("torch.optim.optimizer")
        patch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["meta"])
        torch.use_deterministic_algorithms(True)
        yield
        torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def every(on_meta: None) -> dict[str, Recipe]:
    return dict(recipes())


@pytest.fixture(scope="module", params=["lightest", pytest.param("every", marks=pytest.mark.long)])
def watched(
    every: dict[str, Recipe], request: pytest.FixtureRequest
) -> dict[str, tuple[Watch, int]]:
    """What was recorded of the recipes: of the lightest of each kind, or of every one."""
    chosen = lightest(every) if request.param == "lightest" else every
    return {name: trained(recipe) for name, recipe in chosen.items()}


def test_no_step_raises_in_deterministic_mode(watched: dict[str, tuple[Watch, int]]) -> None:
    """By the docstring of torch.use_deterministic_algorithms."""
    refused = raising(str(torch.use_deterministic_algorithms.__doc__))
    assert {
        name: found for name, (watch, _) in watched.items() if (found := watch.names & refused)
    } == {}
    assert all(
        {"convolution_backward", "mm"} & watch.names for watch, _ in watched.values()
    )  # something was seen


def test_no_step_waits_for_the_device(watched: dict[str, tuple[Watch, int]]) -> None:
    """The order of an epoch and, with augmentation, each step's numbers, or its images after a
    policy, are sent without waiting.
    """
    assert {
        name for name, (watch, literals) in watched.items() if literals or not all(watch.copies)
    } == set()
    assert {len(watch.copies) for watch, _ in watched.values()} == {1, 2, 3}


@pytest.mark.parametrize(
    ("name", "found"), [("alexnet", {"_adaptive_avg_pool2d_backward"}), ("squeezenet1_1", set())]
)
def test_a_nondeterministic_gradient_is_detected(
    every: dict[str, Recipe], name: str, found: set[str]
) -> None:
    """torchvision's AlexNet averages over 6 x 6 places, which has no deterministic gradient on a
    GPU.
    """
    watch, _ = trained(every["squeezenet-digits, full"].updated(net={"name": name}))
    assert watch.names & raising(str(torch.use_deterministic_algorithms.__doc__)) == found


def test_a_new_entry_of_the_list_is_not_overlooked() -> None:
    doc = str(torch.use_deterministic_algorithms.__doc__)
    with pytest.raises(
        AssertionError, match=r"lists what this test does not know: \{'torch.new'\}"
    ):
        raising(
            doc.replace("    In addition", "        * :func:`torch.new` on CUDA\n\n    In addition")
        )
    with pytest.raises(AssertionError, match="words its list anew"):
        raising(doc.replace("will throw a", "throw a"))


def test_blocking_copies_are_detected() -> None:
    """Reading back raises; a copy that is waited for, one that is not, and a tensor of numbers."""
    with Watch() as watch, Literals() as literals:
        torch.zeros(2).to(META)
        torch.zeros(2).to(META, non_blocking=True)
        torch.empty(2, device=META).copy_(torch.zeros(2))
        torch.tensor([1.0], device=META)
    assert watch.copies[:3] == [False, True, False] and literals.count == 1
    with pytest.raises(RuntimeError, match="item"):
        torch.zeros((), device=META).item()
