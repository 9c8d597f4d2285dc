"""Findings about this installation and a model on it, each with its cure (`infer check`).

An error makes predictions impossible or wrong. A warning is something that a user may want to know.
"""

import importlib.metadata
import importlib.util
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy
import PIL
import PIL.features

from convline.errors import DeviceError, ServeError
from convline.loading import open_model
from convline.model_file.onnx_file import ModelFile, read_model_file
from convline.model_file.registry import MANIFEST, find_model, supports_device
from convline.report.text_table import format_table
from convline.runtime import host, placement, session
from convline.runtime.engine import ONNXRUNTIME, Engine, choose_engine, has_openvino

DECODERS = {  # Pillow's feature: what it decodes
    "jpg": "JPEG",
    "zlib": "PNG",
    "webp": "WebP",
    "avif": "AVIF",
    "jpg_2000": "JPEG 2000",
    "libtiff": "TIFF",
}
VERSION = re.compile(r"[\w.+]{1,40}")
REINSTALL = "run `pip uninstall onnxruntime onnxruntime-gpu`, then install the one you want"


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    name: str
    found: str
    state: str = "ok"  # "ok" | "warning" | "error"
    cure: str = ""


def check(model: str | None, variant: str = "auto", sha256: str | None = None) -> Iterator[Finding]:
    """Yield findings about the installation, then about a model on each device that is here.

    variant: as for `locate`; "auto" checks for each device the file that `infer` would run there.
    """
    exported_with: Mapping[str, str] = {}
    about_model: list[Finding] = []
    devices = [device for device in _devices() if supports_device(variant, device)]
    for device in devices if model is not None else ():
        try:
            path, expected, _ = find_model(str(model), device, variant, sha256)
            file = read_model_file(path, expected)
        except ServeError as error:
            about_model.append(_error_finding("model", error))
            break
        exported_with = _exporter_versions(file)
        about_model += [*_check_file(file, expected), *_check_device(file, device)]
        if device == "cpu":
            about_model += _check_openvino(str(model), variant, sha256)
    yield from _check_packages(exported_with)
    yield from _check_machine()
    yield from dict.fromkeys(about_model)  # without repetition: two devices may take the same file


def format_text(findings: list[Finding]) -> str:
    """Return the findings as a table, and how many there are of each state."""
    rows = [[f.state, f.name, f.found + (f"; {f.cure}" if f.cure else "")] for f in findings]
    counts = [f"{sum(f.state == s for f in findings)} {s}" for s in ("ok", "warning", "error")]
    return f"{format_table(rows)}\n{', '.join(counts)}"


def to_document(findings: list[Finding]) -> dict[str, Any]:
    """Return the findings as the object that --json prints."""
    return {
        "ok": all(f.state != "error" for f in findings),
        "findings": [asdict(f) for f in findings],
    }


def _error_finding(name: str, error: ServeError) -> Finding:
    """Return the finding of an error whose message is `<what>; <cure>`."""
    what, _, cure = str(error).rpartition("; ")
    return Finding(name, what or cure, "error", cure if what else "")


def _devices() -> list[str]:
    """Return the devices to try; only the CPU if onnxruntime cannot be imported, which is a finding
    of its own."""
    try:
        return session.available_devices()
    except DeviceError:
        return ["cpu"]


def _exporter_versions(file: ModelFile) -> Mapping[str, str]:
    """Return the package versions that the model was exported with.

    Provenance may hold any text, and a cure is copied into a shell: other texts than versions are
    left out.
    """
    versions = file.document.provenance.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    return {name: v for name, v in versions.items() if isinstance(v, str) and VERSION.fullmatch(v)}


def _check_packages(exported_with: Mapping[str, str]) -> Iterator[Finding]:
    yield Finding("Python", platform.python_version())
    yield _check_version("numpy", numpy.__version__, exported_with.get("numpy"))
    yield _check_version("Pillow", PIL.__version__, exported_with.get("pillow"))
    names = ("onnxruntime", "onnxruntime-gpu")
    yield from _check_onnxruntime(next(filter(None, map(exported_with.get, names)), None))
    if importlib.util.find_spec("pyarrow") is None:
        cure = "only Parquet files need it; pip install 'convline[parquet]'"
        yield Finding("pyarrow", "not installed", "warning", cure)
    else:
        yield Finding("pyarrow", importlib.metadata.version("pyarrow"))
    if has_openvino():
        yield Finding("OpenVINO", importlib.metadata.version("openvino"))
    features = PIL.features.get_supported()
    available = [name for feature, name in DECODERS.items() if feature in features]
    missing = [name for feature, name in DECODERS.items() if feature not in features]
    yield Finding("image formats", ", ".join(available) or "none")
    if missing:
        cure = "such files become error rows; pip install --upgrade pillow"
        yield Finding("image formats", f"no {', '.join(missing)}", "warning", cure)


def _check_version(name: str, version: str, exported_with: str | None) -> Finding:
    """Return a warning if the first two numbers differ: there Pillow and onnxruntime change what
    they compute."""
    if exported_with is None or version.split(".")[:2] == exported_with.split(".")[:2]:
        return Finding(name, version)
    found = f"{version}, the model was exported with {exported_with}"
    install = f"pip install '{name.lower()}=={exported_with}' installs the same"
    return Finding(name, found, "warning", f"the golden samples show whether it matters; {install}")


