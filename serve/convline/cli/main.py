"""The `infer` command: predictions from a model file on images and CSV series.

Exit codes: 0 done (some rows may hold errors), 1 it could not be done and one sentence says why, or every row failed,
2 wrong usage, 3 with --strict where a row failed, 130 interrupted by Ctrl-C or SIGTERM. Results go to stdout or
--output, everything else to stderr.
Imports of numpy, Pillow and onnxruntime wait until a command runs, so that --help answers at once.
"""

import io
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convline.cli.boundary import results
from convline.cli.common import (
    DEVICE,
    FORMAT,
    MODEL,
    NUL,
    OUTPUT,
    QUIET,
    RESUME,
    SHA256,
    STRICT,
    VARIANT,
    Commands,
    Progress,
    check_output,
    check_plot,
    finish,
    interruptible,
    open_model,
    read_model,
    reading_of,
    reads_series,
    say,
)
from convline.cli.model import bench, check, evaluate, explain, info, list_models

if TYPE_CHECKING:
    from convline.jobs.run import Summary
    from convline.timeseries.predict import ForecastTask


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="convline", prog_name="infer")
def main() -> None:
    """Classify images and forecast series with Convline models, without PyTorch.

    MODEL is an .onnx file, the folder of a package, or the name of a package. Packages are looked up by name in the
    folders that the environment variable CONVLINE_MODELS lists, then in out/dist/.

    \b
    infer list
    infer images lenet5-digits photos/ -o labels.csv
    infer series dilated-waves history.csv
    infer info lenet5-digits

    Results go to stdout or to a file, messages to stderr. Exit code: 0 done; 1 nothing could be done; 2 wrong usage;
    3 a row failed, with --strict; 130 interrupted.

    To complete MODEL and options in bash: eval "$(_INFER_COMPLETE=bash_source infer)". In zsh and fish it is
    zsh_source and fish_source.
    """


@main.command()
@MODEL
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@OUTPUT
@FORMAT
@click.option(
    "--top-k",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Labels per image, the most probable first.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 4096),
    help="Images per run of the network.  [default: measured]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Batches in work at a time.  [default: one per core]",
)
@RESUME
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
    help="Run the workers on this machine, or on the Ray cluster that RAY_ADDRESS names.",
)  # fmt: skip
@NUL
@QUIET
@STRICT
@DEVICE
@VARIANT
@SHA256
def images(
    model: str, paths: tuple[str, ...], output: str, top_k: int, batch: int | None, workers: int | None, resume: bool,
    engine: str, nul: bool, strict: bool, device: str, variant: str, sha256: str | None, form: str | None,
) -> None:  # fmt: skip
    """Classify images.

    A PATH is an image file, a folder (searched recursively), a .zip or .tar archive of images, a .parquet file with a
    column `bytes`, a glob in quotes, or - to read the names of files from stdin, one per line.

    The table has one row per image, in the order of the input: path, label, score, status, error, and with --top-k also
    label_2, score_2 and so on. An image that cannot be read gets a row with status error and the reason; the other
    images are not affected.

    \b
    infer images lenet5-digits digits/ 'more/*.png' --top-k 3 -o labels.csv
    infer images lenet5-digits digits/ --format jsonl
    find . -name '*.jpg' -print0 | infer images lenet5-digits -0 - -o labels.parquet --resume
    """
    os.environ.setdefault(
        "OPENBLAS_NUM_THREADS", "1"
    )  # numpy's own threads: unused, and in the way of a fork
    check_output(output, [model, *paths], form, resume=resume)
    from convline.images.decode import LOW_CONTRAST
    from convline.images.sources import ImageSources
    from convline.jobs.run import label_images
    from convline.jobs.target import part_of

    contract = read_model(model, device, "classification", variant, sha256)
    if top_k > len(contract.labels):
        raise click.BadParameter(
            f"expected at most the model's {len(contract.labels)} labels", param_hint="--top-k"
        )
    sources = ImageSources(paths, sys.stdin.buffer, nul=nul, live=output == "-")
    progress, started = Progress("images"), time.perf_counter()

    def watch(summary: "Summary") -> None:
        if summary.mark.rows == summary.resumed and device == "auto":
            say(f"device: {summary.device}")
        progress.show(summary.mark.rows, summary.mark.failed)

    with interruptible(
        "" if output == "-" else f"{part_of(output)} holds what is done, --resume goes on"
    ):
        done = label_images(
            contract, device, sources, output, results(),
            top_k=top_k, batch=batch, workers=workers, resume=resume, form=form, engine=engine, watch=watch,
        )  # fmt: skip
    progress.clear()
    if sources.skipped:
        say(
            f"skipped {sources.skipped} hidden names, links and files of other suffixes inside folders"
        )
    if done.flat:
        say(f"{done.flat} images came out {LOW_CONTRAST}")
    if done.resumed:
        say(f"{done.resumed} rows are of the interrupted run")
    parts = f", run {done.parts} at a time for want of memory" if done.parts else ""
    say(
        f"started in {done.start:.2f} s; batches of {done.batch}{parts}, {done.workers}: decoding {done.decode:.2f} s, "
        f"inference {done.inference:.2f} s, writing {done.writing:.2f} s, summed over the workers"
    )
    seconds = time.perf_counter() - started - done.start
    finish(
        done.mark.rows,
        done.mark.failed,
        "images",
        done.resumed,
        seconds,
        done.device,
        strict,
        output,
    )


