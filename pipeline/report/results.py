"""What the stages have left behind for one entry or study: the report's only reader of files.

A file that is not there is pending, never an error; a file that is there and cannot be read is an error that names the
command which makes it again.
"""

from __future__ import annotations

import ast
import csv
import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import StageError

# File of results/<entry>/ -> the stage that writes it, in the order of the line.
MAKERS = {"data": "data", "train": "train", "export": "export", "check": "check", "speed": "check"}
MAKERS |= {"explain": "explain", "infer": "infer"}
ENDS = ("explain", "infer")  # no other stage makes these on its way


def damaged(path: Path, expected: str, error: Exception, command: str) -> StageError:
    return StageError(f"{path}: expected {expected}, got {error}; make it again with `{command}`")


def load_json(path: Path, command: str) -> Any:
    """Return the parsed file, or None where there is none."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(path, "JSON", error, command) from error


def load_arrays(path: Path, command: str) -> dict[str, np.ndarray] | None:
    """Return the arrays of an .npz file by name, or None where there is none."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise damaged(path, "arrays in .npz form", error, command) from error


@dataclass(frozen=True)
class Entry:
    """One name of `line`: its resolved recipe, and what the stages have written for it under `root`."""

    name: str
    recipe: dict[str, Any]
    root: Path

    def command(self, stage: str) -> str:
        return f"dvc repro {stage}@{self.name}"

    @cached_property
    def results(self) -> dict[str, dict[str, Any]]:
        """The content of results/<entry>/<file>.json by file name, without those not made yet."""
        folder = self.root / "results" / self.name
        found = {
            file: load_json(folder / f"{file}.json", self.command(stage))
            for file, stage in MAKERS.items()
        }
        return {file: content for file, content in found.items() if content is not None}

    @property
    def pending(self) -> dict[str, str]:
        """Stages not made yet, each with the command that makes it; `dvc repro` runs what comes before by itself."""
        return {
            stage: self.command(stage) for file, stage in MAKERS.items() if file not in self.results
        }

    @property
    def whole(self) -> str:
        """The command that makes every pending stage."""
        ends = [stage for stage in ENDS if stage in self.pending] or list(self.pending)[-1:]
        return "dvc repro " + " ".join(f"{stage}@{self.name}" for stage in ends)

    @property
    def arch(self) -> str:
        return str(self.recipe["arch"])

    @property
    def network(self) -> str:
        """The architecture; with a head of its own also the head, and the entry whose network it stands on."""
        if not (head := self.recipe.get("head")):
            return self.arch
        kind = self.heads["chosen"]["kind"] if self.heads else head["kind"]
        needs = self.recipe.get("needs")
        network = self.recipe.get("net", {}).get("name", self.arch)  # zoo: the one of torchvision's
        return f"{kind} on {network}" + (f" of {needs}" if needs else "")

    @property
    def task(self) -> str | None:
        """ "classification" or "forecasting"; None until the data stage has said which."""
        return self.results["data"]["task"] if "data" in self.results else None

    @property
    def metric(self) -> dict[str, Any] | None:
        return self.results["check"]["metric"] if "check" in self.results else None

    @property
    def latencies(self) -> dict[str, float]:
        """p50 of the fp32 file in milliseconds at batch 1, by device, on every core."""
        rows = [
            r
            for r in self.results.get("speed", {}).get("rows", [])
            if (r["variant"], r["batch"]) == ("fp32", 1)
        ]
        return {
            row["device"]: row["p50_ms"] for row in reversed(rows)
        }  # the first is of every core

    @cached_property
    def history(self) -> list[dict[str, Any]] | None:
        """One row per epoch."""
        return load_json(
            self.root / "out" / self.name / "train" / "history.json", self.command("train")
        )

    @property
    def trained(self) -> bool:
        """Whether the loop has trained it: a head on features and published weights have no epochs."""
        return bool(self.history) and self.history[-1]["epoch"] > 0

    @cached_property
    def heads(self) -> dict[str, Any] | None:
        """The chosen head on features, and all that cross-validation compared it with."""
        return load_json(
            self.root / "out" / self.name / "train" / "head.json", self.command("train")
        )

    @cached_property
    def noise(self) -> dict[str, dict[str, float]] | None:
        """Signal to noise in dB of each node, by variant and node."""
        return load_json(
            self.root / "out" / self.name / "export" / "noise.json", self.command("export")
        )

    @property
    def seen(self) -> list[dict[str, Any]] | None:
        """What stage explain shows: sections of pictures with captions; None where one is not there."""
        sections = self.page.get("sections")
        shown = [picture for section in sections or [] for picture in section["shown"]]
        return (
            sections if all(self.picture(picture["file"]).is_file() for picture in shown) else None
        )

    @property
    def judged(self) -> dict[str, Any]:
        """What stage explain measured of a classifier's maps; empty before it has run, and of forecasters."""
        return self.page.get("facts", {}).get("attribution", {})

    @cached_property
    def page(self) -> dict[str, Any]:
        """What stage explain wrote for the page: sections, and every number, those that drift between machines too."""
        return load_json(self.picture("page.json"), self.command("explain")) or {}

    def picture(self, file: str) -> Path:
        return self.root / "out" / self.name / "explain" / file

    @cached_property
    def layers(self) -> list[dict[str, Any]] | None:
        """One row per layer."""
        return load_json(
            self.root / "out" / self.name / "train" / "layers.json", self.command("train")
        )

    @cached_property
    def answers(self) -> dict[str, np.ndarray] | None:
        """What the served file answered on the test split (see check)."""
        return load_arrays(
            self.root / "out" / self.name / "check" / "test.npz", self.command("check")
        )

    @cached_property
    def images(self) -> np.ndarray | None:
        """The test images, uint8 (N, H, W, C), left on disk until one is looked at; rows as in `answers`."""
        return self.array("test_x")

    def array(self, name: str) -> np.ndarray | None:
        """Return an array of the data stage, "train_x" or "test_y", left on disk until it is looked at."""
        path = self.root / "out" / self.name / "data" / f"{name}.npy"
        if not path.is_file():
            return None
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise damaged(path, "an array in .npy form", error, self.command("data")) from error

    @cached_property
    def about(self) -> list[str]:
        """The paragraphs of the architecture's own docstring, read as text: the report runs without torch."""
        path = self.root / "models" / f"{self.arch}.py"
        text = (
            ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            if path.is_file()
            else None
        )
        return text.split("\n\n") if text else []


