"""The same networks under other runtimes, in turns: torch, torch.compile, ncnn, OpenVINO and
onnxruntime, in each of their precisions.

Each runtime has the same weights and the same uint8 images, and is opened as its users open it
(`contenders.py`). They take turns, so that a slow second of the machine slows all: rates are
medians of rounds, ratios are medians of the rounds' ratios. Weights are random: speed does not
depend on them. The roof of a precision is the quickest of three libraries at the product of two
large matrices, which takes its turns too. With --write the table replaces this
processor's in results/runtimes.md.

    python benchmarks/runtimes.py               # many images: every core at work; 8 minutes
    python benchmarks/runtimes.py --single      # one image after the other; 6 minutes
    python benchmarks/runtimes.py --settings    # onnxruntime's own settings; 6 minutes
    python benchmarks/runtimes.py --agree       # every entry of out/ by OpenVINO and onnxruntime
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

import click
import numpy as np
import onnx
import onnxruntime
import torch
from convline.runtime import host
from convline.runtime.openvino import reason

import models
from benchmarks import contenders
from benchmarks.contenders import CORES, PIXELS, Contender, Network
from benchmarks.page import split_at, write_block
from benchmarks.shared import compile_openvino, take_turns
from pipeline.core.errors import StageError
from pipeline.core.paths import OUT, RESULTS
from pipeline.core.stage import progress
from pipeline.data import dataset
from pipeline.export import graph as export
from pipeline.export import graph_analysis, quantize
from pipeline.network.build import multiply_adds
from pipeline.network.modules import Classifier

AS_PUBLISHED = {"batch_norm": True, "stride_in": "first", "zero_init": False}
NETS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "LeNet-5": (
        "lenet5",
        32,
        {"full_c3": False, "subsampling": "trainable", "output": "linear"},
    ),
    "ResNet-20": (
        "resnet",
        32,
        {"family": "cifar", "depth": 20, "shortcut": "A", **AS_PUBLISHED},
    ),
    "mobilenet_v2": ("zoo", 224, {"name": "mobilenet_v2"}),
    "ResNet-18": ("zoo", 224, {"name": "resnet18"}),
    "ResNet-50": ("zoo", 224, {"name": "resnet50"}),
    "VGG-16": ("zoo", 224, {"name": "vgg16"}),
}
IN_NCNN = ("ResNet-18", "VGG-16")
BATCHES = {32: (8, 64), 224: (1, 8)}  # by the side of the images
SECONDS = 0.3  # of a turn
BASE = ("onnxruntime", "fp32")  # of the ratios
PRECISIONS = ("fp32", "bf16", "int8")
POINTWISE = "mlas.nchwc_pointwise_conv_max_input_channel_batch"
ENTRIES = {  # of a session's configuration, as onnxruntime 1.31 names them
    "pointwise channels 256": {POINTWISE: "256"},
    "pointwise channels 512": {POINTWISE: "512"},
    "sliding depthwise": {"mlas.nchwc_depthwise_sliding": "1"},
    "denormals are zero": {"session.set_denormal_as_zero": "1"},
}
BLOCKS = {"session.dynamic_block_base": "4"}
PAGE = RESULTS / "runtimes.md"

Rates = list[float]  # of rounds
Key = tuple[str, str]  # a runtime and a precision


def build_network(name: str) -> tuple[Network, np.ndarray]:
    """Return the network with random weights, standardisation and softmax in it, as the line
    exports it, and as many images as the largest batch: uint8 (N, H, W, C).
    """
    arch, side, options = NETS[name]
    torch.manual_seed(0)
    channels = 1 if arch == "lenet5" else 3
    net = models.build(arch, in_channels=channels, size=(side, side), classes=10, **options)
    mean, scale = (torch.tensor(numbers).reshape(-1, 1, 1) for numbers in PIXELS[channels])
    classifier = Classifier(net, mean, scale).eval()
    shape = max(BATCHES[side]), side, side, channels
    x = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    graph = export.export_network(classifier, x)
    int8 = quantize.quantize_graph(quantize.prepare_graph(graph), x[:8], "MinMax", [])
    operations = 2.0 * multiply_adds(classifier, torch.from_numpy(x[:1]))
    return Network(classifier, graph.SerializeToString(), int8.SerializeToString(), operations), x


def rates_of(contenders: Sequence[Contender], rounds: int) -> list[Rates]:
    """Return each contender's rates in turns of SECONDS."""

    def turn(one: Contender, number: int) -> float:
        return one.turn(SECONDS if number else 0.0)

    return take_turns([partial(turn, one) for one in contenders], rounds)


