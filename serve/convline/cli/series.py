"""The command about time series: `infer series`."""

import io
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from convline.cli import messages, options
from convline.cli.open_model import ModelChoice, open_model
from convline.cli.streams import stdout_bytes

if TYPE_CHECKING:
    from convline.jobs.series_job import SeriesJob
    from convline.timeseries.predict import ForecastTask


@click.command()
@options.MODEL
@click.argument("files", metavar="FILE...", nargs=-1)
@options.OUTPUT
@options.FORMAT
@click.option(
    "--horizon", type=click.IntRange(1, 1_000_000), help="Steps to forecast.  [default: as trained]"
)
@click.option(
    "--every",
    metavar="K",
    type=click.IntRange(1),
    help="Backtest: forecast from every K-th row, counted back from the last one, "
    "instead of the last row only.",
)
@click.option(
    "--plot",
    metavar="FILE",
    help="Draw the forecasts with their intervals, as .svg or .png.",
)
@options.columns
@click.option("--follow", is_flag=True, help="Read a CSV from stdin and forecast after each line.")
@options.RESUME
@options.QUIET
@options.STRICT
@options.model_choice
def series(
    choice: ModelChoice, files: tuple[str, ...], output: str, form: str | None, horizon: int | None,
    every: int | None, plot: str | None, columns: options.ColumnOptions, follow: bool, resume: bool,
    strict: bool,
) -> None:  # fmt: skip
    """Forecast time series.

    A FILE is a .csv or .parquet file, a folder of such files (searched recursively), a glob in
    quotes, or - to read a CSV from stdin. A file may hold several series, which a column of ids
    tells apart.

    The table has one row per series and step ahead: unique_id, ds (the time), yhat (the forecast),
    the ends of its intervals such as yhat-lo-80 and yhat-hi-80, status, error. A model that
    forecasts several columns has yhat-NAME for each. A column cutoff, with --every and --follow, is
    the time of the last row that the forecast used. Beyond the horizon that the model was trained
    for, forecasts are fed back as inputs: status is recursive, and intervals are empty. A file or
    series that cannot be forecast gets one row with status error and the reason.

    With --follow each line of stdin is answered when it comes; status is unsettled until enough
    rows are known.

    \b
    infer series dilated-waves history.csv --horizon 48 --plot forecast.png
    infer series dilated-waves shop.csv --id shop --time day --target sales -o forecast.parquet
    infer series dilated-waves shops/ --every 24 -o backtest.parquet
    infer series dilated-waves german.csv --delimiter ';' --decimal ,
    tail -f meter.csv | infer series dilated-waves --follow
    """
    options.check_output(output, [choice.model, *(files or ("-",))], form, resume=resume)
    if follow and (every or plot or resume or {*files} - {"-"}):
        raise click.UsageError(
            "--follow reads stdin only; leave out FILE, --every, --plot and --resume"
        )
    if follow and form == "parquet" and output == "-":
        raise click.UsageError(
            "--follow answers each line when it comes, but Parquet is written at the end; use jsonl"
        )
    if not follow and not files:
        raise click.UsageError("expected a FILE, or --follow to answer stdin line by line")
    if resume and "-" in files:
        raise click.UsageError(
            "expected a FILE: --resume compares the inputs, and cannot reread stdin"
        )
    if plot is not None:
        _check_plot(plot, output, [choice.model, *files])
    from convline.jobs.series_job import SeriesJob
    from convline.timeseries.predict import ForecastTask

    model = open_model(choice, "forecasting", threads=1)
    reading = options.reading_rule(model, columns)
    assert reading is not None
    every = 1 if follow else every
    task = ForecastTask(model, reading, horizon or model.horizon, every, messages.note)
    if follow:
        _follow_stdin(task, output, form, strict)
    else:
        _forecast_files(SeriesJob(task, output, form), files, plot, resume, strict)


def _check_plot(plot: str, output: str, inputs: list[str]) -> None:
    """Refuse a picture that cannot be written, or that would replace the table or an input."""
    from convline.jobs.output_files import (
        follow_link,
        require_folder,
        require_not_an_input,
        require_replaceable,
    )
    from convline.report.forecast_plot import FORMATS, is_plot

    if Path(plot).suffix.lower() not in FORMATS:
        expected = f"expected a name ending in {' or '.join(FORMATS)}, got {plot!r}"
        raise click.BadParameter(expected, param_hint="--plot")
    if follow_link(plot) == follow_link(output):
        raise click.BadParameter(
            f"expected another file than the table, got {plot!r} twice", param_hint="--plot"
        )
    require_not_an_input("--plot", plot, inputs)
    require_folder(plot)
    require_replaceable(plot, is_plot)


def _forecast_files(
    job: "SeriesJob", files: tuple[str, ...], plot: str | None, resume: bool, strict: bool
) -> None:
    from convline.jobs.output_files import require_folder_apart, require_not_an_input
    from convline.jobs.series_job import forecast_files
    from convline.timeseries.sources import SERIES, SeriesSources, names_of

    task = job.task
    if plot is not None:
        from convline.report.forecast_plot import ForecastPlot

        forecast_plot = ForecastPlot(task.model, task.horizon, task.every)
        job.draws, job.draw = forecast_plot.wants, forecast_plot.add
    progress, started = messages.Progress("rows"), time.perf_counter()
    stdin = sys.stdin.buffer.read() if "-" in files else b""
    listing = SeriesSources(files, sys.stdin.buffer)
    sources = [*listing]
    for option, target in (("--output", job.target), ("--plot", plot)):
        if target is not None:
            require_not_an_input(option, target, [source.path for source in sources])
    if Path(job.target).suffix.lower() in SERIES:  # the next run of a folder would read it
        folders = [file for file in files if Path(file).is_dir()]
        require_folder_apart("--output", str(Path(job.target).parent), folders)
    job.names = names_of([source.path for source in sources if source.path != "-"])
    with messages.advice_on_interrupt(messages.resume_advice(job.target)):
        done = forecast_files(
            job,
            sources,
            stdout_bytes(),
            stdin=io.TextIOWrapper(io.BytesIO(stdin), "utf-8-sig"),
            resume=resume,
            watch=lambda summary: progress.count(
                summary.checkpoint.rows, summary.checkpoint.failed
            ),
        )
    progress.clear()
    if plot is not None:
        messages.note(forecast_plot.write(plot))
    messages.note_skipped_and_resumed(listing.skipped, done.resumed)
    messages.note(
        f"reading {done.decode_s:.2f} s; {done.workers}: inference {done.inference_s:.2f} s, "
        f"writing {done.write_s:.2f} s"
    )
    messages.finish(
        done.checkpoint.rows, done.checkpoint.failed, "rows", started=started,
        device=task.model.device, strict=strict, output=job.target, resumed=done.resumed,
    )  # fmt: skip


def _follow_stdin(task: "ForecastTask", target: str, form: str | None, strict: bool) -> None:
    from convline.jobs.output_files import part_of
    from convline.jobs.writers import open_table
    from convline.runtime.rows import python_values
    from convline.timeseries.online import follow

    started, counts = time.perf_counter(), Counter[str]()
    advice = "" if target == "-" else f"{part_of(target)} holds the finished rows"
    table = open_table(target, task.columns, stdout_bytes(), form, once=True)
    with messages.advice_on_interrupt(advice), table as write:
        for block in follow(task, sys.stdin.buffer):
            write(block)
            counts.update(map(str, python_values(block["status"])))
    messages.finish(
        counts.total(), counts["error"], "rows", started=started, device=task.model.device,
        strict=strict, output=target,
    )  # fmt: skip
