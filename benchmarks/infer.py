"""`infer images` against the ideal of this machine and against what people use instead, in one run.

The ideal of decoding and inference that share the cores is 1 / (1 / decode + 1 / onnxruntime), each
measured alone over all cores. A serial loop, a torch DataLoader and (with --peer, a Python of its
own that has Optimum) Hugging Face's pipeline answer the same files with the same weights. Small
files: LeNet-5 against one process per core that only opens and decodes. Weights are random: speed
does not depend on them.

    python benchmarks/infer.py                            # about six minutes on two cores
    python benchmarks/infer.py --part small               # one
    python benchmarks/infer.py --peer peers/bin/python    # uv venv peers; uv pip install 'optimum[onnxruntime]' torch
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

import click
import numpy as np
import onnxruntime
import torch
from convline.images.decode import read_image
from convline.model_file.document import ImageRule
from convline.model_file.golden import pack_array
from convline.model_file.onnx_file import seal
from convline.report.workload import photos
from convline.runtime import host
from convline.runtime.host import usable_cores
from PIL import Image

import models
from pipeline.export import graph as export
from pipeline.export import graph_analysis, quantize
from pipeline.network.modules import Classifier

ROOT = Path(__file__).parents[1]
PHOTO, SMALL = (500, 375), (28, 28)  # pixels (W, H)
CROP = ImageRule((224, 224), "rgb", "crop", shorter_px=256)
GREY = ImageRule((32, 32), "grey")
OPTIMUM = """
import sys, time
from pathlib import Path
from optimum.onnxruntime import ORTModelForImageClassification
from transformers import AutoImageProcessor, pipeline
folder, photos = sys.argv[1:]
model = ORTModelForImageClassification.from_pretrained(folder)
pipe = pipeline("image-classification", model=model, image_processor=AutoImageProcessor.from_pretrained(folder))
files = sorted(map(str, Path(photos).iterdir()))
list(pipe(files[:4]))
start = time.perf_counter()
n = sum(1 for _ in pipe(files, batch_size=1))
print(n / (time.perf_counter() - start))
"""


def small(folder: Path, count: int) -> list[str]:
    """Write small PNG files, as of digits."""
    rng = np.random.default_rng(0)
    for k in range(count):
        digit = Image.fromarray(rng.integers(0, 256, (7, 7), np.uint8)).resize(SMALL)
        digit.save(folder / f"{k:05}.png")
    return sorted(map(str, folder.iterdir()))


def model(
    folder: Path, arch: str, rule: ImageRule, classes: int, options: dict[str, Any]
) -> dict[str, Path]:
    """Write a network with random weights as sealed files, fp32 and int8, as the line exports
    them.
    """
    torch.manual_seed(0)
    net = models.build(arch, in_channels=rule.channels, size=rule.size, classes=classes, **options)
    whole = Classifier(
        net, torch.full((rule.channels, 1, 1), 127.0), torch.full((rule.channels, 1, 1), 1 / 64)
    ).eval()
    x = np.random.default_rng(0).integers(0, 256, (32, *rule.size, rule.channels), np.uint8)
    graph = export.export_network(whole, x)
    made = {
        "fp32": graph,
        "int8": quantize.quantize_graph(quantize.prepare_graph(graph), x, "MinMax", []),
    }
    paths = {}
    for precision, proto in made.items():
        answer = graph_analysis.run_graph(proto, x[:2])[0]
        document = {
            "format": 1, "name": arch, "task": "classification", "labels": [str(k) for k in range(classes)],
            "input": rule.to_dict(), "provenance": {"licence": "none: random weights"},
            "golden": {"input": pack_array(x[:2]), "outputs": {"probabilities": pack_array(answer)}, "atol": 1e-4},
        }  # fmt: skip
        paths[precision] = folder / f"{arch}.{precision}.onnx"
        paths[precision].write_bytes(seal(proto.SerializeToString(), document))
    return paths


def rate(call: Callable[[], int], rounds: int = 1) -> float:
    """Return how many a second the call does, the median of rounds."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        found.append(call() / (time.perf_counter() - start))
    return statistics.median(found)


def decode(files: list[str], rule: ImageRule) -> int:
    with ThreadPoolExecutor(usable_cores()) as pool:
        return sum(1 for _ in pool.map(lambda file: read_image(file, rule), files))


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )


