"""The one place that opens an onnxruntime session, on a device that is never guessed in silence.

onnxruntime by itself falls back to the CPU without a word, so: the providers are checked after creation, CPU fallback
is disabled where a device was asked for, its Python wrapper's retry on other providers is off, and two distributions
of it in one environment (they overwrite each other's files) are refused.
"""

import contextlib
import ctypes.util
import importlib.metadata
import importlib.util
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from serve.errors import DeviceError, ModelFileError

PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider"],  # TensorRT leaves some nodes to CUDA
}
DEVICES = ("auto", *PROVIDERS)
GPU_NODES = ("/dev/nvidia0", "/proc/driver/nvidia/gpus", "/dev/dxg")  # the last one is Windows' Linux subsystem
MEMORY = "CONVLINE_GPU_GIB"  # in the environment: what the arena of a session on a GPU may take
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
INSTALL_GPU = "install onnxruntime-gpu[cuda,cudnn] on a machine with an NVIDIA driver, or pass --device cpu"


def sees_gpu() -> bool:
    """True where an NVIDIA driver shows a device and CUDA_VISIBLE_DEVICES does not hide all of them."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    return not hidden and any(os.path.exists(node) for node in GPU_NODES)


def available_devices() -> list[str]:
    """Return the devices that can be asked for here: "cpu", and with a GPU those that onnxruntime was built for."""
    if not sees_gpu():  # without the import of onnxruntime, which starts a thread
        return ["cpu"]
    built = {*built_providers()}
    return [d for d in PROVIDERS if built >= {*PROVIDERS[d]} and (d != "tensorrt" or _has_tensorrt())]


def built_providers() -> list[str]:
    """Return the providers that the installed onnxruntime was built with; DeviceError where there is none."""
    return list(_onnxruntime().get_available_providers())


def _has_tensorrt() -> bool:
    """onnxruntime-gpu lists TensorRT wherever it is built for it; the library itself is installed apart."""
    return importlib.util.find_spec("tensorrt_libs") is not None or ctypes.util.find_library("nvinfer") is not None


def resolve(device: str) -> str:
    """Return the device that `auto` takes here."""
    return device if device != "auto" else "cuda" if "cuda" in available_devices() else "cpu"


def providers_for(device: str) -> list[str]:
    """Return onnxruntime's provider names for a device; DeviceError where it is not there."""
    if device not in DEVICES:
        raise DeviceError(f"device: expected one of {', '.join(DEVICES)}, got {device!r}")
    there = available_devices()
    if device == "auto":
        return PROVIDERS["cuda"] + PROVIDERS["cpu"] if "cuda" in there else PROVIDERS["cpu"]
    if device not in there:
        built = ", ".join(built_providers())
        gpu = "a GPU is seen" if sees_gpu() else "no NVIDIA GPU is seen"
        raise DeviceError(f"asked for {device}: {gpu} and onnxruntime offers {built}; {INSTALL_GPU}")
    return PROVIDERS[device]


def open_session(
    model: str | Path | bytes,
    device: str = "auto",
    *,
    threads: int | None = None,  # of one operator; None: onnxruntime's choice, one per physical core
    spinning: bool = True,  # False where several workers share the cores: waiting threads then sleep
    profile: str | None = None,  # how the names of the profiles begin that end_profiling() writes
    tf32: bool = False,
    cuda_graph: bool = False,  # record the first run of bound tensors and play it again: one shape a session
) -> Any:
    """Return an onnxruntime.InferenceSession that runs on the device, or raise DeviceError or ModelFileError."""
    ort = _onnxruntime()
    providers = providers_for(device)
    if "CUDAExecutionProvider" in providers:
        with contextlib.redirect_stdout(sys.stderr):  # it prints what it cannot find, and stdout is for results
            ort.preload_dlls()  # finds CUDA and cuDNN inside Python packages; noisy, so not called on CPU machines
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings speak of node placement, not of anything the user can do
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    if threads is not None:
        options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    if device not in ("auto", "cpu"):
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    source = str(model) if isinstance(model, Path) else model
    name = "model" if isinstance(model, bytes) else str(model)
    try:
        cuda = cuda_options(tf32, cuda_graph)
        settings = [cuda if provider == "CUDAExecutionProvider" else {} for provider in providers]
        session = ort.InferenceSession(
            source, options, providers=providers, provider_options=settings, enable_fallback=0
        )
    except session_errors() as error:
        reason = " ".join(str(error).split())[:300]
        if device in ("auto", "cpu"):
            raise ModelFileError(f"{name}: onnxruntime {ort.__version__} cannot open it ({reason})") from error
        raise DeviceError(f"asked for {device}: onnxruntime cannot use it ({reason}); {INSTALL_GPU}") from error
    if device != "auto" and session.get_providers()[0] != providers[0]:
        raise DeviceError(f"asked for {device}: the session runs on {session.get_providers()[0]}; {INSTALL_GPU}")
    return session


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
            raise DeviceError(f"{MEMORY}: expected GiB, as 4 or 0.5, got {asked!r}; change or unset it") from error
    return options | ({"enable_cuda_graph": "1"} if cuda_graph else {})


def describe_device(session: Any, asked: str) -> str:
    """Return the device that the session really runs on, and why: "cpu (auto: no NVIDIA GPU seen)"."""
    provider = session.get_providers()[0]
    device = next((name for name, providers in PROVIDERS.items() if providers[0] == provider), provider)
    if asked != "auto":
        return device
    why = "found" if device != "cpu" else "a GPU is seen, CUDA cannot be used" if sees_gpu() else "no NVIDIA GPU seen"
    return f"{device} (auto: {why})"


def nodes_by_provider(session: Any) -> dict[str, int]:
    """Return how many nodes each provider ran, from the profile of a session opened with `profile`, which ends here."""
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    facts = [event["args"] for event in events if "provider" in event.get("args", {})]
    return dict(Counter({fact["node_index"]: fact["provider"] for fact in facts}.values()))


def session_errors() -> tuple[type[Exception], ...]:
    """Return what onnxruntime raises while it opens or runs a model; its own classes share no base but Exception."""
    own = vars(_onnxruntime().capi.onnxruntime_pybind11_state).values()
    return (*(cls for cls in own if isinstance(cls, type) and issubclass(cls, Exception)), RuntimeError, ValueError)


def _onnxruntime() -> Any:
    """Import onnxruntime late (0.1 s), and only where exactly one distribution of it is installed."""
    if len(distributions()) > 1:
        raise DeviceError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; "
            "run `pip uninstall onnxruntime onnxruntime-gpu`, then install the one you want"
        )
    try:
        import onnxruntime
    except ImportError as error:
        cure = "pip install 'convline[cpu]', or 'convline[gpu]' for NVIDIA"
        raise DeviceError(f"onnxruntime cannot be imported ({error}); {cure}") from error
    return onnxruntime


def distributions() -> dict[str, str]:
    """Return the version of each installed distribution of onnxruntime."""
    found = {}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
