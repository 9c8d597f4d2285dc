"""The commands about a model and the machine under it: info, check, bench, evaluate."""

import json

import click

from serve.console import DEVICE, MODEL, STRICT, VARIANT, open_model
from serve.locate import complete


@click.command()
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


@click.command()
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


@click.command()
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

    loaded = open_model(model, device, None, variant)
    found = bench.measure(loaded, paths, device=device, seconds=seconds, say=bench.progress)
    bench.progress("")
    click.echo(json.dumps(found, indent=2) if as_json else bench.text(found))


@click.command()
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

    report = evaluate.run(open_model(model, device, None, variant), path, labels)
    click.echo(json.dumps(report, indent=2) if as_json else evaluate.text(report))
    if strict and report["unread"]:
        raise SystemExit(3)