def inference(path: Path, rule: ImageRule, count: int) -> float:
    """Return onnxruntime's images/s over all cores at its best: one batch on all of them, or a
    worker on each.
    """
    x = np.random.default_rng(0).integers(0, 256, (32, *rule.size, rule.channels), np.uint8)
    cores = usable_cores()
    one, many = session(path, 1), session(path, cores)
    found = []
    for batch in (1, 4, 8, 32):
        runs = max(1, count // batch // cores * cores)

        def together(batch: int = batch, runs: int = runs) -> int:
            for _ in range(runs):
                many.run(None, {"images": x[:batch]})
            return runs * batch

        def apart(batch: int = batch, runs: int = runs) -> int:
            with ThreadPoolExecutor(cores) as pool:
                list(pool.map(lambda _: one.run(None, {"images": x[:batch]}), range(runs)))
            return runs * batch

        found += [rate(together), rate(apart)]
    return max(found)


def serial(files: list[str], path: Path, rule: ImageRule) -> int:
    """One image after the other: what a first script does."""
    run = session(path, usable_cores())
    for file in files:
        run.run(None, {"images": read_image(file, rule)[None]})
    return len(files)


class Files(torch.utils.data.Dataset):
    def __init__(self, files: list[str], rule: ImageRule) -> None:
        self.files, self.rule = files, rule

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, k: int) -> np.ndarray:
        return read_image(self.files[k], self.rule).copy()  # of its own memory, as collate wants it


def loader(files: list[str], path: Path, rule: ImageRule) -> int:
    """A torch DataLoader with a worker per core in front of onnxruntime."""
    run, done = session(path, usable_cores()), 0
    for batch in torch.utils.data.DataLoader(
        Files(files, rule), batch_size=16, num_workers=usable_cores()
    ):
        run.run(None, {"images": batch.numpy()})
        done += len(batch)
    return done


def command(path: Path, folder: str) -> float:
    """Return the images/s that `infer images` itself reports."""
    words = ["images", str(path), folder, "-o", f"{folder}.csv", "--device", "cpu"]
    done = subprocess.run([*INFER, *words], capture_output=True, text=True, env=ENV, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr)
    return float(re.findall(r"(\d+) images/s", done.stderr)[-1])


INFER = [sys.executable, "-c", "from convline.cli.main import main; main()"]
# Python keeps its bytecode, as it does for a user: without it, a start takes twice as long.
ENV = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}


