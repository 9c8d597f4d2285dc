"""Write an entry for your own images, series or network into params.yaml.

    python -m pipeline.new pets --images /data/pets
    python -m pipeline.new sales --csv sales.csv
    python -m pipeline.new net mynet

It looks at the data, says what it saw, and inserts a dataset, a recipe that suits it, and a line
entry; `dvc repro infer@pets` then trains, checks, packages and serves.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from pipeline.core.errors import ParamsError, StageError
from pipeline.core.files import read_json
from pipeline.core.paths import RESULTS
from pipeline.core.stage import run
from pipeline.new import images, network, series
from pipeline.new.params_file import Entry, preview, require_free_name, write
from pipeline.params import load as params


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name")
@click.option("--images", "folder", type=Path, help="Folder of images: one sub-folder a class.")
@click.option("--csv", "file", type=Path, help="CSV or Parquet file of one or many series.")
@click.option("--arch", help="Network to train from scratch, such as resnet20.")
@click.option("--from", "backbone", help="Network of torchvision under a new head: mobilenet_v2.")
@click.option("--weights", help="Its weights: a file, here or below TORCH_HOME.")
@click.option("--horizon", type=click.IntRange(1), help="Series: rows to forecast; a season.")
@click.option("--time", help="Series: column of times, where the file does not show it.")
@click.option("--columns", help="Series: columns to forecast, A,B; all columns of numbers.")
@click.option("--id", help="Series: column that tells the series apart.")
@click.option("--licence", default="your own", show_default=True, help="Licence of the data.")
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@click.option("--run", "run_line", is_flag=True, help="Then run `dvc repro infer@NAME`.")
def data_entry(
    name: str,
    folder: Path | None,
    arch: str | None,
    backbone: str | None,
    weights: str | None,
    file: Path | None,
    horizon: int | None,
    time: str | None,
    columns: str | None,
    id: str | None,
    licence: str,
    dry_run: bool,
    run_line: bool,
) -> None:
    """Write an entry NAME for your own images or series into params.yaml.

    \b
    python -m pipeline.new pets --images /data/pets --run
    python -m pipeline.new sales --csv sales.csv --horizon 12 --run
    python -m pipeline.new net mynet      a file models/mynet.py and its entry
    """
    taken = params.load()
    require_free_name(name, taken)
    if not licence.strip():
        raise StageError("new: --licence is empty, and data without one are not packaged; name it")
    of_images = {"--arch": arch, "--from": backbone, "--weights": weights}
    of_series = {"--horizon": horizon, "--time": time, "--columns": columns, "--id": id}
    require_one(name, {"--images": folder, "--csv": file})
    if folder:
        refuse_options(of_series, "--csv")
        entry = images.propose(name, folder, arch, backbone, weights, licence, taken)
    else:
        assert file
        refuse_options(of_images, "--images")
        names = columns.split(",") if columns else None
        entry = series.propose(
            name, file, time=time, columns=names, id=id, horizon=horizon, licence=licence
        )
    finish(entry, dry_run, run_line)


def require_one(name: str, sources: Mapping[str, Path | None]) -> None:
    """Raise StageError unless exactly one of the options names data."""
    named = [option for option, path in sources.items() if path is not None]
    if len(named) > 1:
        raise StageError(f"new: expected {' or '.join(sources)}, got both; make two entries")
    if not named:
        cure = f"add --images FOLDER or --csv FILE, as in `new {name} --csv sales.csv`"
        raise StageError(f"new: no data named; {cure}")


def refuse_options(options: Mapping[str, object], source: str) -> None:
    """Raise StageError where an option is given that goes with another source of data."""
    for option, value in options.items():
        if value is not None:
            raise StageError(f"new: {option} goes with {source} alone; leave it out")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@click.option("--run", "run_line", is_flag=True, help="Then run `dvc repro infer@NAME-digits`.")
def network_entry(name: str, dry_run: bool, run_line: bool) -> None:
    """Write a network models/NAME.py that trains as it is, and its entry on digits.

    \b
    python -m pipeline.new net mynet --run
    """
    file, text, entry = network.propose(name)
    require_free_name(entry.name, params.load())
    if dry_run:
        print(f"{file} would be:\n\n{text}")
        return finish(entry, dry_run, run_line)
    file.write_text(text, encoding="utf-8")
    try:
        finish(entry, dry_run, run_line)
    except (ParamsError, StageError):
        file.unlink()
        raise


def finish(entry: Entry, dry_run: bool, run_line: bool) -> None:
    """Say what was seen and chosen, write the entry, and run it or print the next commands."""
    for fact in entry.seen:
        print(f"   {fact}")
    print(f"   chosen    {entry.why}")
    if dry_run:
        print(f"\nparams.yaml would get\n\n{preview(entry)}")
        return
    write(entry)
    sections = ", ".join(f"{key}.{entry.name}" for key in entry.sections)
    print(f"   written   {sections} of params.yaml", flush=True)
    steps = [f"dvc repro infer@{entry.name}"] * (not run_line)
    if run_line:
        repro(f"infer@{entry.name}")
    steps += [entry.predict, f"dvc repro explain@{entry.name} && python -m pipeline.report"]
    ends = ["train, check, package, serve"] * (not run_line)
    ends += ["a prediction", f"its page, out/report/{entry.name}.html"]
    width = max(map(len, steps))
    print("\nnext\n" + "\n".join(f"   {s:{width}}   {e}" for s, e in zip(steps, ends, strict=True)))
    if run_line:
        beside = read_json(RESULTS / entry.name / "check.json", f"check@{entry.name}")
        if not beside["against_baseline"]["better"]:
            print(f"\n✗ {beside['against_baseline']['sentence']}")  # last, where it is seen


def repro(target: str) -> None:
    """Run the stages that a target of DVC needs; exit with DVC's code where one fails."""
    folder = str(Path(sys.executable).parent)  # the stages call `python`
    environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [sys.executable, "-m", "pipeline.line.dvc", "--wait-for-lock", "repro", target]
    # Stages write to stderr, and so does DVC where it fails; the rest is DVC's own log.
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    if sys.argv[1:2] == ["net"]:
        network_entry(sys.argv[2:], prog_name="python -m pipeline.new net")
    data_entry(prog_name="python -m pipeline.new")


if __name__ == "__main__":
    run(main)
