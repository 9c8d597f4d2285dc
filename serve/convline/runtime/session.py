"""The one place that opens an onnxruntime session, on a device that is never guessed in silence.

onnxruntime falls back to the CPU without a warning. Here it may not: the providers are checked
after creation, a GPU session with unexpected nodes on the CPU is refused (`placement`), and the
retry of its Python wrapper on other providers is off. Two distributions of onnxruntime in one
environment overwrite each other's files, and are refused.
"""

import contextlib
import functools
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from ctypes import CDLL
from pathlib import Path
from typing import Any

from convline.errors import DeviceError, DeviceMemoryError, ModelFileError, ServeError
from convline.runtime import placement
from convline.runtime.engine import BF16, ONNXRUNTIME, Engine
from convline.runtime.host import DRIVER, outdated_driver

PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider"],
    # TensorRT leaves some nodes to CUDA.
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider"],
}
DEVICES = ("auto", *PROVIDERS)
# The last one is Windows' Linux subsystem.
GPU_NODES = ("/dev/nvidia0", "/proc/driver/nvidia/gpus", "/dev/dxg")
MEMORY = "CONVLINE_GPU_GIB"  # in the environment: what the arena of a session on a GPU may take
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
# Name and version of what pip or setuptools leaves of a distribution; -py3.11 may follow.
INSTALLED = re.compile(r"(.+?)(?:-(\d[^-]*).*)?\.(?:dist|egg)-info", re.IGNORECASE)
# What onnxruntime's provider for it needs besides CUDA.
TENSORRT = ("libnvinfer.so.10", "libnvonnxparser.so.10")
BUILD = "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'onnxruntime-gpu[cuda,cudnn]'"
LIBRARIES = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
LIBRARIES_TENSORRT = "pip install 'tensorrt-cu13<11' (version 11 brings others)"
SHOWN = 3  # nodes that an error names
FULL = re.compile(
    "out of memory|Failed to allocate memory|Available memory of|ALLOC_FAILED|bad_alloc"
)


def sees_gpu() -> bool:
    """Return whether there is an NVIDIA GPU that CUDA_VISIBLE_DEVICES does not hide."""
    return not hides_gpus() and any(map(os.path.exists, GPU_NODES))


def hides_gpus() -> bool:
    """Return whether CUDA_VISIBLE_DEVICES hides all GPUs."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")


def available_devices() -> list[str]:
    """Return the devices that can be used here: "cpu", and "cuda", "tensorrt" if they can."""
    return [device for device in PROVIDERS if device == "cpu" or unusable_reason(device) is None]


def unusable_reason(device: str) -> str | None:
    """Return why a device cannot be used here, and the cure; None if no reason is known."""
    if device == "cpu":
        return None
    if not sees_gpu():  # without the import of onnxruntime, which starts a thread
        if hides_gpus():
            return "no NVIDIA GPU is seen, CUDA_VISIBLE_DEVICES hides all; unset it"
        return "no NVIDIA GPU is seen; run it where nvidia-smi lists one"
    built = {*built_providers()}
    if "CUDAExecutionProvider" not in built:
        return f"this onnxruntime is built without CUDA; {BUILD}"
    if reason := outdated_driver(cuda_version()):
        return reason
    if not built >= {*PROVIDERS[device]}:
        return f"this onnxruntime is built without TensorRT; {BUILD}"
    if device == "tensorrt" and (missing := missing_tensorrt()):
        return f"TensorRT cannot be loaded, {missing} is missing; {LIBRARIES_TENSORRT}"
    return None


def built_providers() -> list[str]:
    """Return the providers that onnxruntime was built with; DeviceError without onnxruntime."""
    return list(_onnxruntime().get_available_providers())


def cuda_version() -> str | None:
    """Return the CUDA version that onnxruntime was built for, as "13.0"; None without CUDA."""
    return getattr(_onnxruntime(), "cuda_version", None) or None


@functools.cache
def missing_tensorrt() -> str | None:
    """Load TensorRT's libraries; return the first of them that cannot be, None where all are there.

    onnxruntime-gpu lists the provider even without the libraries, and searches only the system's
    path for them. The provider uses libraries that are already loaded, so those of the Python
    package `tensorrt_libs` are loaded here.
    """
    spec = importlib.util.find_spec("tensorrt_libs")
    folders = [*(spec.submodule_search_locations or ())] if spec else []
    for library in TENSORRT:
        for name in (library, *(os.path.join(folder, library) for folder in folders)):
            with contextlib.suppress(OSError):
                CDLL(name)
                break
        else:
            return library
    return None


def preload() -> None:
    """Load CUDA and cuDNN from their Python packages."""
    # It prints what it cannot find, and stdout is for results.
    with contextlib.redirect_stdout(sys.stderr):
        _onnxruntime().preload_dlls()  # noisy, so not called on CPU machines


def missing_library(provider: str) -> str | None:
    """Return the library that a provider of onnxruntime lacks; None if it is not known."""
    preload()
    stem = provider.removesuffix("ExecutionProvider").lower()
    file = Path(_onnxruntime().__file__).parent / "capi" / f"libonnxruntime_providers_{stem}.so"
    try:
        CDLL(str(file))
    except OSError as error:
        # "libcurand.so.10: cannot open shared object file: No such file or directory"
        found = re.match(r"(\S+): cannot open shared object", str(error))
        return Path(found.group(1)).name if found else None
    return None


def unloadable(provider: str) -> str:
    """Return why a built-in provider failed on a machine with a GPU, and the cure."""
    missing = missing_library(provider)
    if missing is None:
        return "CUDA finds no GPU that it can use; see what nvidia-smi says"
    if missing == DRIVER:
        cure = "install the driver, or start the container with --gpus all"
        return f"{missing} of the NVIDIA driver is missing; {cure}"
    name, cure = ("TensorRT", LIBRARIES_TENSORRT) if missing in TENSORRT else ("CUDA", LIBRARIES)
    return f"{name} cannot be loaded, {missing} is missing; {cure}"


def choose_device(device: str, engine: str = "auto", variant: str = "auto") -> str:
    """Return the device that `auto` takes here, with what --engine and --variant ask for."""
    if device == "auto" and (engine == "openvino" or variant == BF16):
        return "cpu"
    return device if device != "auto" else "cuda" if unusable_reason("cuda") is None else "cpu"


def providers_for(device: str) -> list[str]:
    """Return onnxruntime's provider names for a device; DeviceError where it is not there."""
    if device not in DEVICES:
        raise DeviceError(f"device: expected one of {', '.join(DEVICES)}, got {device!r}")
    if device == "auto":
        on_gpu = unusable_reason("cuda") is None
        return [*(PROVIDERS["cuda"] if on_gpu else ()), *PROVIDERS["cpu"]]
    if reason := unusable_reason(device):
        raise refusal(device, reason)
    return PROVIDERS[device]


