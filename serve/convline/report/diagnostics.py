"""Findings about this environment and one model in it: what `infer check` prints, each with its cure.

An error is what makes predictions impossible or wrong; a warning is what a user may want to know and can live with.
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
from convline.model_file import document as contracts
from convline.model_file.document import Contract
from convline.model_file.registry import MANIFEST, locate, runs_on
from convline.report.text_table import render
from convline.runtime import host, placement, session
from convline.runtime.model import wrap

DECODERS = {
    "jpg": "JPEG",
    "zlib": "PNG",
    "webp": "WebP",
    "avif": "AVIF",
    "jpg_2000": "JPEG 2000",
    "libtiff": "TIFF",
}
VERSION = re.compile(r"[\w.+]{1,40}")
BOTH = "run `pip uninstall onnxruntime onnxruntime-gpu`, then install the one you want"


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    name: str
    found: str
    state: str = "ok"  # "ok" | "warning" | "error"
    cure: str = ""


def check(model: str | None, variant: str = "auto", sha256: str | None = None) -> Iterator[Finding]:
    """Yield what is found about the environment, then about the model that a user names, on each device that is here.

    variant: as in `locate`; "auto" checks for each device the file that `infer` would take there.
    """
    made_with: Mapping[str, str] = {}
    about_model = []
    devices = [device for device in _devices() if runs_on(variant, device)]
    for device in devices if model is not None else ():
        try:
            path, expected, _ = locate(str(model), device, variant, sha256)
            contract = contracts.read(path, expected)
        except ServeError as error:
            about_model.append(_failed("model", error))
            break
        made_with = _versions_of(contract)
        about_model += [*_of_file(contract, expected), *_on_device(contract, device)]
    yield from _packages(made_with)
    yield from _machine()
    yield from dict.fromkeys(about_model)  # the same file may be taken on two devices


def text(findings: list[Finding]) -> str:
    """Return the findings as a table, and their number by state."""
    rows = [[f.state, f.name, f.found + (f"; {f.cure}" if f.cure else "")] for f in findings]
    counts = [f"{sum(f.state == s for f in findings)} {s}" for s in ("ok", "warning", "error")]
    return f"{render(rows)}\n{', '.join(counts)}"


def document(findings: list[Finding]) -> dict[str, Any]:
    """Return the findings for machines."""
    return {
        "ok": all(f.state != "error" for f in findings),
        "findings": [asdict(f) for f in findings],
    }


def _failed(name: str, error: ServeError) -> Finding:
    """Return the error finding of a message `<what>; <cure>`."""
    found, _, cure = str(error).rpartition("; ")
    return Finding(name, found, "error", cure) if found else Finding(name, cure, "error")


def _devices() -> list[str]:
    """Return the devices to try; where onnxruntime cannot even be imported, `_packages` says so."""
    try:
        return session.available_devices()
    except DeviceError:
        return ["cpu"]


def _versions_of(contract: Contract) -> Mapping[str, str]:
    """Return the package versions that the model was exported with; provenance may say anything, and a cure is copied
    into a shell."""
    versions = contract.document["provenance"].get("versions")
    found = versions if isinstance(versions, dict) else {}
    return {name: v for name, v in found.items() if isinstance(v, str) and VERSION.fullmatch(v)}


def _packages(made_with: Mapping[str, str]) -> Iterator[Finding]:
    yield Finding("Python", platform.python_version())
    yield _version("numpy", numpy.__version__, made_with.get("numpy"))
    yield _version("Pillow", PIL.__version__, made_with.get("pillow"))
    yield from _onnxruntime(made_with.get("onnxruntime") or made_with.get("onnxruntime-gpu"))
    yield _pyarrow()
    there = {name for feature, name in DECODERS.items() if feature in PIL.features.get_supported()}
    yield Finding("image formats", ", ".join(n for n in DECODERS.values() if n in there) or "none")
    if missing := [name for name in DECODERS.values() if name not in there]:
        cure = "such files become error rows; pip install --upgrade pillow"
        yield Finding("image formats", f"no {', '.join(missing)}", "warning", cure)


def _version(name: str, version: str, made_with: str | None) -> Finding:
    """A warning where the first two numbers differ: that is where Pillow and onnxruntime change what they compute."""
    if made_with is None or version.split(".")[:2] == made_with.split(".")[:2]:
        return Finding(name, version)
    cure = f"the golden samples tell whether it matters; pip install '{name.lower()}=={made_with}' to have the same"
    return Finding(name, f"{version}, the model was made with {made_with}", "warning", cure)


def _onnxruntime(made_with: str | None) -> Iterator[Finding]:
    installed = session.distributions()
    names = (
        ", ".join(f"{name} {version}" for name, version in installed.items())
        or "no distribution of that name"
    )
    if len(installed) > 1:
        yield Finding("onnxruntime", f"{names}: they overwrite each other's files", "error", BOTH)
        return
    try:
        providers = session.built_providers()
    except DeviceError as error:
        yield _failed("onnxruntime", error)
        return
    yield _version(
        next(iter(installed), "onnxruntime"), next(iter(installed.values()), "unknown"), made_with
    )
    yield Finding(
        "providers", ", ".join(name.removesuffix("ExecutionProvider") for name in providers)
    )
    yield from _gpu()


def _gpu() -> Iterator[Finding]:
    """Yield what is known of the GPU, of its driver beside what CUDA's build needs, and why CUDA cannot be used."""
    built, supported = session.cuda_version(), host.driver_cuda()
    needs = (
        f"onnxruntime is built for CUDA {built}" if built else "onnxruntime is built without CUDA"
    )
    least = host.LEAST_DRIVER.get(int(built.split(".")[0])) if built else None
    needs += f", which needs driver {least} or newer" if least else ""
    seen = session.sees_gpu()
    reason = session.unusable("cuda") or ""
    yield Finding("GPU", "seen" if seen else f"{reason.partition(';')[0]}; {needs}")
    if not seen:
        return
    if supported:
        version = host.driver_version() or "of a version that is not known"
        yield Finding("driver", f"{version}, supports CUDA {supported[0]}.{supported[1]}; {needs}")
    if not reason and session.missing_library("CUDAExecutionProvider"):
        reason = session.unloadable("CUDAExecutionProvider")
    if reason:
        found, _, cure = reason.partition("; ")
        yield Finding("CUDA", found, "warning", cure)


