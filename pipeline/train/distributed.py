"""Train one network in several processes: each takes its part of every batch.

All processes hold equal weights. The stage launches them itself (`processes:` in params.yaml), or
torchrun does, on one machine or many. The rows of a batch, their augmentation and the minimised
loss are those of one process; dropout is drawn by each process. Batch normalization takes its
statistics over the whole batch on GPUs (SyncBatchNorm); on CPUs, where torch has no such layer,
over each process's own rows. Process 0 alone writes. If one process ends, all end, and the next run
continues from the checkpoint, which every process reads: on several machines out/ must lie on a
shared file system.
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
from pipeline.core.stage import note

ODD = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: its multiples are far apart modulo 2**63
_shared: torch.Generator | None = None  # in a group: draws the same numbers in all processes


def rank() -> int:
    """Return the number of this process, 0 if it is the only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_size() -> int:
    """Return how many of these processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def is_launched() -> bool:
    """Return whether `launch` or torchrun has started this process."""
    return dist.is_torchelastic_launched()


def launch(count: int, stage: str, entry: str) -> None:
    """Run a stage in `count` processes by torchrun's launcher and wait for them.

    Raises StageError with the reason of the process that failed first.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="convline-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            max_restarts=0,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            run_id=entry,
        )
        try:
            elastic_launch(config, sys.executable)("-m", f"pipeline.{stage}", entry)
        except ChildFailedError as error:
            message = failure_message(error.failures, count, f"{stage} {entry}")
            raise StageError(message) from None
        except SignalException:
            raise KeyboardInterrupt from None


def failure_message(failures: dict[int, Any], count: int, what: str) -> str:
    """Return why processes failed: an error that one reported, else how the first one ended.

    SIGTERM counts last: the launcher ends the remaining processes with it.
    """
    for failure in failures.values():
        if isinstance(failure.message, dict):  # recorded by `join_group`: "StageError: sentence"
            return str(failure.message["message"]).partition(": ")[2]
    codes = {number: failure.exitcode for number, failure in failures.items()}  # signals below 0
    number = min(codes, key=lambda n: (codes[n] == -signal.SIGTERM, codes[n] >= 0))
    first = failures[number]
    how = f"was ended by {first.signal_name()}" if first.exitcode < 0 else "failed, as said above"
    memory = " (is there memory?)" if first.exitcode == -signal.SIGKILL else ""
    cure = "and the others were stopped; `dvc repro` goes on from the last checkpoint"
    return f"{what}: process {number + 1} of {count} {how}{memory}, {cure}"


@contextmanager
def join_group(on: torch.device) -> Iterator[torch.device]:
    """Join the other processes, if this one was launched as one of several; yield its device."""
    if not is_launched():
        yield on
        return
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler
    from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]

    # A launcher that is killed takes its processes along.
    _prctl_pr_set_pdeathsig(signal.SIGTERM)
    local, together = int(os.environ["LOCAL_RANK"]), local_size()
    try:
        if on.type == "cuda":
            if together > (gpus := torch.cuda.device_count()):
                raise StageError(f"{together} processes, {gpus} GPUs here; lower `processes:`")
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
        lost = str(error).splitlines()[0]  # gloo's message about a process that has ended
        note(f"process {rank() + 1} of {size()}: {lost}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)  # the launcher prints the message


def seed_epoch(number: int, step: int = 0) -> None:
    """Seed an epoch: `shared_generator` alike in all processes, the rest (dropout) in each.

    step: where an epoch goes on, which then draws other numbers than at its start.
    """
    global _shared
    number = (number + step * ODD) % 2**63
    torch.manual_seed(number)
    if size() > 1:
        _shared = torch.Generator().manual_seed(number)
        torch.manual_seed(number + rank() * 2**40)


def shared_generator() -> torch.Generator:
    """Return the generator of order and augmentation, which draws for all rows of a batch."""
    return _shared if _shared is not None and size() > 1 else torch.default_generator


@contextmanager
def torch_seeded(seed: Tensor) -> Iterator[None]:
    """Seed torch's default generator on the CPU, from which torchvision draws, for a while."""
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(int(seed))
    yield
    torch.default_generator.set_state(state)


def own_rows(rows: Tensor, neighbour: bool = False) -> Tensor:
    """Return this process's part of the rows; parts differ by one row at most.

    neighbour: of several processes each gets the row before its own first one, too; before the
    first of all is the last.
    """
    own = rows.tensor_split(size())[rank()]
    if not neighbour or size() == 1:
        return own
    return torch.cat([rows.roll(1, 0).tensor_split(size())[rank()][:1], own])


def sum_over_processes(*numbers: float | Tensor) -> list[float]:
    """Return the sum over all processes of each number."""
    sums = torch.tensor([float(number) for number in numbers], dtype=torch.float64)
    if size() > 1:
        dist.all_reduce(sums)
    return sums.tolist()


def require_agreement(value: str) -> None:
    """Raise StageError where the processes differ in `value`, their checkpoint and its epoch."""
    own = torch.tensor(int(hashlib.sha256(value.encode()).hexdigest()[:12], 16))
    first = own.clone()
    if size() > 1:
        dist.broadcast(first, 0)
    if others := sum_over_processes(own != first)[0]:
        what = "recipe, data, code or checkpoint"
        differ = f"{others:.0f} of {size()} processes have another {what} than process 0 ({value})"
        cure = "give all machines the same code, and out/ on a file system that they share"
        raise StageError(f"{differ}; {cure}")


class _Loss(nn.Module):
    """A network's loss as a module, since DistributedDataParallel averages a module's gradients."""

    def __init__(self, net: nn.Module, loss: Callable[..., Any]):
        super().__init__()
        self.net, self.loss = net, loss

    def forward(self, *inputs: Any) -> Any:
        return self.loss(self.net, *inputs)


def average_gradients(
    loss: Callable[..., Any], net: nn.Module, *, partly: bool
) -> Callable[..., Any]:
    """Return loss(net, ...) as a function whose gradients are the mean over all processes.

    partly: some of the network's weights may be frozen for a time.
    """
    if size() == 1:
        return partial(loss, net)
    if next(net.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(net)
    parallel = nn.parallel.DistributedDataParallel
    known = inspect.signature(parallel).parameters  # torch 2.15 renamed one
    sync = next(key for key in ("forward_sync_buffers", "broadcast_buffers") if key in known)
    options: dict[str, Any] = {"find_unused_parameters": partly, sync: False}
    return parallel(_Loss(net, loss), **options)


def average_statistics(net: nn.Module) -> None:
    """Give all processes the mean of their batch norms' running statistics."""
    for name, tensor in net.named_buffers():
        if size() > 1 and name.endswith(("running_mean", "running_var")):
            dist.all_reduce(tensor)
            tensor /= size()
