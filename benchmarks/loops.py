"""`infer images` with the recommended engine beside the loops that people write, on the same photos
and the same cores, as a section of results/loops.md.

The contenders take turns, a pass over the photos each, so that a slow minute of the machine slows
all; the first round warms up. Rates leave out the start: imports, and opening the session. `infer`
and OpenVINO's own loop compute the package's file, and their answers must be the same; the others
have the same network with random weights. With --before an older checkout's `infer` takes turns,
too, with what it chooses, for this package and for the one in its own out/dist, if there is one.
Optimum, timm and OpenCV are not among the project's requirements:
pip install timm opencv-python-headless optimum-onnx.

    dvc exp run -S 'check.engines=[all]' -S ++line.mobilenet-clothing=scratch
    python benchmarks/loops.py mobilenet_v2 out/dist/mobilenet-clothing $DATA_ROOT/photos/clothing
"""

from __future__ import annotations

import csv
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

import click
import numpy as np
import onnxruntime
import torch
from convline.errors import DeviceError
from convline.model_file.document import ClassifierDocument, ImageRule
from convline.model_file.onnx_file import read_model_file
from convline.model_file.registry import variant_file_name
from convline.runtime import host
from convline.runtime.batches import batched
from convline.runtime.engine import BF16
from convline.runtime.host import usable_cores
from convline.runtime.openvino import import_openvino
from PIL import Image

import models
from benchmarks.infer import ENV, INFER
from benchmarks.page import write_block
from benchmarks.shared import compile_openvino, take_turns
from pipeline.core.errors import StageError
from pipeline.core.paths import OUT, RESULTS
from pipeline.core.stage import progress

PAGE = RESULTS / "loops.md"
HEAD = """# `infer images` beside the loops that people write

`python benchmarks/loops.py` writes a section for each network. The contenders take turns on the same files and cores; a ratio is the median over
rounds of images/s of `infer images` with the recommended engine over those of another in the same round. Rates leave out the start. *OpenVINO's
async loop*: an AsyncInferQueue under the THROUGHPUT hint with a static batch, of the same file in the same precision, and a pool of threads that decode with Pillow;
the batch size that was the faster on the first images. *Optimum*: its image-classification pipeline on onnxruntime. *timm*: its loader and network
in torch. *cv2*: OpenCV's decoder and onnxruntime, one image after the other, as ultralytics' predict goes over a folder.
*infer images at COMMIT* (`--before`): an earlier `infer` of this project, with what it chose for the same package; *its package*: for the one
that the stages of its own commit exported and checked from the same data.
"""
OURS, TODAY, ASYNC = "infer images", "infer images, onnxruntime", "OpenVINO's async loop"
TIMM = {"resnet50": "resnet50", "mobilenet_v2": "mobilenetv2_100", "vgg16": "vgg16"}
BATCHES = (1, 8)  # of the async loop
AHEAD = 4  # batches that its threads may have decoded before they are needed
Pass = Callable[[], float]  # goes over all images once; returns images/s
RESNET20 = {"family": "cifar", "depth": 20, "shortcut": "A"}
RESNET20 |= {"batch_norm": True, "stride_in": "first", "zero_init": False}


class Package(NamedTuple):
    """A package of stage package, and what it recommends on a CPU."""

    folder: Path
    engine: str
    variant: str
    why: str
    rule: ImageRule
    labels: list[str]

    @property
    def file(self) -> Path:
        """What the variant is computed from: bf16 has no file of its own."""
        file = "fp32" if self.variant == BF16 else self.variant
        return self.folder / variant_file_name(file)


def read_package(folder: Path) -> Package:
    """Return a package. StageError if stage check did not measure the engines."""
    path = folder / "manifest.json"
    if not path.exists():
        raise StageError(f"{path}: expected the package of an entry; run `dvc repro`")
    engines = json.loads(path.read_text()).get("engines")
    if not engines:
        raise StageError(
            f"{path}: its engines were not measured; run the line with `check.engines: [all]`"
        )
    document = read_model_file(folder / variant_file_name("fp32")).document
    if not isinstance(document, ClassifierDocument):
        raise StageError(f"{path}: expected the package of a classifier, got {document.task}")
    chosen = engines["cpu"]
    return Package(
        folder, chosen["engine"], chosen["variant"], chosen["why"], document.input,
        [*document.labels],
    )  # fmt: skip