@main.command()
@MODEL
@click.argument("files", metavar="FILE...", nargs=-1)
@OUTPUT
@FORMAT
@click.option(
    "--horizon", type=click.IntRange(1, 1_000_000), help="Steps to forecast.  [default: as trained]"
)
@click.option(
    "--every", metavar="K", type=click.IntRange(1),
    help="Forecast from every K-th row, counted back from the last one, and not from the last one alone.",
)  # fmt: skip
@click.option("--plot", metavar="FILE.svg", help="Draw the forecasts with their intervals.")
@reads_series
@click.option(
    "--follow", is_flag=True, help="Read a CSV from stdin and answer each line as it comes."
)
@RESUME
@QUIET
@STRICT
@DEVICE
@VARIANT
@SHA256
def series(
    model: str, files: tuple[str, ...], output: str, form: str | None, horizon: int | None, every: int | None,
    plot: str | None, follow: bool, resume: bool, strict: bool, device: str, variant: str, sha256: str | None,
    **columns: Any,
) -> None:  # fmt: skip
    """Forecast time series.

    A FILE is a .csv or .parquet file, a folder of such files (searched recursively), a glob in quotes, or - to read a
    CSV from stdin. A file may hold several series, which a column of ids tells apart.

    The table has one row per series and step ahead: unique_id, ds (the time), yhat (the forecast), the ends of its
    intervals such as yhat-lo-80 and yhat-hi-80, status, error. A model that forecasts several columns has yhat-NAME for
    each. A column cutoff, with --every and --follow, is the time of the last row that the forecast used. Beyond the
    horizon that the model was trained for, forecasts are fed back as inputs: status is recursive, and intervals are
    empty. A file or series that cannot be forecast gets one row with status error and the reason.

    With --follow each line of stdin is answered when it comes; status is unsettled until enough rows are known.

    \b
    infer series dilated-waves history.csv --horizon 48 --plot forecast.svg
    infer series dilated-waves shop.csv --id shop --time day --target sales -o forecast.parquet
    infer series dilated-waves shops/ --every 24 -o backtest.parquet
    infer series dilated-waves german.csv --delimiter ';' --decimal ,
    tail -f meter.csv | infer series dilated-waves --follow
    """
    check_output(output, [model, *(files or ("-",))], form, resume=resume)
    if follow and (every or plot or resume or {*files} - {"-"}):
        raise click.UsageError(
            "--follow reads stdin alone, and goes with none of FILE, --every, --plot and --resume"
        )
    if follow and form == "parquet" and output == "-":
        raise click.UsageError(
            "--follow answers each line as it comes, and Parquet is written at the end; take jsonl"
        )
    if not follow and (not files or (resume and "-" in files)):
        also = (
            ", which --resume can compare"
            if resume
            else ", or --follow to answer stdin line by line"
        )
        raise click.UsageError(f"expected a FILE{also}")
    if plot is not None and Path(plot).suffix.lower() != ".svg":
        raise click.BadParameter("expected a name ending in .svg", param_hint="--plot")
    if plot is not None:
        check_plot(plot, [model, *files])
    from convline.timeseries.predict import ForecastTask

    forecaster = open_model(model, device, "forecasting", variant, sha256, threads=1)
    reading = reading_of(forecaster, **columns)
    assert reading is not None
    task = ForecastTask(
        forecaster,
        reading,
        horizon or forecaster.horizon,
        1 if follow else every,
        output,
        say,
        form=form,
    )
    if follow:
        _follow(task, strict)
    else:
        _forecast(task, files, plot, resume, strict)


