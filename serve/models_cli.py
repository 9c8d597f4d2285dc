"""The commands about a model and the machine under it: info, check, bench, evaluate, explain."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from serve.console import (
    DEVICE,
    MODEL,
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
from serve.locate import complete


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def list_models(as_json: bool) -> None:
    """List the models that can be given by name: the packages in the folders of CONVLINE_MODELS and in out/dist/.

    CONVLINE_MODELS is an environment variable: folders that hold packages, separated by colons (semicolons on Windows).
    The metric is the one that the package's manifest states.

    \b
    infer list
    infer list --json
    """
    from serve.info import catalogue, catalogue_text
    from serve.locate import folders

    found = catalogue()
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif found:
        click.echo(catalogue_text(found))
    else:
        say(f"no package in {', '.join(map(str, folders()))}; CONVLINE_MODELS may list other folders")


@click.command()
@MODEL
@click.option("--json", "as_json", is_flag=True, help="Print the model document as it is, golden samples included.")
@VARIANT
@SHA256
def info(model: str, as_json: bool, variant: str, sha256: str | None) -> None:
    """Show what a model is, what it expects and where it comes from.

    \b
    infer info lenet5-digits
    """
    from serve.info import describe

    contract = read_model(model, "auto", None, variant, sha256)
    click.echo(json.dumps(contract.document, indent=2) if as_json else describe(contract))


@click.command()
@click.argument("model", metavar="[MODEL]", required=False, shell_complete=complete)
@VARIANT
@SHA256
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(model: str | None, variant: str, sha256: str | None, as_json: bool) -> None:
    """Check this environment, and a model in it: what is there, what is missing, and the cure.

    Replays the model's golden samples on each device and says which provider ran the nodes. Exit code 1 where a
    finding is an error, else 0.

    \b
    infer check
    infer check lenet5-digits --json
    """
    from serve import doctor

    findings = list(doctor.check(model, variant, sha256))
    click.echo(json.dumps(doctor.document(findings), indent=2) if as_json else doctor.text(findings))
    if any(finding.state == "error" for finding in findings):
        raise SystemExit(1)


@click.command()
@MODEL
@click.argument("paths", metavar="[PATH...]", nargs=-1)
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=10.0, show_default=True, help="Time to take.")
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
    """Measure how fast a model serves here: reading, inference, writing, and the whole against its ideal.

    PATHs are images or CSV files; without any, photo-sized JPEG files or series are made. Exit code 0, or 1 where it
    could not be measured.

    \b
    infer bench lenet5-digits
    infer bench lenet5-digits photos/ --seconds 30 --json
    """
    from serve import bench

    loaded = open_model(model, device, None, variant, sha256)
    show = (lambda _: None) if is_quiet() else bench.progress
    found = bench.measure(loaded, paths, device=device, seconds=seconds, say=show, rule=reading_of(loaded, **columns))
    show("")
    click.echo(json.dumps(found, indent=2) if as_json else bench.text(found))


@click.command()
@MODEL
@click.argument("path", metavar="[PATH]", required=False)
@click.option("--labels", metavar="FILE.csv", help="Instead of PATH: columns path,label; paths start at its folder.")
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

    loaded = open_model(model, device, None, variant, sha256)
    report = evaluate.run(loaded, path, labels, reading_of(loaded, **columns))
    click.echo(json.dumps(report, indent=2) if as_json else evaluate.text(report))
    if strict and report["unread"]:
        raise SystemExit(3)


@click.command()
@MODEL
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FOLDER", required=True, help="Where pictures, arrays and the table go.")
@click.option(
    "--method", type=click.Choice(["saliency", "integrated-gradients", "smoothgrad", "occlusion", "rise"]),
    help="The first three need a file with a gradient.  [default: saliency where it has one, else occlusion]",
)  # fmt: skip
@click.option(
    "--baseline", type=click.Choice(["black", "grey"]),
    help="What stands for nothing there.  [default: grey for occlusion, else black]",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1, 10000), default=50, show_default=True, help="Of integrated gradients.")
@click.option("--samples", type=click.IntRange(1, 10**6), help="Random draws.  [default: smoothgrad 50, rise 2000]")
@click.option("--sigma", type=click.FloatRange(0, 1), default=0.15, show_default=True, help="Noise, of white.")
@click.option(
    "--patch", type=click.IntRange(1), help="Side in pixels, of occlusion.  [default: an eighth of the image]"
)
@click.option("--stride", type=click.IntRange(1), help="Its steps in pixels.  [default: half a patch]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The same gives the same maps.")
@click.option("--batch", type=click.IntRange(1, 4096), default=32, show_default=True, help="Images per run.")
@click.option("-0", "--null", "nul", is_flag=True, help="Names on stdin end with NUL (find -print0).")
@QUIET
@STRICT
@DEVICE
@VARIANT
@SHA256
def explain(
    model: str, paths: tuple[str, ...], output: str, method: str | None, nul: bool, strict: bool, device: str,
    variant: str, sha256: str | None, **options: Any,
) -> None:  # fmt: skip
    """Show what the labels of images rest on: a heat map of each, computed by the model file itself.

    Writes into FOLDER for each input <name>.png (the image as the network sees it, beside the map laid over it) and
    <name>.npy (the map), and explanations.csv: path, label, score, method, gap, file, status, error. PATHs are files,
    folders, quoted globs, or - for a list of names on stdin. The gap of integrated gradients is the share of the
    score's difference from the baseline's that their sum misses; more --steps lessen it.

    \b
    infer explain lenet5-digits digits/ -o maps
    infer explain lenet5-digits photo.jpg -o maps --method rise --samples 4000 --seed 1
    """
    from serve.explain import COLUMNS, TABLE, explain, make_folder
    from serve.maps import Options, explainer
    from serve.output import open_table
    from serve.sources import ImageSources
    from serve.target import check_folder_apart

    check_folder_apart("--output", output, [path for path in paths if path != "-"])
    contract = read_model(model, device, "classification", variant, sha256)
    method = method or ("saliency" if contract.explains else "occlusion")
    loaded = explainer(contract, method, device)
    say(f"device: {loaded.device}; method: {method}")
    make_folder(folder := Path(output))
    sources, progress, started = ImageSources(paths, sys.stdin.buffer, nul=nul), Progress("images"), time.perf_counter()
    n, failed, gaps = 0, 0, list[float]()
    table = open_table(str(folder / TABLE), COLUMNS, sys.stdout.buffer)
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
    finish(n, failed, "images", 0, time.perf_counter() - started, loaded.device, strict)
