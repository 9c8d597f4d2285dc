"""Which columns of a file are read, decided from its header: what the user names, else the model's, else the field's.

    series are told apart by  --id,     else the model's id column where the file has it,   else `unique_id`
    times are in              --time,   else the model's time column where the file has it, else `ds`
    values are in             --target, else the model's column where the file has it,      else `y`

A model of several columns reads those or what --target says. An empty --id or --time says that there is none, and so
does a model that was trained without times. What was taken by the field's habit is said in the table's notes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from serve.errors import InputError
from serve.series import Step, Table, open_file, table_of


@dataclass(frozen=True)
class Reading:
    """The rule of a model (`input` of its document), and what the user says instead; None says nothing."""

    model: str
    rule: dict[str, Any]
    target: list[str] | None = None  # as many as the rule has columns
    time: str | None = None
    id: str | None = None
    gaps: str | None = None
    delimiter: str = "auto"
    decimal: str = "auto"

    def read(self, source: str | Path | TextIO) -> Table:
        """Return the file's series at the model's step; InputError says what does not fit."""
        keys = (self.time, self.id, self.rule["time"], self.rule["id"], "ds", "unique_id")
        file = open_file(source, self.delimiter, self.decimal, [name for name in keys if name])
        columns, time, id, habit = self.choose(file.header)
        if habit:
            file.notes.append(f"columns by the usual names: {', '.join(habit)}")
        table = table_of(file, columns=columns, time=time, id=id, gaps=self.gaps or self.rule["gaps"])
        step = Step.from_dict(self.rule["step"])
        # A network trained on months is wrong on days; one trained on plain row numbers knows no step.
        if time is not None and self.rule["time"] is not None and table.step != step:
            raise InputError(
                file.where, f"model {self.model!r} expects a row every {step}, got one every {table.step}; resample it"
            )
        return table

    def choose(self, header: list[str]) -> tuple[list[str], str | None, str | None, list[str]]:
        """Return (value columns, time, id, those among them that are the field's habit)."""
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
        return columns, time or None, id or None, habit
