"""What this machine does: trains every architecture, and runs exported files on every device that onnxruntime offers.

Writes results/gpu/<device>.json (figures, versions of everything) and prints tables, in MINUTES at most: what has no
time left is named. On a machine without a GPU the same lines run on the CPU, at the least input of each network. Needs
torch, torchvision, onnx, onnxscript, Pillow, click, tqdm and one onnxruntime (CPU or GPU); neither DVC, DVCLive,
statsmodels nor a network. Without scikit-learn, whose digits it trains on, it draws images of its own and says so.

    python benchmarks/gpu.py --device cuda
"""

from __future__ import annotations

import json
import platform
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

import click
import numpy as np
import onnx
import torch
from PIL import Image

from benchmarks import training
from pipeline import data, device, export, loss, machine, network, parity, schema, sources, speed, train, variants
from pipeline.stage import StageError, progress, write_json
from serve import contract
from serve.binding import bind, fetch, pad, run_bound
from serve.bulk import label_images
from serve.errors import ServeError
from serve.model import load
from serve.session import available_devices
from serve.sources import Source

RESULTS = Path(__file__).parents[1] / "results" / "gpu"
EPOCHS, SECONDS, BATCHES = 5, 0.5, {"cuda": (1, 32, 256), "cpu": (1, 32)}
NETS = ("lenet5", "causal", "resnet")
MINUTES = 9.0  # for all; training's table gets what the rest leaves
IMAGES = {"set": "digits", "size": [32, 32], "colour": "grey"}
PHOTOS = {"set": "digits", "size": [224, 224], "colour": "rgb"}
WAVES = {"set": "waves", "context": 128, "horizon": 10, "stride": 10}
HEADING = f"{'runtime':<13} {'':<5} {'device':<8} {'way':<7} {'batch':>5} {'p50 ms':>9} {'per second':>12} {'gap':>8}"
OPTIONS: dict[str, dict[str, Any]] = {
    "lenet5": {"full_c3": False, "subsampling": "trainable", "output": "rbf"},
    "resnet": {
        "family": "imagenet",
        "depth": 50,
        "shortcut": "B",
        "batch_norm": True,
        "stride_in": "first",
        "zero_init": False,
    },
    "causal": {"channels": 32, "kernel_size": 5, "dilations": [1, 2, 4, 8], "activation": "none"},
}


def recipe_of(arch: str, epochs: int, reduced: bool = False) -> dict[str, Any]:
    """Return the recipe as stage params would resolve it; without determinism, which costs speed on a GPU."""
    image = arch != "causal"
    source = "digits" if image else "waves"
    spec = schema.check_section(source, {}, schema.SOURCES[source]) | {"source": source}
    block = (PHOTOS if arch == "resnet" and not reduced else IMAGES) if image else WAVES
    block = schema.check_section("data", block, schema.IMAGE_DATA if image else schema.SERIES_DATA)
    epochs = 0 if arch == "resnet" else epochs  # its speed alone is asked for: random weights do
    training = schema.check_section("train", {"epochs": epochs, "batch": 128, "choose": "last"}, schema.TRAIN)
    net = OPTIONS[arch] | ({"depth": 18} if arch == "resnet" and reduced else {})
    options = {"arch": arch, "net": net, "size": "small", "deterministic": False}
    return options | {"data": block | {"spec": spec}, "train": training}


def data_of(recipe: dict[str, Any]) -> tuple[data.Data, str]:
    """Return the embedded data and their name: digits where scikit-learn is, drawn images elsewhere, waves."""
    if "size" not in recipe["data"]:
        return data.make(recipe["data"])[0], "waves, generated"
    if recipe["arch"] == "resnet":
        return data.image_data(recipe["data"], drawn_images(64, 64), [str(k) for k in range(10)]), "images, generated"
    try:
        return data.make(recipe["data"])[0], "digits, from scikit-learn"
    except StageError:
        return data.image_data(recipe["data"], drawn_images(), [str(k) for k in range(10)]), "images, generated"


def drawn_images(train: int = 1000, rest: int = 200) -> sources.Splits:
    """Return noisy grey images of 8x8 pixels in ten classes, each with its own bright row or column."""
    rng = np.random.default_rng(0)
    splits: sources.Splits = {}
    for split, count in (("train", train), ("validation", rest), ("test", rest)):
        grey = rng.integers(0, 128, (count, 8, 8), np.uint8)
        for i, image in enumerate(grey):
            k = i % 10
            (image if k < 5 else image.T)[k % 5] = 255
        splits[split] = [sources.Sample(f"{split}{i}", Image.fromarray(g), i % 10) for i, g in enumerate(grey)]
    return splits


