"""Result files of one entry or study; no other module of the report reads files of earlier stages.

A missing file is pending, which is not an error. A file that cannot be read is an error, which
names the command that writes the file again.
"""

from __future__ import annotations

import ast
import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import StageError
from pipeline.evaluate.metric_catalogue import main_metrics
from pipeline.evaluate.over_seeds import Row, read_rows
from pipeline.params.schema import EntryRecipe
from pipeline.params.schema import Study as StudyRecipe
from pipeline.report.forecast_verdicts import (
    BaselineRatio,
    describe_interval_fault,
    find_best_baseline,
)
from pipeline.report.prediction_shapes import FITS

# File of results/<entry>/ -> the stage that writes it, in pipeline order.
STAGE_OF_FILE = {file: file for file in ("data", "train", "export", "check")}
STAGE_OF_FILE |= {"speed": "check", "explain": "explain", "infer": "infer"}
FINAL_STAGES = ("explain", "infer")  # no later stage depends on these


def unreadable_file(path: Path, expected: str, error: Exception, command: str) -> StageError:
    """Return the error for a file that is there and cannot be parsed."""
    return StageError(f"{path}: expected {expected}, got {error}; write it again with `{command}`")


def load_json(path: Path, command: str) -> Any:
    """Return the parsed JSON, or None if there is no such file."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise unreadable_file(path, "JSON", error, command) from error


def load_arrays(path: Path, command: str) -> dict[str, np.ndarray] | None:
    """Return the arrays of an .npz file by name, or None if there is no such file."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise unreadable_file(path, "arrays in .npz form", error, command) from error


@dataclass(frozen=True)
class Entry:
    """One entry of `line`: its resolved recipe, and the files of its stages under `root`."""

    name: str
    recipe: EntryRecipe
    root: Path

    def command(self, stage: str) -> str:
        return f"dvc repro {stage}@{self.name}"

    @cached_property
    def results(self) -> dict[str, dict[str, Any]]:
        """Content of each results/<entry>/<file>.json that exists, by file name without suffix."""
        contents = {}
        for file, stage in STAGE_OF_FILE.items():
            path = self.root / "results" / self.name / f"{file}.json"
            if (content := load_json(path, self.command(stage))) is not None:
                contents[file] = content
        return contents

    @property
    def pending_stages(self) -> dict[str, str]:
        """Stages that have not run, each with its command; `dvc repro` runs earlier stages too."""
        stages = [stage for file, stage in STAGE_OF_FILE.items() if file not in self.results]
        return {stage: self.command(stage) for stage in stages}

    @property
    def repro_command(self) -> str:
        """The command that runs every pending stage."""
        pending = list(self.pending_stages)
        ends = [stage for stage in FINAL_STAGES if stage in pending] or pending[-1:]
        return "dvc repro " + " ".join(f"{stage}@{self.name}" for stage in ends)

    @property
    def arch(self) -> str:
        return str(self.recipe.arch)

    @property
    def network_description(self) -> str:
        """The architecture; for transfer learning also the head and the backbone's entry."""
        if not (head := self.recipe.head):
            return self.arch
        kind = self.head_search["chosen"]["kind"] if self.head_search else head.kind
        needs = self.recipe.needs
        network = self.recipe.net.get("name", self.arch)  # zoo: torchvision's name
        return f"{kind} on {network}" + (f" of {needs}" if needs else "")

    @property
    def task(self) -> str:
        return str(self.recipe.data.task)

    @property
    def recipe_used(self) -> EntryRecipe:
        """The recipe, with the season that stage data took where the recipe leaves it open."""
        season = self.results.get("data", {}).get("season")
        if season is None:
            return self.recipe
        return self.recipe.updated(data={"spec": {"season": season}})

    @property
    def metric(self) -> dict[str, Any] | None:
        return self.results["check"]["metric"] if "check" in self.results else None

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The numbers of metrics.json, rounded as every table shows them; {} before stage check."""
        return main_metrics(self.results["check"]) if "check" in self.results else {}

    @property
    def worse_than(self) -> str | None:
        """What stage check says of an entry that is no better than its best baseline, else None."""
        beside = self.results.get("check", {}).get("against_baseline")
        return str(beside["sentence"]) if beside and not beside["better"] else None

    @property
    def best_baseline(self) -> BaselineRatio | None:
        """A forecaster's best baseline with the ratio of errors; None before stage check."""
        return find_best_baseline(self.metric) if self.metric else None

    @property
    def interval_fault(self) -> str | None:
        """ "interval too wide: 100 % of the targets in the 80 % interval"; None without a fault."""
        return describe_interval_fault(self.metric) if self.metric else None

    @property
    def latencies(self) -> dict[str, float]:
        """Median latency (p50) of the fp32 model in milliseconds at batch 1 on all cores, by
        device.
        """
        rows = self.results.get("speed", {}).get("rows", [])
        one = [row for row in rows if (row["variant"], row["batch"]) == ("fp32", 1)]
        # The first row of a device is on all cores.
        return {row["device"]: row["p50_ms"] for row in reversed(one)}

    @cached_property
    def history(self) -> list[dict[str, Any]] | None:
        """One row per epoch; None before stage train has run."""
        return self.output("train", "history.json")

    @property
    def has_epochs(self) -> bool:
        """Whether there were epochs: heads on features and published weights have none."""
        return bool(self.history and self.history[-1]["epoch"] > 0)

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights are exported; None before stage train has run."""
        return self.results.get("train", {}).get("best_epoch")

    @cached_property
    def head_search(self) -> dict[str, Any] | None:
        """The head that cross-validation chose, and its candidates; None for other entries."""
        return self.output("train", "head.json")

    @cached_property
    def signal_to_noise(self) -> dict[str, dict[str, float]] | None:
        """Signal-to-noise ratio in dB of each node's output, by variant and node name."""
        return self.output("export", "noise.json")

    @property
    def explain_sections(self) -> list[dict[str, Any]] | None:
        """Sections of pictures with captions by stage explain; None if a picture is missing."""
        sections: list[dict[str, Any]] | None = self.explain_page.get("sections")
        files = [picture["file"] for section in sections or [] for picture in section["pictures"]]
        return sections if all(self.picture(file).is_file() for file in files) else None

    @property
    def attribution_facts(self) -> dict[str, Any]:
        """Metrics of a classifier's attribution maps, {} for others and before stage explain."""
        return self.explain_page.get("facts", {}).get("attribution", {})

    @cached_property
    def explain_page(self) -> dict[str, Any]:
        """Content of explain/page.json: sections and all facts; {} before stage explain."""
        return self.output("explain", "page.json") or {}

    def output(self, stage: str, file: str) -> Any:
        """Return the content of out/<entry>/<stage>/<file>, JSON; None if missing."""
        return load_json(self.root / "out" / self.name / stage / file, self.command(stage))

    def picture(self, file: str) -> Path:
        return self.root / "out" / self.name / "explain" / file

    @cached_property
    def layers(self) -> list[dict[str, Any]] | None:
        """One row per layer; None before stage train has run."""
        return self.output("train", "layers.json")

    @cached_property
    def predictions(self) -> dict[str, np.ndarray] | None:
        """Predictions of the served model on the test split, by stage check.

        None before it has run on these data: stage data may have run again since.
        """
        path = self.root / "out" / self.name / "check" / "test.npz"
        arrays, about = load_arrays(path, self.command("check")), self.results.get("data")
        return arrays if arrays and about and FITS[self.task](arrays, about) else None

    def prediction(self, array: str) -> np.ndarray:
        """Return an array of the predictions of an entry that has them."""
        assert self.predictions is not None
        return self.predictions[array]

    @cached_property
    def images(self) -> np.ndarray | None:
        """Test images, uint8 (N, H, W, C), memory-mapped; rows as in `predictions`."""
        return self.array("test_x")

    @cached_property
    def test_features(self) -> np.ndarray | None:
        """Features (N, F) of the test images; None for an entry without a head on features."""
        path = self.root / "out" / self.name / "export" / "features.npz"
        return (load_arrays(path, self.command("export")) or {}).get("test")

    @cached_property
    def test_names(self) -> list[str] | None:
        """The file name of each test image; None if stage data has written none."""
        names: list[str] | None = self.output("data", "test_names.json")
        return names

    @cached_property
    def raw_test_files(self) -> tuple[tuple[str, int], ...]:
        """Name and bytes of each raw test file; they do not depend on the network's input size."""
        raw = self.root / "out" / self.name / "data" / "raw"
        files = sorted(path for path in raw.rglob("*") if path.is_file())
        return tuple((path.relative_to(raw).as_posix(), path.stat().st_size) for path in files)

    def array(self, name: str) -> np.ndarray | None:
        """Return an array of stage data, such as "train_x", memory-mapped; None if missing."""
        path = self.root / "out" / self.name / "data" / f"{name}.npy"
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else None
        except (ValueError, EOFError) as error:
            what = "an array in .npy form"
            raise unreadable_file(path, what, error, self.command("data")) from error

    @cached_property
    def architecture_notes(self) -> list[str]:
        """Paragraphs of the architecture's docstring, parsed: the report runs without torch."""
        path = self.root / "models" / f"{self.arch}.py"
        source = path.read_text(encoding="utf-8") if path.is_file() else ""
        text = ast.get_docstring(ast.parse(source))
        return text.split("\n\n") if text else []


