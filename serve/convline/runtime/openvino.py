"""OpenVINO as the engine of a session: the calls that models make of onnxruntime's session.

OpenVINO runs fastest on fixed shapes, so the graph is compiled for each batch size that is used. A
batch that has no compiled size of its own, but one of less than twice its rows, is padded to that
one: the rest of a table does not cost a compilation. OpenVINO takes bfloat16 where the processor
has it, unless it is told to compute in float32.
"""

import re
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from convline.errors import DeviceError, ModelFileError
from convline.runtime.host import usable_cores
from convline.runtime.io_binding import Array, pad_batch

CONVERTER = "openvino.tools.ovc"
CURE = "pip install 'convline[openvino]', or pass --engine onnxruntime"
# Of errors: the operators that OpenVINO does not convert, each with its domain or version.
LACKS = re.compile(r"(?:Conversion is failed|No conversion rule found) for[^:]*: ([^\n]+)")
ELEMENTS = {"f32": "float", "f16": "float16", "u8": "uint8", "i64": "int64"}  # others as they are
LOADING, CORES = threading.Lock(), list[Any]()  # of the process: one core


class Node(NamedTuple):
    """An input or output of a graph, as onnxruntime describes it; None is a dynamic side."""

    name: str
    type: str
    shape: list[int | None]


class OpenVinoSession:
    """The graph of an ONNX file on the CPU; several threads may run it at once.

    threads: of one run; None is all usable cores. streams: how many runs go on at the same time.
    DeviceError without the package or, for bf16, on a processor without bfloat16; ModelFileError
    for a graph that OpenVINO cannot read.
    """

    def __init__(self, model: Any, *, threads: int | None, streams: int = 1, bf16: bool) -> None:
        if bf16 and "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            what = "asked for bf16: this processor has no instructions for it"
            raise DeviceError(f"{what}, which makes it slower than fp32; pass --variant fp32")
        # Processes that pin their threads all take the same first core.
        self._settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * (threads or usable_cores()),
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "ENABLE_CPU_PINNING": False,
        }
        self._threads, self._lock = threads, threading.Lock()
        # By batch size: what is compiled, and its requests that no thread uses now.
        self._compiled: dict[int, tuple[Any, deque[Any]]] = {}
        try:
            self._graph = core().read_model(model)
        except RuntimeError as error:
            version = import_openvino().__version__[:8]
            what = f"model: OpenVINO {version} cannot read it ({reason(error)})"
            raise ModelFileError(f"{what}; pass --engine onnxruntime") from error

    def get_inputs(self) -> list[Node]:
        return [node for port in self._graph.inputs for node in _nodes(port)]

    def get_outputs(self) -> list[Node]:
        return [node for port in self._graph.outputs for node in _nodes(port)]

    def get_session_options(self) -> SimpleNamespace:
        return SimpleNamespace(intra_op_num_threads=self._threads or 0)

    def run(self, outputs: list[str], inputs: dict[str, Array]) -> list[Array]:
        """Return outputs (N, ...) by name for inputs (N, ...), N at least 1."""
        count = len(next(iter(inputs.values())))
        size, (compiled, idle) = self._compile_for(count)
        padded = {
            name: np.ascontiguousarray(array if size == count else pad_batch(array, size))
            for name, array in inputs.items()
        }
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        request.infer(padded, share_inputs=True)
        found = [np.array(request.get_tensor(name).data[:count]) for name in outputs]
        idle.append(request)
        return found

    def _compile_for(self, count: int) -> tuple[int, tuple[Any, deque[Any]]]:
        """Return the compiled batch size that takes a batch of `count`, and what belongs to it."""
        with self._lock:
            size = min((n for n in self._compiled if count <= n < 2 * count), default=count)
            if size not in self._compiled:
                graph = self._graph.clone()
                graph.reshape({port: [size, *port.partial_shape[1:]] for port in graph.inputs})
                compiled = core().compile_model(graph, "CPU", self._settings)
                self._compiled[size] = compiled, deque()
            return size, self._compiled[size]


def core() -> Any:
    """Return OpenVINO's core, one for the process; DeviceError without the package.

    The CPU plugin gives the thread that loads it another stack for signal handlers, and frees it
    with the core, in whichever thread: the next signal would then end the process without a word.
    So a thread that ends loads it, and the core is kept.
    """
    with LOADING:
        if not CORES:
            found = import_openvino().Core()
            with ThreadPoolExecutor(1) as executor:
                executor.submit(found.get_property, "CPU", "FULL_DEVICE_NAME").result()
            CORES.append(found)
        return CORES[0]


def import_openvino() -> Any:
    """Return the package; DeviceError without it.

    Its model converter is left out, as OpenVINO allows: the import of it takes half of the time,
    and sends usage data to Intel.
    """
    hidden = {CONVERTER} - {*sys.modules}
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: an ImportError
    try:
        import openvino
    except ImportError as error:
        what = f"asked for openvino: it cannot be imported ({error})"
        raise DeviceError(f"{what}; {CURE}") from error
    finally:
        for name in hidden:
            del sys.modules[name]
    return openvino


def reason(error: Exception) -> str:
    """Return an error of OpenVINO in a few words: what it does not convert, or its last line."""
    if lacks := sorted({name.strip() for name in LACKS.findall(str(error))}):
        return f"it does not convert {', '.join(lacks)}"[:300]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]


def _nodes(port: Any) -> list[Node]:
    """Return an input or output, once for each of its names."""
    element = port.element_type.to_string()
    shape = [None if side.is_dynamic else side.get_length() for side in port.partial_shape]
    kind = f"tensor({ELEMENTS.get(element, element)})"
    return [Node(name, kind, shape) for name in sorted(port.names)]
