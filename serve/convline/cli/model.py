"""The commands about models and this machine: list, info, check, bench and evaluate."""

import time
from typing import Any

import click

from convline.cli import messages, options
from convline.cli.completion import complete_model
from convline.cli.open_model import ModelChoice, open_model, read_model


@click.command("list")
@options.JSON
def list_models(as_json: bool) -> None:
    """List the models that can be named without a path.

    These are the packages in the folders that the environment variable CONVLINE_MODELS lists
    (separated by colons, on Windows by semicolons) and in out/dist/. The metric is the one that the
    package's manifest states.

    \b
    infer list
    infer list --json
    """
    from convline.model_file.registry import folders
    from convline.report.describe import format_packages, list_packages

    packages = list_packages()
    if packages or as_json:
        _print(packages, format_packages, as_json)
    else:
        searched = ", ".join(map(str, folders()))
        messages.note(f"no package in {searched}; CONVLINE_MODELS can list other folders")


@click.command()
@options.MODEL
@options.JSON
@options.VARIANT
@options.SHA256
def info(model: str, as_json: bool, variant: str, sha256: str | None) -> None:
    """Show what a model expects, what it predicts and how it was made.

    With --json: the whole document of the model.

    \b
    infer info lenet5-digits
    infer info lenet5-digits --variant int8 --json
    """
    from convline.report.describe import describe_model

    file = read_model(ModelChoice(model, "auto", variant, sha256), None).file
    _print(file.json, lambda _: describe_model(file), as_json)


@click.command()
@click.argument("model", metavar="[MODEL]", required=False, shell_complete=complete_model)
@options.VARIANT
@options.SHA256
@options.JSON
def check(model: str | None, variant: str, sha256: str | None, as_json: bool) -> None:
    """Check this installation, and a model on it.

    Shows versions, devices and image formats, and a cure for what is missing. With a MODEL its
    golden samples (inputs with known outputs, stored in the file) are run on each device and
    compared. Exit code 1 if a finding is an error.

    \b
    infer check
    infer check lenet5-digits --json
    """
    if model is None and (sha256 or variant != "auto"):
        raise click.UsageError("--sha256 and --variant need a MODEL")
    from convline.report import diagnostics

    findings = list(diagnostics.check(model, variant, sha256))
    _print(diagnostics.to_document(findings), lambda _: diagnostics.format_text(findings), as_json)
    if any(finding.state == "error" for finding in findings):
        raise SystemExit(1)


@click.command()
@options.MODEL
@click.argument("paths", metavar="[PATH...]", nargs=-1)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    help="Time to measure.",
)
@options.columns
@options.JSON
@options.QUIET
@options.model_choice
def bench(
    choice: ModelChoice,
    paths: tuple[str, ...],
    seconds: float,
    as_json: bool,
    columns: options.ColumnOptions,
) -> None:
    """Measure how fast a model runs on this machine.

    Measures reading, inference and writing separately, then all of them together. A PATH is a file
    or folder of images or of series, and their first 64 files are read again and again; without a
    PATH, photos or series are generated. The result names the files, their sizes and their source.

    \b
    infer bench lenet5-digits
    infer bench lenet5-digits photos/ --seconds 30 --json
    infer bench dilated-waves shop.csv --time day --target sales
    """
    from convline.report import benchmark

    model = open_model(choice, None)
    rule = options.reading_rule(model, columns)
    status, started = messages.StatusLine(), time.monotonic()

    def show(text: str) -> None:
        status.show(f"{time.monotonic() - started:.0f} of about {seconds:.0f} s: {text}")

    report = benchmark.measure(
        model, paths, device=choice.device, seconds=seconds, show=show, note=messages.note,
        rule=rule,
    )  # fmt: skip
    status.clear()
    _print(report, benchmark.format_text, as_json)


@click.command()
@options.MODEL
@click.argument("path", metavar="[PATH]", required=False)
@click.option(
    "--labels",
    metavar="FILE|FOLDER",
    help="What is true of the images, if PATH does not say it: a CSV with columns path and label, "
    "a COCO file, or a folder of masks.",
)
@options.JSON
@options.columns
@options.QUIET
@options.STRICT
@options.model_choice
def evaluate(
    choice: ModelChoice, path: str | None, labels: str | None, as_json: bool,
    columns: options.ColumnOptions, strict: bool,
) -> None:  # fmt: skip
    """Measure how good a model is on your own data.

    For a classifier, PATH is a folder that holds one folder of images for each class; or --labels
    names a CSV, whose paths are relative to its folder. For a detector or captioner, PATH is a COCO
    file, with its images beside it, or a folder of images of which --labels names the COCO file.
    For segmentation, PATH is a folder with JPEGImages and SegmentationClass (or images and masks),
    or a folder of images whose masks are in the folder of --labels. For series, PATH is a CSV or
    Parquet file; each part of it, one horizon long, is forecast from the rows before it.

    \b
    infer evaluate lenet5-digits digits/
    infer evaluate lenet5-digits --labels digits/labels.csv --json
    infer evaluate fasterrcnn-scenes photos/ --labels boxes.json
    infer evaluate farabet-scenes VOC/
    infer evaluate dilated-waves history.csv
    infer evaluate dilated-waves shop.csv --id shop --time day --target sales
    """
    if path is None and labels is None:
        raise click.UsageError("expected PATH or --labels")
    from convline.report import evaluate

    model = open_model(choice, None)
    report = evaluate.evaluate(model, path, labels, options.reading_rule(model, columns))
    _print(report, evaluate.format_text, as_json)
    if strict and report["unread"]:
        raise SystemExit(3)


def _print(result: Any, format_text: Any, as_json: bool) -> None:
    """Print a result as JSON, or as the text that `format_text` makes of it."""
    from convline.model_file.strict_json import to_json

    click.echo(to_json(result, indent=2) if as_json else format_text(result))
