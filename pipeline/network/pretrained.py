"""Load the weights that a training starts from: another entry's, or published ones."""

from __future__ import annotations

import difflib
import pickle
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import models
from pipeline.core import paths
from pipeline.core.errors import StageError
from pipeline.core.files import read_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.network.modules import output_layer_name, stages
from pipeline.params.recipe import head_cure
from pipeline.params.schema import Head, Training


@dataclass
class Base:
    """A trained network from which another recipe starts: its state dict and its classes."""

    state: dict[str, Tensor]
    labels: list[str]


def load_start_weights(
    net: Any,
    recipe: Training,
    labels: list[str],
    base: Base | None = None,
) -> None:
    """Load published weights or another entry's network, where the recipe names one to start from.

    labels: the classes of this recipe. base: the other entry, where it is in memory; else it is
    read from out/ and results/. With a `head:` block the last layer keeps its random weights; all
    other weights must fit, or StageError is raised. An architecture with `start_weights` takes a
    part of another architecture's.
    """
    if needs := recipe.needs:
        base, whose = base or read_base(needs), f"the network of {needs}"
        of_net = {key.removeprefix("net."): w for key, w in base.state.items() if key[:4] == "net."}
        if (part := part_of(net.net, recipe.arch, of_net)) is not None:
            load_weights(net.net, part, whose, recipe)
            return
        load_weights(net, base.state, whose, recipe)
        if recipe.head and recipe.head.keep:
            copy_known_classes(net, base, labels)
    elif weights := recipe.weights:
        state = read_published(recipe)
        if not net.net.state_dict().keys() <= state.keys():
            state = part_of(net.net, recipe.arch, state) or state
        load_weights(net.net, state, f"weights: {weights.file}", recipe)


def part_of(net: nn.Module, arch: str, state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Return a network's weights with those that its architecture takes of another one's `state`.

    Of a part that it takes at all, such as the features, every weight is expected; what the other
    one has beyond is left out. None where the architecture takes none.
    """
    part, own = models.start_weights(arch, state), net.state_dict()
    if part is None:
        return None
    parts = {name.partition(".")[0] for name in part}
    rest = {name: weight for name, weight in own.items() if name.partition(".")[0] not in parts}
    return rest | {name: weight for name, weight in part.items() if name in own}


def read_base(entry: str) -> Base:
    """Return the trained network of an entry of the line."""
    file = OUT / entry / "train" / "weights.pt"
    if not file.exists():
        raise StageError(f"{file}: not made yet; run `dvc repro train@{entry}`")
    labels = read_json(RESULTS / entry / "data.json", f"data@{entry}").get("labels", [])
    return Base(torch.load(file, map_location="cpu", weights_only=True), labels)


@torch.no_grad()
def copy_known_classes(net: nn.Module, base: Base, labels: list[str]) -> None:
    """Copy the last layer's weights of the classes that the base knows; new ones stay random."""
    both = [label for label in labels if label in base.labels]
    new, old = ([names.index(label) for label in both] for names in (labels, base.labels))
    for name, tensor in net.get_submodule(last := output_layer_name(net)).named_parameters():
        tensor[new] = base.state[f"{last}.{name}"][old]


def read_published(recipe: Training) -> dict[str, Tensor]:
    """Return the published weights that the recipe names, under the network's own keys."""
    assert recipe.weights
    file = recipe.weights.file
    path, cure = paths.weights_path(file), "give the file that torch.save wrote of a state dict"
    if path and path.suffix == ".safetensors":
        call = f"torch.save(safetensors.torch.load_file({path.name!r}), {path.stem + '.pt'!r})"
        needed = "expected a file of torch.save, got safetensors"
        raise StageError(f"weights: {path}: {needed}; convert it: {call}")
    try:
        state = None if path is None else torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, KeyError) as error:
        raise StageError(
            f"weights: {path} cannot be read ({type(error).__name__}); {cure}"
        ) from None
    state = unwrap_state_dict(state)
    if path and not (
        isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())
    ):
        raise StageError(
            f"weights: {path}: expected names and tensors, got {type(state).__name__}; {cure}"
        )
    try:
        return models.published(recipe.arch, state, recipe.net)
    except OSError as error:
        reason = f"torchvision's are not below TORCH_HOME, and their download failed ({error})"
        raise StageError(f"weights: {reason}; put the file there, or name one") from None
    except ValueError as error:
        raise StageError(f"weights: {file}: {error}") from None


def unwrap_state_dict(saved: Any) -> Any:
    """Return the state dict in the file of a training script, without DataParallel's prefix.

    The file may be a checkpoint that has the state dict as one of its parts.
    """
    for key in ("state_dict", "model"):
        if isinstance(saved, dict) and isinstance(saved.get(key), dict):
            saved = saved[key]
    if isinstance(saved, dict) and saved and all(str(name).startswith("module.") for name in saved):
        return {name.removeprefix("module."): tensor for name, tensor in saved.items()}
    return saved


def load_weights(net: nn.Module, state: dict[str, Tensor], whose: str, recipe: Training) -> None:
    """Load a state dict, except for the parts that the recipe's head starts at random.

    Raises StageError where a tensor is missing, unexpected, of another shape or not finite. `whose`
    begins the message.
    """
    own = net.state_dict()
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    state = (
        counters | state
    )  # files from before PyTorch 0.4.1 have no counters; no served file does
    if recipe.head:
        kept = fresh_weights(net, recipe.head)
        state = {key: tensor for key, tensor in state.items() if key not in kept} | kept
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = {key: (tuple(state[key].shape), tuple(own[key].shape)) for key in own if key in state}
    wrong = [
        f"{key} {got} for {expected}" for key, (got, expected) in shapes.items() if got != expected
    ]
    parts = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
    if faults := [f"{what} {first_few(keys)}" for what, keys in parts.items() if keys]:
        both = bool(missing and unexpected)
        near = difflib.get_close_matches(unexpected[0], missing, 1, 0) if both else []
        meant = f"; was {unexpected[0]} meant for {near[0]}?" if near else ""
        cure = "name the weights of this network, with its own options and number of classes"
        rows = [got[1:] == expected[1:] for got, expected in shapes.values() if got != expected]
        if all(rows) and len(rows) <= 2 and not (missing or unexpected):  # one layer's outputs
            other = head_cure(recipe) if recipe.weights else models.start_cure(recipe.arch)
            cure = f"they are of other classes: {other}"
        raise StageError(
            f"{whose} does not fit models/{recipe.arch}.py: {'; '.join(faults)}{meant}; {cure}"
        )
    if broken := next((key for key, tensor in state.items() if not tensor.isfinite().all()), None):
        raise StageError(f"{whose}: {broken} has values that are not finite; give other weights")
    net.load_state_dict(state)


def fresh_weights(net: nn.Module, head: Head) -> dict[str, Tensor]:
    """Return the random weights to keep: the last layer's, and of stages that are not copied."""
    fresh = [output_layer_name(net)]
    if head.copied != "all":
        fresh += list(stages(net))[head.copied :]
    return {
        key: tensor
        for key, tensor in net.state_dict().items()
        if key.startswith(tuple(f"{f}." for f in fresh))
    }


def first_few(keys: list[str], most: int = 3) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
