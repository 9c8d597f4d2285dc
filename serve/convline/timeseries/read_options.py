"""Which columns of a file are read, decided from its header, and how.

A name that the user gives comes first, then that of the model, then the usual one:

    ids of series  --id,     else the model's id column if the file has it,   else `unique_id`
    times          --time,   else the model's time column if the file has it, else `ds`
    values         --target, else the model's column if the file has it,      else `y`

A model of several columns reads those, or those of --target. An empty --id or --time means that
there is none, and so does a model that was trained without times. A file with a time column and
without any of the id columns is one series: if it were several, their times would not rise. The
notes of the table name the columns that were taken by their usual names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from convline.errors import InputError
from convline.model_file.document import SeriesRule, Step
from convline.timeseries.csv_reader import DELIMITERS
from convline.timeseries.series import Table, TableSource, build_table, open_file

DECIMALS = (".", ",")
EPOCH = (10**8, 2**32)  # seconds since 1970 that are taken for times: from 1973 to 2106


class ColumnOptions(TypedDict, total=False):
    """What a caller may set of a file's columns; `ReadOptions` has the rule for the rest."""

    target: Sequence[str] | str
    time: str
    id: str
    gaps: str
    delimiter: str
    decimal: str


@dataclass(frozen=True)
class ReadOptions:
    """The rule of a model (`input` of its document), and what the user sets instead, if not None.

    target: as many columns as the rule has. delimiter, decimal: see `csv_reader`.
    """

    model: str
    rule: SeriesRule
    target: list[str] | None = None
    time: str | None = None
    id: str | None = None
    gaps: str | None = None
    delimiter: str = "auto"
    decimal: str = "auto"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("delimiter", self.delimiter, DELIMITERS),
            ("decimal", self.decimal, DECIMALS),
        ):
            if value not in (*known, "auto"):
                raise ValueError(f"{name}: expected one of {' '.join(known)} auto, got {value!r}")

    def to_arguments(self) -> list[str]:
        """Return the arguments of `infer` that set the same."""
        arguments = []
        for name in ("target", "time", "id", "gaps", "delimiter", "decimal"):
            value = getattr(self, name)
            if value is not None:
                arguments += [f"--{name}", ",".join(value) if name == "target" else value]
        return arguments

    def read(self, source: TableSource, name: str | None = None) -> Table:
        """Return the file's series at the model's step; InputError tells what does not fit.

        name: of a series without an id; None takes the stem of the file's name.
        """
        keys = (self.time, self.id, self.rule.time, self.rule.id, "ds", "unique_id")
        file = open_file(source, self.delimiter, self.decimal, [key for key in keys if key])
        columns, time, id, notes = self.choose_columns(file.header)
        self.check_columns(file.where, file.header, columns, time, id)
        file.notes.extend(notes)
        gaps = self.gaps or self.rule.gaps
        table = build_table(file, columns=columns, time=time, id=id, gaps=gaps, name=name)
        step = self.rule.step
        # A network trained on months is wrong on days; one trained on counted rows has no step.
        if time is not None and self.rule.time is not None and table.step != step:
            raise InputError(file.where, self._explain_other_step(step, table, time))
        if time is not None and (reason := self.explain_other_offset(table.series[0].offset)):
            raise InputError(file.where, f"column {time!r}: {reason}")
        return table

    def choose_columns(
        self, header: list[str]
    ) -> tuple[list[str], str | None, str | None, list[str]]:
        """Return (value columns, time, id, notes on columns chosen by their usual names)."""
        columns = self.target or self.rule.columns
        time = self.rule.time if self.time is None else self.time
        id = self.rule.id if self.id is None else self.id
        usual = []
        if self.id is None and id not in header and "unique_id" in header:
            id = "unique_id"
            usual.append(id)
        if self.time is None and time is not None and time not in header and "ds" in header:
            time = "ds"
            usual.append(time)
        is_free = self.target is None and len(columns) == 1
        if is_free and columns[0] not in header and "y" in header:
            columns = ["y"]
            usual.append("y")
        notes = [f"columns by the usual names: {', '.join(usual)}"] if usual else []
        if self.id is None and id and id not in header and time in header:
            notes.append(f"no column {id!r}, so the file is one series")
            id = None
        return columns, time or None, id or None, notes

    def check_columns(
        self, where: str, header: list[str], columns: list[str], time: str | None, id: str | None
    ) -> None:
        """Raise InputError if a chosen column is missing, with the option that names another."""
        have = ", ".join(header)
        for option, name in (("--time", time), ("--id", id)):
            if name and name not in header:
                cure = f"name one of these with {option}, or say {option} '' if there is none"
                raise InputError(where, f"expected a column {name!r}, got {have}; {cure}")
        for name in columns:
            if name not in header:
                cure = "name one of these with --target"
                raise InputError(where, f"expected a column {name!r}, got {have}; {cure}")

    def _explain_other_step(self, step: Step, table: Table, time: str) -> str:
        """Return why a table whose step is not the model's cannot be forecast, and the cure."""
        expects, got = f"model {self.model!r} expects a row every {step}", table.step
        count = "count rows with --time ''"
        if step.unit == got.unit == "index":
            return f"{expects}, got one every {got}; resample it, or {count}"
        if "index" not in (step.unit, got.unit):
            return f"{expects}, got one every {got}; resample it"
        if got.unit == "index":
            cure = suggest_dates(int(table.series[0].times[0]))
            return f"{expects}, got whole numbers in column {time!r}; {cure}"
        cure = f"name a column of whole numbers, or {count}"
        return f"{expects}, got dates in column {time!r}; {cure}"

    def explain_other_offset(self, offset: str) -> str:
        """Return why times with a UTC offset, or with none (""), cannot be used; "" if they can.

        The hour that a clock shows is another hour in UTC, so the calendar would be wrong.
        """
        trained = self.rule.offset
        if self.rule.time is None or trained in (None, "utc" if offset else "none"):
            return ""
        expects = f"model {self.model!r} was trained on times"
        if offset:
            cure = "write the local times without it"
            return f"{expects} without an offset from UTC, got {offset}; {cure}"
        cure = "write them with theirs, such as 2024-01-31T12:00+01:00"
        return f"{expects} with an offset from UTC, got none; {cure}"


def suggest_dates(number: int) -> str:
    """Return how a time that is a whole number becomes a date: exactly, if it counts from 1970."""
    for unit, per_second in (("seconds", 1), ("milliseconds", 10**3), ("microseconds", 10**6)):
        if EPOCH[0] <= number / per_second < EPOCH[1]:
            stamp = np.datetime64(number // per_second, "s")
            return f"if they are {unit} since 1970, write {number} as {stamp}"
    cure = "write them as dates, such as 2024-01-31 or 2024-01-31T12:00"
    return f"{cure}, or count rows with --time ''"