def _pyarrow() -> Finding:
    if importlib.util.find_spec("pyarrow") is None:
        cure = "only Parquet files need it; pip install 'convline[parquet]'"
        return Finding("pyarrow", "not installed", "warning", cure)
    return Finding("pyarrow", importlib.metadata.version("pyarrow"))


def _machine() -> Iterator[Finding]:
    yield Finding("processor", host.processor())
    all_cores, allowed, quota = os.cpu_count() or 1, host.allowed_cores(), host.core_quota()
    usable = min(allowed, quota or allowed)
    if usable >= all_cores:
        yield Finding("cores", f"{all_cores}, all usable")
        return
    why = (
        f"a quota of {quota:g}"
        if quota and quota < allowed
        else "this process may not use the others"
    )
    yield Finding("cores", f"{usable:g} of {all_cores} usable ({why})")


def _of_file(contract: Contract, sha256: str | None) -> Iterator[Finding]:
    yield Finding(
        "model",
        f"{contract.name}, {contract.task}, {contract.path} ({len(contract.bytes):,} bytes)",
    )
    yield Finding("digest", f"{contract.digest}, as computed")
    if sha256 is not None:
        yield Finding("sha256", f"{sha256}, as {MANIFEST} or --sha256 says")
    else:
        cure = "damage would be seen, another file in its place would not; serve the package folder or add --sha256"
        yield Finding("sha256", f"no {MANIFEST} beside the file", "warning", cure)


def _on_device(contract: Contract, device: str) -> Iterator[Finding]:
    """Yield how the golden samples come out on a device, and which provider really ran the nodes."""
    try:
        opened = session.open_session(contract.served, device)
        gap = (model := wrap(contract, opened, device)).replay_golden()
    except ServeError as error:
        yield _failed(device, error)
        return
    if placement.tells(opened):
        yield Finding(device, f"nodes: {placement.text(opened)}")
    found = f"golden samples differ by {gap:.3g} at most, {model.golden_atol:.3g} is allowed"
    if gap <= model.golden_atol:  # false for nan
        yield Finding(device, found)
    else:
        yield Finding(
            device,
            found,
            "error",
            "do not serve it here; install the versions that it was made with",
        )
