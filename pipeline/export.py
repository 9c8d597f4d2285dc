"""Stage export: one self-contained .onnx for each precision, and torch's answers, which `check` compares without torch.

Reads out/<entry>/data, out/<entry>/train/weights.pt, out/params/<entry> and results/<entry>. Writes out/<entry>/export/
(model.onnx, model.int8.onnx, model.fp16.onnx, torch.npz, noise.json) and results/<entry>/export.json.
Fails when the exporter or the ONNX checker complains, a batch axis is not dynamic, or an answer is not finite, changes
from run to run, or changes with the other rows of its batch.

    python -m pipeline.export ENTRY
"""

from __future__ import annotations

import functools
import logging
import shutil
import subprocess
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from pipeline import data, network, params, variants
from pipeline.resolved import on_features
from pipeline.stage import OUT, RESULTS, StageError, fresh, of_entry, read_json, run, write_json
from serve import contract
from serve.locate import file_of

INT8_ATOL = 0.02  # of probabilities, of one int8 file on two processors
BATCH = {0: torch.export.Dim("N")}
RANGE_WINDOWS = 32  # of the training split
GOLDEN = 4  # samples that travel inside the file
NAMES = {
    "features": ("images", ["features"]),  # of a backbone alone
    "classification": ("images", ["probabilities"]),
    "forecasting": ("series", ["forecast", "quantiles"]),
}
PACKAGES = ("torch", "onnx", "onnxruntime-gpu", "onnxruntime", "numpy", "pillow")  # of the two in the middle, one


def random_inputs(source: data.Data, seed: int, count: int) -> np.ndarray:
    """Return fresh input of the served kind: uint8 noise (N, H, W, C), or float32 noise at the series' own scale."""
    rng, real = np.random.default_rng(seed), source.served("test")
    if source.task == "classification":
        return rng.integers(0, 256, (count, *real.shape[1:]), np.uint8)
    columns = len(source.mean)
    noise = source.mean + rng.standard_normal((count, real.shape[1], columns)) / source.scale
    calendar = real[np.arange(count) % len(real), :, columns:]  # of real days: none where there is no calendar
    return np.concatenate([noise.astype(np.float32), calendar], 2)