def optimum(python: str, folder: Path, photos: str) -> float:
    """Return the images/s of Optimum's image-classification pipeline on the same weights."""
    torch.manual_seed(0)
    net = models.build("zoo", in_channels=3, size=(224, 224), classes=1000, **RESNET).eval()
    folder.mkdir()
    torch.onnx.export(
        net, (torch.randn(2, 3, 224, 224),), folder / "model.onnx", dynamo=True, external_data=False, verbose=False,
        input_names=["pixel_values"], output_names=["logits"], dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip
    labels = {str(k): str(k) for k in range(1000)}
    config = {
        "model_type": "resnet",
        "architectures": ["ResNetForImageClassification"],
        "id2label": labels,
    }
    (folder / "config.json").write_text(json.dumps(config))
    processor = {
        "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.875,
        "do_resize": True, "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    done = subprocess.run(
        [python, "-c", OPTIMUM, str(folder), photos], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise click.ClickException(done.stderr[-2000:])
    return float(done.stdout.split()[-1])


RESNET = {"name": "resnet50"}
PARTS = ("photos", "small", "start")
LENET = {"full_c3": False, "subsampling": "trainable", "output": "linear"}


def opened(files: Iterable[str]) -> int:
    """Open and decode, nothing else."""
    done = 0
    for file in files:
        with Image.open(file) as image:
            np.asarray(image.convert("L"))
        done += 1
    return done


def only_opened(files: list[str]) -> int:
    cores = usable_cores()
    with ProcessPoolExecutor(cores) as pool:
        return sum(pool.map(opened, [files[k::cores] for k in range(cores)]))


def started(*words: str) -> float:
    """Return the seconds of a whole command, the median of five."""
    return 1 / rate(
        lambda: subprocess.run([*INFER, *words], capture_output=True, env=ENV, check=True) and 1,
        5,
    )


def small_files(folder: Path, path: Path, count: int, rounds: int) -> None:
    """Print the table of LeNet-5: every part once in a round, after one that fills the disk's
    cache; the medians.
    """
    files = small(folder, count)
    only_opened(files)
    parts: dict[str, Callable[[], float]] = {
        "one process per core that opens and decodes": lambda: rate(partial(only_opened, files)),
        "onnxruntime alone": lambda: inference(path, GREY, count // 4),
        "infer images": lambda: command(path, str(folder)),
    }
    found = [[part() for part in parts.values()] for _ in range(rounds)]
    bare, run, ours = map(statistics.median, zip(*found, strict=True))
    print(
        f"\n| LeNet-5, {count} PNG, medians of {rounds} | images/s | of opening alone |\n| --- | ---: | ---: |"
    )
    for name, one in [
        *zip(parts, (bare, run, ours), strict=True),
        ("ideal of the two", 1 / (1 / bare + 1 / run)),
    ]:
        print(f"| {name} | {one:,.0f} | {one / bare:.2f} |")
    print("\ninfer of opening, each round:", *(f"{one[2] / one[0]:.2f}" for one in found))


def photo_files(folder: Path, files: list[str], resnet: dict[str, Path], peer: str | None) -> None:
    """Print the table of ResNet-50."""
    print(
        "| ResNet-50, 224 px | images/s | of the ideal | infer is |\n| --- | ---: | ---: | ---: |"
    )
    read = rate(partial(decode, files, CROP), 3)
    for precision, path in resnet.items():
        run, first = inference(path, CROP, 64), command(path, str(folder))
        others = {
            "serial loop": rate(partial(serial, files, path, CROP)),
            "DataLoader and onnxruntime": rate(partial(loader, files, path, CROP)),
        }
        if peer and precision == "fp32":
            others["Optimum's pipeline"] = optimum(peer, path.parent / "optimum", str(folder))
        ours = (first + command(path, str(folder))) / 2  # before and after: the machine drifts
        run = (run + inference(path, CROP, 64)) / 2
        ideal = 1 / (1 / read + 1 / run)
        rows = {
            "decode alone": read,
            "onnxruntime alone": run,
            "ideal": ideal,
            "infer images": ours,
        } | others
        for what, found in rows.items():
            print(
                f"| {precision}: {what} | {found:,.0f} | {found / ideal:.2f} | {ours / found:.2f} x |",
                flush=True,
            )


@click.command()
@click.option("--peer", metavar="PYTHON", help="A Python that has Optimum, onnxruntime and torch.")
@click.option(
    "--count", default=1000, show_default=True, help="Photos; small files are 20 times as many."
)
@click.option("--rounds", default=5, show_default=True, help="Of the small files.")
@click.option(
    "--precision", type=click.Choice(["fp32", "int8"]), multiple=True, default=["fp32", "int8"]
)
@click.option("--part", type=click.Choice(PARTS), multiple=True, default=PARTS)
def main(
    peer: str | None, count: int, rounds: int, precision: tuple[str, ...], part: tuple[str, ...]
) -> None:
    """Print tables of images/s and their ratios."""
    print(f"{host.processor()}, {usable_cores()} cores; onnxruntime {onnxruntime.__version__}, {count} JPEG of "
          f"{PHOTO[0]} x {PHOTO[1]}\n")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for made in ("photos", "small"):
            (folder / made).mkdir()
        lenet = model(folder, "lenet5", GREY, 10, LENET)["fp32"]
        if "small" in part:
            small_files(folder / "small", lenet, 20 * count, rounds)
        if {"photos", "start"} & {*part}:
            shots, resnet = (
                photos(folder / "photos", count, PHOTO),
                model(folder, "zoo", CROP, 1000, RESNET),
            )
        if "photos" in part:
            photo_files(folder / "photos", shots, {key: resnet[key] for key in precision}, peer)
        if "start" in part:
            [digit] = small(folder / "small", 1)[:1]
            print("\n| start-up | s |\n| --- | ---: |")
            print(f"| infer --help | {started('--help'):.2f} |")
            print(f"| one picture, LeNet-5 | {started('images', str(lenet), digit):.2f} |")
            print(
                f"| one picture, ResNet-50 | {started('images', str(resnet['fp32']), shots[0]):.2f} |"
            )


if __name__ == "__main__":
    main()
