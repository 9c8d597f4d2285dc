"""Which engine computes a file: onnxruntime, or OpenVINO where it is recommended or asked for."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

from convline.errors import DeviceError
from convline.model_file.registry import package_folder, read_manifest
from convline.runtime.host import proc_value

BF16 = "bf16"  # no file of its own: the fp32 file, whose products OpenVINO rounds to bfloat16
ENGINES = ("onnxruntime", "openvino")


class Engine(NamedTuple):
    """What computes a file, and whether it rounds products to bfloat16."""

    name: str = "onnxruntime"
    bf16: bool = False

    @property
    def compiles_sizes(self) -> bool:
        """Whether it compiles the graph for each batch size, in seconds for a large one."""
        return self.name == "openvino"

    def __str__(self) -> str:
        return f"{self.name} in {BF16}" if self.bf16 else self.name


ONNXRUNTIME = Engine()


def choose_engine(
    model: str,
    device: str = "cpu",
    variant: str = "auto",
    engine: str = "auto",
    installed: bool | None = None,
) -> tuple[Engine, str, str]:
    """Return the engine, the variant of the file for `find_model`, and variant and reason in words.

    The words are "" where those of `find_model` say all. variant: as for `find_model`, or bf16.
    engine: onnxruntime, openvino, or auto for the one that the package recommends for the device,
    if it is installed and the processor has its numbers. installed: whether OpenVINO is to be taken
    as installed; None finds out.
    """
    folder = package_folder(model) or Path(model)
    best = _recommended_for_openvino(folder, device) if folder.is_dir() else None
    chosen, why = variant, f"{variant} by openvino, as asked"
    recommended = best is not None and variant in ("auto", best) and runs_here(best)
    if engine == "onnxruntime" or (
        engine == "auto"
        and variant != BF16
        and not (recommended and (has_openvino() if installed is None else installed))
    ):
        if variant == BF16:
            raise DeviceError(
                "asked for bf16: onnxruntime has none on a CPU; add --engine openvino"
            )
        return ONNXRUNTIME, variant, ""
    if device != "cpu":
        what = f"openvino and {BF16} are for the CPU, got {device}"
        raise DeviceError(f"{model}: {what}; add --device cpu, or take --engine onnxruntime")
    if recommended:
        chosen = str(best)
        why = f"{chosen} by openvino, recommended for {device}"
    elif variant == "auto" and folder.is_dir():
        chosen = "fp32"
        why = f"{chosen} by openvino, of which the package recommends none"
    elif variant == "auto":
        why = ""
    file = "fp32" if folder.is_dir() else "auto"
    return Engine("openvino", chosen == BF16), file if chosen == BF16 else chosen, why


def has_openvino() -> bool:
    """Return whether the package is installed; it is not imported."""
    return importlib.util.find_spec("openvino") is not None


def runs_here(variant: str) -> bool:
    """Return whether this processor has the numbers of a variant: Linux tells of bfloat16."""
    flags = (proc_value("/proc/cpuinfo", "flags") or "").split()
    return variant != BF16 or not {*flags}.isdisjoint(("avx512_bf16", "amx_bf16"))


def _recommended_for_openvino(folder: Path, device: str) -> str | None:
    """Return the variant with which the manifest recommends OpenVINO for the device, if it does."""
    by_device = read_manifest(folder).get("engines")
    chosen = by_device.get(device) if isinstance(by_device, dict) else None
    if not isinstance(chosen, dict) or chosen.get("engine") != "openvino":
        return None
    variant = chosen.get("variant")
    return variant if variant in ("fp32", "int8", BF16) else None
