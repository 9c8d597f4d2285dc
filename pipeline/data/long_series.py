"""Series of a file that is larger than memory: read in pieces, and kept in files on the disk.

Each piece becomes regular series by the code that reads a whole file. A series begins there with
its last known row of the pieces before, so that the order of times and gaps are seen across a cut.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np
from convline.errors import InputError
from convline.model_file.document import Step
from convline.timeseries.raw_table import Encoded, RawTable
from convline.timeseries.series import Series, Table, build_table
from convline.timeseries.timestamps import find_step, positions

from pipeline.core.files import reserve
from pipeline.core.paths import OUT
from pipeline.data.dataset import pieces

IN_MEMORY = 2**28  # bytes of an array that is not put into a file


@dataclass(frozen=True)
class Rows:
    """Rows of one series: their numbers in the file, times and values; (T,), (T,), (T, D).

    begun: the first row has been stored.
    """

    at: np.ndarray
    times: np.ndarray
    values: np.ndarray
    begun: bool = False

    def __getitem__(self, rows: slice) -> Rows:
        return replace(self, at=self.at[rows], times=self.times[rows], values=self.values[rows])

    def __len__(self) -> int:
        return len(self.at)

    def followed_by(self, later: Rows) -> Rows:
        return replace(stack([self, later]), begun=self.begun)

    def known(self) -> int:
        """Return how many rows there are up to the last one without a missing value."""
        complete = np.flatnonzero(~np.isnan(self.values).any(1))
        return int(complete[-1]) + 1 if len(complete) else 0


def stack(parts: Iterable[Rows]) -> Rows:
    at, times, values = zip(*((one.at, one.times, one.values) for one in parts), strict=True)
    return Rows(np.concatenate(at), np.concatenate(times), np.concatenate(values))


@dataclass(frozen=True)
class Part(RawTable):
    """Rows of some series as a table. piece: of the file, which begins with its row `first`."""

    rows: Rows
    names: list[str]
    ids: Encoded
    offset: str
    piece: RawTable
    first: int

    @classmethod
    def of(
        cls,
        series: dict[str, Rows],
        names: list[str],
        header: list[str],
        offset: str,
        piece: RawTable,
        first: int,
    ) -> Part:
        rows = stack(series.values())
        codes = np.repeat(np.arange(len(series)), [len(one) for one in series.values()])
        ids = codes, [*series]
        return cls(piece.where, piece.stem, header, [], rows, names, ids, offset, piece, first)

    def typed(self, name: str) -> np.ndarray | None:
        return self.rows.values[:, self.names.index(name)] if name in self.names else None

    def times(self, name: str) -> tuple[np.ndarray, str]:
        return self.rows.times, self.offset

    def encoded(self, name: str) -> Encoded:
        return self.ids

    def place(self, row: int) -> str:
        at = int(self.rows.at[row])
        return f"row {at + 1}" if at < self.first else self.piece.place(at - self.first)


class Store:
    """Series that grow at their ends, in two files that are deleted when they are closed."""

    def __init__(self, columns: int):
        self.files, self.columns, self.rows = (scratch_file(), scratch_file()), columns, 0
        self.kind: Any = None
        self.spans: dict[str, list[slice]] = {}  # of each series, in order of first appearance

    def close(self) -> None:
        for file in self.files:
            file.close()

    def append(self, name: str, times: np.ndarray, values: np.ndarray) -> None:
        self.kind = times.dtype
        for file, array in zip(self.files, (times, values), strict=True):
            reserve(file, array.nbytes)
            np.ascontiguousarray(array).tofile(file)
        spans = self.spans.setdefault(name, [])
        end = self.rows + len(times)
        if spans and spans[-1].stop == self.rows:
            spans[-1] = slice(spans[-1].start, end)
        else:
            spans.append(slice(self.rows, end))
        self.rows = end

    def series(self, offset: str) -> list[Series]:
        """Return all series; what is not in one place of the files is copied."""
        times: np.ndarray = np.memmap(self.files[0], self.kind, "r", shape=(self.rows,))
        shape = self.rows, self.columns
        values: np.ndarray = np.memmap(self.files[1], np.float64, "r", shape=shape)
        return [
            Series(name, join([times[s] for s in spans]), join([values[s] for s in spans]), offset)
            for name, spans in self.spans.items()
        ]


def read_long(
    parts: Iterable[RawTable], columns: list[str], time: str | None, id: str | None, gaps: str
) -> Table:
    """Return the series of a file's pieces, with the options of `build_table`."""
    first, filled = 0, 0
    step: Step | None = None
    steps: dict[str, Counter[Step]] = {}
    where = ""
    notes: list[str] = []
    left: dict[str, Rows] = {}
    clocks: set[tuple[str, str]] = set()
    with closing(Store(len(columns))) as store:
        for piece, is_last in mark_last(parts):
            found, offset = rows_by_series(piece, columns, time, id, first, left)
            where = piece.where
            clocks.add((next(iter(found.values())).times.dtype.kind, offset))
            require_one_clock(piece.where, clocks, first)
            for name, rows in found.items():
                left[name] = left[name].followed_by(rows) if name in left else rows
            ready = {}
            for name in left if is_last else found:
                rows = left[name]
                end = len(rows) if is_last or gaps == "error" else rows.known()
                if end > 1 or (is_last and not rows.begun):
                    ready[name] = rows[:end]
            if ready:
                counted = {
                    name: count_steps(rows.times, offset, step) for name, rows in ready.items()
                }
                for name, counts in counted.items():
                    steps.setdefault(name, Counter()).update(counts)
                step = step or most_common(sum(counted.values(), Counter[Step]()))
                header = [*columns, time or "(row)", id or "(series)"]
                part = Part.of(ready, columns, header, offset, piece, first)
                keys = {"time": header[-2], "id": header[-1]}
                table = build_table(part, columns=columns, **keys, gaps=gaps, step=step)
                for one in table.series:
                    rows = ready[one.id]
                    store.append(one.id, one.times[rows.begun :], one.values[rows.begun :])
                    left[one.id] = replace(stack([left[one.id][len(rows) - 1 :]]), begun=True)
                filled, step = filled + table.filled, table.step
            first, notes = first + sum(map(len, found.values())), notes or piece.notes
        assert step is not None
        require_one_step(where, step, steps)
        offsets = {offset for _, offset in clocks}
        series = store.series(offsets.pop() if len(offsets) == 1 else "Z")
    return Table(series, columns, step, filled, notes)


