"""The commands about a model and the machine under it: info, check, bench, evaluate, explain."""

import sys
import time
from pathlib import Path
from typing import Any

import click

from convline.cli.boundary import results
from convline.cli.common import (
    DEVICE,
    MODEL,
    NUL,
    QUIET,
    SHA256,
    STRICT,
    VARIANT,
    Progress,
    finish,
    interruptible,
    is_quiet,
    open_model,
    read_model,
    reading_of,
    reads_series,
    say,
)
from convline.model_file.registry import complete
from convline.model_file.strict_json import to_json


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def list_models(as_json: bool) -> None:
    """List the models that can be named without a path.

    These are the packages in the folders that the environment variable CONVLINE_MODELS lists (separated by colons, on
    Windows by semicolons) and in out/dist/. The metric is the one that the manifest of the package states.

    \b
    infer list
    infer list --json
    """
    from convline.model_file.registry import folders
    from convline.report.describe import catalogue, catalogue_text

    found = catalogue()
    if as_json:
        click.echo(to_json(found, indent=2))
    elif found:
        click.echo(catalogue_text(found))
    else:
        say(
            f"no package in {', '.join(map(str, folders()))}; CONVLINE_MODELS may list other folders"
        )


@click.command()
@MODEL
@click.option(
    "--json", "as_json", is_flag=True, help="Print the whole document of the model as JSON."
)
@VARIANT
@SHA256
def info(model: str, as_json: bool, variant: str, sha256: str | None) -> None:
    """Show what a model expects, answers and was made of.

    \b
    infer info lenet5-digits
    infer info lenet5-digits --variant int8 --json
    """
    from convline.report.describe import describe

    contract = read_model(model, "auto", None, variant, sha256)
    click.echo(to_json(contract.document, indent=2) if as_json else describe(contract))


@click.command()
@click.argument("model", metavar="[MODEL]", required=False, shell_complete=complete)
@VARIANT
@SHA256
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(model: str | None, variant: str, sha256: str | None, as_json: bool) -> None:
    """Check this installation, and a model on it.

    Shows the versions, devices and image formats that are there, and a cure for what is missing. With a MODEL its
    golden samples (inputs with known answers, stored in the file) are run on each device and compared. Exit code 1 if
    a finding is an error.

    \b
    infer check
    infer check lenet5-digits --json
    """
    if model is None and (sha256 or variant != "auto"):
        raise click.UsageError("--sha256 and --variant are of a MODEL, and none is named")
    from convline.report import diagnostics

    findings = list(diagnostics.check(model, variant, sha256))
    click.echo(
        to_json(diagnostics.document(findings), indent=2) if as_json else diagnostics.text(findings)
    )
    if any(finding.state == "error" for finding in findings):
        raise SystemExit(1)


@click.command()
@MODEL
@click.argument("paths", metavar="[PATH...]", nargs=-1)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="Time to measure.",
)
@reads_series
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
@QUIET
@DEVICE
@VARIANT
@SHA256
def bench(
    model: str, paths: tuple[str, ...], seconds: float, as_json: bool, device: str, variant: str, sha256: str | None,
    **columns: Any,
) -> None:  # fmt: skip
    """Measure how fast a model runs on this machine.

    Measures reading, inference and writing apart, then all of them together. A PATH is what `infer images` or
    `infer series` takes; without one, photos or series are generated.

    \b
    infer bench lenet5-digits
    infer bench lenet5-digits photos/ --seconds 30 --json
    infer bench dilated-waves shop.csv --time day --target sales
    """
    from convline.report import benchmark

    loaded = open_model(model, device, None, variant, sha256)
    show = (lambda _: None) if is_quiet() else benchmark.progress
    found = benchmark.measure(
        loaded, paths, device=device, seconds=seconds, say=show, rule=reading_of(loaded, **columns)
    )
    show("")
    click.echo(to_json(found, indent=2) if as_json else benchmark.text(found))


@click.command()
@MODEL
@click.argument("path", metavar="[PATH]", required=False)
@click.option(
    "--labels", metavar="FILE.csv", help="CSV with columns path and label, in place of PATH."
)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@reads_series
@QUIET
@STRICT
@DEVICE
@VARIANT
@SHA256
def evaluate(
    model: str, path: str | None, labels: str | None, as_json: bool, strict: bool, device: str, variant: str,
    sha256: str | None, **columns: Any,
) -> None:  # fmt: skip
    """Measure how good a model is on your own data.

    For images PATH is a folder that holds one folder of images for each class, or --labels names a CSV whose paths
    start at the folder that the CSV is in. For series PATH is a CSV or Parquet file; each part of it, one horizon long,
    is forecast from the rows before it.

    \b
    infer evaluate lenet5-digits digits/
    infer evaluate lenet5-digits --labels digits/labels.csv --json
    infer evaluate dilated-waves history.csv
    infer evaluate dilated-waves shop.csv --id shop --time day --target sales
    """
    if (path is None) is (labels is None):
        raise click.UsageError("expected either PATH or --labels")
    from convline.report import evaluate

    loaded = open_model(model, device, None, variant, sha256)
    report = evaluate.run(loaded, path, labels, reading_of(loaded, **columns))
    click.echo(to_json(report, indent=2) if as_json else evaluate.text(report))
    if strict and report["unread"]:
        raise SystemExit(3)


