"""What the commands share: options, an error as one line, progress on a terminal, the summary.

Imports of numpy, Pillow and onnxruntime wait until a command runs, so that --help answers at once.
"""

import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convline.cli.boundary import (
    OUTSIDE,
    drop_output,
    sentence,
    standard_streams,
    terminated,
    visible,
)
from convline.errors import ServeError
from convline.model_file.registry import complete

if TYPE_CHECKING:
    from convline.model_file.document import Contract
    from convline.runtime.model import Classifier, Forecaster
    from convline.timeseries.read_options import ReadOptions

SILENT, TARGET = (
    "convline.quiet",
    "convline.jobs.target",
)  # keys in a context's meta: of --quiet, and of --output
MODEL = click.argument("model", metavar="MODEL", shell_complete=complete)
DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]),
    default="auto",
    show_default=True,
    help="Where the model runs. auto takes CUDA if there is a GPU, else the CPU, and says which. A device that is "
    "named and not there is an error.",
)
VARIANT = click.option(
    "--variant",
    type=click.Choice(["auto", "fp32", "int8", "fp16"]),
    default="auto",
    show_default=True,
    help="Precision, if the package holds several. auto takes the one that the package recommends for the device, and "
    "says which.",
)
SHA256 = click.option(
    "--sha256",
    metavar="HEX",
    callback=lambda ctx, param, value: _digest(value),
    help="Refuse the model unless its file has this SHA-256, which `sha256sum` prints.",
)
OUTPUT = click.option(
    "-o",
    "--output",
    default="-",
    metavar="FILE",
    help="Write the table to a .csv, .jsonl or .parquet file. It is FILE.part until it is complete.  "
    "[default: stdout, as CSV]",
)
NUL = click.option(
    "-0", "--null", "nul", is_flag=True, help="Names on stdin end with NUL (as from find -print0)."
)
QUIET = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=lambda ctx, param, value: ctx.meta.update({SILENT: value}),
    help="Print only errors on stderr: no progress, no notes, no summary.",
)
FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "jsonl", "parquet"]),
    help="Form of the table, in a file or on stdout.  [default: by the suffix of FILE, else csv]",
)
SIGNS = {"delimiter": [",", ";", "tab", "|", "auto"], "decimal": [".", ",", "auto"]}
READING = (
    click.option(
        "--target",
        metavar="NAME,...",
        help="Columns that hold the values, in the model's order.  [default: the model's column, else y]",
    ),
    click.option(
        "--time",
        "time_",
        metavar="NAME",
        help="Column that holds the times; '' if there is none.  [default: the model's column, else ds]",
    ),
    click.option(
        "--id",
        "id_",
        metavar="NAME",
        help="Column that tells several series apart; '' if the file holds one.  "
        "[default: the model's column, else unique_id, else the file is one series]",
    ),
    click.option(
        "--gaps",
        type=click.Choice(["error", "interpolate"]),
        help="What to do about missing rows and cells.  [default: as the model was trained]",
    ),
    click.option(
        "--delimiter",
        metavar="SIGN",
        type=click.Choice(SIGNS["delimiter"]),
        default="auto",
        help="Sign between the cells of a CSV: , ; tab | or auto, which finds it.  [default: auto]",
    ),
    click.option(
        "--decimal",
        metavar="SIGN",
        type=click.Choice(SIGNS["decimal"]),
        default="auto",
        help="Decimal sign of the numbers in a CSV: . , (points are then between thousands) or auto, which finds it.  "
        "[default: auto]",
    ),
)
RESUME = click.option("--resume", is_flag=True, help="Continue an interrupted run from FILE.part.")
STRICT = click.option(
    "--strict", is_flag=True, help="Exit with code 3 if any row has status error."
)