def find_images(folder: Path, count: int) -> list[str]:
    """Return `count` paths of a folder's images, in turns where it has fewer."""
    files = sorted(str(file) for file in folder.rglob("*") if file.suffix in (".jpg", ".png"))
    if not files:
        raise StageError(f"{folder}: expected a folder of .jpg or .png files")
    return [*islice(cycle(files), count)]


def infer(
    package: Path, files: list[str], table: Path, *options: str, checkout: Path | None = None
) -> float:
    """Return the images/s that `infer images` reports, this one's or that of another checkout."""
    env = ENV | {"PYTHONPATH": str(checkout / "serve")} if checkout else ENV
    words = ["images", str(package), "-0", "-", "-o", str(table), "--device", "cpu"]
    names = "\0".join(files)
    done = subprocess.run(
        [*INFER, *words, *options], input=names, capture_output=True, text=True, env=env,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise StageError(f"infer images: {done.stderr.strip()}")
    count, seconds = re.findall(r"(\d+) ok, .* ([\d.]+) s, \d+ images/s", done.stderr)[-1]
    return int(count) / float(seconds)


def decode(file: str, rule: ImageRule) -> np.ndarray:
    """Return what the model's rule asks for, uint8 (H, W, 3), by Pillow alone."""
    height, width = rule.size
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    if rule.shorter_px is None:
        return np.asarray(
            image
            if image.size == (width, height)
            else image.resize((width, height), Image.Resampling.BILINEAR)
        )
    shorter = min(image.size) / rule.shorter_px
    x, y = (image.width - width * shorter) / 2, (image.height - height * shorter) / 2
    box = (x, y, x + width * shorter, y + height * shorter)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box))


class AsyncLoop:
    """OpenVINO's own loop over all files, at one batch size."""

    def __init__(self, package: Package, files: list[str], batch: int) -> None:
        self.package, self.files, self.batch = package, files, batch
        shape = batch, *package.rule.size, 3
        compiled = compile_openvino(package.file, package.variant, "THROUGHPUT", shape)
        self.queue = import_openvino().AsyncInferQueue(compiled)
        self.queue.set_callback(self.receive)
        self.answers: dict[str, tuple[str, float]] = {}

    def receive(self, request: Any, names: list[str]) -> None:
        outputs = request.get_output_tensor(0).data
        for name, scores in zip(names, outputs, strict=False):  # the last batch is padded
            best = int(scores.argmax())
            self.answers[name] = self.package.labels[best], float(scores[best])

    def __call__(self) -> float:
        start, rule = time.perf_counter(), self.package.rule
        with ThreadPoolExecutor(usable_cores()) as pool:
            waiting = deque[tuple[list[str], list[Future[np.ndarray]]]]()
            for names in batched(self.files, self.batch):
                waiting.append((names, [pool.submit(decode, name, rule) for name in names]))
                if len(waiting) > AHEAD * usable_cores():
                    self.send(*waiting.popleft())
            for item in waiting:
                self.send(*item)
        self.queue.wait_all()
        return len(self.files) / (time.perf_counter() - start)

    def send(self, names: list[str], images: list[Future[np.ndarray]]) -> None:
        rows = [image.result() for image in images]
        rows += rows[-1:] * (self.batch - len(rows))
        self.queue.start_async({0: np.stack(rows)}, names)


def fastest_loop(package: Package, files: list[str], few: int) -> AsyncLoop:
    """Return the loop at the batch size that is the fastest on the first few files."""
    loops = [AsyncLoop(package, files[:few], batch) for batch in BATCHES]
    for loop in loops:
        loop()
    fastest = max(loops, key=lambda loop: loop())
    fastest.files = files
    return fastest


def require_same_answers(loop: AsyncLoop, table: Path) -> float:
    """Return the share of images with the label of `infer images`; StageError below .99."""
    with table.open(newline="") as rows:
        ours = {row["path"]: row["label"] for row in csv.DictReader(rows)}
    same = [ours.get(name) == label for name, (label, _) in loop.answers.items()]
    share = sum(same) / len(same)
    if share < 0.99:
        raise StageError(
            f"{table}: expected the labels of OpenVINO's own loop, got {share:.3f} of them"
        )
    return share