def refusal(device: str, reason: str) -> DeviceError:
    """Return the error of a device that was asked for; reason: `<what>; <cure>`."""
    return DeviceError(f"asked for {device}: {reason}, or pass --device cpu")


def open_session(
    model: str | Path | bytes,
    device: str = "auto",
    *,
    threads: int | None = None,
    spinning: bool = True,
    tf32: bool = False,
    cuda_graph: bool = False,
    engine: Engine = ONNXRUNTIME,
    streams: int = 1,
    optimize: bool = True,
) -> Any:
    """Return an onnxruntime.InferenceSession that runs on the device, or one of another engine.

    threads: of one operator; None is onnxruntime's choice, one per physical core. spinning: False
    if several workers share the cores; waiting threads then sleep. cuda_graph: record the first
    bound run and replay it; one shape per session. streams: runs that go on at the same time, which
    OpenVINO must know beforehand. optimize: False runs each node as the file has it.
    DeviceError if the device cannot be used, ModelFileError if onnxruntime refuses the model.
    """
    if engine.name == "openvino":
        from convline.runtime.openvino import OpenVinoSession  # which few installations have

        return OpenVinoSession(model, threads=threads, streams=streams, bf16=engine.bf16)
    ort = _onnxruntime()
    providers = providers_for(device)
    if "CUDAExecutionProvider" in providers:
        preload()
    options = ort.SessionOptions()
    # Errors alone: its warnings speak of node placement, not of anything the user can do.
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if threads is not None:
        options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.add_session_config_entry(placement.RECORD, "1")
    source = str(model) if isinstance(model, Path) else model
    name = "model" if isinstance(model, bytes) else str(model)
    try:
        cuda = cuda_options(tf32, cuda_graph)
        settings = [cuda if provider == "CUDAExecutionProvider" else {} for provider in providers]
        session = ort.InferenceSession(
            source, options, providers=providers, provider_options=settings, enable_fallback=0
        )
    except session_errors() as error:
        reason = brief(error)
        if is_full(error):
            what = f"{name}: the device's memory is too small for it"
            raise DeviceMemoryError(f"{what}; {more_memory()}") from error
        if "CUDA failure" in reason:
            what = f"the GPU cannot be used ({reason}); see what nvidia-smi says"
            raise refusal(device, what) from error
        if device in ("auto", "cpu"):
            what = f"{name}: onnxruntime {ort.__version__} cannot open it ({reason})"
            raise ModelFileError(what) from error
        what = f"{name}: onnxruntime cannot open it there ({reason}); take another variant"
        raise refusal(device, what) from error
    if device not in ("auto", "cpu"):
        if session.get_providers()[0] != providers[0]:
            raise refusal(device, unloadable(providers[0]))
        if misfit := misplaced(session, model):
            raise refusal(device, f"{name}: {misfit}")
    return session


def misplaced(session: Any, model: str | Path | bytes) -> str | None:
    """Return why a GPU session is refused, and the cure: unexpected nodes on the CPU."""
    if not placement.reports_placement(session):
        version = _onnxruntime().__version__
        cure = "pip install 'onnxruntime-gpu[cuda,cudnn]>=1.31.1'"
        return f"onnxruntime {version} does not tell where nodes run; {cure}"
    found = placement.cpu_nodes(session)
    if not found:
        return None
    content = model if isinstance(model, bytes) else Path(model).read_bytes()
    left = placement.unexpected_cpu_nodes(content, found)
    if not left:
        return None
    shown = ", ".join(f"{node.operator} {node.name!r}" for node in left[:SHOWN])
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    return f"onnxruntime has no kernel there for {shown}{more}; take another variant"


