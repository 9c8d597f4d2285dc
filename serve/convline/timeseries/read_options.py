"""Which columns of a file are read, decided from its header: what the user names, else the model's, else the field's.

    series are told apart by  --id,     else the model's id column where the file has it,   else `unique_id`
    times are in              --time,   else the model's time column where the file has it, else `ds`
    values are in             --target, else the model's column where the file has it,      else `y`

A model of several columns reads those or what --target says. An empty --id or --time says that there is none, and so
does a model that was trained without times. A file with a time column and none of the id columns is one series: were
it several, their times would not rise. What was taken by the field's habit is said in the table's notes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np

from convline.errors import InputError
from convline.timeseries.csv_reader import DELIMITERS
from convline.timeseries.series import Table, TableSource, build_table, open_file
from convline.timeseries.timestamps import Step

DECIMALS = (".", ",")
EPOCH = (10**8, 2**32)  # seconds since 1970 that are taken for times: from 1973 to 2106


class ColumnOptions(TypedDict, total=False):
    """What a caller may say of a file's columns; `Reading` says what holds where nothing is said."""

    target: Sequence[str] | str
    time: str
    id: str
    gaps: str
    delimiter: str
    decimal: str


@dataclass(frozen=True)
class ReadOptions:
    """The rule of a model (`input` of its document), and what the user says instead; None says nothing."""

    model: str
    rule: dict[str, Any]
    target: list[str] | None = None  # as many as the rule has columns
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

    def options(self) -> list[str]:
        """Return the options of `infer` that say the same."""
        said = {
            "target": None if self.target is None else ",".join(self.target), "time": self.time, "id": self.id,
            "gaps": self.gaps, "delimiter": self.delimiter, "decimal": self.decimal,
        }  # fmt: skip
        return [
            word
            for name, value in said.items()
            if value is not None
            for word in (f"--{name}", value)
        ]

    def read(self, source: TableSource, name: str | None = None) -> Table:
        """Return the file's series at the model's step; InputError says what does not fit.

        name: of a series without an id, in place of the file's stem.
        """
        keys = (self.time, self.id, self.rule["time"], self.rule["id"], "ds", "unique_id")
        file = open_file(source, self.delimiter, self.decimal, [name for name in keys if name])
        file = file if name is None else replace(file, stem=name)
        columns, time, id, notes = self.choose(file.header)
        self.check(file.where, file.header, columns, time, id)
        file.notes.extend(notes)
        table = build_table(
            file, columns=columns, time=time, id=id, gaps=self.gaps or self.rule["gaps"]
        )
        step = Step.from_dict(self.rule["step"])
        # A network trained on months is wrong on days; one trained on plain row numbers knows no step.
        if time is not None and self.rule["time"] is not None and table.step != step:
            raise InputError(file.where, self.other_step(step, table, time))
        if time is not None and (reason := self.other_clock(table.series[0].offset)):
            raise InputError(file.where, f"column {time!r}: {reason}")
        return table

    def check(
        self, where: str, header: list[str], columns: list[str], time: str | None, id: str | None
    ) -> None:
        """Raise InputError where a column that `choose` chose is not there, with the option that names another."""
        have = ", ".join(header)
        for option, name in (("--time", time), ("--id", id)):
            if name and name not in header:
                cure = f"name one of these with {option}, or say {option} '' if there is none"
                raise InputError(where, f"expected a column {name!r}, got {have}; {cure}")
        for name in columns:
            if name not in header:
                raise InputError(
                    where,
                    f"expected a column {name!r}, got {have}; name one of these with --target",
                )

    def other_step(self, step: Step, table: Table, time: str) -> str:
        """Return why a table whose step is not the model's cannot be served, and what to do."""
        expects, got = f"model {self.model!r} expects a row every {step}", table.step
        if step.unit == got.unit == "index":
            return f"{expects}, got one every {got}; resample it, or count rows with --time ''"
        if "index" not in (step.unit, got.unit):
            return f"{expects}, got one every {got}; resample it"
        if got.unit == "index":
            first = int(table.series[0].times[0])
            return f"{expects}, got whole numbers in column {time!r}; {as_dates(first)}"
        return f"{expects}, got dates in column {time!r}; name a column of whole numbers, or count rows with --time ''"

    def other_clock(self, offset: str) -> str:
        """Return why times with an offset from UTC, or with none (""), cannot be served, and the cure; "" if they can.

        An hour of the clock is another hour of UTC: a calendar would be told the wrong one.
        """
        known = self.rule.get("offset")
        if self.rule["time"] is None or known is None or known == ("utc" if offset else "none"):
            return ""
        expects = f"model {self.model!r} was trained on times"
        if offset:
            return f"{expects} without an offset from UTC, got {offset}; write the local times without it"
        return f"{expects} with an offset from UTC, got none; write them with theirs, such as 2024-01-31T12:00+01:00"

    def choose(self, header: list[str]) -> tuple[list[str], str | None, str | None, list[str]]:
        """Return (value columns, time, id, what was decided without the user or the model, in words)."""
        own, columns = self.rule, self.target or list(self.rule["columns"])
        time = self.time if self.time is not None else own["time"]
        id = self.id if self.id is not None else own["id"]
        habit = []
        if self.target is None and len(columns) == 1 and columns[0] not in header and "y" in header:
            habit, columns = ["y"], ["y"]
        if self.time is None and time is not None and time not in header and "ds" in header:
            habit, time = ["ds", *habit], "ds"
        if self.id is None and id not in header and "unique_id" in header:
            habit, id = ["unique_id", *habit], "unique_id"
        notes = [f"columns by the usual names: {', '.join(habit)}"] if habit else []
        if self.id is None and id and id not in header and time in header:
            notes, id = [*notes, f"no column {id!r}, so the file is one series"], None
        return columns, time or None, id or None, notes


def as_dates(number: int) -> str:
    """Return how a time that is a whole number can be made a date, where it is one since 1970."""
    for unit, per_second in (("seconds", 1), ("milliseconds", 10**3), ("microseconds", 10**6)):
        if EPOCH[0] <= number / per_second < EPOCH[1]:
            stamp = np.datetime64(number // per_second, "s")
            return f"if they are {unit} since 1970, write {number} as {stamp}"
    return (
        "write them as dates, such as 2024-01-31 or 2024-01-31T12:00, or count rows with --time ''"
    )