def random_network(name: str) -> torch.nn.Module:
    """Return a network with random weights for standardised images (N, 3, H, W)."""
    torch.manual_seed(0)
    if name == "resnet20":
        return models.build("resnet", in_channels=3, size=(32, 32), classes=10, **RESNET20).eval()
    return models.build("zoo", in_channels=3, size=(224, 224), classes=10, name=name).eval()


def export_plain(name: str, side: int, folder: Path) -> Path:
    """Write model.onnx from float images to logits, with the files that transformers asks for."""
    path = folder / "model.onnx"
    torch.onnx.export(
        random_network(name), (torch.randn(2, 3, side, side),), path, dynamo=True, external_data=False, verbose=False,
        input_names=["pixel_values"], output_names=["logits"], dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip
    labels = {str(k): str(k) for k in range(10)}
    config = {"model_type": "resnet", "id2label": labels}
    (folder / "config.json").write_text(json.dumps(config))
    processor = {
        "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": side}, "crop_pct": 0.875,
        "do_resize": True, "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return path


def timed(run: Callable[[], int]) -> Pass:
    def go() -> float:
        start = time.perf_counter()
        return run() / (time.perf_counter() - start)

    return go


def optimum_loop(model: Path, files: list[str]) -> Pass:
    from optimum.onnxruntime import ORTModelForImageClassification
    from transformers import AutoImageProcessor, pipeline

    processor = AutoImageProcessor.from_pretrained(model.parent)
    net = ORTModelForImageClassification.from_pretrained(model.parent)
    pipe = pipeline("image-classification", model=net, image_processor=processor)
    return timed(lambda: sum(1 for _ in pipe(files, batch_size=1)))


def timm_loop(name: str, files: list[str], folder: Path, batch: int = 16) -> Pass:
    import timm
    from timm.data import ImageDataset, create_loader

    if name not in TIMM:
        raise LookupError("it has no such network")
    (folder / "all").mkdir(parents=True)
    for k, file in enumerate(files):
        (folder / "all" / f"{k:06d}{Path(file).suffix}").symlink_to(Path(file).resolve())
    net = timm.create_model(TIMM[name], num_classes=10).eval()
    loader = create_loader(
        ImageDataset(str(folder)), (3, 224, 224), batch, is_training=False, crop_pct=0.875,
        num_workers=usable_cores(), device=torch.device("cpu"), pin_memory=False,
        persistent_workers=True,
    )  # fmt: skip

    def run() -> int:
        with torch.inference_mode():
            return sum(len(net(x).argmax(1)) for x, _ in loader)

    return timed(run)


def cv2_loop(model: Path, side: int, files: list[str]) -> Pass:
    import cv2

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def run() -> int:
        for file in files:
            if (image := cv2.imread(file)) is None:
                raise StageError(f"{file}: OpenCV cannot decode it; leave it out of the folder")
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            cut = min(image.shape[:2])
            y, x = (image.shape[0] - cut) // 2, (image.shape[1] - cut) // 2
            image = cv2.resize(image[y : y + cut, x : x + cut], (side, side))
            pixels = image.transpose(2, 0, 1)[None].astype(np.float32) / 255
            session.run(None, {"pixel_values": pixels})
        return len(files)

    return timed(run)


def peers(
    name: str, package: Package, files: list[str], few: int, folder: Path
) -> tuple[dict[str, Pass], dict[str, str]]:
    """Return the loops of other libraries, and why others are absent."""
    side, first = package.rule.size[0], files[:few]
    plain = export_plain(name, side, folder)
    opened = dict[str, Pass]()
    absent = dict[str, str]()
    for what, loop in {
        ASYNC: lambda: fastest_loop(package, files, few),
        "Optimum": lambda: optimum_loop(plain, first),
        "timm": lambda: timm_loop(name, first, folder / "timm"),
        "cv2, one by one": lambda: cv2_loop(plain, side, first),
    }.items():
        try:
            opened[what] = loop()
        except DeviceError:
            absent[what] = "not installed (openvino)"
        except ImportError as error:
            absent[what] = f"not installed ({error.name or error})"
        except LookupError as error:
            absent[what] = str(error)
    return opened, absent


def table(rates: dict[str, list[float]], absent: dict[str, str]) -> str:
    """Return medians of images/s, the least and the largest, and how many times of each ours is."""
    lines = [
        "| loop | images/s | rounds | infer images is (rounds) |",
        "| --- | ---: | --- | ---: |",
    ]
    for name, found in rates.items():
        ratios = [a / b for a, b in zip(rates[OURS], found, strict=True)]
        lines.append(
            f"| {name} | {statistics.median(found):,.0f} | {min(found):,.0f} to {max(found):,.0f} | "
            f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    return "\n".join(lines + [f"| {name} | {why} | – | – |" for name, why in absent.items()])


def measure(
    name: str, package: Package, files: list[str], few: int, rounds: int, before: Path | None
) -> str:
    """Return the section of a network. before: an older checkout of this repository."""
    torch.set_num_threads(usable_cores())
    with tempfile.TemporaryDirectory(prefix="loops-") as temporary:
        folder = Path(temporary)
        ours = folder / "ours.csv"
        others, absent = peers(name, package, files, few, folder)
        today = folder / "today.csv"
        contenders: dict[str, Pass] = {
            OURS: lambda: infer(package.folder, files, ours),
            TODAY: lambda: infer(package.folder, files, today, "--engine", "onnxruntime"),
            **(earlier_passes(before, package, files, folder) if before else {}),
            **others,
        }
        bar = progress(rounds + 1, "loops", "round")
        passes = [lambda _, one=one: one() for one in contenders.values()]
        found = take_turns(passes, rounds, bar.update)
        bar.close()
        loop = others.get(ASYNC)
        share = require_same_answers(loop, ours) if loop else 0.0
    rates = dict(zip(contenders, found, strict=True))
    about = f"{host.processor()}, {usable_cores()} cores; {len(files)} images ({few} of the last loops), {rounds} rounds; "
    about += f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}"
    gate = f"Recommended by stage check: {package.engine} {package.variant} ({package.why})."
    if loop:
        about += f", OpenVINO {version('openvino')}"
        gate += f" OpenVINO's own loop takes\nbatches of {loop.batch}, and {100 * share:.1f} % of its labels are those of `infer images`."
    return f"{about}.\n{gate}\n\n{table(rates, absent)}"


def earlier_passes(
    checkout: Path, package: Package, files: list[str], folder: Path
) -> dict[str, Pass]:
    """Return the passes of another checkout's `infer`: with this package and, where its own line
    has made one of the same name, with that.
    """
    label, rows = f"{OURS} at {commit_of(checkout)}", folder / "before.csv"
    packages = {label: package.folder}
    if (own := checkout / OUT / "dist" / package.folder.name).is_dir():
        packages[f"{label}, its package"] = own
    return {
        label: partial(infer, folder, files, rows, checkout=checkout)
        for label, folder in packages.items()
    }


def commit_of(checkout: Path) -> str:
    """Return the commit of another checkout, as git abbreviates it."""
    words = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode or not (checkout / "serve").is_dir():
        raise StageError(f"{checkout}: expected a git checkout of this repository")
    return done.stdout.strip()


def write_section(page: Path, title: str, section: str) -> None:
    """Write this processor's block of a network's section, at the end of the page if it is new."""
    text = page.read_text(encoding="utf-8") if page.exists() else HEAD
    if f"<!-- {title} -->" not in text:
        text += f"\n## {title}\n\n<!-- {title} -->\n<!-- /{title} -->\n"
    page.write_text(text, encoding="utf-8")
    write_block(page, title, host.processor(), section)


@click.command()
@click.argument("network", type=click.Choice([*TIMM, "resnet20"]))
@click.argument("package", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(1), default=2000, show_default=True, help="Images.")
@click.option(
    "--few", type=click.IntRange(1), default=200, show_default=True, help="Images of slow loops."
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--before", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="An older checkout of this repository.",
)  # fmt: skip
def main(
    network: str,
    package: Path,
    images: Path,
    count: int,
    few: int,
    rounds: int,
    before: Path | None,
) -> None:
    """Measure a NETWORK's PACKAGE on a folder of IMAGES; write its section of results/loops.md."""
    try:
        files = find_images(images, count)
        section = measure(network, read_package(package), files, few, rounds, before)
    except StageError as error:
        raise click.ClickException(str(error)) from error
    write_section(PAGE, network, section)
    click.echo(section)


if __name__ == "__main__":
    main()
