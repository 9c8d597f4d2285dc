"""Stage infer: raw files through the shipped command; the served metric must be the checked one.

Reads out/dist/<entry>/, out/dist/wheel/*.whl, out/<entry>/data/raw, out/<entry>/check/test.npz.
Writes results/<entry>/infer.json and out/<entry>/infer/predictions.jsonl, and one such file more for each other variant
that is shipped and each other device that check compared: each is served there again.
Fails when a row is missing or failed, or a served answer or the metric of all differs from the checked one.

    python -m pipeline.infer ENTRY
"""

from __future__ import annotations

import sys

from pipeline.core.errors import StageError
from pipeline.core.files import fresh, write_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.core.stage import of_entry, run
from pipeline.infer.shipped_command import serve_variants


def main() -> None:
    with of_entry("infer") as name:
        fresh(OUT / name / "infer")
        found = serve_variants(name)
        facts = next(iter(found.values())) | {"equal": all(by["equal"] for by in found.values())}
        facts["served"] = {
            f"{variant} on {device}": by["value"] for (device, variant), by in found.items()
        }
        write_json(RESULTS / name / "infer.json", facts)
        for (device, variant), by in found.items():
            if not by["equal"] or by["rows_error"]:
                raise StageError(
                    f"{name}: {variant} on {device}: served {by['metric']} {by['value']:.6g}, checked "
                    f"{by['expected']:.6g}, {by['rows_error']} failed rows; see results/{name}/infer.json"
                )
        example = facts["example"]
        print(
            f"   {facts['metric']} {facts['value']:.4g} from {facts['n']} raw inputs, as checked; "
            f"{example['input']} -> {example['output']}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run(main)
