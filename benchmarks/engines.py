"""The engine and variant that stage check recommends for each classifier of the line, and what it
gains over onnxruntime in fp32, as results/engines.md.

It reads results/<entry>/check.json and speed.json, and measures nothing. Stage check measures
OpenVINO with `check.engines: [all]` in params.yaml:

    pip install 'convline[openvino]'
    dvc exp run -S 'check.engines=[all]'
    python benchmarks/engines.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

import click

from benchmarks.page import write_block
from pipeline.check.engines import best_rates
from pipeline.core.errors import StageError
from pipeline.core.files import read_json
from pipeline.core.paths import RESULTS

PAGE = RESULTS / "engines.md"
FP32 = ("onnxruntime", "fp32")
INT8 = ("onnxruntime", "int8")
OPENVINO = [("openvino", variant) for variant in ("fp32", "bf16", "int8")]
HEAD = """# The engine of each classifier

`python benchmarks/engines.py`, from what stage check measured with `check.engines: [all]`; a table for each processor.
All contenders take turns on the test images, a worker with one thread on each core, as `infer images` runs them; each counts with its best batch
size. *gain*: images/s of what is recommended for many inputs, as a multiple of onnxruntime's in fp32; then the same multiple of each other engine
and variant that was measured. A variant that stage check refuses is not measured; the reasons are below the table. onnxruntime's int8 is
measured where it is the variant that is recommended for onnxruntime. Decoding is left out.

<!-- engines -->
<!-- /engines -->
"""
TABLE = """
| entry | recommended | gain | onnxruntime fp32, images/s | int8 | OpenVINO fp32 | bf16 | int8 |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |
"""


class Measured:
    """What stage check found out about one entry."""

    def __init__(self, name: str, checked: dict[str, Any], speed: dict[str, Any]) -> None:
        self.name, self.checked, self.speed = name, checked, speed
        self.engines: dict[str, Any] = speed["engines"]["cpu"]
        self.processor: str = speed["machine"]["cpu"]
        self.best = best_rates(self.engines["rates"])

    def gain(self, key: tuple[str, str]) -> str:
        """Return images/s of (engine, variant) over onnxruntime's in fp32; "–" if not measured."""
        return f"{self.best[key] / self.best[FP32]:.2f}" if key in self.best else "–"

    def row(self) -> str:
        chosen = self.engines["engine"], self.engines["variant"]
        names = {"onnxruntime": "onnxruntime", "openvino": "OpenVINO"}
        cells = [self.name, f"{names[chosen[0]]} {chosen[1]}", f"**{self.gain(chosen)}**"]
        cells += [f"{self.best[FP32]:,.0f}", *map(self.gain, (INT8, *OPENVINO))]
        return f"| {' | '.join(cells)} |"

    def refusals(self) -> list[str]:
        """Return the reason for each variant that is not measured, without the entry's name."""
        whys = [verdict["why"] for verdict in self._verdicts() if not verdict["accepted"]]
        return [why.removeprefix(f"{self.name}: ") for why in dict.fromkeys(whys)]

    def _verdicts(self) -> list[dict[str, Any]]:
        on_cpu = [by["cpu"] for by in self.checked["variants"].values() if "cpu" in by]
        return [*on_cpu, *self.engines["files"].values()]


def read_entries(names: tuple[str, ...]) -> tuple[list[Measured], list[str]]:
    """Return the classifiers that were measured, and the names of those that were not.

    names: of entries; none are all of results/. StageError for a named one without check.json.
    """
    folders = [RESULTS / name for name in names] or sorted(RESULTS.glob("*/"))
    measured, missing = list[Measured](), list[str]()
    for folder in folders:
        if not names and not (folder / "check.json").exists():
            continue
        checked = read_json(folder / "check.json", f"check@{folder.name}")
        if (checked["metric"] or {}).get("name") != "accuracy":
            continue
        path = folder / "speed.json"
        speed = read_json(path, f"check@{folder.name}") if path.exists() else {}
        if "engines" in speed:
            measured.append(Measured(folder.name, checked, speed))
        else:
            missing.append(folder.name)
    return measured, missing


def write_page(page: Path, measured: list[Measured], missing: list[str]) -> None:
    """Write the table of each processor that measured an entry; StageError where there is none."""
    if not measured:
        what = "no classifier in results/ has been measured under another engine than onnxruntime"
        raise StageError(f"{what}; set `check.engines: [all]` and run `dvc repro`")
    if not page.exists():
        page.write_text(HEAD, encoding="utf-8")
    for processor in dict.fromkeys(one.processor for one in measured):
        ours = [one for one in measured if one.processor == processor]
        write_block(page, "engines", processor, table(ours, missing))


def table(measured: list[Measured], missing: list[str]) -> str:
    """Return one processor's table, and why variants were refused."""
    first = measured[0]
    machine, release = first.speed["machine"], first.engines["version"].partition("-")[0]
    text = f"{first.processor}, {machine['cores']} cores; onnxruntime {machine['onnxruntime']}, "
    text += f"OpenVINO {release}.\n{TABLE}" + "".join(f"{one.row()}\n" for one in measured)
    if missing:
        text += f"\nNot measured: {', '.join(missing)}.\n"
    reasons = [f"- {one.name}: {why}\n" for one in measured for why in one.refusals()]
    return text + ("\nRefused:\n\n" + "".join(reasons) if reasons else "")


@click.command()
@click.argument("entry", nargs=-1)
def main(entry: tuple[str, ...]) -> None:
    """Write results/engines.md, of each ENTRY or of all."""
    try:
        write_page(PAGE, *read_entries(entry))
    except StageError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{PAGE} written")


if __name__ == "__main__":
    main()
