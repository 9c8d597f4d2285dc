"""The options that several commands have, and the checks of their values."""

import functools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from convline.cli.completion import complete_model
from convline.cli.error_handling import OUTPUT_KEY
from convline.cli.messages import QUIET_KEY, note
from convline.cli.open_model import ModelChoice
from convline.runtime.engine import ENGINES

if TYPE_CHECKING:
    from convline.loading import AnyModel
    from convline.timeseries.read_options import ReadOptions

Command = Callable[..., Any]


class ColumnOptions(NamedTuple):
    """The options that say which columns of a file are read, and how."""

    target: str | None
    time: str | None
    id: str | None
    gaps: str | None
    delimiter: str
    decimal: str


def _lowercase_digest(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    if value is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise click.BadParameter(f"expected 64 hex digits, got {value!r}")
    return value.lower() if value is not None else None


MODEL = click.argument("model", metavar="MODEL", shell_complete=complete_model)
DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]),
    default="auto",
    help="Where the model runs. auto: CUDA if there is a GPU, else the CPU; the choice is printed. "
    "A device that is not there is an error.",
)
VARIANT = click.option(
    "--variant",
    type=click.Choice(["auto", "fp32", "int8", "fp16"]),
    default="auto",
    help="Precision, if the package holds several. auto: the one that the package recommends for "
    "the device; the choice is printed.",
)
VARIANT_OR_BF16 = click.option(
    "--variant",
    type=click.Choice(["auto", "fp32", "int8", "fp16", "bf16"]),
    default="auto",
    help="Precision, if the package holds several. auto: the one that the package recommends for "
    "the device; the choice is printed. bf16: the fp32 file, by OpenVINO in bfloat16.",
)
ENGINE = click.option(
    "--engine",
    type=click.Choice(["auto", *ENGINES]),
    default="auto",
    help="What computes the network. auto: OpenVINO where it is installed and the package "
    "recommends it, else onnxruntime; the choice is printed.",
)
SHA256 = click.option(
    "--sha256",
    metavar="HEX",
    callback=_lowercase_digest,
    help="Refuse the model unless its file has this SHA-256, which `sha256sum` prints.",
)
OUTPUT = click.option(
    "-o",
    "--output",
    default="-",
    show_default="stdout, as CSV",
    metavar="FILE",
    help="Write the table to a .csv, .jsonl or .parquet file. Its name is FILE.part until it is "
    "complete.",
)
FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "jsonl", "parquet"]),
    help="Format of the table, in a file or on stdout.  [default: by the suffix of FILE, else csv]",
)
RESUME = click.option("--resume", is_flag=True, help="Continue an interrupted run from FILE.part.")
STRICT = click.option(
    "--strict", is_flag=True, help="Exit with code 3 if any row has status error."
)
NUL = click.option(
    "-0", "--null", "nul", is_flag=True, help="Names on stdin end with NUL, as find -print0 writes."
)
QUIET = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=lambda context, parameter, value: context.meta.update({QUIET_KEY: value}),
    help="Print only errors on stderr: no progress, no notes, no summary.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
COLUMNS = (
    click.option(
        "--target",
        metavar="NAME,...",
        help="Columns of the values, in the model's order.  [default: the model's columns, else y]",
    ),
    click.option(
        "--time",
        metavar="NAME",
        help="Column of the times; '' if there is none.  [default: the model's column, else ds]",
    ),
    click.option(
        "--id",
        metavar="NAME",
        help="Column of the ids that tell several series apart; '' if the file holds one series.  "
        "[default: the model's column, else unique_id, else the file is one series]",
    ),
    click.option(
        "--gaps",
        type=click.Choice(["error", "interpolate"]),
        help="What to do about missing rows and cells.  [default: as in training]",
    ),
    click.option(
        "--delimiter",
        metavar="SIGN",
        type=click.Choice([",", ";", "tab", "|", "auto"]),
        default="auto",
        help="Sign between the cells of a CSV: , ; tab | or auto, which detects it.",
    ),
    click.option(
        "--decimal",
        metavar="SIGN",
        type=click.Choice([".", ",", "auto"]),
        default="auto",
        help="Decimal sign of the numbers in a CSV: . or , (points then separate thousands) or "
        "auto, which detects it.",
    ),
)


