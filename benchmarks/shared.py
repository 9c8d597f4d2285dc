"""What several benchmarks share: turns in rounds, OpenVINO as its users open it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from convline.runtime.engine import BF16
from convline.runtime.host import usable_cores
from convline.runtime.openvino import core

Found = TypeVar("Found")


def take_turns(
    contenders: Sequence[Callable[[int], Found]],
    rounds: int,
    after_round: Callable[[], object] = lambda: None,
) -> list[list[Found]]:
    """Return what each contender found in each round; each round begins with another contender.

    contenders: called with the number of the round. Round 0, in which all warms up, is not counted.
    """
    found: list[list[Found]] = [[] for _ in contenders]
    for number in range(rounds + 1):
        for k in range(len(contenders)):
            place = (number + k) % len(contenders)
            one = contenders[place](number)
            if number:
                found[place].append(one)
        after_round()
    return found


def compile_openvino(
    graph: Any, precision: str, hint: str, shape: Sequence[int] | None = None
) -> Any:
    """Return an ONNX file, its bytes, or a graph of OpenVINO's, compiled for all cores.

    precision: of products, bf16; any other is that of the graph. hint: LATENCY, or THROUGHPUT with
    a stream on each core. shape: of the only input, which is then static.
    """
    if isinstance(graph, bytes | Path):
        graph = core().read_model(graph)
    if shape:
        graph.reshape([*shape])
    settings = {
        "PERFORMANCE_HINT": hint,
        "INFERENCE_NUM_THREADS": usable_cores(),
        "INFERENCE_PRECISION_HINT": "bf16" if precision == BF16 else "f32",
    }
    streams = {"NUM_STREAMS": usable_cores()} if hint == "THROUGHPUT" else {}
    return core().compile_model(graph, "CPU", settings | streams)
