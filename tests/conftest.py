"""What the tests of the pipeline share: a workspace, and recipes that train in a second."""

import copy
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_cuda as stand_ins
import numpy as np
import pytest
import shop
from PIL import Image
from recipes import BASE, ROOT, SETS, SPECS, TRANSFERS

from pipeline.data import dataset, prepare
from pipeline.data.normalization import image_statistics
from pipeline.params import load, recipe, schema
from pipeline.params.schema import EntryRecipe


def pytest_configure(config: pytest.Config) -> None:
    """Create the folder that the processes of this run share (line.py); remove it at the end."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = os.environ["CONVLINE_TESTS"] = tempfile.mkdtemp(prefix="convline-tests-")
        config.add_cleanup(functools.partial(shutil.rmtree, folder, ignore_errors=True))


@pytest.fixture(scope="session", autouse=True)
def operators_read_once() -> Iterator[None]:
    """Read the source of the exporter's 500 operators once a process: torch's exporter does so at
    each export, which takes more than half the time of a small network's.
    """
    if "torch" not in sys.modules:
        yield
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    from_torchlib = ONNXRegistry.from_torchlib

    @functools.cache
    def read(with_torchvision: bool, **opset: int) -> ONNXRegistry:  # its operators, if imported
        return from_torchlib(**opset)

    def copied(**opset: int) -> ONNXRegistry:
        whole = read("torchvision" in sys.modules, **opset)
        own = copy.copy(whole)
        own.functions = {target: [*known] for target, known in whole.functions.items()}
        return own  # to which an export may add operators

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(copied))
        yield


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with models/, pipeline/ and serve/ of the repository: stages
    write below it.
    """
    folder = tmp_path / "work space"  # paths with spaces work
    folder.mkdir()
    for name in ("models", "pipeline", "serve"):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the made line (line.py), as the working directory."""
    import line  # onnxruntime: not for every test file

    monkeypatch.chdir(line.copy_to(tmp_path))
    return Path.cwd()


@pytest.fixture(scope="session")
def fake_cuda(request: pytest.FixtureRequest) -> stand_ins.FakeCuda:
    """Runs Python with stand-ins for CUDA's libraries (fake_cuda.py); skipped with the reason where
    none can be built.

    The libraries lie in pytest's cache, so they are compiled once, not once a session.
    """
    if reason := stand_ins.lacking():
        pytest.skip(reason)
    return stand_ins.built(request.config.cache.mkdir("fake-cuda"))


@pytest.fixture(scope="session")
def shipped() -> load.Params:
    """The repository's params.yaml, checked; no test changes it."""
    return load.load(ROOT / "params.yaml")


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> Callable[..., EntryRecipe]:
    """A function that resolves a recipe as stage params does; keywords are laid over its blocks."""
    monkeypatch.setattr("pipeline.params.network_options.MODELS", ROOT / "models")

    def resolve(recipe: dict[str, Any], sets: dict[str, Any] = SETS, **blocks: Any) -> EntryRecipe:
        known = {name: load.check_set(name, spec) for name, spec in sets.items()}
        return load.resolve("models.tiny", load.overlay(copy.deepcopy(recipe), blocks), known)

    return resolve


@pytest.fixture
def images_of() -> Callable[..., dataset.Data]:
    """A function that wraps uint8 images (N, H, W, C) and labels as an entry's data: thirds as
    splits.
    """

    def wrap(x: np.ndarray, y: np.ndarray) -> dataset.Data:
        splits = {split: slice(k, None, 3) for k, split in enumerate(dataset.SPLITS)}
        labels = [str(k) for k in range(int(y.max()) + 1)]
        colour = "grey" if x.shape[3] == 1 else "rgb"
        about = {"task": "classification", "labels": labels, "hash": "none"}
        about["input"] = {"size": list(x.shape[1:3]), "colour": colour}
        mean, scale = image_statistics(x[splits["train"]], "channel")
        return dataset.Data(
            {k: x[s] for k, s in splits.items()},
            {k: y[s] for k, s in splits.items()},
            mean,
            scale,
            about,
        )

    return wrap


@pytest.fixture
def photo_folder(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes PNG files: classes are {name: images}; answers the folder above
    them.
    """

    def write(classes: dict[str, int], at: str = "photos") -> Path:
        rng = np.random.default_rng(0)
        for k, (name, count) in enumerate(classes.items()):
            (tmp_path / at / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (6, 5, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / at / name / f"{k}-{i:02d}.png")
        return tmp_path / at

    return write


@pytest.fixture
def shop_csv(tmp_path: Path) -> Path:
    return shop.write(tmp_path / "shop.csv")


@pytest.fixture
def of_shop(shop_csv: Path, resolved: Callable[..., EntryRecipe]) -> Callable[..., EntryRecipe]:
    """A function that resolves the shop's recipe, blocks laid over it."""
    sets = {
        "shop": {
            "source": "csv",
            "path": str(shop_csv),
            "time": "day",
            "season": 7,
            "licence": "own",
        }
    }
    return lambda **blocks: resolved(shop.RECIPE, sets, **blocks)


@pytest.fixture
def spec_of() -> Callable[..., Any]:
    """A function that completes a data set's spec with its defaults."""

    def complete(source: str, **options: Any) -> Any:
        kind = schema.SOURCES[source]
        licence = {"licence": "own"} if kind.model_fields["licence"].is_required() else {}
        return load.check_set("mine", {"source": source, **licence, **options})

    return complete


@pytest.fixture(scope="session")
def base_state() -> Any:
    """A small network (network.Base) that knows the digits 0 to 4."""
    import torch

    from pipeline.network import pretrained
    from pipeline.train import checkpoint, loop

    sets = {name: load.check_set(name, spec) for name, spec in SPECS.items()}
    resolved = load.resolve("base", BASE, sets)
    source = prepare.make(resolved.data)[0]
    net, _ = loop.fit(resolved, source, on=torch.device("cpu"), label="base")
    return pretrained.Base(checkpoint.copy_weights(net), source.about["labels"])


@pytest.fixture
def built(
    resolved: Callable[..., EntryRecipe],
) -> Callable[..., tuple[EntryRecipe, dataset.Data]]:
    """A function that resolves one of TRANSFERS, options laid over its head, and makes its data."""

    def build(name: str, **head: Any) -> tuple[EntryRecipe, dataset.Data]:
        models = {**TRANSFERS, name: {**TRANSFERS[name], "head": TRANSFERS[name]["head"] | head}}
        made = resolved(recipe.built_on(name, models), SPECS)
        return made, prepare.make(made.data)[0]

    return build