def rows_by_series(
    piece: RawTable,
    columns: list[str],
    time: str | None,
    id: str | None,
    first: int,
    before: dict[str, Rows],
) -> tuple[dict[str, Rows], str]:
    """Return the piece's rows of each series, and the offset of their times.

    first: the number of its first row. before: rows of the pieces before, from which rows without
    times count on.
    """
    values = piece.numbers(columns)
    times, offset = (None, "") if time is None else piece.times(time)
    codes, names = (np.zeros(len(values), int), [piece.stem]) if id is None else piece.encoded(id)
    order, ends = (
        np.argsort(codes, kind="stable"),
        np.bincount(codes, minlength=len(names)).cumsum(),
    )
    found = {}
    for name, at in zip(names, np.split(order, ends[:-1]), strict=True):
        begin = int(before[name].times[-1]) + 1 if times is None and name in before else 0
        stamps = np.arange(begin, begin + len(at)) if times is None else times[at]
        found[name] = Rows(first + at, stamps, values[at])
    return found, offset


def require_one_clock(where: str, clocks: set[tuple[str, str]], row: int) -> None:
    """Raise InputError where times are dates in one piece and whole numbers in another, or have an
    offset from UTC in one alone.
    """
    if len({(kind, bool(offset)) for kind, offset in clocks}) > 1:
        needed = "expected times that are all dates, all with an offset or none, or all numbers"
        raise InputError(where, f"{needed}, got others from row {row + 1} on; write all alike")


def count_steps(times: np.ndarray, offset: str, step: Step | None) -> Counter[Step]:
    """Return how often each difference of successive times occurs.

    step: of the file, None in its first piece. Months are counted where it has them: two days of a
    daily series may be a month apart.
    """
    if len(times) < 2:
        return Counter()
    unit = find_step(times, offset).unit
    if unit == "months" and step is not None:
        unit = step.unit
    sizes, counts = np.unique(np.diff(positions(times, unit, offset)), return_counts=True)
    pairs = zip(sizes.tolist(), counts.tolist(), strict=True)
    return Counter({Step(unit, size): count for size, count in pairs})


def most_common(counts: Counter[Step]) -> Step | None:
    """Return the step that occurs most often, of several the smallest; None without one."""
    return max(counts, key=lambda step: (counts[step], -step.count), default=None)


def require_one_step(where: str, step: Step, steps: dict[str, Counter[Step]]) -> None:
    """Raise InputError where the most common step of a series is another one than the file's."""
    for name, counts in steps.items():
        other = most_common(counts)
        if other not in (None, step):
            got = f"got {step} and {other} (series {name!r})"
            raise InputError(where, f"expected one step for all series, {got}")


def mark_last(parts: Iterable[RawTable]) -> Iterator[tuple[RawTable, bool]]:
    """Yield each part, and whether it is the last one."""
    before = None
    for part in parts:
        if before is not None:
            yield before, False
        before = part
    if before is not None:
        yield before, True


def scratch_file() -> IO[bytes]:
    """Return a new file in out/, or where temporary files are, which is gone when it is closed."""
    return tempfile.TemporaryFile(dir=OUT if OUT.is_dir() else None)


def join(parts: list[np.ndarray], order: list[int] | None = None) -> np.ndarray:
    """Return arrays of equally many columns one below the other; a large result is in a file.

    order: of the columns. Columns are stored one by one, as numpy does when it chooses some.
    """
    if len(parts) == 1 and (parts[0].ndim == 1 or parts[0].shape[1] == 1):
        return parts[0]
    shape, kind = (sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype
    if np.prod(shape) * kind.itemsize <= IN_MEMORY:
        whole = np.empty(shape, kind, "F")
    else:
        with scratch_file() as file:  # what is mapped stays
            reserve(file, int(np.prod(shape)) * kind.itemsize)
            whole = np.memmap(file, kind, "w+", shape=shape, order="F")
    end = 0
    for part in parts:
        for piece in pieces(part):
            whole[end : end + len(piece)] = piece if order is None else piece[:, order]
            end += len(piece)
    return whole
