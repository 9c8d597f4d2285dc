"""Several processes that train one network: each takes its part of every batch, and all hold the same weights.

The stage starts them itself (`processes:` in params.yaml), or torchrun does, on one machine or many. The rows of a
batch, their augmentation and what a step minimises are those of one process; dropout draws anew in each. Batch
normalisation takes its statistics over the whole batch on GPUs (SyncBatchNorm), and on CPUs, where torch has no such
layer, over each process's own part. Process 0 alone writes. One that dies ends all; the next run goes on from the
checkpoint, which every process reads: on several machines out/ lies on a file system that they share.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from convline.errors import ServeError
from torch import Tensor, nn
from torch import distributed as dist

from pipeline.core.errors import ParamsError, StageError

_common: torch.Generator | None = None  # of a group: draws alike in all of its processes


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def started() -> bool:
    """Return whether torchrun, or `start`, has started this process."""
    return dist.is_torchelastic_launched()


def start(count: int, stage: str, entry: str) -> None:
    """Run a stage in `count` processes here and wait; StageError says which failed, and how."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    here = {
        "rdzv_backend": "c10d",
        "rdzv_endpoint": "localhost:0",
        "local_addr": "localhost",
        "run_id": entry,
    }
    with tempfile.TemporaryDirectory(prefix="convline-") as folder:
        logs = DefaultLogsSpecs(log_dir=folder)
        config = LaunchConfig(1, 1, count, logs_specs=logs, max_restarts=0, **here)
        try:
            elastic_launch(config, sys.executable)("-m", f"pipeline.{stage}", entry)
        except ChildFailedError as error:
            raise StageError(cause(error.failures, count, f"{stage} {entry}")) from None
        except SignalException:
            raise KeyboardInterrupt from None


def cause(failures: dict[int, Any], count: int, what: str) -> str:
    """Return what happened: a process that said why is believed first, then one that was killed, then any other.

    SIGTERM comes last: it is how the launcher ends those that are left.
    """
    said = {k: f.message["message"] for k, f in failures.items() if isinstance(f.message, dict)}
    if said:
        return next(iter(said.values())).partition(": ")[2]
    codes = {
        number: failure.exitcode for number, failure in failures.items()
    }  # a signal's is below 0
    number = min(codes, key=lambda n: (codes[n] == -signal.SIGTERM, codes[n] >= 0))
    first = failures[number]
    how = f"was ended by {first.signal_name()}" if first.exitcode < 0 else "failed, as said above"
    memory = " (is there memory?)" if first.exitcode == -signal.SIGKILL else ""
    cure = "and the others were stopped; `dvc repro` goes on from the last checkpoint"
    return f"{what}: process {number + 1} of {count} {how}{memory}, {cure}"


@contextmanager
def group(on: torch.device) -> Iterator[torch.device]:
    """Join the other processes, if this one was started as one of several; give the device of this one."""
    if not started():
        yield on
        return
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler
    from torch.multiprocessing import _prctl_pr_set_pdeathsig

    _prctl_pr_set_pdeathsig(signal.SIGTERM)  # a launcher that is killed takes its processes along
    local, together = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    try:
        if on.type == "cuda":
            if together > torch.cuda.device_count():
                raise StageError(
                    f"{together} processes, {torch.cuda.device_count()} GPUs here; lower `processes:`"
                )
            on = torch.device("cuda", local)
            torch.cuda.set_device(on)
        dist.init_process_group("cpu:gloo,cuda:nccl" if on.type == "cuda" else "gloo")
        yield on
        dist.destroy_process_group()
    except (ParamsError, ServeError, StageError) as error:
        get_error_handler().record_exception(error)
        sys.exit(1)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "by peer" not in str(error):
            raise
        lost = str(error).splitlines()[0]  # gloo's words for a process that has gone
        print(f"   process {rank() + 1} of {size()}: {lost}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)  # who started it says so


def seed(number: int) -> None:
    """Seed an epoch: what `common` draws is alike in all processes, the rest (dropout) is each one's own."""
    global _common
    torch.manual_seed(number)
    if size() > 1:
        _common = torch.Generator().manual_seed(number)
        torch.manual_seed(number + rank() * 2**40)


def common() -> torch.Generator:
    """Return what order and augmentation are drawn from, for all rows of a batch; `share` takes one's own."""
    return _common if _common is not None and size() > 1 else torch.default_generator


def share(rows: Tensor) -> Tensor:
    """Return this process's part of the rows; parts differ by one row at most."""
    return rows.tensor_split(size())[rank()]


def total(*numbers: float | Tensor) -> list[float]:
    """Return the sum over all processes of each number."""
    sums = torch.tensor([float(number) for number in numbers], dtype=torch.float64)
    if size() > 1:
        dist.all_reduce(sums)
    return sums.tolist()


def agree(what: str, value: str) -> None:
    """Raise StageError where the processes do not all have the same value."""
    own = torch.tensor(int(hashlib.sha256(value.encode()).hexdigest()[:12], 16))
    first = own.clone()
    if size() > 1:
        dist.broadcast(first, 0)
    if others := total(own != first)[0]:
        raise StageError(
            f"{others:.0f} of {size()} processes have another {what} than process 0 ({value}); give all machines "
            "the same code, and out/ on a file system that they share"
        )


class _Loss(nn.Module):
    """A loss of a network as a module: DistributedDataParallel averages gradients of what its forward made."""

    def __init__(self, net: nn.Module, loss: Callable[..., Any]):
        super().__init__()
        self.net, self.loss = net, loss

    def forward(self, *given: Any) -> Any:
        return self.loss(self.net, *given)


def averaged(loss: Callable[..., Any], net: nn.Module, *, partly: bool) -> Callable[..., Any]:
    """Return loss(net, ...) as a function whose gradients become the mean over all processes.

    partly: some of the network's weights may be frozen for a time.
    """
    if size() == 1:
        return partial(loss, net)
    if next(net.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(net)
    parallel = nn.parallel.DistributedDataParallel
    known = inspect.signature(parallel).parameters  # torch 2.15 renamed one
    sync = next(key for key in ("forward_sync_buffers", "broadcast_buffers") if key in known)
    return parallel(_Loss(net, loss), find_unused_parameters=partly, **{sync: False})


def settle(net: nn.Module) -> None:
    """Give all processes the mean of their batch norms' running statistics."""
    for name, tensor in net.named_buffers():
        if size() > 1 and name.endswith(("running_mean", "running_var")):
            dist.all_reduce(tensor)
            tensor /= size()