def train_net(recipe: dict[str, Any], source: data.Data, on: torch.device) -> tuple[Any, dict[str, Any]]:
    """Return the trained network on `on`, and how fast it trained; the first epoch, a warm-up, is not counted."""
    ends: list[float] = []

    def note_time(row: dict[str, float]) -> None:
        ends.append(time.monotonic())

    if on.type == "cuda":
        torch.cuda.reset_peak_memory_stats(on)
    net, state = train.fit(recipe, source, on=on, label=recipe["arch"], on_epoch=note_time)
    epochs = np.diff(ends)
    samples = len(source.x["train"]) if source.task == "classification" else len(source.windows("train")[0])
    return net, {
        "device": device.describe(on),
        "precision": "bf16" if loss.autocast("auto", on)._enabled else "fp32",
        "samples": samples,
        "epochs": state.epoch,
        "per_second": samples / statistics.median(epochs) if len(epochs) else None,
        "validation_loss": state.history[-1]["validation_loss"],
        "peak_bytes": torch.cuda.max_memory_allocated(on) if on.type == "cuda" else None,
    }


def write_model(
    folder: Path, recipe: dict[str, Any], source: data.Data, trained: Any
) -> tuple[dict[str, Path], list[np.ndarray]]:
    """Return the sealed files by precision, fp16 of classifiers, and torch's answers (CPU, fp32) to the test split."""
    net = network.build(recipe, source)
    net.load_state_dict({name: tensor.cpu() for name, tensor in trained.state_dict().items()})
    net.eval()
    x, name = source.served("test"), f"{recipe['arch']}-benchmark"
    y, graph = export.answers(net, x), export.to_onnx(net, x, source.task)
    metrics = {"validation": {}, "parameters": sum(p.numel() for p in net.parameters())}
    about = export.document(name, recipe, source.about, metrics, x, y, export.limit(y, 1e-4))
    graphs = {"fp32": (graph, about)}
    if source.task == "classification":
        half = variants.fp16(variants.prepare(graph), x)
        graphs["fp16"] = half.graph, about | export.of_variant(about, half, {"fp16_atol": 1e-2})
    files = {precision: folder / f"{name}.{precision}.onnx" for precision in graphs}
    for precision, (made, document) in graphs.items():
        files[precision].write_bytes(contract.seal(made.SerializeToString(), document))
    return files, y


def onnxruntime_rows(
    path: Path, on: str, x: np.ndarray, y: list[np.ndarray], batches: tuple[int, ...], seconds: float, precision: str
) -> list[dict[str, Any]]:
    """Return parity and latency on one device at each batch size: arrays, tensors bound to it, and as a CUDA graph."""
    model, rows = load(path, on), []
    for batch in batches:
        inputs, expected = pad(x[:batch], batch), [pad(answer[:batch], batch) for answer in y]
        bound = bind(model.session, inputs, on)
        run_bound(model.session, bound)
        for way, answers, call in (
            ("arrays", speed.predict(model, inputs, batch), lambda i=inputs, n=batch: speed.predict(model, i, n)),
            ("bound", fetch(bound), lambda b=bound: run_bound(model.session, b)),
        ):
            gap = parity.compare(answers, expected, batch)
            fact = {"runtime": "onnxruntime", "precision": precision, "device": on, "way": way}
            fact |= {"provider": model.session.get_providers()[0], "batch": batch}
            fact["max_difference"] = gap["max_difference"]
            fact["passed"] = gap["finite"] and gap["max_difference"] <= model.golden_atol
            rows.append(fact | speed.timed(call, batch, seconds))
        if on == "cuda":
            rows.append(fact | {"way": "graph"} | speed.bound(model.contract, on, inputs, "graph", seconds))
    return rows


def command_row(path: Path, on: str, x: np.ndarray, y: np.ndarray, folder: Path) -> dict[str, Any]:
    """Return the rate of `infer images` on files of x, decoding and all, and whether its labels are those of y."""
    names = [str(folder / f"{k}.png") for k in range(len(x))]
    for name, image in zip(names, x, strict=True):
        Image.fromarray(image.squeeze()).save(name)
    about, target = contract.read(path), folder / f"{on}.jsonl"
    start = time.perf_counter()
    done = label_images(about, on, map(Source, names * 10), str(target), sys.stdout.buffer)
    rate = done.mark.rows / (time.perf_counter() - start - done.start)
    found = [json.loads(line)["label"] for line in target.read_text().splitlines()]
    same = found == [about.labels[k] for k in y.argmax(1)] * 10
    fact = {"runtime": "infer images", "device": on, "way": "files", "batch": done.batch, "passed": same}
    fact |= {"max_difference": float(not same), "provider": done.device}
    return fact | {"per_second": rate, "p50_ms": 1e3 * done.batch / rate, "p99_ms": 1e3 * done.batch / rate}


@torch.no_grad()
def torch_rows(net: Any, x: np.ndarray, batches: tuple[int, ...], seconds: float) -> list[dict[str, Any]]:
    """Return torch's latency for the same network, inputs on its device: eager in fp32, compiled in bf16 on a GPU."""
    on, rows = net.mean.device, []
    runs = {("torch eager", "fp32"): net}
    if on.type == "cuda":
        runs["torch compile", "bf16"] = torch.compile(net, dynamic=False)
    wait = torch.cuda.synchronize if on.type == "cuda" else (lambda: None)
    for batch in batches:
        inputs = torch.from_numpy(pad(x[:batch], batch)).to(on)
        for (runtime, precision), run in runs.items():

            def call(inputs: torch.Tensor = inputs, run: Any = run, half: bool = precision == "bf16") -> None:
                with torch.autocast(on.type, torch.bfloat16, enabled=half):
                    run(inputs)
                wait()

            fact = {"runtime": runtime, "precision": precision, "device": on.type, "way": "bound", "batch": batch}
            rows.append(fact | speed.timed(call, batch, seconds))
    return rows


