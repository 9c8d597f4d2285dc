"""The same networks under other runtimes, in turns: torch, torch.compile, OpenVINO, onnxruntime in
fp32 and in int8.

Each runtime has the same weights and the same uint8 images, and every core. They take turns, so
that a slow second of the machine slows all. Weights are random: speed does not depend on them. With
--agree, every entry of out/ is answered by OpenVINO and by onnxruntime, and the table says how far
they are apart.

    python benchmarks/runtimes.py               # five networks
    python benchmarks/runtimes.py --agree
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

import click
import numpy as np
import onnx
import onnxruntime
import torch
from convline.runtime import host

import models
from pipeline.core.errors import StageError
from pipeline.core.paths import OUT
from pipeline.core.stage import progress
from pipeline.data import dataset
from pipeline.export import graph as export
from pipeline.export import graph_analysis, quantize
from pipeline.network.modules import Classifier

AS_PUBLISHED = {"batch_norm": True, "stride_in": "first", "zero_init": False}
NETS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "LeNet-5, 32 px": (
        "lenet5",
        32,
        {"full_c3": False, "subsampling": "trainable", "output": "linear"},
    ),
    "ResNet-20, 32 px": (
        "resnet",
        32,
        {"family": "cifar", "depth": 20, "shortcut": "A", **AS_PUBLISHED},
    ),
    "mobilenet_v2, 224 px": ("zoo", 224, {"name": "mobilenet_v2"}),
    "ResNet-18, 224 px": ("zoo", 224, {"name": "resnet18"}),
    "ResNet-50, 224 px": ("zoo", 224, {"name": "resnet50"}),
}
RUNTIMES = ("torch eager", "torch.compile", "OpenVINO", "onnxruntime", "onnxruntime int8")
BATCHES = (1, 8, 32)
Call = Callable[[np.ndarray], Any]


def network(arch: str, side: int, options: dict[str, Any]) -> Classifier:
    """Return the network with random weights, standardisation and softmax in it, as the line
    exports it.
    """
    torch.manual_seed(0)
    channels = 1 if arch == "lenet5" else 3
    net = models.build(arch, in_channels=channels, size=(side, side), classes=10, **options)
    return Classifier(
        net, torch.full((channels, 1, 1), 127.0), torch.full((channels, 1, 1), 1 / 64)
    ).eval()


def session_of(graph: onnx.ModelProto) -> Call:
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return lambda x: session.run(None, {"images": x})


def openvino_of(model: bytes) -> Call:
    import openvino

    core = openvino.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model), "CPU", settings)
    return lambda x: compiled([x])


def calls_of(net: Classifier, x: np.ndarray) -> dict[str, Call]:
    """Return each runtime as a function of uint8 images (N, H, W, C)."""
    graph = export.export_network(net, x)
    prepared = quantize.prepare_graph(graph)
    compiled = torch.compile(net, dynamic=False)

    def eager(images: np.ndarray, run: Any = net) -> Any:
        with torch.inference_mode():
            return run(torch.from_numpy(images))

    return {
        "torch eager": eager,
        "torch.compile": lambda images: eager(images, compiled),
        "OpenVINO": openvino_of(graph.SerializeToString()),
        "onnxruntime": session_of(graph),
        "onnxruntime int8": session_of(quantize.quantize_graph(prepared, x[:32], "MinMax", [])),
    }


def rates(calls: dict[str, Call], x: np.ndarray, rounds: int) -> dict[str, float]:
    """Return samples/s of each runtime on one batch: the median of rounds in which they take
    turns.
    """
    for call in calls.values():  # torch.compile compiles here
        call(x)
        call(x)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call(x)
            times[name].append(time.perf_counter() - start)
    return {name: len(x) / statistics.median(taken) for name, taken in times.items()}


def compare(rounds: int) -> None:
    """Print samples/s at batch 1 and at each runtime's best batch, and their ratios to
    onnxruntime in fp32.
    """
    print(
        "| network | batch | "
        + " | ".join(RUNTIMES)
        + " |\n| --- | --- |"
        + " ---: |" * len(RUNTIMES)
    )
    bar = progress(len(NETS), "runtimes", "network")
    for name, (arch, side, options) in NETS.items():
        net = network(arch, side, options)
        x = np.random.default_rng(0).integers(
            0, 256, (64, side, side, 1 if arch == "lenet5" else 3), np.uint8
        )
        calls = calls_of(net, x)
        found = {batch: rates(calls, np.ascontiguousarray(x[:batch]), rounds) for batch in BATCHES}
        best = {runtime: max(row[runtime] for row in found.values()) for runtime in RUNTIMES}
        for batch, row in (("1", found[1]), ("best", best)):
            cells = [f"{row[r]:,.0f}/s ({row[r] / row['onnxruntime']:.2f})" for r in RUNTIMES]
            print(f"| {name} | {batch} | {' | '.join(cells)} |", flush=True)
        bar.update()
    bar.close()


def agree() -> None:
    """Print how far OpenVINO's answers are from onnxruntime's, for every entry in out/."""
    print(
        "| entry | inputs | worst difference | of the largest answer |\n| --- | ---: | ---: | ---: |"
    )
    files = sorted(OUT.glob("*/export/model.onnx"))
    if not files:
        raise StageError("no entry in out/; run `make`")
    for file in files:
        x = dataset.load(file.parents[1].name).served("test")[:64]
        ours = graph_analysis.run_graph(onnx.load(file), x)[0]
        try:
            call = openvino_of(file.read_bytes())
        except (
            RuntimeError
        ) as error:  # a scikit-learn head's operators; a ceiling pool larger than its map
            lacks = re.findall(
                r"(?:Conversion is failed|No conversion rule found) for.*?: (.+)", str(error)
            ) or [str(error)]
            print(
                f"| {file.parents[1].name} | {len(x)} | not read: {', '.join(sorted(set(lacks)))} | - |",
                flush=True,
            )
            continue
        theirs = np.concatenate([np.array(call(x[i : i + 8])[0]) for i in range(0, len(x), 8)])
        gap = float(np.abs(theirs - ours).max())
        print(
            f"| {file.parents[1].name} | {len(x)} | {gap:.1e} | {gap / np.abs(ours).max():.1e} |",
            flush=True,
        )


@click.command()
@click.option("--agree", "agreement", is_flag=True, help="Compare answers, not speed.")
@click.option("--rounds", type=click.IntRange(3), default=15, show_default=True)
def main(agreement: bool, rounds: int) -> None:
    """Print a table of samples/s, in brackets the ratio to onnxruntime in fp32."""
    torch.use_deterministic_algorithms(True)
    print(f"{host.processor()}, {torch.get_num_threads()} threads; torch {torch.__version__}; "
          f"onnxruntime {onnxruntime.__version__}\n")  # fmt: skip
    try:
        agree() if agreement else compare(rounds)
    except StageError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
