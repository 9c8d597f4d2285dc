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

MODEL = click.argument("model", metavar="MODEL")
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
@click.option("--every", metavar="K", type=click.IntRange(1), help="Forecast from every K-th row, back from the last.")
@click.option("--plot", metavar="FILE.svg", help="Draw the last rows, the forecast and its intervals.")
@click.option(
    "--target", metavar="NAME,...", help="Columns of values, in the model's order.  [default: the model's, else y]"
)
@click.option("--time", "time_", metavar="NAME", help="Time column, '' for none.  [default: the model's, else ds]")
@click.option(
    "--id", "id_", metavar="NAME",
    help="Column that tells series apart, '' for none.  [default: the model's, else unique_id]",
)  # fmt: skip
@click.option("--gaps", type=click.Choice(["error", "interpolate"]), help="Missing rows.  [default: the model's]")
@click.option(
    "--delimiter", metavar="SIGN", type=click.Choice([",", ";", "tab", "|", "auto"]), default="auto",
    help="Between the cells of a CSV: , ; tab | or auto, which finds the one that fits.  [default: auto]",
)  # fmt: skip
@click.option(
    "--decimal", metavar="SIGN", type=click.Choice([".", ",", "auto"]), default="auto",
    help="Of numbers in a CSV: . , or auto, a comma where the cells demand it.  [default: auto]",
)  # fmt: skip
@STRICT
@DEVICE
def series(
    model: str, files: tuple[str, ...], output: str, horizon: int | None, every: int | None, plot: str | None,
    target: str | None, time_: str | None, id_: str | None, gaps: str | None, delimiter: str, decimal: str,
    strict: bool, device: str,
) -> None:  # fmt: skip
    """Forecast each series of CSV or .parquet files (- for a CSV on stdin) from its last rows.

    Writes a long table: unique_id, ds, yhat, yhat-lo-80, yhat-hi-80, status, error; yhat-NAME where the model has
    several columns; with --every, cutoff after ds: the time of the last row that the forecast knew. Beyond the trained
    horizon the forecast is fed back: status is recursive, intervals are empty. A file or series that cannot be
    forecast is one row with status error.

    Columns that are not named are the model's, or where a file lacks those unique_id, ds and y. A delimiter or decimal
    sign that the file does not settle is an error. What was found in place of the default is said.

    \b
    infer series dilated-waves history.csv --horizon 48 --plot forecast.svg
    infer series dilated-waves shop.csv --id shop --time day --target sales -o forecast.parquet
    infer series dilated-waves long.parquet --every 24 -o rolling.parquet
    infer series dilated-waves german.csv --delimiter ';' --decimal ,
    """
    _check_suffix(output)
    if plot is not None and Path(plot).suffix.lower() != ".svg":
        raise click.BadParameter("expected a name ending in .svg", param_hint="--plot")
    from serve.forecast import columns_of, forecast_file
    from serve.output import open_table
    from serve.plot import Picture
    from serve.reading import Reading

    forecaster = _load(model, device, "forecasting")
    names = target.split(",") if target else None
    if names and len(names) != len(forecaster.columns):
        raise click.BadParameter(f"expected {len(forecaster.columns)} names", param_hint="--target")
    rule = forecaster.contract.document["input"]
    reading = Reading(forecaster.name, rule, names, time_, id_, gaps, delimiter, decimal)
    picture, steps = Picture(forecaster), horizon or forecaster.horizon
    started, counts = time.perf_counter(), Counter[str]()
    with open_table(output, columns_of(forecaster, every is not None), sys.stdout.buffer) as write:
        for file in files:
            source = io.TextIOWrapper(io.BytesIO(sys.stdin.buffer.read()), "utf-8-sig") if file == "-" else file
            for rows in forecast_file(forecaster, source, reading, steps, every, say=_say, draw=picture.add):
                write(rows)
                counts.update(str(row["status"]) for row in rows)
    if plot is not None:
        _say(picture.write(plot))
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


def _load(model: str, device: str, task: str, variant: str = "auto") -> Any:
    """Return the Classifier or Forecaster of a name or path, and say which device and which variant was chosen."""
    from serve.locate import locate
    from serve.model import load
    from serve.session import resolve

    path, sha256, why = locate(model, resolve(device), variant)
    loaded = load(path, device, sha256=sha256)
    if loaded.contract.task != task:
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