@torch.no_grad()
def answers(net: torch.nn.Module, x: np.ndarray, batch: int = 256) -> list[np.ndarray]:
    """Return torch's outputs for x, on the CPU in fp32; an answer that is not finite is an error."""
    parts = []
    for rows in np.array_split(x, max(1, -(-len(x) // batch))):
        outputs = net(torch.from_numpy(np.array(rows)))
        parts.append(outputs if isinstance(outputs, tuple) else (outputs,))
    columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
    if bad := sum(int((~np.isfinite(column)).any(axis=tuple(range(1, column.ndim))).sum()) for column in columns):
        raise StageError(f"export: torch's answers to {bad} of {len(x)} inputs are not finite; retrain with a lower lr")
    return columns


def require_repeatable(net: torch.nn.Module, x: np.ndarray, atol: float) -> None:
    """Raise StageError where an answer changes from run to run, or with the other rows of its batch.

    The parity check would refuse the file as well, but could not say why. x: inputs as the graph takes them.
    """
    together, again = answers(net, x), answers(net, x)
    alone = [np.concatenate(parts) for parts in zip(*(answers(net, row[None]) for row in x), strict=True)]
    for other, what, why in (
        (again, "from one run to the next", "is there noise or dropout that stays on? nn.Dropout ends with training"),
        (alone, "with its batch", "are there batch statistics? nn.BatchNorm keeps running ones for evaluation"),
    ):
        gap = max(float(np.abs(a - b).max()) for a, b in zip(together, other, strict=True))
        if gap > atol:
            say = f"in evaluation the network's answer to an input changes by {gap:.1e} {what} (limit {atol:.1e})"
            raise StageError(f"export: {say}; {why}")


def to_onnx(net: torch.nn.Module, example: np.ndarray, task: str) -> onnx.ModelProto:
    """Return the checked graph with a dynamic first axis."""
    name, outputs = NAMES[task]
    given = network.graph_inputs(net, torch.from_numpy(np.array(example[:2])))
    model = program_of(net, given, [name, "calendar"][: len(given)], outputs, (BATCH,) * len(given))
    check_graph(model)
    return model


def program_of(
    net: torch.nn.Module, given: tuple[Any, ...], inputs: list[str], outputs: list[str], shapes: tuple[Any, ...]
) -> onnx.ModelProto:
    """Return what the exporter makes of the network, with the dynamic axes that `shapes` names.

    Its example has two rows: with one, the exporter would take the batch for a constant.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations; what matters is checked afterwards
        try:
            program = torch.onnx.export(
                net,
                given,
                dynamo=True,
                verbose=False,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=shapes,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            what = f"{type(net).__name__} ({reason})"
            raise StageError(f"export: the exporter cannot trace {what}; change the network's code") from error
    assert program is not None  # None only with dynamo=False
    return without_traces(program.model_proto)


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without the exporter's notes: they hold paths, and differ from folder to folder."""
    for graph in (model.graph, *model.functions):
        graph.ClearField("metadata_props")
        for kind in ("node", "value_info", "input", "output", "initializer"):
            for part in getattr(graph, kind, ()):
                if not isinstance(part, str):  # a function's inputs and outputs are names
                    part.ClearField("metadata_props")
    return model


def check_graph(graph: onnx.ModelProto) -> None:
    """Raise StageError where the ONNX checker complains or the first axis of an input or output is not dynamic.

    An input with a default is no batch.
    """
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:300]
        raise StageError(f"export: the ONNX checker refuses the graph ({reason}); change the network's code") from error
    defaults = {tensor.name for tensor in graph.graph.initializer}
    for value in [*(i for i in graph.graph.input if i.name not in defaults), *graph.graph.output]:
        batch = value.type.tensor_type.shape.dim[0]
        if not batch.dim_param:
            cure = "take the batch from x.shape[0] in forward, not from a constant"
            raise StageError(f"export: the batch axis of {value.name!r} is frozen at {batch.dim_value}; {cure}")


def document(
    name: str,
    recipe: dict[str, Any],
    about: dict[str, Any],
    metrics: dict[str, Any],  # results/<entry>/train.json
    x: np.ndarray,
    y: list[np.ndarray],
    atol: float,
) -> dict[str, Any]:
    """Return the JSON document that makes the graph a Convline model (serve/schema.py); golden are the first of x."""
    forecasting = about["task"] == "forecasting"
    weights = recipe.get("weights")
    licence = about["licence"] + (f"; weights: {weights['licence']}" if weights else "")
    given = {"input": x[:GOLDEN]}
    if "calendar" in about["input"]:
        context, columns = about["input"]["context"], len(about["columns"])
        given = {"input": x[:GOLDEN, :context, :columns], "calendar": x[:GOLDEN, :, columns:]}
    task = {"forecast": about["forecast"]} if forecasting else {"labels": about["labels"]}
    return {
        "format": 1,
        "name": name,
        "task": about["task"],
        **task,
        "input": about["input"],
        "provenance": {
            "data": {key: about[key] for key in ("source", "hash", "licence")},
            "params": {key: recipe[key] for key in ("arch", "data", "net", "train", "size")},
            "revision": revision(),
            "versions": versions(),
            "metrics": {"validation": metrics["validation"], "parameters": metrics["parameters"]},
            "licence": licence,
        },
        "golden": {
            **{key: contract.pack(part) for key, part in given.items()},
            "outputs": {n: contract.pack(o[:GOLDEN]) for n, o in zip(NAMES[about["task"]][1], y, strict=True)},
            "atol": atol,
        },
    }


def by_column(answer: np.ndarray) -> np.ndarray:
    """Return forecasts (N, S, D') or quantiles (N, S, D', Q) as float64 (values, D')."""
    return np.moveaxis(answer, 2, -1).reshape(-1, answer.shape[2]).astype(np.float64)


def training_range(net: torch.nn.Module, source: data.Data) -> dict[str, Any] | None:
    """Return `input.range` of a forecaster's document, None where its answers move with its window's level and scale.

    That is tried on windows of the training split, moved by ten times its range and made three times as large.
    Intervals do not grow with their window where they were calibrated: by offsets in the series' own units.
    """
    columns, context, targets = source.about["columns"], source.about["input"]["context"], source.about["forecast"]
    own, x, train = len(targets.get("columns", columns)), source.served("train"), source.x["train"]
    width = np.ptp(train, axis=0)
    some = x[data.spread(len(x), RANGE_WINDOWS)]
    still = [by_column(part) for part in answers(net, some)]

    def follows(scale: float) -> bool:
        moved = some.copy()
        moved[:, :context, : len(columns)] = scale * moved[:, :context, : len(columns)] + 10 * width
        after = [by_column(part) for part in answers(net, moved)]
        gaps = [np.abs(b - (scale * a + 10 * width[:own])).max(0) for a, b in zip(still, after, strict=True)]
        rounding = 16 * float(np.finfo(np.float32).eps) * np.abs(moved[:, :context, :own]).max((0, 1))
        return bool((np.max(gaps, 0) <= 1e-3 * scale * width[:own] + rounding).all())

    if follows(3):
        return None
    history = x[:, :context, : len(columns)]
    kind, seen = ("changes", history - history[:, -1:]) if follows(1) else ("values", train[None])
    return {"of": kind, "low": seen.min((0, 1)).tolist(), "high": seen.max((0, 1)).tolist()}


def versions() -> dict[str, str]:
    """Return the installed version of each of PACKAGES, without those that are not installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def revision() -> str:
    """Return the git revision, "-dirty" where files differ from it, or "no git": a copy without .git is fine too."""
    if not Path(".git").exists() or not shutil.which("git"):
        return "no git"
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else "no git"


def limit(outputs: list[np.ndarray], relative: float) -> float:
    """Return the largest difference allowed: `relative` of probabilities, and of the spread (std) of forecasts.

    Forecasts far from zero are granted four units in their last place of float32 besides.
    """
    if outputs[0].ndim == 2:
        return relative
    spread = float(outputs[0].std()) or 1.0
    return relative * spread + 4 * float(np.finfo(np.float32).eps) * max(float(np.abs(o).max()) for o in outputs)


def variants_of(
    graph: onnx.ModelProto, source: data.Data, checks: dict[str, Any]
) -> tuple[list[variants.Variant], dict[str, dict[str, float]]]:
    """Return the classifier's other precisions that params ask for, and each one's noise along the graph."""
    if source.task != "classification" or not any(n.op_type in variants.PRODUCTS for n in graph.graph.node):
        return [], {}
    prepared = variants.prepare(graph)
    calibration = np.asarray(source.x["train"])[data.spread(len(source.x["train"]), checks["int8"]["images"])]
    validation = np.asarray(source.x["validation"]), np.asarray(source.y["validation"])
    made = []
    if "int8" in checks["variants"]:
        made.append(variants.int8(prepared, calibration, validation, checks["int8"] | {"budget": checks["budget"]}))
    if "fp16" in checks["variants"]:
        made.append(variants.fp16(prepared, calibration))
    return made, {v.precision: variants.noise(prepared, v.graph, calibration[: variants.BATCH]) for v in made}


def of_variant(about: dict[str, Any], variant: variants.Variant, checks: dict[str, Any]) -> dict[str, Any]:
    """Return what a variant's document has of its own: how it was made, and what its golden samples are.

    float16 must answer as torch does, within its rounding. int8 answers otherwise; that it goes on doing so on another
    processor, whose int8 products may saturate, is what its own answers tell.
    """
    golden = about["golden"] | {"atol": checks["fp16_atol"]}
    if variant.precision == "int8":
        answers = variants.run(variant.graph, contract.unpack(about["golden"]["input"]))
        golden |= {"outputs": {NAMES[about["task"]][1][0]: contract.pack(answers[0])}, "atol": INT8_ATOL}
    made = {"precision": variant.precision, **{key: variant.facts[key] for key in ("method", "kept") if variant.facts}}
    return {"golden": golden, "provenance": about["provenance"] | {"variant": made}}


def grown(
    graph: onnx.ModelProto, net: torch.nn.Module, recipe: dict[str, Any], x: dict[str, np.ndarray]
) -> tuple[onnx.ModelProto, dict[str, Any], dict[str, Any]]:
    """Return the graph with the outputs that the recipe asks for besides, what its document promises, and its check."""
    if recipe["streaming"]:
        from pipeline import streaming

        whole, samples = streaming.to_onnx(net, x["test"])
        return whole, {"stream": {"samples": samples}}, {}
    if recipe["saliency"]:
        from pipeline import saliency  # tracing tools: a second

        whole = saliency.to_onnx(net, x["test"])
        return whole, {"explain": {"saliency": True}}, {"saliency": saliency.check(whole, net, x["random"])}
    return graph, {}, {}


def main() -> None:
    with of_entry("export") as name:
        recipe, source = params.entry(name, "data", "train", "export"), data.load(name)
        net = network.build(recipe, source)
        net.load_state_dict(torch.load(OUT / name / "train" / "weights.pt", weights_only=True))
        net.eval()
        graph_of = functools.partial(to_onnx, task=source.task)
        if on_features(recipe):
            from pipeline import fitted, heads, joined  # scikit-learn: 3 s

            net, graph_of = fitted.restore(net, recipe, OUT / name / "train"), joined.to_graph
        checks = recipe["check"]
        x = {"test": source.served("test"), "random": random_inputs(source, checks["seed"], checks["random"])}
        y = {kind: answers(net, rows) for kind, rows in x.items()}
        atol = max(limit(y["test"], checks["atol"]), getattr(net, "flips", 0.0))
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
        if on_features(recipe):
            vectors = heads.vectors(net, source, OUT / name / "train")
            np.savez(folder / "features.npz", **vectors)
        made, noise = variants_of(graph, source, checks)
        write_json(folder / "noise.json", noise)
        written = {}
        for variant in [variants.Variant("fp32", whole), *made]:
            # what is promised holds for fp32 alone
            own = promise if variant.precision == "fp32" else of_variant(about, variant, checks)
            sealed = contract.seal(variant.graph.SerializeToString(), about | own)
            (folder / file_of(variant.precision)).write_bytes(sealed)
            written[variant.precision] = {"bytes": len(sealed), **variant.facts}
        facts = {
            "bytes": written["fp32"]["bytes"],
            "nodes": len(graph.graph.node),
            "opset": next(o.version for o in graph.opset_import if o.domain == ""),
            "operations": {"macs": metrics["macs"], **variants.traffic(graph)},
            "variants": written,
            **explained,
        }
        write_json(RESULTS / name / "export.json", facts)
        print(f"   {facts['nodes']} nodes, " + ", ".join(map(variants.say, made)), file=sys.stderr)


if __name__ == "__main__":
    run(main)