@click.command()
@MODEL
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "-o", "--output", metavar="FOLDER", required=True, help="Folder for the maps and their table."
)
@click.option(
    "--method", type=click.Choice(["saliency", "integrated-gradients", "smoothgrad", "occlusion", "rise"]),
    help="How maps are computed. The first three need a model that was exported with `saliency: true`.  [default: "
    "saliency for such a model, else occlusion]",
)  # fmt: skip
@click.option(
    "--baseline", type=click.Choice(["black", "grey"]),
    help="Colour of a pixel that is taken away (integrated-gradients, occlusion, rise).  [default: grey for occlusion, "
    "else black]",
)  # fmt: skip
@click.option(
    "--steps",
    type=click.IntRange(1, 10000),
    default=50,
    show_default=True,
    help="For integrated-gradients.",
)
@click.option(
    "--samples",
    type=click.IntRange(1, 10**6),
    help="Draws of smoothgrad (default 50) or rise (2000).",
)
@click.option(
    "--sigma", type=click.FloatRange(0, 1), default=0.15, show_default=True,
    help="Standard deviation of smoothgrad's noise, where 1 is the range from black to white.",
)  # fmt: skip
@click.option(
    "--patch", type=click.IntRange(1),
    help="Side, in pixels, of the square with which occlusion covers the image.  [default: an eighth of the image]",
)  # fmt: skip
@click.option(
    "--stride",
    type=click.IntRange(1),
    help="Pixels from one square of occlusion to the next.  [default: half a patch]",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of random draws."
)
@click.option(
    "--batch", type=click.IntRange(1, 4096), default=32, show_default=True, help="Images per run."
)
@NUL
@QUIET
@STRICT
@DEVICE
@VARIANT
@SHA256
def explain(
    model: str, paths: tuple[str, ...], output: str, method: str | None, nul: bool, strict: bool, device: str,
    variant: str, sha256: str | None, **options: Any,
) -> None:  # fmt: skip
    """Draw heat maps of what the label of an image depends on.

    A PATH is an image file, a folder, an archive, a glob in quotes, or - to read the names of files from stdin.

    FOLDER gets for each image NAME.png (the image as the network sees it, beside the same with the map over it) and
    NAME.npy (the map), and explanations.csv with a row per image: path, label, score, method, gap, file, status, error.
    The gap, of integrated-gradients alone, is how far the map's sum is from what it should explain, as a share of it;
    more --steps make it smaller.

    \b
    infer explain lenet5-digits digits/ -o maps
    infer explain lenet5-digits photo.jpg -o maps --method rise --samples 4000 --seed 1
    """
    from convline.explain.job import COLUMNS, TABLE, explain, make_folder
    from convline.explain.methods import Options, explainer
    from convline.images.sources import ImageSources
    from convline.jobs.target import check_folder_apart
    from convline.jobs.writers import open_table

    check_folder_apart("--output", output, [path for path in paths if path != "-"])
    contract = read_model(model, device, "classification", variant, sha256)
    method = method or ("saliency" if contract.explains else "occlusion")
    loaded = explainer(contract, method, device)
    say(f"device: {loaded.device}; method: {method}")
    make_folder(folder := Path(output))
    sources, progress, started = (
        ImageSources(paths, sys.stdin.buffer, nul=nul),
        Progress("images"),
        time.perf_counter(),
    )
    n, failed, gaps = 0, 0, list[float]()
    table = open_table(str(folder / TABLE), COLUMNS, results())
    with interruptible(f"{folder} holds what is done"), table as write:
        for n, row in enumerate(explain(loaded, sources, method, Options(**options), folder), 1):
            write([row])
            failed += row["status"] == "error"
            gaps += [float(row["gap"])] if row["gap"] is not None else []
            progress.show(n, failed)
    progress.clear()
    if gaps:
        median, largest = sorted(gaps)[len(gaps) // 2], max(gaps)
        say(f"completeness gap: median {median:.2g}, largest {largest:.2g}; more --steps lessen it")
    seconds = time.perf_counter() - started
    finish(n, failed, "images", 0, seconds, loaded.device, strict, str(folder / TABLE))
