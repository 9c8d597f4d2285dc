"""ResNet-50 in onnxruntime: in fp32, TF32 and fp16, in either layout, from arrays, bound tensors
and as a CUDA graph.

The file is that of `fitted`, whose answers differ from image to image, by `spread`. Imports no
torch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from convline.runtime.io_binding import bind_batch, copy_outputs, run_bound
from convline.runtime.session import cuda_options, open_session

from benchmarks.gpu.clock import Facts, Here, attempt, read
from benchmarks.gpu.files import tiled, without_cuda
from pipeline.check import latency, roofline
from pipeline.check.differences import row_differences

SIDE, IMAGES = 224, 32
LIMITS = {"fp32": 1e-4, "TF32": 1e-2, "fp16": 1e-2}  # of a probability
SECONDS = 0.2
SETTINGS = {  # precision, layout: the likeliest to be used first, since time may run out
    "cuda": [(p, layout) for layout in ("NCHW", "NHWC") for p in ("fp32", "fp16", "TF32")],
    "cpu": [("fp32", "NCHW")],
}
BATCHES = {"cuda": (1, 32, 256), "cpu": (1, 8)}
WAYS = {"cuda": ("arrays", "bound", "graph"), "cpu": ("arrays", "bound")}


def images(count: int, side: int = SIDE, seed: int = 0) -> np.ndarray:
    """Return uint8 (N, H, W, 3): noise over waves whose direction and colour differ from image
    to image.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side] / side
    found = np.empty((count, side, side, 3), np.uint8)
    for image in found:
        for channel in range(3):
            across, down, phase = rng.uniform(-20, 20, 2), rng.uniform(-20, 20), rng.uniform(0, 6)
            wave = 90 * np.sin(across[0] * rows + down * columns + phase)
            image[..., channel] = np.clip(127 + wave + rng.normal(0, 20, (side, side)), 0, 255)
    return found


def run(here: Here) -> Facts:
    """Yield the device's limits, and a row for each precision, layout, batch and way."""
    on = here.device
    if cannot := without_cuda(on):
        yield "skipped", cannot
        return
    folder = here.carried / "resnet50"
    about = read(folder / "about.json")
    x, y = images(IMAGES, about["side"]), np.load(folder / "answers.npy")
    yield "spread", float(y.std(0).mean())
    limits = attempt(lambda: roofline.machine_limits(on))
    yield "limits", limits
    for precision, layout in SETTINGS[on]:
        model = (folder / ("model.fp16.onnx" if precision == "fp16" else "model.onnx")).read_bytes()
        open_here = partial(opened, model, on, precision == "TF32", layout == "NHWC")
        for batch in BATCHES[on]:
            for way in WAYS[on]:
                name = f"{precision} {layout} batch {batch} {way}"
                if here.late():
                    yield name, {"not_measured": "out of time"}
                    continue
                place = {"variant": precision, "layout": layout, "batch": batch, "way": way}
                row = place | attempt(
                    partial(timed, open_here, on, way, tiled(x, batch), tiled(y, batch), SECONDS)
                )
                if "per_second" in row:
                    row["passed"] = row["finite"] and row["max_difference"] <= LIMITS[precision]
                    width = "fp16" if precision == "fp16" else "fp32"
                    row |= (
                        roofline.compare_with_limit(row, width, about["operations"], limits)
                        if "fp32" in limits
                        else {}
                    )
                yield name, row


def timed(
    open_here: Callable[[bool], Any],
    on: str,
    way: str,
    given: np.ndarray,
    expected: np.ndarray,
    seconds: float,
) -> dict[str, Any]:
    """Return the timing of one way to run a batch, and its answers' largest difference from
    torch's.
    """
    session = open_here(way == "graph")
    if way == "arrays":
        name = session.get_inputs()[0].name
        call: Callable[[], Any] = partial(session.run, None, {name: given})
        answers = call()
    else:
        binding = bind_batch(session, given, on, [expected] if way == "graph" else None)
        call = partial(run_bound, session, binding)
        call()
        call()  # the second run plays the graph that the first one recorded
        answers = copy_outputs(binding)
    found, _ = row_differences(answers, [expected], len(given))
    same = float((answers[0].argmax(1) == expected.argmax(1)).mean())
    gap = {key: found[key] for key in ("finite", "max_difference")} | {"top1_agreement": same}
    return gap | latency.time_call(call, len(given), seconds)


def opened(model: bytes, on: str, tf32: bool, nhwc: bool, graph: bool) -> Any:
    """Return a session, on CUDA with convolutions in channels-last layout where `nhwc`; serving
    never does so.
    """
    if not nhwc:
        return open_session(model, on, tf32=tf32, cuda_graph=graph)
    import onnxruntime  # its libraries are loaded: sessions of the other layout came first

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    cuda = cuda_options(tf32, graph) | {"prefer_nhwc": "1"}
    return onnxruntime.InferenceSession(model, options, providers=[("CUDAExecutionProvider", cuda)])
