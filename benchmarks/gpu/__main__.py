"""The command: the steps in their order, with the seconds that each may take, then the table."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from convline.errors import ServeError
from convline.runtime import host

from benchmarks.gpu import carried
from benchmarks.gpu.clock import ROOT, Planned, measure
from benchmarks.gpu.table import failures, table
from pipeline.check import machine, roofline
from pipeline.core.errors import ParamsError, StageError
from pipeline.core.files import write_json
from pipeline.core.paths import OUT
from pipeline.export import metadata
from pipeline.train import device

RESULTS = ROOT / "results" / "gpu"
SECONDS = 510.0  # for all
RESNET = "ResNet-50 in onnxruntime"
GPU = {  # what a GPU alone can tell comes first
    "start": Planned("benchmarks.gpu.start:run", 20),
    "exported files": Planned("benchmarks.gpu.files:run", 45),
    "full-size steps": Planned("benchmarks.gpu.recipes:run", 105),
    "real training": Planned("benchmarks.gpu.real:run", 60),
    RESNET: Planned("benchmarks.gpu.resnet50:run", 75),
    "training rates": Planned("benchmarks.gpu.rates:eager", 90),
    "training rates, compiled": Planned("benchmarks.gpu.rates:compiled", 90),
    "infer images": Planned("benchmarks.gpu.command:run", 30),
}
AGAIN = ("exported files", RESNET, "infer images")  # on the CPU, where a GPU has left time
CPU = {f"{name}, CPU": Planned(GPU[name].target, 60, "cpu") for name in AGAIN}
PACK = Planned("benchmarks.gpu.carried:as_step", 120)


def planned(kind: str, folder: Path) -> dict[str, Planned]:
    """Return the steps in their order; the first packs where nothing was carried along."""
    packing = {} if (folder / "recipes.json").exists() else {"pack": PACK}
    return packing | GPU | (CPU if kind == "cuda" else {})


def for_roofline(result: dict[str, Any]) -> dict[str, Any]:
    """Return the limits of the device and ResNet-50's points below them, as the report draws
    them.
    """
    facts = result["steps"].get(RESNET, {"facts": {}})["facts"]
    rows = [
        row
        for row in facts.values()
        if isinstance(row, dict) and row.get("variant") in roofline.BYTES
    ]
    points = [
        (row["intensity"], row["ops_per_second"], row["variant"])
        for row in rows
        if "intensity" in row
    ]
    return {"limits": facts["limits"], "points": points} if points else {}


def slug(name: str) -> str:
    """Return a file name: "NVIDIA H200" -> "nvidia-h200"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@click.command()
@click.option(
    "--device",
    "request",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
)
@click.option(
    "--pack", is_flag=True, help="Only write what a bare machine cannot make, to --carried."
)
@click.option(
    "--carried",
    "folder",
    type=click.Path(path_type=Path),
    default=carried.FOLDER,
    show_default=True,
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="[default: results/gpu of a GPU, out/gpu of a CPU]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0),
    default=SECONDS,
    show_default=True,
    help="For all, at most.",
)
def main(request: str, pack: bool, folder: Path, out: Path | None, seconds: float) -> None:
    """Run every step on the device; write OUT/<device>.json after each, and OUT/<device>.md at
    the end.
    """
    begun = time.time()
    try:
        if pack:
            carried.pack(folder)
            carried.install_packages(folder / "packages")
            return
        on = device.choose(request)
    except (ParamsError, ServeError, StageError) as error:
        raise click.ClickException(str(error)) from error
    name = (
        device.describe(on).removeprefix("cuda (").removesuffix(")")
        if on.type == "cuda"
        else host.processor()
    )
    about = {"device": name, "kind": on.type, "date": datetime.now(UTC).date().isoformat()}
    about |= {"revision": metadata.git_revision(), "machine": machine.describe_machine()}
    file = (out or (RESULTS if on.type == "cuda" else OUT / "gpu")) / f"{slug(name)}.json"
    left = seconds - (time.time() - begun)
    result = measure(planned(on.type, folder), on.type, folder.resolve(), left, file, about)
    write_json(file, result | for_roofline(result))
    file.with_suffix(".md").write_text(table(result), encoding="utf-8")
    click.echo(table(result))
    click.echo(f"written to {file} and {file.with_suffix('.md').name}", err=True)
    if wrong := failures(result):
        raise click.ClickException(f"{len(wrong)} did not pass: {'; '.join(wrong[:5])}; see {file}")


if __name__ == "__main__":
    main()