def _check_onnxruntime(exported_with: str | None) -> Iterator[Finding]:
    installed = session.distributions()
    if len(installed) > 1:
        names = ", ".join(f"{name} {version}" for name, version in installed.items())
        found = f"{names}: they overwrite each other's files"
        yield Finding("onnxruntime", found, "error", REINSTALL)
        return
    try:
        providers = session.built_providers()
    except DeviceError as error:
        yield _error_finding("onnxruntime", error)
        return
    [(name, version)] = installed.items() or [("onnxruntime", "unknown")]
    yield _check_version(name, version, exported_with)
    names = ", ".join(provider.removesuffix("ExecutionProvider") for provider in providers)
    yield Finding("providers", names)
    yield from _check_gpu()


def _check_gpu() -> Iterator[Finding]:
    """Yield what is known of the GPU, the driver version that CUDA needs, and why CUDA cannot be
    used."""
    built, supported = session.cuda_version(), host.driver_cuda()
    needs = "onnxruntime is built without CUDA"
    if built:
        least = host.LEAST_DRIVER.get(int(built.split(".")[0]))
        needs = f"onnxruntime is built for CUDA {built}"
        needs += f", which needs driver {least} or newer" if least else ""
    visible = session.sees_gpu()
    reason = session.unusable_reason("cuda") or ""
    yield Finding("GPU", "visible" if visible else f"{reason.partition(';')[0]}; {needs}")
    if not visible:
        return
    if supported:
        version = host.driver_version() or "of unknown version"
        yield Finding("driver", f"{version}, supports CUDA {supported[0]}.{supported[1]}; {needs}")
    if not reason and session.missing_library("CUDAExecutionProvider"):
        reason = session.unloadable("CUDAExecutionProvider")
    if reason:
        what, _, cure = reason.partition("; ")
        yield Finding("CUDA", what, "warning", cure)


def _check_machine() -> Iterator[Finding]:
    yield Finding("processor", host.processor())
    all_cores, allowed, quota = os.cpu_count() or 1, host.allowed_cores(), host.core_quota()
    usable = min(allowed, quota or allowed)
    if usable >= all_cores:
        yield Finding("cores", f"{all_cores}, all usable")
        return
    reason = "this process may not use the others"
    if quota and quota < allowed:
        reason = f"a quota of {quota:g}"
    yield Finding("cores", f"{usable:g} of {all_cores} usable ({reason})")


def _check_file(file: ModelFile, sha256: str | None) -> Iterator[Finding]:
    size = f"{len(file.content):,} bytes"
    yield Finding("model", f"{file.name}, {file.task}, {file.path} ({size})")
    yield Finding("digest", f"{file.digest}, as computed")
    if sha256 is not None:
        yield Finding("sha256", f"{sha256}, as {MANIFEST} or --sha256 says")
    else:
        what = f"no {MANIFEST} beside the file"
        risk, cure = "damage is detected, a replaced file is not", "serve the package folder"
        yield Finding("sha256", what, "warning", f"{risk}; {cure} or add --sha256")


def _check_openvino(name: str, variant: str, sha256: str | None) -> Iterator[Finding]:
    """Yield how far the golden samples differ under OpenVINO, or that it is recommended and not
    there.
    """
    recommended, _, words = choose_engine(name, "cpu", variant, "auto", installed=True)
    if not has_openvino():
        if recommended != ONNXRUNTIME:
            cure = "onnxruntime runs it, more slowly; pip install 'convline[openvino]'"
            yield Finding("OpenVINO", f"not installed; the package has {words}", "warning", cure)
        return
    try:
        engine, variant, words = choose_engine(name, "cpu", variant, "openvino")
        path, expected, _ = find_model(name, "cpu", variant, sha256)
        file = read_model_file(path, expected)
    except ServeError as error:
        yield _error_finding("OpenVINO", error)
        return
    if words:
        yield Finding("OpenVINO", words)
    yield from _check_device(file, "cpu", engine)


def _check_device(file: ModelFile, device: str, engine: Engine = ONNXRUNTIME) -> Iterator[Finding]:
    """Yield how far the golden samples differ on a device, and which provider ran the nodes."""
    where = device if engine == ONNXRUNTIME else "OpenVINO"
    try:
        model = open_model(file, device, engine=engine)
        gap = model.replay_golden()
    except ServeError as error:
        yield _error_finding(where, error)
        return
    if placement.reports_placement(model.session):
        yield Finding(where, f"nodes: {placement.describe_placement(model.session)}")
    found = f"golden samples differ by {gap:.3g} at most, {model.golden_atol:.3g} is allowed"
    if gap <= model.golden_atol:  # false for nan
        yield Finding(where, found)
    else:
        cure = "do not serve it here; install the versions that it was exported with"
        if engine != ONNXRUNTIME:
            cure = "pass --engine onnxruntime"
        yield Finding(where, found, "error", cure)
