"""What a bare GPU machine cannot make for itself, in one folder: recipes, small data sets, exported
files, ResNet-50.

recipes.json                 every recipe that the loop trains: {name: {"small": recipe, "full":
recipe}} data/<entry>/                arrays, statistics and about.json of the entries that are
trained for real files/<entry>/               model.onnx, model.fp16.onnx and torch.npz of the
line's exported entries that are small packages/                    pydantic, for each of PYTHONS:
the recipes are its models resnet50/                    model.onnx, model.fp16.onnx and torch's
answers: 150 MB, for onnxruntime-gpu alone
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.gpu import fitted
from benchmarks.gpu.clock import Facts, Here, read
from pipeline.core.errors import StageError
from pipeline.core.files import fresh, write_json
from pipeline.core.paths import OUT
from pipeline.data import dataset, prepare
from pipeline.params import load as params
from pipeline.params.recipe import check_recipe
from pipeline.params.schema import Recipe

FOLDER = OUT / "gpu" / "carried"
REAL = ("lenet5-digits", "dilated-waves", "dilated-co2", "resnet20-digits")
LARGEST = 8e6  # bytes of an exported file that is carried along
SIZES = ("small", "full")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")  # that the bare machine may have


def pack(folder: Path = FOLDER, reduced: bool = False) -> None:
    """Write the folder anew from params.yaml and from what the line has exported; reduced:
    ResNet-18 at 64 pixels.
    """
    fresh(folder)
    write_json(folder / "recipes.json", recipes())
    for name in REAL:
        source, _ = prepare.make(load_recipe(folder, name, "small").data)
        place = folder / "data" / name
        place.mkdir(parents=True)
        dataset.save(place, source)
        write_json(place / "about.json", source.about)
    for export in sorted(OUT.glob("*/export")):
        if all((export / file).exists() for file in ("model.onnx", "torch.npz")):
            copy_files(export, folder / "files" / export.parent.name)
    fitted.write(folder / "resnet50", *((64, 18) if reduced else ()))


def install_packages(folder: Path) -> None:
    """Install pydantic for each of PYTHONS into one folder: its compiled files carry the version
    in their names.
    """
    with tempfile.TemporaryDirectory() as place:
        for python in PYTHONS:
            target = Path(place, python)
            words = ["uv", "pip", "install", "--quiet", f"--target={target}"]
            words += [
                f"--python-version={python}",
                "--python-platform=linux",
                "--only-binary=:all:",
            ]
            words += [f"pydantic=={version('pydantic')}"]
            done = subprocess.run(
                [sys.executable, "-m", *words], capture_output=True, text=True, check=False
            )
            if done.returncode:
                reason = " ".join(done.stderr.split())[-300:]
                raise StageError(f"pydantic for Python {python}: {reason}; is there a network?")
            shutil.copytree(target, folder, dirs_exist_ok=True)


def as_step(here: Here) -> Facts:
    """Pack, where nothing was carried along: at reduced size for the CPU."""
    pack(here.carried, reduced=not here.full)
    yield "made", sorted(str(path.relative_to(here.carried)) for path in here.carried.glob("*/*"))


def copy_files(export: Path, to: Path) -> None:
    """Copy an entry's exported files, where its fp32 file is small."""
    if (export / "model.onnx").stat().st_size > LARGEST:
        return
    to.mkdir(parents=True)
    for file in ("model.onnx", "model.fp16.onnx", "torch.npz"):
        if (export / file).exists():
            shutil.copy(export / file, to)


def recipes() -> dict[str, dict[str, dict[str, Any]]]:
    """Return every recipe of params.yaml that the training loop trains, at both sizes, as stage
    params resolves it.
    """
    every = params.load()
    found = {
        name: {
            size: check_recipe(name, every.raw["models"][name], every.sets, size) for size in SIZES
        }
        for name in every.models
    }
    return {
        name: {
            size: recipe.updated(
                deterministic=every.deterministic, threads=every.threads, size=size
            ).model_dump(mode="json", include=set(Recipe.model_fields))
            for size, recipe in both.items()
        }
        for name, both in found.items()
        if not both["full"].on_features and both["full"].train.epochs
    }


def load_recipes(folder: Path, size: str) -> dict[str, Recipe]:
    """Return {name: recipe} of the folder."""
    found = read(folder / "recipes.json")
    return {
        name: Recipe.model_validate_json(json.dumps(both[size])) for name, both in found.items()
    }


def load_recipe(folder: Path, name: str, size: str) -> Recipe:
    return load_recipes(folder, size)[name]


def load_data(folder: Path, name: str) -> dataset.Data:
    place = folder / "data" / name
    return dataset.read(place, read(place / "about.json"))
