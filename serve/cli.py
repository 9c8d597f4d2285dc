"""The `infer` command: predictions from a model file on images and CSV series.

Exit codes: 0 done (rows may hold errors, one each), 1 it could not be done and one sentence says why, 2 wrong usage,
3 with --strict where a row failed. Results go to stdout or --output, everything else to stderr.
Imports of numpy, Pillow and onnxruntime wait until a command runs, so that --help answers at once.
"""

import io
import json
import os
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import click

from serve.errors import ServeError
from serve.locate import complete

MODEL = click.argument("model", metavar="MODEL", shell_complete=complete)
DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]),
    default="auto",
    show_default=True,
    help="auto takes CUDA where it is and says what it took; the others are an error where they are not.",
)
VARIANT = click.option(
    "--variant",
    type=click.Choice(["auto", "fp32", "int8", "fp16"]),
    default="auto",
    show_default=True,
    help="Precision, of a package that has several: auto takes what it recommends for the device, and says so.",
)
OUTPUT = click.option(
    "-o",
    "--output",
    default="-",
    metavar="FILE",
    help="A .csv, .jsonl or .parquet file, written as FILE.part and renamed at the end.  [default: CSV to stdout]",
)
STRICT = click.option("--strict", is_flag=True, help="Exit with code 3 where any row has status error.")