def best_batches(contenders: Sequence[Contender], rates: list[Rates]) -> dict[Key, Rates]:
    """Return by runtime and precision the rates at the batch whose median is largest."""
    best: dict[Key, Rates] = {}
    for one, found in zip(contenders, rates, strict=True):
        key = one.name, one.precision
        if key not in best or statistics.median(found) > statistics.median(best[key]):
            best[key] = found
    return best


def ratio(rates: Rates, others: Rates) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(rates, others, strict=True))


def highest_roofs(rounds: int) -> dict[str, Contender]:
    """Return by precision the product with the highest rate."""
    products = [*contenders.roofs()]
    rates = [statistics.median(found) for found in rates_of(products, rounds)]
    places = sorted(range(len(products)), key=lambda place: rates[place])
    return {products[place].precision: products[place] for place in places}


def compare(names: Sequence[str], rounds: int, single: bool) -> str:
    """Return the table of images/s by runtime and network, and the roofs."""
    columns: dict[str, dict[Key, str]] = {}
    roofs, seen = highest_roofs(rounds), {precision: list[float]() for precision in PRECISIONS}
    bar = progress(len(names), "runtimes", "network")
    for name in names:
        network, x = build_network(name)
        if single:
            ready = [*contenders.one_image(network, x, name in IN_NCNN)]
        else:
            batches = BATCHES[x.shape[1]]
            ready = [*contenders.many_images(network, x, batches, name in IN_NCNN)]
        rates = rates_of([*ready, *roofs.values()], rounds)
        best = best_batches(ready, rates[: len(ready)])
        peaks = dict(zip(roofs, rates[len(ready) :], strict=True))
        columns[name] = {
            key: cell(found, best[BASE], peaks[key[1]], network.operations)
            for key, found in best.items()
        }
        for precision, found in peaks.items():
            seen[precision] += found
        bar.update()
    bar.close()
    limits = ", ".join(
        f"{precision} {statistics.median(seen[precision]) / 1e9:,.0f} ({roofs[precision].name})"
        for precision in PRECISIONS
    )
    return f"{rate_table(columns)}\n\nRoofs in 10^9 operations/s: {limits}."


def cell(rates: Rates, base: Rates, peak: Rates, operations: float) -> str:
    """Return rate, ratio to BASE, and share of the roof of the precision in percent."""
    share = 100 * operations * ratio(rates, peak)
    return f"{statistics.median(rates):,.0f}/s, {ratio(rates, base):.2f}, {share:.0f} %"