@dataclass(frozen=True)
class Study:
    """One study: its recipe in params.yaml, if it is read, and its table in results/studies."""

    name: str
    root: Path
    recipe: StudyRecipe | None = None

    @property
    def claim(self) -> str:
        return self.recipe.claim if self.recipe else ""

    @property
    def command(self) -> str:
        return f"make study NAME={self.name}"

    @cached_property
    def rows(self) -> list[Row]:
        """Rows of the study's CSV file; [] if missing."""
        path = self.root / "results" / "studies" / f"{self.name}.csv"
        return read_rows(path) if path.is_file() else []

    @property
    def runs(self) -> int:
        """Number of (setting, seed) pairs in the CSV file."""
        return len({(row["setting"], row["seed"]) for row in self.rows})

    @cached_property
    def text(self) -> tuple[list[str], list[list[str]]] | None:
        """Paragraphs, and table rows with the header, of the study's .md; None if missing."""
        path = self.root / "results" / "studies" / f"{self.name}.md"
        return split_markdown(path.read_text(encoding="utf-8")) if path.is_file() else None


def split_markdown(text: str) -> tuple[list[str], list[list[str]]]:
    """Return (paragraphs, rows of the pipe table) of the Markdown that stage study writes."""
    lines = [line.strip() for line in text.splitlines()]
    table = [
        line.strip("|").replace("\\|", "\0").split("|") for line in lines if line.startswith("|")
    ]
    rows = [[cell.strip().replace("\0", "|") for cell in row] for row in table]
    # without | --- | ---: |
    rows = [row for row in rows if not all(cell and set(cell) <= set(":-") for cell in row)]
    return [line for line in lines if line and line[0] not in "|#"], rows
