"""The stages of the line, one package each: params, data, train, export, check, explain, package, wheel, infer, report,
study.

The environment is set here because it must be set before torch or onnxruntime is imported: OpenMP threads spin at
barriers, and a second busy process on the same cores then slows a step 10 to 50 times (DESIGN.md, measured).
"""

import importlib.util
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as serve/convline/runtime/session.py has it
if (
    sys.argv[0] == "-m"
):  # `python -m pipeline.<stage>`: params.yaml says how many threads torch takes, no environment;
    os.environ["OMP_NUM_THREADS"] = (
        "1"  # what reads this one (BLAS, scikit-learn) would else sum in another order
    )
os.environ.setdefault(
    "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
)  # deterministic cuBLAS, read at its first call

if importlib.util.find_spec("convline") is None:  # a bare checkout, nothing of ours installed
    sys.path.append(str(Path(__file__).parents[1] / "serve"))

if missing := [name for name in ("numpy", "PIL", "tqdm") if importlib.util.find_spec(name) is None]:
    sys.exit(
        f"error: {missing[0]} is not installed in {sys.executable}; run `make`, or `source .venv/bin/activate`"
    )

if "CONVLINE_WARM" in os.environ:
    from pipeline.core import fork_server

    fork_server.hand_over()