def cuda_options(tf32: bool = False, cuda_graph: bool = False) -> dict[str, str]:
    """Return the CUDA provider's options; what it would take by itself differs in each of these."""
    options = {
        "use_tf32": str(int(tf32)),  # rounds products to 10 bits: 1e-3 off
        "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE runs every algorithm at each new shape
        "arena_extend_strategy": "kSameAsRequested",  # it would double each time, and keep that
    }
    if asked := os.environ.get(MEMORY):
        try:
            options["gpu_mem_limit"] = str(int(float(asked) * 2**30))
        except (ValueError, OverflowError) as error:
            raise DeviceError(
                f"{MEMORY}: expected GiB, as 4 or 0.5, got {asked!r}; change or unset it"
            ) from error
    return options | ({"enable_cuda_graph": "1"} if cuda_graph else {})


def describe_device(session: Any, asked: str, engine: Engine = ONNXRUNTIME) -> str:
    """Return the device that the session runs on, and why: "cpu (auto: no NVIDIA GPU is seen)".

    Another engine than onnxruntime is named: "cpu (openvino in bf16)".
    It names operators with CPU kernels only: "cuda (TreeEnsembleClassifier on the cpu)".
    """
    if engine != ONNXRUNTIME:
        return f"cpu ({engine})"
    provider = session.get_providers()[0]
    device = {first: name for name, (first, *_) in PROVIDERS.items()}.get(provider, provider)
    notes = []
    if asked == "auto" and device != "cpu":
        notes.append("auto: found")
    elif asked == "auto":
        reason = unusable_reason("cuda") or unloadable("CUDAExecutionProvider")
        notes.append(f"auto: {reason.partition(';')[0]}")
    if device != "cpu" and placement.reports_placement(session):
        nodes = placement.cpu_nodes(session)
        alone = [node.operator for node in nodes if node.domain == placement.CPU_ALONE]
        notes += [f"{operator} on the cpu" for operator in dict.fromkeys(alone)]
    return f"{device} ({', '.join(notes)})" if notes else device


def brief(error: Exception) -> str:
    """Return an error of onnxruntime as one line; of a CUDA failure without the C++ details."""
    found = re.search(r"\bCU\w+ failure \d+: [^;]+", text := " ".join(str(error).split()))
    return found.group().strip() if found else text[:300]


def is_full(error: Exception) -> bool:
    """Return whether an error of onnxruntime reports full memory, by its known texts."""
    return FULL.search(str(error)) is not None


def more_memory() -> str:
    raised = f", or raise {MEMORY}" if os.environ.get(MEMORY) else ""
    return f"run a smaller batch, or free the device (nvidia-smi shows who uses it){raised}"


@contextlib.contextmanager
def translate_errors(name: str, what: str, engine: str = "onnxruntime") -> Iterator[None]:
    """Turn errors of an engine into ServeError, or DeviceMemoryError if memory is full."""
    try:
        yield
    except session_errors() as error:
        if is_full(error):
            raise DeviceMemoryError(
                f"{name}: the device's memory is too small for {what}; {more_memory()}"
            ) from error
        raise ServeError(f"{name}: {engine} cannot run {what} ({brief(error)})") from error


def session_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of onnxruntime; its own classes have no common base but Exception."""
    own = vars(_onnxruntime().capi.onnxruntime_pybind11_state).values()
    return (
        *(cls for cls in own if isinstance(cls, type) and issubclass(cls, Exception)),
        RuntimeError,
        ValueError,
    )


def _onnxruntime() -> Any:
    """Import onnxruntime (0.1 s); DeviceError unless exactly one distribution is installed."""
    if len(distributions()) > 1:
        raise DeviceError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; "
            "run `pip uninstall onnxruntime onnxruntime-gpu`, then install the one you want"
        )
    # Its official builds send usage data to Microsoft and store a device id, unless this is set.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        cure = "pip install 'convline[cpu]', or 'convline[gpu]' for NVIDIA"
        raise DeviceError(f"onnxruntime cannot be imported ({error}); {cure}") from error
    return onnxruntime


def distributions() -> dict[str, str]:
    """Return the version of each installed distribution of onnxruntime, by its folder's name.

    Names are compared as packages' are: in any case, with _ or . for -. The highest version of a
    folder counts, "unknown" where the name has none, and hides those of later folders. To import
    importlib.metadata takes 20 ms, a tenth of the start of a command.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        here: dict[str, str] = {}
        with contextlib.suppress(OSError):  # it is no folder
            for entry in sorted(os.listdir(folder or ".")):
                match = INSTALLED.fullmatch(entry)
                name = re.sub(r"[-_.]+", "-", match[1]).lower() if match else ""
                if match and name in DISTRIBUTIONS:
                    versions = here.get(name, "unknown"), match[2] or "unknown"
                    here[name] = max(versions, key=_numbers)
        found |= here | found  # the first folder hides others
    return found


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
