"""Stage data: the dataset of an entry as arrays at its input size, and statistics of training.

Reads out/params/<entry>/data.json and the dataset. Writes out/<entry>/data/ (arrays, statistics,
raw test files for stage infer, names of the test images) and results/<entry>/data.json (counts,
balance, content hash, the input contract).
Fails when the dataset is missing or malformed, or when two splits share a sample.

    python -m pipeline.data ENTRY
"""

from __future__ import annotations

from typing import Any

from convline.errors import describe_count

from pipeline.core.files import fresh, write_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.core.stage import entry_of_command_line, note, run
from pipeline.data.dataset import SPLITS, save
from pipeline.data.prepare import make, write_raw_images, write_raw_series
from pipeline.params import load as params
from pipeline.params.schema import DataPart


def main() -> None:
    with entry_of_command_line("data") as (name, summarize):
        data, samples = make(params.entry(name, DataPart).data)
        folder = fresh(OUT / name / "data")
        save(folder, data)
        raw = folder / "raw"
        raw.mkdir()
        if samples is not None:
            write_raw_images(raw, samples["test"], data.about["labels"])
        else:
            write_raw_series(raw, data)
        write_json(RESULTS / name / "data.json", data.about)
        for text in data.about["notes"]:
            note(f"note: {text}")
        summarize(describe_data(data.about))


def describe_data(about: dict[str, Any]) -> str:
    """Return the samples of each split and their size; about: content of data.json."""
    counts = ", ".join(f"{about[split]:,} {split}" for split in SPLITS)
    source = about["input"]
    if about["task"] == "classification":
        height, width = source["size"]
        classes = f"{len(about['labels'])} classes"
        return f"{counts} images of {classes}, {height} x {width} {source['colour']}"
    columns = describe_count(len(about["columns"]), "column")
    horizon = about["forecast"]["horizon"]
    text = f"{counts} windows, {columns}, {source['context']} steps to {horizon}"
    return f"{text}; season {about['season']}: {about['season_from']}"


if __name__ == "__main__":
    run(main)
