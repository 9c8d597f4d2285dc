"""Stage export: one self-contained .onnx for each precision, and torch's answers, which `check` compares without torch.

Reads out/<entry>/data, out/<entry>/train/weights.pt, out/params/<entry> and results/<entry>. Writes out/<entry>/export/
(model.onnx, model.int8.onnx, model.fp16.onnx, torch.npz, noise.json) and results/<entry>/export.json.
Fails when the exporter or the ONNX checker complains, a batch axis is not dynamic, or an answer is not finite, changes
from run to run, or changes with the other rows of its batch.

    python -m pipeline.export ENTRY
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import onnx
import torch
from convline.model_file.golden import pack_array, unpack_array
from convline.model_file.onnx_file import seal
from convline.model_file.registry import file_of

from pipeline.core.files import fresh, read_json, write_json
from pipeline.core.paths import OUT, RESULTS
from pipeline.core.stage import entry_of_command_line, run
from pipeline.data import dataset
from pipeline.export import quantize
from pipeline.export.graph import NAMES, answers, random_inputs, require_repeatable, to_onnx
from pipeline.export.metadata import GOLDEN, document, limit, training_range
from pipeline.network import build as network
from pipeline.params import load as params
from pipeline.params.schema import ExportCheck, ExportRecipe

INT8_ATOL = 0.02  # of probabilities, of one int8 file on two processors


def variants_of(
    graph: onnx.ModelProto, source: dataset.Data, checks: ExportCheck
) -> tuple[list[quantize.Variant], dict[str, dict[str, float]]]:
    """Return the classifier's other precisions that params ask for, and each one's noise along the graph."""
    if source.task != "classification" or not any(
        n.op_type in quantize.PRODUCTS for n in graph.graph.node
    ):
        return [], {}
    prepared = quantize.prepare(graph)
    calibration = np.asarray(source.x["train"])[
        dataset.spread(len(source.x["train"]), checks.int8.images)
    ]
    validation = np.asarray(source.x["validation"]), np.asarray(source.y["validation"])
    made = []
    if "int8" in checks.variants:
        made.append(quantize.int8(prepared, calibration, validation, checks.int8, checks.budget))
    if "fp16" in checks.variants:
        made.append(quantize.fp16(prepared, calibration))
    return made, {
        v.precision: quantize.noise(prepared, v.graph, calibration[: quantize.BATCH]) for v in made
    }


def of_variant(
    about: dict[str, Any], variant: quantize.Variant, checks: ExportCheck
) -> dict[str, Any]:
    """Return what a variant's document has of its own: how it was made, and what its golden samples are.

    float16 must answer as torch does, within its rounding. int8 answers otherwise; that it goes on doing so on another
    processor, whose int8 products may saturate, is what its own answers tell.
    """
    golden = about["golden"] | {"atol": checks.fp16_atol}
    if variant.precision == "int8":
        answers = quantize.run(variant.graph, unpack_array(about["golden"]["input"]))
        golden |= {
            "outputs": {NAMES[about["task"]][1][0]: pack_array(answers[0])},
            "atol": INT8_ATOL,
        }
    made = {
        "precision": variant.precision,
        **{key: variant.facts[key] for key in ("method", "kept") if variant.facts},
    }
    return {"golden": golden, "provenance": about["provenance"] | {"variant": made}}


def grown(
    graph: onnx.ModelProto, net: torch.nn.Module, recipe: ExportRecipe, x: dict[str, np.ndarray]
) -> tuple[onnx.ModelProto, dict[str, Any], dict[str, Any]]:
    """Return the graph with the outputs that the recipe asks for besides, what its document promises, and its check."""
    if recipe.streaming:
        from pipeline.export import streaming_graph

        whole, samples = streaming_graph.to_onnx(net, x["test"])
        return whole, {"stream": {"samples": samples}}, {}
    if recipe.saliency:
        from pipeline.export import saliency_graph  # tracing tools: a second

        whole = saliency_graph.to_onnx(net, x["test"])
        return (
            whole,
            {"explain": {"saliency": True}},
            {"saliency": saliency_graph.check(whole, net, x["random"])},
        )
    return graph, {}, {}


def main() -> None:
    with entry_of_command_line("export") as name:
        recipe, source = params.entry(name, ExportRecipe), dataset.load(name)
        net = network.build(recipe, source)
        net.load_state_dict(torch.load(OUT / name / "train" / "weights.pt", weights_only=True))
        net.eval()
        graph_of = functools.partial(to_onnx, task=source.task)
        if recipe.on_features:
            from pipeline.export import head_graph
            from pipeline.train import head_files, head_training

            net, graph_of = (
                head_files.restore(net, recipe, OUT / name / "train"),
                head_graph.to_graph,
            )
        checks = recipe.check
        x = {
            "test": source.served("test"),
            "random": random_inputs(source, checks.seed, checks.random),
        }
        y = {kind: answers(net, rows) for kind, rows in x.items()}
        atol = max(limit(y["test"], checks.atol), getattr(net, "flips", 0.0))
        require_repeatable(net, np.concatenate([x["test"][:GOLDEN], x["random"][:GOLDEN]]), atol)
        graph = graph_of(net, x["test"])
        whole, promise, explained = grown(graph, net, recipe, x)
        metrics = read_json(RESULTS / name / "train.json", f"train@{name}")
        about = document(name, recipe, source.about, metrics, x["test"], y["test"], atol)
        if source.task == "forecasting" and (trained := training_range(net, source)):
            about["input"] = about["input"] | {"range": trained}
        folder = fresh(OUT / name / "export")
        arrays = {f"{kind}_{i}": o for kind, outputs in y.items() for i, o in enumerate(outputs)}
        np.savez(folder / "torch.npz", random=x["random"], **arrays)
        if recipe.on_features:
            vectors = head_training.retrieval_features(net, source, OUT / name / "train")
            np.savez(folder / "features.npz", **vectors)
        made, noise = variants_of(graph, source, checks)
        write_json(folder / "noise.json", noise)
        written = {}
        for variant in [quantize.Variant("fp32", whole), *made]:
            # what is promised holds for fp32 alone
            own = promise if variant.precision == "fp32" else of_variant(about, variant, checks)
            sealed = seal(variant.graph.SerializeToString(), about | own)
            (folder / file_of(variant.precision)).write_bytes(sealed)
            written[variant.precision] = {"bytes": len(sealed), **variant.facts}
        facts = {
            "bytes": written["fp32"]["bytes"],
            "nodes": len(graph.graph.node),
            "opset": next(o.version for o in graph.opset_import if o.domain == ""),
            "operations": {"macs": metrics["macs"], **quantize.traffic(graph)},
            "variants": written,
            **explained,
        }
        write_json(RESULTS / name / "export.json", facts)
        print(f"   {facts['nodes']} nodes, " + ", ".join(map(quantize.say, made)), file=sys.stderr)


if __name__ == "__main__":
    run(main)