def model_choice(command: Command) -> Command:
    """Add --device, --variant, --engine and --sha256; with MODEL they become one argument,
    `choice`."""
    added = DEVICE, VARIANT_OR_BF16, ENGINE, SHA256
    return _as_one_argument(command, "choice", ModelChoice, added)


def file_choice(command: Command) -> Command:
    """Add what `model_choice` adds, for a command that onnxruntime alone can run."""
    return _as_one_argument(command, "choice", ModelChoice, (DEVICE, VARIANT, SHA256))


def columns(command: Command) -> Command:
    """Add the options of ColumnOptions as one argument, `columns`."""
    return _as_one_argument(command, "columns", ColumnOptions, COLUMNS)


def _as_one_argument(
    command: Command, name: str, kind: Any, options: Sequence[Callable[[Command], Command]]
) -> Command:
    """Return the command with options, whose values it receives as one named tuple."""

    @functools.wraps(command)
    def with_one_argument(**values: Any) -> Any:
        fields = {field: values.pop(field) for field in kind._fields if field in values}
        return command(**values, **{name: kind(**fields)})

    decorated: Command = with_one_argument
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def reading_rule(model: "AnyModel", columns: ColumnOptions) -> "ReadOptions | None":
    """Return the rule by which a forecaster's files are read; None for models of images, which have
    no such option."""
    from convline.timeseries.forecaster import Forecaster
    from convline.timeseries.read_options import ReadOptions

    if not isinstance(model, Forecaster):
        if {*columns} - {None, "auto"}:
            options = "--target, --time, --id, --gaps, --delimiter and --decimal"
            raise click.UsageError(
                f"{options} are for files of series, and {model.name!r} reads images"
            )
        return None
    names = columns.target.split(",") if columns.target else None
    if names and len(names) != len(model.columns):
        raise click.BadParameter(f"expected {len(model.columns)} names", param_hint="--target")
    return ReadOptions(model.name, model.document.input, names, *columns[1:])


def check_output(
    output: str, inputs: Sequence[str], form: str | None = None, *, resume: bool
) -> None:
    """Refuse an --output that cannot be written or resumed; note if an interrupted run will be
    overwritten.

    inputs: names of the files that are read, which must not be written; "-" is stdin. form: of
    --format, if given.
    """
    from convline.jobs import output_files
    from convline.jobs.formats import SUFFIXES
    from convline.jobs.writers import is_table

    click.get_current_context().meta[OUTPUT_KEY] = output
    output_files.require_not_an_input("--output", output, inputs)
    if output == "-":
        if resume:
            raise click.BadParameter(
                "expected a file to continue; add --output FILE", param_hint="--resume"
            )
        if form == "parquet" and sys.stdout.isatty():
            raise click.BadParameter(
                "expected a file or a pipe for Parquet, got a terminal", param_hint="--format"
            )
        return
    suffix = Path(output).suffix.lower()
    if suffix not in SUFFIXES and form is None:
        expected = f"expected a name ending in {', '.join(SUFFIXES)}, or add --format"
        raise click.BadParameter(expected, param_hint="--output")
    if suffix in SUFFIXES and form not in (None, suffix[1:]):
        raise click.BadParameter(
            f"expected {suffix[1:]}, because {output} has that suffix; rename the file",
            param_hint="--format",
        )
    output_files.require_replaceable(output, is_table)
    if not resume and output_files.checkpoint_of(output).exists():
        part = output_files.part_of(output)
        note(f"{part}: an interrupted run is overwritten; --resume would continue it")