@dataclass(frozen=True)
class Study:
    """One study of params.yaml: the sentence that it tests, its table, its picture."""

    name: str
    claim: str
    root: Path

    @property
    def command(self) -> str:
        return f"make study NAME={self.name}"

    @property
    def picture(self) -> Path | None:
        path = self.root / "out" / "studies" / f"{self.name}.png"
        return path if path.is_file() else None

    @cached_property
    def runs(self) -> int:
        """How many (setting, seed) pairs the tidy CSV holds."""
        path = self.root / "results" / "studies" / f"{self.name}.csv"
        if not path.is_file():
            return 0
        with path.open(encoding="utf-8", newline="") as lines:
            return len({(row["setting"], row["seed"]) for row in csv.DictReader(lines)})

    @cached_property
    def text(self) -> tuple[list[str], list[list[str]]] | None:
        """Paragraphs and table rows (the heading first) of results/studies/<name>.md, or None where there is none."""
        path = self.root / "results" / "studies" / f"{self.name}.md"
        return split_markdown(path.read_text(encoding="utf-8")) if path.is_file() else None


def split_markdown(text: str) -> tuple[list[str], list[list[str]]]:
    """Return (paragraphs, rows of the pipe table) of the plain Markdown that `study` writes; headings are dropped."""
    lines = [line.strip() for line in text.splitlines()]
    table = [
        line.strip("|").replace("\\|", "\0").split("|") for line in lines if line.startswith("|")
    ]
    rows = [[cell.strip().replace("\0", "|") for cell in row] for row in table]
    rows = [
        row for row in rows if not all(cell and set(cell) <= set(":-") for cell in row)
    ]  # without | --- | ---: |
    return [line for line in lines if line and line[0] not in "|#"], rows
