"""Stage export: write one self-contained .onnx per precision, and torch's outputs to compare them
with.

Reads out/<entry>/data, out/<entry>/train/weights.pt, out/params/<entry> and results/<entry>. Writes
out/<entry>/export/ (model.onnx, model.int8.onnx, model.fp16.onnx, torch.npz, noise.json, of a head
on features features.npz) and results/<entry>/export.json. Fails when the exporter or the ONNX
checker complains, a batch axis is not dynamic, or an output is not finite, changes from run to run,
or changes with the other rows of its batch.

    python -m pipeline.export ENTRY
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.core.files import fresh, read_json, write_json, write_result
from pipeline.core.paths import OUT, RESULTS
from pipeline.core.stage import entry_of_command_line, run
from pipeline.data import dataset
from pipeline.export.graph import require_repeatable, torch_outputs
from pipeline.export.graph_analysis import count_traffic
from pipeline.export.metadata import GOLDEN, model_document, write_models
from pipeline.export.optional_outputs import add_optional_outputs
from pipeline.export.quantize import Variant, describe_variant, make_variants
from pipeline.export.tasks import TASKS
from pipeline.params import load as params
from pipeline.params.schema import ExportRecipe
from pipeline.train.trained_network import load_network


def main() -> None:
    with entry_of_command_line("export") as (name, summarize):
        folder = fresh(OUT / name / "export")
        metrics = read_json(RESULTS / name / "train.json", f"train@{name}")
        recipe, source = params.entry(name, ExportRecipe), dataset.load(name)
        checks, net = recipe.check, load_network(name, recipe, source)
        task = TASKS[source.task]
        random = task.random_inputs(source, checks.seed, checks.random)
        x = {"test": source.served("test"), "random": random}
        outputs = {kind: torch_outputs(net, rows) for kind, rows in x.items()}
        atol = task.parity_limit(outputs["test"], checks.atol)
        atol = max(atol, getattr(net, "flips", 0.0))  # a forest's, where rounding moves a vote
        some = np.concatenate([rows[:GOLDEN] for rows in x.values()])
        require_repeatable(net, some, atol, task.difference, dataset.describe_far(source.about))
        named: dict[str, Any] = {
            f"{kind}_{i}": y for kind, ys in outputs.items() for i, y in enumerate(ys)
        }
        if task.answers:
            answers = task.answers(net, x["test"], source.about)
            named |= {f"answers_{i}": array for i, array in enumerate(answers)}
        np.savez(folder / "torch.npz", random=random, **named)

        if recipe.on_features:
            from pipeline.export.head_graph import export_with_head
            from pipeline.train.head_training import retrieval_features

            graph = export_with_head(net, x["test"])
            vectors: dict[str, Any] = {**retrieval_features(net, source, OUT / name / "train")}
            np.savez(folder / "features.npz", **vectors)
        else:
            graph = task.export(net, x["test"])
        document = model_document(
            name, recipe, source.about, metrics, x["test"], outputs["test"], atol
        )
        document |= task.measured_fields(net, source)
        fp32_graph, fp32_fields, added_facts = add_optional_outputs(graph, net, recipe, x)
        variants, noise = make_variants(graph, source, checks)
        write_json(folder / "noise.json", noise)
        models = [Variant("fp32", fp32_graph), *variants]
        written = write_models(folder, models, document, fp32_fields, checks)
        facts = {
            "bytes": written["fp32"]["bytes"],
            "nodes": len(graph.graph.node),
            "opset": next(o.version for o in graph.opset_import if o.domain == ""),
            "operations": {"macs": metrics["macs"], **count_traffic(graph)},
            "variants": written,
            **added_facts,
        }
        write_result(name, "export", facts)
        sizes = [
            f"{describe_variant(v)} {written[v.precision]['bytes'] / 1e3:,.0f} kB" for v in models
        ]
        summarize(f"{facts['nodes']} operators; {', '.join(sizes)}")


if __name__ == "__main__":
    run(main)
