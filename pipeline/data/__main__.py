"""Stage data: the dataset of an entry as arrays at its input size, and statistics of training.

Reads out/params/<entry>/data.json and the dataset. Writes out/<entry>/data/ (arrays, statistics,
raw test files for stage infer, names of the test images; with `layout: shards` the training split
in tar files) and results/<entry>/data.json (counts, balance, content hash, the input contract).
Fails when the dataset is missing or malformed, or when two splits share a sample.

    python -m pipeline.data ENTRY
"""

from __future__ import annotations

import shutil

from pipeline.core.files import fresh, write_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.core.stage import entry_of_command_line, note, run
from pipeline.data.dataset import save
from pipeline.data.prepare import make
from pipeline.data.tasks import TASKS
from pipeline.params import load as params
from pipeline.params.schema import DataPart


def main() -> None:
    with entry_of_command_line("data") as (name, summarize):
        work = OUT / "checkpoints" / f"{name}@shards"  # DVC leaves it, so that a run can continue
        data, samples = make(params.entry(name, DataPart).data, work)
        folder = fresh(OUT / name / "data")
        try:
            raw = folder / "raw"
            raw.mkdir()
            TASKS[data.task].write_raw(raw, data, samples)
            save(folder, data)  # last: it moves the shards, which else the next run needs
        except OSError:  # a full disk
            shutil.rmtree(folder)
            raise
        write_json(RESULTS / name / "data.json", data.about)
        shutil.rmtree(work, ignore_errors=True)
        for text in data.about["notes"]:
            note(f"note: {text}")
        summarize(TASKS[data.task].describe(data.about))


if __name__ == "__main__":
    run(main)
