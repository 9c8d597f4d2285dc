"""What `runtimes.py` compares: each runtime with a network as its users open it, on every core.

torch has channels-last weights and runs one batch on all cores, eagerly or compiled. ncnn's network
comes from torch by pnnx; it runs one image at a time, so that each core has its own. onnxruntime is
as `infer` opens it: a worker on each core with a session of one thread. OpenVINO has the THROUGHPUT
hint, a stream on each core, a queue of asynchronous requests and static shapes. For one image at a
time all cores work on it, with OpenVINO's LATENCY hint. ncnn is not among the project's
requirements: `pip install ncnn pnnx`; without it its cells are empty.
"""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from convline.runtime.host import usable_cores
from convline.runtime.openvino import import_openvino
from convline.runtime.session import open_session
from torch import nn

from benchmarks.shared import compile_openvino
from pipeline.core.errors import StageError
from pipeline.network.modules import Classifier

CORES = usable_cores()
ATOL = 1e-3  # of probabilities in fp32; ncnn by Winograd is 1.3e-4 off
SIDE = 1536  # of the matrices whose product is the roof; three in float32 are 28 MB
Run = Callable[[np.ndarray], Any]
# Mean and scale of grey levels by number of channels: of MNIST, of ImageNet.
PIXELS = {
    1: ([33.32], [1 / 78.57]),
    3: ([123.675, 116.28, 103.53], [1 / 58.395, 1 / 57.12, 1 / 57.375]),
}


class Network(NamedTuple):
    """A network in each of its forms, and its operations: two per multiply-add of an image."""

    net: Classifier
    fp32: bytes
    int8: bytes
    operations: float


class Contender(NamedTuple):
    """One runtime in one precision; `turn(seconds)` returns images/s, or operations/s of a roof."""

    name: str
    precision: str
    turn: Callable[[float], float]
    batch: int = 1


def by_workers(run: Run, x: np.ndarray, workers: int = CORES) -> Callable[[float], float]:
    """Return a turn in which each worker runs the batch until the time is over.

    Rates of workers are added, each of its own time: the last batch of one would else count as a
    pause of the others, a quarter of the turn for a large network.
    """

    def turn(seconds: float) -> float:
        start = time.perf_counter()

        def rate(_: int) -> float:
            runs, passed = 0, 0.0
            while not runs or passed < seconds:
                run(x)
                runs, passed = runs + 1, time.perf_counter() - start
            return runs * len(x) / passed

        if workers == 1:  # torch's own threads belong to the one that calls it
            return rate(0)
        with ThreadPoolExecutor(workers) as pool:
            return sum(pool.map(rate, range(workers)))

    return turn


def by_queue(compiled: Any, x: np.ndarray) -> Callable[[float], float]:
    """Return a turn of OpenVINO's own queue of asynchronous requests."""
    queue = import_openvino().AsyncInferQueue(compiled)

    def turn(seconds: float) -> float:
        start, runs = time.perf_counter(), 0
        while not runs or time.perf_counter() - start < seconds:
            queue.start_async([x], share_inputs=True)  # waits for an idle request
            runs += 1
        queue.wait_all()
        return runs * len(x) / (time.perf_counter() - start)

    return turn


def onnxruntime_run(model: bytes, threads: int, *, entries: dict[str, str] | None = None) -> Run:
    """Return the runs of a session of `threads`, with these entries of its configuration."""
    if not entries:
        session = open_session(model, "cpu", threads=threads, spinning=threads > 1)
    else:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        spinning = {"session.intra_op.allow_spinning": str(int(threads > 1))}
        for key, value in (spinning | entries).items():
            options.add_session_config_entry(key, value)
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"images": x})[0]


def torch_run(net: Classifier, compiled: bool) -> Run:
    """Return the runs of torch on all cores, with weights in channels-last order."""
    torch.set_num_threads(CORES)
    last = net.to(memory_format=torch.channels_last)
    call = torch.compile(last, dynamic=False) if compiled else last

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(call(torch.from_numpy(x)))

    return run


def torch_runs(x: np.ndarray, network: Network) -> Iterator[tuple[str, Run]]:
    """Yield torch's names and runs. Eager torch is what the others are checked against."""
    yield "torch eager", torch_run(network.net, compiled=False)
    compiled = torch_run(network.net, compiled=True)
    yield "torch.compile", checked("torch.compile", compiled, x, network)