def _forecast(
    task: "ForecastTask", files: tuple[str, ...], plot: str | None, resume: bool, strict: bool
) -> None:
    from convline.images.sources import SERIES, SeriesSources, names_of
    from convline.jobs.target import check_apart, check_folder_apart, part_of
    from convline.report.svg_plot import Picture
    from convline.timeseries.predict import forecast_files

    picture = Picture(task.model, task.horizon, task.every)
    if plot is not None:
        task.draws, task.draw = picture.wants, picture.add
    progress, started = Progress("rows"), time.perf_counter()
    stdin = io.TextIOWrapper(
        io.BytesIO(sys.stdin.buffer.read() if "-" in files else b""), "utf-8-sig"
    )
    sources = SeriesSources(files, sys.stdin.buffer)
    found = [*sources]
    check_apart("--output", task.target, [source.path for source in found])
    if (
        Path(task.target).suffix.lower() in SERIES
    ):  # which a folder's next run would take for one of its series
        check_folder_apart(
            "--output",
            str(Path(task.target).parent),
            [file for file in files if Path(file).is_dir()],
        )
    task.names = names_of([source.path for source in found if source.path != "-"])
    if sources.skipped:
        say(
            f"skipped {sources.skipped} hidden names, links and files of other suffixes inside folders"
        )
    with interruptible(
        "" if task.target == "-" else f"{part_of(task.target)} holds what is done, --resume goes on"
    ):
        done = forecast_files(
            task, found, results(), stdin=stdin, resume=resume,
            watch=lambda summary: progress.show(summary.mark.rows, summary.mark.failed),
        )  # fmt: skip
    progress.clear()
    if plot is not None:
        say(picture.write(plot))
    if done.resumed:
        say(f"{done.resumed} rows are of the interrupted run")
    say(
        f"reading {done.decode:.2f} s; {done.workers}: inference {done.inference:.2f} s, writing {done.writing:.2f} s"
    )
    seconds = time.perf_counter() - started
    finish(
        done.mark.rows,
        done.mark.failed,
        "rows",
        done.resumed,
        seconds,
        task.model.device,
        strict,
        task.target,
    )


def _follow(task: "ForecastTask", strict: bool) -> None:
    from convline.jobs.target import part_of
    from convline.jobs.writers import open_table, texts
    from convline.timeseries.online import follow

    started, counts = time.perf_counter(), Counter[str]()
    table = open_table(task.target, task.columns, results(), task.form, once=True)
    with (
        interruptible("" if task.target == "-" else f"{part_of(task.target)} holds what is done"),
        table as write,
    ):
        for block in follow(task, sys.stdin.buffer):
            write(block)
            counts.update(texts(block["status"], str))
    seconds = time.perf_counter() - started
    finish(
        counts.total(), counts["error"], "rows", 0, seconds, task.model.device, strict, task.target
    )


for command in (list_models, info, check, bench, evaluate, explain):
    main.add_command(command)
