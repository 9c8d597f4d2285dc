"""Stage data: the dataset of an entry as arrays at its input size, and statistics of training.

Reads out/params/<entry>/data.json and the dataset. Writes out/<entry>/data/ (arrays, statistics,
raw test files for stage infer) and results/<entry>/data.json (counts, balance, content hash, the
input contract).
Fails when the dataset is missing or malformed, or when two splits share a sample.

    python -m pipeline.data ENTRY
"""

from __future__ import annotations

import sys

from pipeline.core.files import fresh, write_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.core.stage import entry_of_command_line, run
from pipeline.data.dataset import save
from pipeline.data.prepare import make, write_raw_images, write_raw_series
from pipeline.params import load as params
from pipeline.params.schema import DataPart


def main() -> None:
    with entry_of_command_line("data") as name:
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
        if "season" in data.about:
            print(f"   season {data.about['season']}: {data.about['season_from']}", file=sys.stderr)
        for note in data.about["notes"]:
            print(f"   note: {note}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
