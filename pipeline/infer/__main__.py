"""Stage infer: run the shipped command on the raw test files and require the metric that was
checked.

Reads out/dist/<entry>/, out/dist/wheel/*.whl, out/<entry>/data/raw, out/<entry>/check/test.npz.
Writes results/<entry>/infer.json and out/<entry>/infer/predictions.jsonl, and a further
predictions.<device>.<variant>.jsonl for each other device and variant that stage check compared.
Fails when a row is missing or has an error, or when a prediction or the metric differs from the
check's.

    python -m pipeline.infer ENTRY
"""

from __future__ import annotations

from typing import Any

from pipeline.core.errors import StageError
from pipeline.core.files import fresh, write_result
from pipeline.core.paths import OUT
from pipeline.core.stage import entry_of_command_line, run
from pipeline.infer.variants import serve_variants


def main() -> None:
    with entry_of_command_line("infer") as (name, summarize):
        fresh(OUT / name / "infer")
        served = serve_variants(name)
        facts = next(iter(served.values())) | {
            "equal": all(one["equal"] for one in served.values())
        }
        facts["served"] = {
            f"{variant} on {device}": one["value"] for (device, variant), one in served.items()
        }
        write_result(name, "infer", facts)
        for (device, variant), one in served.items():
            if not one["equal"] or one["rows_error"]:
                raise StageError(
                    f"{name}: {variant} on {device}: served {one['metric']} {one['value']:.6g}, "
                    f"checked {one['expected']:.6g}, {one['rows_error']} failed rows; "
                    f"see results/{name}/infer.json"
                )
        example = facts["example"]
        summarize(
            f"{facts['metric']} {facts['value']:.4g} from {describe_inputs(facts)}; "
            f"{example['input']} -> {example['output']}"
        )


def describe_inputs(facts: dict[str, Any]) -> str:
    """Return which raw inputs were served, and that stage check measured the same on these."""
    if facts["n"] == facts["test"]:
        return f"{facts['n']} raw inputs, as checked"
    part = f"{facts['n']} raw inputs, spread evenly over the {facts['test']} of the test split"
    return f"{part}; as checked on these {facts['n']}"


if __name__ == "__main__":
    run(main)