def rate_table(columns: dict[str, dict[Key, str]]) -> str:
    """Return the table with a row for each runtime and precision, a column for each network."""
    keys = list(dict.fromkeys(key for cells in columns.values() for key in cells))
    if not contenders.has_ncnn():
        keys.append(("ncnn, not installed", "fp32"))
    lines = [f"| runtime | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for key in sorted(keys):
        cells = " | ".join(column.get(key, "-") for column in columns.values())
        lines.append(f"| {' '.join(key)} | {cells} |")
    return "\n".join(lines)


def settings_of(name: str) -> Iterator[tuple[str, str, Contender]]:
    """Yield what is set, the contender's title that it is compared with, and the contender.

    Workers fill the cores with a session of one thread, as in `infer`, if nothing else is said.
    """
    network, x = build_network(name)
    batch = min(32, max(BATCHES[x.shape[1]]))

    def contender(
        precision: str, model: bytes, count: int, threads: int = 1, **more: Any
    ) -> Contender:
        run = contenders.onnxruntime_run(model, threads, **more)
        turn = contenders.by_workers(run, x[:count], workers=CORES // threads)
        return Contender("onnxruntime", precision, turn, count)

    yield "fp32", "fp32", contender("fp32", network.fp32, batch)
    yield "none, as a control", "fp32", contender("fp32", network.fp32, batch)
    for title, entries in ENTRIES.items():
        yield title, "fp32", contender("fp32", network.fp32, batch, entries=entries)
    for precision, model in (("fp32", network.fp32), ("int8", network.int8)):
        one = f"{precision}, one image, a session of all cores"
        yield one, one, contender(precision, model, 1, CORES)
        each = f"{precision}, one image, a session on each core"
        yield each, one, contender(precision, model, 1)
        more = f"{precision}, one image, all cores, blocks of 1/4"
        yield more, one, contender(precision, model, 1, CORES, entries=BLOCKS)


def compare_settings(names: Sequence[str], rounds: int) -> str:
    """Return the table of ratios by setting and network, with the least and the largest round."""
    rows: dict[tuple[str, str], list[str]] = {}
    bar = progress(len(names), "settings", "network")
    for name in names:
        titles, bases, ready = zip(*settings_of(name), strict=True)
        rates = dict(zip(titles, rates_of(ready, rounds), strict=True))
        for title, base in zip(titles, bases, strict=True):
            if title != base:
                rounded = [a / b for a, b in zip(rates[title], rates[base], strict=True)]
                spread = f"{min(rounded):.2f} to {max(rounded):.2f}"
                shown = f"{statistics.median(rounded):.2f} ({spread})"
                rows.setdefault((title, base), []).append(shown)
        bar.update()
    bar.close()
    lines = [
        f"| setting | beside | {' | '.join(names)} |",
        "| --- | --- |" + " ---: |" * len(names),
    ]
    lines += [
        f"| {title} | {base} | {' | '.join(cells)} |" for (title, base), cells in rows.items()
    ]
    return "\n".join(lines)


def agree() -> str:
    """Return how far OpenVINO's answers are from onnxruntime's, for every entry in out/."""
    lines = ["| entry | inputs | worst difference | of the largest answer |"]
    lines.append("| --- | ---: | ---: | ---: |")
    files = sorted(OUT.glob("*/export/model.onnx"))
    if not files:
        raise StageError("no entry in out/; run `make`")
    for file in files:
        name = file.parents[1].name
        x = dataset.load(name).served("test")[:64]
        ours = graph_analysis.run_graph(onnx.load(file), x)[0]
        try:
            call = compile_openvino(file, "fp32", "LATENCY")
        except RuntimeError as error:  # operators of a scikit-learn head; a pool beyond its map
            lines.append(f"| {name} | {len(x)} | not read: {reason(error)} | - |")
            continue
        theirs = np.concatenate([np.array(call([x[i : i + 8]])[0]) for i in range(0, len(x), 8)])
        gap = float(np.abs(theirs - ours).max())
        share = gap / np.abs(ours).max()
        lines.append(f"| {name} | {len(x)} | {gap:.1e} | {share:.1e} |")
    return "\n".join(lines)


@click.command()
@click.option("--many", "part", flag_value="many", default=True, help="Many images (default).")
@click.option("--single", "part", flag_value="single", help="One image after the other.")
@click.option("--settings", "part", flag_value="settings", help="onnxruntime's own settings.")
@click.option("--agree", "part", flag_value="agree", help="Compare answers, not speed.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--network", "names", multiple=True, type=click.Choice(list(NETS)), default=list(NETS)
)
@click.option("--write", is_flag=True, help="Replace the table in results/runtimes.md.")
def main(part: str, rounds: int, names: tuple[str, ...], write: bool) -> None:
    """Print a table: of each runtime images/s, the ratio to onnxruntime in fp32, and the share of
    the precision's roof.
    """
    torch.use_deterministic_algorithms(True)
    try:
        if write:  # before minutes of measuring: the page has the part
            split_at(PAGE, part)
        if part == "agree":
            table = agree()
        elif part == "settings":
            table = compare_settings(names, rounds)
        else:
            table = compare(names, rounds, single=part == "single")
        text = f"{machine()}; {rounds} rounds, {date.today()}.\n\n{table}"
        if write:
            write_block(PAGE, part, host.processor(), text)
    except StageError as error:
        raise click.ClickException(str(error)) from error
    click.echo(text)


def machine() -> str:
    """Return the processor, the cores and the versions."""
    packages = ["torch", "openvino", *(["ncnn"] if contenders.has_ncnn() else [])]
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{host.processor()}, {CORES} cores; onnxruntime {onnxruntime.__version__}, {versions}"


if __name__ == "__main__":
    main()