def reads_series(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which columns of a file are read, and how."""
    for option in reversed(READING):
        command = option(command)
    return command


def reading_of(
    model: "Classifier | Forecaster", target: str | None, time_: str | None, id_: str | None, gaps: str | None,
    delimiter: str, decimal: str,
) -> "ReadOptions | None":  # fmt: skip
    """Return the rule by which a forecaster's files are read; None for a classifier, which has none of the options."""
    from convline.runtime.model import Forecaster
    from convline.timeseries.read_options import ReadOptions

    if not isinstance(model, Forecaster):
        if {target, time_, id_, gaps, delimiter, decimal} - {None, "auto"}:
            options = "--target, --time, --id, --gaps, --delimiter and --decimal"
            raise click.UsageError(
                f"{options} are for files of series, and {model.name!r} classifies images"
            )
        return None
    names = target.split(",") if target else None
    if names and len(names) != len(model.columns):
        raise click.BadParameter(f"expected {len(model.columns)} names", param_hint="--target")
    return ReadOptions(
        model.name, model.contract.document["input"], names, time_, id_, gaps, delimiter, decimal
    )


class Commands(click.Group):
    """The one place where errors become one line on stderr and exit code 1, and Ctrl-C and SIGTERM exit code 130."""

    def invoke(self, ctx: click.Context) -> Any:
        # Pillow warns about odd metadata and large images; what cannot be served becomes an error row anyway.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        with standard_streams(), terminated():
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                click.echo("interrupted", err=True)
                raise SystemExit(130) from None
            except ServeError as error:
                raise click.ClickException(visible(str(error))) from error
            except (
                BrokenPipeError
            ):  # who reads stdout has enough (`| head`): click ends without a word
                raise
            except OUTSIDE as error:
                drop_output()
                output = ctx.meta.get(TARGET, "-")
                raise click.ClickException(
                    visible(sentence(error, output, _unfinished(output)))
                ) from error


def _unfinished(output: str) -> str | None:
    """Return the part that --resume can go on with, if there is one."""
    from convline.jobs.checkpoint import journal_of
    from convline.jobs.target import part_of

    return str(part_of(output)) if output != "-" and os.path.exists(journal_of(output)) else None


class Progress:
    """How far a command is, on a terminal alone: one line, written over."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.shown = sys.stderr.isatty() and not is_quiet()
        self.started = self.last = time.monotonic()

    def show(self, n: int, failed: int) -> None:
        """Write the line anew, five times a second at most."""
        now = time.monotonic()
        if self.shown and now - self.last > 0.2:
            rate = n / (now - self.started)
            click.echo(
                f"\r{n:,} {self.what}, {failed:,} failed, {rate:,.0f}/s\033[K", err=True, nl=False
            )
            self.last = now

    def clear(self) -> None:
        if self.shown and self.last > self.started:
            click.echo("\r\033[K", err=True, nl=False)


@contextmanager
def interruptible(advice: str) -> Iterator[None]:
    """Say what is kept where Ctrl-C or SIGTERM ends a command, once what is open is closed."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(visible(f"interrupted; {advice}" if advice else "interrupted"), err=True)
        raise SystemExit(130) from None


def _digest(value: str | None) -> str | None:
    """Return a SHA-256 in lower case; click's usage error where it is none."""
    if value is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise click.BadParameter(f"expected 64 hex digits, got {value!r}")
    return value.lower() if value is not None else None


def read_model(
    model: str, device: str, task: str | None, variant: str = "auto", sha256: str | None = None
) -> "Contract":
    """Return the contract of a name or path for a task (None: any); say which variant was chosen."""
    from convline.model_file.document import read
    from convline.model_file.registry import locate
    from convline.runtime.session import providers_for, resolve

    providers_for(device)  # an error before the file is read, where the device is not there
    path, sha256, why = locate(model, resolve(device), variant, sha256)
    contract = read(path, sha256)
    if task not in (None, contract.task):
        command = "images" if contract.task == "classification" else "series"
        raise ServeError(
            f"{path}: expected a model for {task}, got {contract.task}; use `infer {command}`"
        )
    if why and not why.startswith("fp32"):
        say(f"variant: {why}" + ("; or --variant fp32" if variant == "auto" else ""))
    return contract


def open_model(
    model: str, device: str, task: str | None, variant: str = "auto", sha256: str | None = None,
    *, threads: int | None = None,
) -> Any:  # fmt: skip
    """Return the Classifier or Forecaster of a name or path, and say which device and which variant was chosen.

    threads: of one operator; 1 where workers fill the cores, which then wait for each other asleep.
    """
    from convline.runtime.model import wrap
    from convline.runtime.session import open_session

    contract = read_model(model, device, task, variant, sha256)
    session = open_session(contract.served, device, threads=threads, spinning=threads != 1)
    loaded = wrap(contract, session, device)
    if device == "auto":
        say(f"device: {loaded.device}")
    return loaded


def check_output(output: str, inputs: Sequence[str], form: str | None, *, resume: bool) -> None:
    """Refuse what cannot be written or gone on with; say where an interrupted run will be written over.

    inputs: what is read, none of which may be written; "-" is stdin. form: of --format, None where it was not asked.
    """
    from convline.jobs.checkpoint import journal_of
    from convline.jobs.target import check_apart, check_replaceable, part_of
    from convline.jobs.writers import SUFFIXES, is_table

    click.get_current_context().meta[TARGET] = output
    check_apart("--output", output, inputs)
    if output == "-":
        if resume:
            raise click.BadParameter(
                "needs a file to go on with; add --output FILE", param_hint="--resume"
            )
        if form == "parquet" and sys.stdout.isatty():
            raise click.BadParameter(
                "expected a file or a pipe for Parquet, got a terminal", param_hint="--format"
            )
        return
    suffix = Path(output).suffix.lower()
    if suffix not in SUFFIXES and form is None:
        expected = f"expected a name ending in {', '.join(SUFFIXES)}, or --format beside it"
        raise click.BadParameter(expected, param_hint="--output")
    if suffix in SUFFIXES and form not in (None, suffix[1:]):
        raise click.BadParameter(
            f"expected {suffix[1:]}, as {output} ends so; rename it", param_hint="--format"
        )
    check_replaceable(output, is_table)
    if not resume and journal_of(output).exists():
        say(
            f"{part_of(output)}: an interrupted run is written over; --resume would have gone on with it"
        )


def check_plot(plot: str, inputs: Sequence[str]) -> None:
    """Refuse a picture that cannot be written, or that would take the place of an input."""
    from convline.jobs.target import check_apart, check_replaceable
    from convline.report.svg_plot import is_plot

    check_apart("--plot", plot, inputs)
    check_replaceable(plot, is_plot)


def finish(
    n: int,
    failed: int,
    what: str,
    before: int,
    seconds: float,
    device: str,
    strict: bool,
    output: str,
) -> None:
    """Print the summary; `before` rows were done by an earlier run.

    Exit code 3 where --strict was asked and a row failed, else 1 where every row failed: a script must see that there
    is no result. No row at all (an empty list on stdin) is no failure.
    """
    rate = (n - before) / max(seconds, 1e-9)
    say(f"{n - failed} ok, {failed} error, {seconds:.2f} s, {rate:.0f} {what}/s on {device}")
    if failed == n > 0:
        place = "the table" if output == "-" else output
        click.echo(f"Error: no row is ok; column error of {place} says why", err=True)
    if failed and (strict or failed == n):
        raise SystemExit(3 if strict else 1)


def say(text: str) -> None:
    """Print a note on stderr, unless --quiet was asked."""
    if not is_quiet():
        click.echo(visible(text), err=True)


def is_quiet() -> bool:
    """Return whether the command that runs was asked to be quiet."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(SILENT))
