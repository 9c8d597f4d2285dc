"""What a GPU does of all that the line asks of it, in nine minutes at most: for a GPU that is had
for minutes.

    python -m benchmarks.gpu --pack            on any machine, after `make`: writes what a bare machine cannot make
    python -m benchmarks.gpu --device cuda     on the GPU machine: writes results/gpu/<device>.json and .md
    python -m benchmarks.gpu --device cpu      the same steps, reduced, on the CPU: writes out/gpu/<device>.json and .md

Each step runs in a process of its own with a limit of its own, and the JSON is written after each;
none runs on after 8:30. What hangs, is killed or breaks costs its own facts alone. Needs torch,
torchvision, onnx, onnxscript, Pillow, click, tqdm and one onnxruntime; neither DVC nor a network.
With onnxruntime for the CPU, steps that need its CUDA provider say so and are skipped. pydantic,
which holds the recipes, is carried along for it. `clock` runs the steps, `carried` packs,
`__main__` has the steps' order and limits.
"""

import importlib.util
import sys
from pathlib import Path

PACKAGES = Path(__file__).parents[2] / "out" / "gpu" / "carried" / "packages"

if importlib.util.find_spec("pydantic") is None:
    sys.path.append(str(PACKAGES))