class Commands(click.Group):
    """The one place where our errors become one line on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        # Pillow warns about odd metadata and large images; what cannot be served becomes an error row anyway.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            return super().invoke(ctx)
        except ServeError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="convline", prog_name="infer")
def main() -> None:
    """Predict with a Convline model: one .onnx file, no PyTorch.

    MODEL is an .onnx file, a package folder, or the name of an entry in out/dist/.

    \b
    infer images lenet5-digits photos/ -o labels.csv
    infer series dilated-waves history.csv
    infer info lenet5-digits

    For bash to complete MODEL and options: eval "$(_INFER_COMPLETE=bash_source infer)" (zsh and fish likewise).
    """


@main.command()
@MODEL
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@OUTPUT
@click.option("--top-k", type=click.IntRange(1), default=1, show_default=True, help="Labels per image.")
@click.option("--batch", type=click.IntRange(1, 4096), default=32, show_default=True, help="Images per run.")
@click.option("--workers", type=click.IntRange(1, 256), help="Threads that decode.  [default: one per core]")
@click.option("-0", "--null", "nul", is_flag=True, help="Names on stdin end with NUL (find -print0).")
@STRICT
@DEVICE
@VARIANT
def images(
    model: str, paths: tuple[str, ...], output: str, top_k: int, batch: int, workers: int | None, nul: bool,
    strict: bool, device: str, variant: str,
) -> None:  # fmt: skip
    """Classify images: files, folders (recursively), quoted globs, or - for a list of names on stdin.

    Writes one row per input, in input order: path, label, score, label_2, ..., status, error. An input that cannot be
    classified has status error and the reason; the others do not notice.

    \b
    infer images lenet5-digits digits/ 'more/*.png' --top-k 3 -o labels.csv
    find . -name '*.jpg' -print0 | infer images lenet5-digits -0 -
    """
    _check_suffix(output)
    from serve.classify import classify, columns_of
    from serve.output import open_table
    from serve.sources import ImageSources

    classifier = _load(model, device, "classification", variant)
    if top_k > len(classifier.labels):
        raise click.BadParameter(f"expected at most the model's {len(classifier.labels)} labels", param_hint="--top-k")
    sources = ImageSources(paths, sys.stdin.buffer, nul=nul)
    cores = os.cpu_count() or 1
    started, counts = time.perf_counter(), Counter[str]()
    with open_table(output, columns_of(top_k), sys.stdout.buffer) as write:
        for rows in classify(classifier, sources, batch=batch, workers=workers or cores, top_k=top_k):
            write(rows)
            counts.update(str(row["status"]) for row in rows)
    if sources.skipped:
        _say(f"skipped {sources.skipped} hidden names, links and files of other suffixes inside folders")
    _finish(counts, "images", counts.total(), time.perf_counter() - started, classifier.device, strict)


@main.command()
@MODEL
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@OUTPUT
@click.option("--horizon", type=click.IntRange(1, 1_000_000), help="Steps ahead.  [default: as trained]")
@click.option("--columns", metavar="NAME,...", help="Columns to read, in the model's order.  [default: the model's]")
@click.option("--time", "time_", metavar="NAME", help="Time column, '' for none.  [default: the model's]")
@click.option(
    "--id", "id_", metavar="NAME", help="Column that tells series apart, '' for none.  [default: the model's]"
)
@click.option("--gaps", type=click.Choice(["error", "interpolate"]), help="Missing rows.  [default: the model's]")
@STRICT
@DEVICE
def series(
    model: str, files: tuple[str, ...], output: str, horizon: int | None, columns: str | None, time_: str | None,
    id_: str | None, gaps: str | None, strict: bool, device: str,
) -> None:  # fmt: skip
    """Forecast each series of CSV files (- for stdin) from its last rows.

    Writes a long table: unique_id, ds, yhat, yhat-lo-80, yhat-hi-80, status, error; yhat-NAME where the model has
    several columns. Beyond the trained horizon the forecast is fed back: status is recursive, intervals are empty. A
    file or series that cannot be forecast is one row with status error.

    \b
    infer series dilated-waves history.csv
    infer series dilated-waves shop.csv --id shop --time day --columns sales -o forecast.parquet
    """
    _check_suffix(output)
    from serve.forecast import Reading, columns_of, forecast_file
    from serve.output import open_table

    forecaster = _load(model, device, "forecasting")
    reading = Reading.of(forecaster, columns, time_, id_, gaps)
    if len(reading.columns) != len(forecaster.columns):
        raise click.BadParameter(f"expected {len(forecaster.columns)} names", param_hint="--columns")
    started, counts = time.perf_counter(), Counter[str]()
    with open_table(output, columns_of(forecaster), sys.stdout.buffer) as write:
        for file in files:
            source = io.TextIOWrapper(io.BytesIO(sys.stdin.buffer.read()), "utf-8-sig") if file == "-" else file
            for rows, filled in forecast_file(forecaster, source, reading, horizon or forecaster.horizon):
                write(rows)
                counts.update(str(row["status"]) for row in rows)
                if filled:
                    _say(f"{file}: {filled} values made by interpolation")
    _finish(counts, "rows", counts.total(), time.perf_counter() - started, forecaster.device, strict)


@main.command()
@MODEL
@click.option("--json", "as_json", is_flag=True, help="Print the model document as it is, golden samples included.")
def info(model: str, as_json: bool) -> None:
    """Show what a model is, what it expects and where it comes from.

    \b
    infer info lenet5-digits
    """
    from serve.contract import read
    from serve.info import describe
    from serve.locate import locate

    path, sha256, _ = locate(model)
    contract = read(path, sha256)
    click.echo(json.dumps(contract.document, indent=2) if as_json else describe(contract))


@main.command()
@click.argument("model", metavar="[MODEL]", required=False, shell_complete=complete)
@VARIANT
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(model: str | None, variant: str, as_json: bool) -> None:
    """Check this environment, and a model in it: what is there, what is missing, and the cure.

    Replays the model's golden samples on each device and says which provider ran the nodes. Exit code 1 where a
    finding is an error, else 0.

    \b
    infer check
    infer check lenet5-digits --json
    """
    from serve import doctor

    findings = list(doctor.check(model, variant))
    click.echo(json.dumps(doctor.document(findings), indent=2) if as_json else doctor.text(findings))
    if any(finding.state == "error" for finding in findings):
        raise SystemExit(1)


@main.command()
@MODEL
@click.argument("paths", metavar="[PATH...]", nargs=-1)
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=10.0, show_default=True, help="Time to take.")
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
@DEVICE
@VARIANT
def bench(model: str, paths: tuple[str, ...], seconds: float, as_json: bool, device: str, variant: str) -> None:
    """Measure how fast a model serves here: reading, inference, writing, and the whole against its ideal.

    PATHs are images or CSV files; without any, photo-sized JPEG files or series are made. Exit code 0, or 1 where it
    could not be measured.

    \b
    infer bench lenet5-digits
    infer bench lenet5-digits photos/ --seconds 30 --json
    """
    from serve import bench

    loaded = _load(model, device, None, variant)
    found = bench.measure(loaded, paths, device=device, seconds=seconds, say=bench.progress)
    bench.progress("")
    click.echo(json.dumps(found, indent=2) if as_json else bench.text(found))


@main.command()
@MODEL
@click.argument("path", metavar="[PATH]", required=False)
@click.option("--labels", metavar="FILE.csv", help="Instead of PATH: columns path,label; paths start at its folder.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@STRICT
@DEVICE
@VARIANT
def evaluate(
    model: str, path: str | None, labels: str | None, as_json: bool, strict: bool, device: str, variant: str,
) -> None:  # fmt: skip
    """Measure how good a model is on labelled images, or on the past of series.

    PATH is a folder with one folder of images for each class, or a CSV whose series are forecast horizon by horizon.
    Exit code 0, 1 where it could not be done, 3 with --strict where something could not be read.

    \b
    infer evaluate lenet5-digits digits/
    infer evaluate lenet5-digits --labels digits/labels.csv --json
    infer evaluate dilated-waves history.csv
    """
    if (path is None) is (labels is None):
        raise click.UsageError("expected either PATH or --labels")
    from serve import evaluate

    report = evaluate.run(_load(model, device, None, variant), path, labels)
    click.echo(json.dumps(report, indent=2) if as_json else evaluate.text(report))
    if strict and report["unread"]:
        raise SystemExit(3)


def _load(model: str, device: str, task: str | None, variant: str = "auto") -> Any:
    """Return the Classifier or Forecaster of a name or path, and say which device and which variant was chosen."""
    from serve.locate import locate
    from serve.model import load
    from serve.session import resolve

    path, sha256, why = locate(model, resolve(device), variant)
    loaded = load(path, device, sha256=sha256)
    if task not in (None, loaded.contract.task):
        command = "images" if loaded.contract.task == "classification" else "series"
        raise ServeError(f"{path}: expected a model for {task}, got {loaded.contract.task}; use `infer {command}`")
    if device == "auto":
        _say(f"device: {loaded.device}")
    if why:
        _say(f"variant: {why}")
    return loaded


def _check_suffix(output: str) -> None:
    from serve.output import SUFFIXES

    if output != "-" and Path(output).suffix.lower() not in SUFFIXES:
        raise click.BadParameter(f"expected a name ending in {', '.join(SUFFIXES)}", param_hint="--output")


def _finish(counts: Counter[str], what: str, n: int, seconds: float, device: str, strict: bool) -> None:
    """Print the summary; exit code 3 where --strict was asked and a row failed."""
    ok, failed = n - counts["error"], counts["error"]
    _say(f"{ok} ok, {failed} error, {seconds:.2f} s, {n / max(seconds, 1e-9):.0f} {what}/s on {device}")
    if strict and failed:
        raise SystemExit(3)


def _say(text: str) -> None:
    click.echo(text, err=True)
