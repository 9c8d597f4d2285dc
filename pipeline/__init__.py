"""The stages of the line, one package each, and what they share (core, params, network, evaluate,
plots).

The environment is set here, before torch or onnxruntime is imported. OpenMP's threads must not spin
at barriers: a second busy process on the same cores then slows a step 10 to 50 times (measured). A
stage, `python -m pipeline.<stage>`, takes its number of threads from params.yaml; other libraries
that read OMP_NUM_THREADS (BLAS, scikit-learn) get one, since with more they sum in another order.
"""

import importlib.util
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as serve/convline/runtime/session.py has it
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS
if sys.argv[0] == "-m":
    os.environ["OMP_NUM_THREADS"] = "1"

if importlib.util.find_spec("convline") is None:  # a bare checkout, nothing of ours installed
    sys.path.append(str(Path(__file__).parents[1] / "serve"))

if missing := [name for name in ("numpy", "PIL", "tqdm") if importlib.util.find_spec(name) is None]:
    cure = "run `make`, or `source .venv/bin/activate`"
    sys.exit(f"error: {missing[0]} is not installed in {sys.executable}; {cure}")