def ncnn_run(net: Classifier, x: np.ndarray, threads: int, folder: Path) -> Run:
    """Return the runs of ncnn on the images of a batch, one after the other."""
    import ncnn

    convert_to_ncnn(net, x, folder)
    height, width, channels = x.shape[1:]
    kind = ncnn.Mat.PixelType.PIXEL_RGB if channels == 3 else ncnn.Mat.PixelType.PIXEL_GRAY
    model = ncnn.Net()
    model.opt.num_threads = threads
    model.load_param(str(folder / "net.ncnn.param"))
    model.load_model(str(folder / "net.ncnn.bin"))

    def run_one(image: np.ndarray) -> np.ndarray:
        pixels = ncnn.Mat.from_pixels(image, kind, width, height)
        pixels.substract_mean_normalize(*PIXELS[channels])
        with model.create_extractor() as extractor:
            extractor.input("in0", pixels)
            return np.array(extractor.extract("out0")[1])

    return lambda x: np.stack([run_one(image) for image in x])


def convert_to_ncnn(net: Classifier, x: np.ndarray, folder: Path) -> None:
    """Write net.ncnn.param and net.ncnn.bin, from standardised images to probabilities."""
    import pnnx

    shape = [1, x.shape[3], *x.shape[1:3]]
    traced = torch.jit.trace(
        nn.Sequential(net.net, nn.Softmax(1)).eval(), torch.zeros(shape), check_trace=False
    )
    traced.save(str(folder / "net.pt"))
    command = [pnnx.EXEC_PATH, "net.pt", f"inputshape={shape}".replace(" ", ""), "fp16=0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if not (folder / "net.ncnn.bin").is_file():
        raise StageError(f"pnnx wrote no ncnn file: {done.stderr.strip()[-300:]}")


def has_ncnn() -> bool:
    """Return whether ncnn and its converter are installed."""
    return all(importlib.util.find_spec(name) for name in ("ncnn", "pnnx"))


def many_images(
    network: Network, x: np.ndarray, batches: tuple[int, ...], ncnn: bool
) -> Iterator[Contender]:
    """Yield contenders whose workers fill the cores, at each batch size that suits them."""
    large = max(batches)
    for name, run in torch_runs(x[:large], network):
        yield Contender(name, "fp32", by_workers(run, x[:large], workers=1), large)
    if ncnn and has_ncnn():
        with tempfile.TemporaryDirectory() as folder:
            run = checked("ncnn", ncnn_run(network.net, x[:1], 1, Path(folder)), x[:1], network)
        yield Contender("ncnn", "fp32", by_workers(run, x[:1]))
    for precision, model in (("fp32", network.fp32), ("int8", network.int8)):
        run = onnxruntime_run(model, threads=1)
        if precision == "fp32":
            run = checked("onnxruntime", run, x[:large], network)
        for batch in batches:
            yield Contender("onnxruntime", precision, by_workers(run, x[:batch]), batch)
    for precision, model in openvino_files(network):
        for batch in batches:
            images = x[:batch]
            compiled = compile_openvino(model, precision, "THROUGHPUT", images.shape)
            if precision == "fp32":
                checked("OpenVINO", lambda x, call=compiled: call([x])[0], images, network)
            yield Contender("OpenVINO", precision, by_queue(compiled, images), batch)


def one_image(network: Network, x: np.ndarray, ncnn: bool) -> Iterator[Contender]:
    """Yield contenders that answer one image after the other, with all cores at work on it."""
    x = x[:1]
    for name, run in torch_runs(x, network):
        yield Contender(name, "fp32", by_workers(run, x, workers=1))
    if ncnn and has_ncnn():
        with tempfile.TemporaryDirectory() as folder:
            run = checked("ncnn", ncnn_run(network.net, x, CORES, Path(folder)), x, network)
        yield Contender("ncnn", "fp32", by_workers(run, x, workers=1))
    for precision, model in (("fp32", network.fp32), ("int8", network.int8)):
        run = onnxruntime_run(model, threads=CORES)
        if precision == "fp32":
            run = checked("onnxruntime", run, x, network)
        yield Contender("onnxruntime", precision, by_workers(run, x, workers=1))
    for precision, model in openvino_files(network):
        request = compile_openvino(model, precision, "LATENCY", x.shape).create_infer_request()

        def run(x: np.ndarray, request: Any = request) -> Any:
            return request.infer([x], share_inputs=True)[0]

        if precision == "fp32":
            run = checked("OpenVINO", run, x, network)
        yield Contender("OpenVINO", precision, by_workers(run, x, workers=1))


def openvino_files(network: Network) -> tuple[tuple[str, bytes], ...]:
    """Return precisions and files; bf16 is the fp32 file, whose products are rounded."""
    return ("fp32", network.fp32), ("bf16", network.fp32), ("int8", network.int8)


def checked(name: str, run: Run, x: np.ndarray, network: Network) -> Run:
    """Return the runs of a contender in fp32; StageError if it does not compute the network."""
    with torch.inference_mode():
        expected = network.net(torch.from_numpy(x)).numpy()
    gap = float(np.abs(np.asarray(run(x)) - expected).max())
    if not gap <= ATOL:
        raise StageError(f"{name} differs from torch by {gap:.1e} (limit {ATOL:.0e})")
    return run


def roofs() -> Iterator[Contender]:
    """Yield the product of two matrices in each precision, by every library that has it.

    A turn returns operations/s on all cores.
    """
    torch.set_num_threads(CORES)
    rng, shape = np.random.default_rng(0), (SIDE, SIDE)
    floats = [rng.standard_normal(shape).astype(np.float32) for _ in range(2)]
    a, b = map(torch.from_numpy, floats)
    halves = [one.bfloat16() for one in (a, b)]
    whole = [torch.randint(-127, 128, shape, dtype=torch.int8) for _ in range(2)]
    products: dict[tuple[str, str], Callable[[], object]] = {
        ("torch", "fp32"): lambda: a @ b,
        ("torch", "bf16"): lambda: halves[0] @ halves[1],
        ("torch", "int8"): lambda: torch._int_mm(*whole),
        ("OpenVINO", "fp32"): openvino_product(*floats, "fp32"),
        ("OpenVINO", "bf16"): openvino_product(*floats, "bf16"),
        ("onnxruntime", "fp32"): onnxruntime_product("MatMul", *floats),
        ("onnxruntime", "int8"): onnxruntime_product(
            "MatMulInteger", whole[0].numpy().view(np.uint8), whole[1].numpy()
        ),
    }
    for (name, precision), product in products.items():
        yield Contender(name, precision, product_turn(product))


def product_turn(product: Callable[[], object]) -> Callable[[float], float]:
    """Return a turn that gives the operations/s of the quickest product: other work only slows."""

    def turn(seconds: float) -> float:
        start, least = time.perf_counter(), float("inf")
        while (before := time.perf_counter()) - start < seconds or least == float("inf"):
            product()
            least = min(least, time.perf_counter() - before)
        return 2 * SIDE**3 / least

    return turn


def openvino_product(a: np.ndarray, b: np.ndarray, precision: str) -> Callable[[], object]:
    openvino = import_openvino()
    from openvino import opset13

    left = opset13.parameter(a.shape, np.float32)
    graph = openvino.Model([opset13.matmul(left, opset13.constant(b), False, False)], [left])
    request = compile_openvino(graph, precision, "LATENCY").create_infer_request()
    return lambda: request.infer([a], share_inputs=True, share_outputs=True)


def onnxruntime_product(operator: str, a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
    """Return onnxruntime's product; b is constant and laid out beforehand, as weights are."""
    from onnx import helper, numpy_helper

    kind = helper.np_dtype_to_tensor_dtype(a.dtype)
    out = helper.np_dtype_to_tensor_dtype(
        np.dtype(np.float32 if operator == "MatMul" else np.int32)
    )
    node = helper.make_node(operator, ["images", "b"], ["out"])
    graph = helper.make_graph(
        [node],
        operator,
        [helper.make_tensor_value_info("images", kind, a.shape)],
        [helper.make_tensor_value_info("out", out, a.shape)],
        [numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    run = onnxruntime_run(model.SerializeToString(), CORES)
    return lambda: run(a)
