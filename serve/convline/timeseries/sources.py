"""The series files that a user names: files, folders, globs, or a CSV on stdin."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from convline.runtime.sources import FileSources, Source

SERIES = (".csv", ".tsv", ".parquet")


class SeriesSources(FileSources):
    """Iterate over files of series: as of images, but "-" is a CSV on stdin, and nothing is
    unpacked.
    """

    suffixes = SERIES
    kind = f"series files ({', '.join(SERIES)})"

    def _listed(self) -> Iterator[Source]:
        yield Source("-")


def names_of(paths: Sequence[str]) -> dict[str, str]:
    """Return what names the series of each file that has no ids: its stem, with the folders that
    tell it from others.

    A file that is given twice has one name; a.csv and a.parquet of one folder keep their suffixes.
    """
    files = {path: Path(os.path.normpath(path)) for path in paths}
    alike: dict[str, list[Path]] = {}
    for file in dict.fromkeys(files.values()):
        alike.setdefault(file.stem, []).append(file)
    names: dict[Path, str] = {}
    for group in alike.values():
        parts = [(file.parent / file.stem).parts for file in group]
        tried = (
            [Path(*one[-depth:]).as_posix() for one in parts]
            for depth in range(1, 1 + max(map(len, parts)))
        )
        distinct = next(
            (some for some in tried if len({*some}) == len(some)),
            [file.as_posix() for file in group],
        )
        names |= dict(zip(group, distinct, strict=True))
    return {path: names[file] for path, file in files.items()}
