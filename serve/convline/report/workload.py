"""The files that `infer bench` measures on: the user's, or generated ones."""

import csv
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from convline.errors import InputError, ServeError
from convline.images.decode import read_image
from convline.images.image_model import ImageModel
from convline.images.sources import ImageSources
from convline.jobs.image_job import answer_images
from convline.jobs.run import Summary
from convline.jobs.series_job import SeriesJob, forecast_files
from convline.runtime.sources import FileSources, Source
from convline.timeseries.forecaster import Forecaster
from convline.timeseries.predict import ForecastTask
from convline.timeseries.read_options import ReadOptions
from convline.timeseries.sources import SeriesSources
from convline.timeseries.timestamps import format_times, future_times

Array = npt.NDArray[Any]
Sizes = list[tuple[int, ...]]  # of samples: (W, H) of an image, (rows,) of a series
FILES = 16  # generated where no path is given
MOST_FILES = 64  # of the paths; they are read again and again
PHOTO = (1500, 1000)  # pixels (W, H) of a small photo
ROWS = 10_000  # of a generated series at most, four contexts if they are fewer


@dataclass
class Files:
    """Files that can be used, the sizes of their samples, where they are from, and errors."""

    source: str
    names: list[str] = field(default_factory=list)
    sizes: Sizes = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # one for each file that cannot be used
    more: bool = False  # than MOST_FILES: those are not looked at


@dataclass(frozen=True)
class Workload:
    """The files that a model is measured on, and how they are read and served."""

    unit: str  # "images" | "series": what rates count, and the command of `infer`
    about: Files
    read: Callable[[str], list[Array]]  # a file to its samples
    serve: Callable[[Iterator[str], str], Summary]  # files to a table, as the command does
    rows_per_sample: int  # in that table; 1 for a sample that failed
    options: list[str]  # of the command, for these files

    @property
    def files(self) -> list[str]:
        return self.about.names

    def describe(self) -> dict[str, Any]:
        """Return source, files, samples, sizes in words, bytes of all files, left_out."""
        about, errors = self.about, self.about.errors
        return {
            "source": about.source,
            "files": len(about.names),
            "more_files": about.more,
            "samples": len(about.sizes),
            "sizes": _describe_sizes(about.sizes),
            "bytes": sum(os.path.getsize(name) for name in about.names),
            "left_out": f"{len(errors)}, the first: {errors[0]}" if errors else "none",
        }


def _describe_sizes(sizes: Sizes) -> str:
    """Return "1,500 x 1,000 px", "144 to 300 rows"."""
    unit = "rows" if len(sizes[0]) == 1 else "px"
    ends = min(sizes, key=np.prod), max(sizes, key=np.prod)
    texts = [" x ".join(f"{side:,}" for side in size) for size in dict.fromkeys(ends)]
    return f"{' to '.join(texts)} {unit}"


def image_workload(model: ImageModel[Any], paths: Sequence[str], folder: Path) -> Workload:
    """Return the workload of a network of images; without paths, photos are written to `folder`."""

    def read(file: str) -> list[Array]:
        return [read_image(file, model.rule)]

    def measure(file: str) -> Sizes:
        read(file)
        with Image.open(file) as image:
            return [image.size]

    def serve(files: Iterator[str], target: str) -> Summary:
        sources = map(Source, files)
        return answer_images(
            model.file, model.kind, sources, target, sys.stdout.buffer, engine=model.engine
        )

    if paths:
        files = _usable_files(paths, ImageSources(paths, sys.stdin.buffer), measure)
    else:
        files = Files("generated", photos(folder, FILES, PHOTO), [PHOTO] * FILES)
    return Workload("images", files, read, serve, 1, [])


def series_workload(
    model: Forecaster, paths: Sequence[str], folder: Path, rule: ReadOptions | None = None
) -> Workload:
    """Return the workload of a forecaster; without paths, series are written to `folder`."""
    own_rule = ReadOptions(model.name, model.document.input)
    reading = rule if rule and paths else own_rule

    def read_all(file: str) -> list[Array]:
        if file == "-":
            raise InputError(file, "stdin can be read only once; save it to a file")
        every = [one.values for one in reading.read(file).series]
        if usable := [values for values in every if len(values) >= model.context]:
            return usable
        raise InputError(file, f"expected a series of {model.context} rows or more, got none")

    def read(file: str) -> list[Array]:
        return [values[-model.context :] for values in read_all(file)]

    def measure(file: str) -> Sizes:
        return [(len(values),) for values in read_all(file)]

    def serve(files: Iterator[str], target: str) -> Summary:
        task = ForecastTask(model, reading, model.horizon, notify=lambda _: None)
        return forecast_files(SeriesJob(task, target), map(Source, files), sys.stdout.buffer)

    if paths:
        files = _usable_files(paths, SeriesSources(paths, sys.stdin.buffer), measure)
    else:
        files = _generated_series(model, folder)
    return Workload("series", files, read, serve, model.horizon, reading.to_arguments())


def _usable_files(
    paths: Sequence[str], sources: FileSources, measure: Callable[[str], Sizes]
) -> Files:
    """Return the usable ones of the first MOST_FILES files: a rate over broken ones would mean
    nothing."""
    files = Files(", ".join(paths))
    for number, source in enumerate(itertools.islice(sources, MOST_FILES + 1)):
        if number == MOST_FILES:
            files.more = True
            break
        try:
            if source.error is not None:
                raise InputError(source.path, source.error)
            if source.member is not None:
                raise InputError(
                    source.path, "a file inside another one is not measured; unpack it"
                )
            files.sizes += measure(source.path)
        except InputError as error:
            files.errors.append(str(error))
        else:
            files.names.append(source.path)
    if not files.names:
        reason = files.errors[0] if files.errors else "there is no file"
        cure = "leave PATH out to measure on generated ones"
        raise ServeError(f"expected files to measure on, none can be used: {reason}; {cure}")
    return files


def photos(folder: Path, count: int, size: tuple[int, int]) -> list[str]:
    """Write JPEG files (W, H) that cost what photos cost to decode: smooth shapes with a sensor's
    noise."""
    rng, (width, height) = np.random.default_rng(0), size
    names = [str(folder / f"{k:05}.jpg") for k in range(count)]
    for name in names:
        smooth = Image.fromarray(rng.integers(0, 256, (12, 18, 3), np.uint8)).resize(size)
        noisy = np.asarray(smooth, np.int16) + rng.integers(-12, 13, (height, width, 1), np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(name, quality=90)
    return names


def _generated_series(model: Forecaster, folder: Path) -> Files:
    """Write CSV files of one series each: a golden sample repeated, in the model's step and
    columns."""
    golden = model.document.golden.input  # (n, T, D)
    rule, rows = model.document.input, max(model.context, min(4 * model.context, ROWS))
    step = rule.step
    start = 0 if step.unit == "index" else np.datetime64("2000-01-01", "s")
    times = format_times(future_times(start, step, rows))
    names = [str(folder / f"{k}.csv") for k in range(FILES)]
    for k, name in enumerate(names):
        values = np.resize(golden[k % len(golden)], (rows, len(model.columns))).T.tolist()
        columns: dict[str, Sequence[object]] = {}
        if rule.time:
            columns[rule.time] = times
        if rule.id:
            columns[rule.id] = [k] * rows
        columns |= zip(model.columns, values, strict=True)
        with open(name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([[*columns], *zip(*columns.values(), strict=True)])
    return Files("generated", names, [(rows,)] * FILES)