def versions() -> dict[str, Any]:
    """Return the versions of everything that the figures depend on."""
    found = {"python": platform.python_version(), "system": platform.platform(), **export.versions()}
    return found | {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}


def slug(name: str) -> str:
    """Return a file name: "NVIDIA H200" -> "nvidia-h200"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def measure(
    request: str, epochs: int = EPOCHS, seconds: float = SECONDS, batches: tuple[int, ...] | None = None,
    minutes: float = MINUTES,
) -> dict[str, Any]:  # fmt: skip
    """Return everything that the JSON file holds."""
    import onnxruntime

    on, until = device.choose(request), time.monotonic() + 60 * minutes
    batches = batches or BATCHES[on.type]
    name = torch.cuda.get_device_name(on) if on.type == "cuda" else machine.processor()
    result: dict[str, Any] = {"device": name, "kind": on.type, "machine": machine.describe(), "versions": versions()}
    devices = available_devices()
    result["onnxruntime"] = {"built_for": onnxruntime.get_available_providers(), "ran_on": devices}
    nets: dict[str, Any] = {}
    bar = progress(len(NETS), "benchmark", "net")
    for arch in NETS:
        recipe = recipe_of(arch, epochs, on.type == "cpu")
        source, origin = data_of(recipe)
        net, facts = train_net(recipe, source, on)
        with tempfile.TemporaryDirectory() as folder:
            files, y = write_model(Path(folder), recipe, source, net)
            x = source.served("test")
            rows = torch_rows(net, x, batches, seconds)
            ops = {"macs": network.multiply_adds(net, torch.from_numpy(source.example()).to(on))}
            ops |= variants.traffic(onnx.load(files["fp32"]))
            for there in devices:
                for precision, path in files.items():
                    found = onnxruntime_rows(path, there, x, y, batches, seconds, precision)
                    rows += [row | speed.against_limit(row, precision, ops, machine.limits(there)) for row in found]
                if source.task == "classification":
                    rows.append(command_row(files["fp32"], there, x, y[0], Path(folder)))
            size = files["fp32"].stat().st_size
            nets[arch] = {"data": origin, "train": facts, "file_bytes": size, "rows": rows}
        bar.update()
    bar.close()
    shown = [row for net in nets.values() for row in net["rows"] if row["runtime"] == "onnxruntime"]
    points = [(row["intensity"], row["ops_per_second"], row["precision"]) for row in shown if row["device"] == on.type]
    result |= {"nets": nets, "limits": machine.limits(on.type), "points": points}  # for the report's roofline
    gpu = on.type == "cuda"
    return result | {"training": training.measure_all(on, seconds, until, reduced=not gpu, compiled=gpu)}


def table(result: dict[str, Any]) -> str:
    """Return the figures as text, one line for each net, runtime, device, way and batch."""
    built = ", ".join(result["onnxruntime"]["built_for"])
    lines = [f"{result['device']}; torch {result['versions']['torch']}; onnxruntime offers {built}"]
    for arch, net in result["nets"].items():
        speed, fact = net["train"]["per_second"], net["train"]
        rate = f"{speed:,.0f} samples/s" if speed else "one epoch only"
        lines += ["", f"{arch} on {net['data']}: trained on {fact['device']} in {fact['precision']}, {rate}"]
        lines.append(HEADING)
        for row in net["rows"]:
            place = f"{row['runtime']:<13} {row.get('precision', ''):<5} {row['device']:<8} {row['way']:<7}"
            place += f" {row['batch']:>5}"
            gap = f"{row['max_difference']:>8.1e}" if "max_difference" in row else f"{'':>8}"
            lines.append(f"{place} {row['p50_ms']:>9.3f} {row['per_second']:>12,.0f} {gap}")
    return "\n".join([*lines, "", training.table(result["training"])])


@click.command()
@click.option("--device", "request", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=RESULTS, show_default="results/gpu")
@click.option("--minutes", type=click.FloatRange(0), default=MINUTES, show_default=True, help="For all, at most.")
def main(request: str, out: Path, minutes: float) -> None:
    """Train, export and run on every device that onnxruntime offers; write OUT/<device>.json and print tables."""
    try:
        result = measure(request, minutes=minutes)
    except (StageError, ServeError) as error:
        raise click.ClickException(str(error)) from error
    path = out / f"{slug(result['device'])}.json"
    write_json(path, result)
    click.echo(table(result))
    click.echo(f"\nwritten to {path}", err=True)
    if broken := [row for net in result["nets"].values() for row in net["rows"] if row.get("passed") is False]:
        row = broken[0]
        place = f"{row['provider']} ({row['way']}, batch {row['batch']})"
        raise click.ClickException(f"{place} differs from torch by {row['max_difference']:.1e}; see {path}")


if __name__ == "__main__":
    main()
