"""Fine-tuning: which parts of a trained network train, from which epoch on, and how fast (R05, R06, R09)."""

from __future__ import annotations

from typing import Any

from torch import nn

from pipeline.core.errors import StageError
from pipeline.network.modules import parts, stages
from pipeline.params.schema import Head


def tuned_stages(net: Any, head: Head) -> list[nn.Module]:
    """Return the stages that train at some time, the first to be unfrozen first: the network's last one."""
    known = stages(net.net)
    count = len(known) if head.stages == "all" else head.stages
    if count > len(known):
        names = ", ".join(known)
        raise StageError(
            f"head.stages: {count} asked for, the backbone has {len(known)}: {names}; ask for fewer"
        )
    return list(known.values())[::-1][:count]


def require_trained(net: Any, head: Head, epochs: int) -> None:
    """Raise StageError where a stage that is not copied, whose weights are random, would never train."""
    known = stages(net.net)
    copied = len(known) if head.copied == "all" else head.copied
    if copied > len(known):
        names = ", ".join(known)
        raise StageError(
            f"head.copied: {copied} asked for, the backbone has {len(known)}: {names}; ask for fewer"
        )
    fresh, trained = (
        len(known) - copied,
        unfrozen_count(head, epochs - 1, len(tuned_stages(net, head))),
    )
    if fresh > trained:
        what = f"{copied} of {len(known)} stages are copied, and of the {fresh} others, which start at random, {trained}"
        raise StageError(
            f"head.copied: {what} train within {epochs} epochs; set head.stages to {fresh} or more, and train on"
        )


def parameter_groups(net: Any, head: Head) -> list[dict[str, Any]]:
    """Return the optimizer's groups: the head at the full learning rate, each stage at lr_factor of it."""
    made = [{"params": list(net.net.head.parameters()), "factor": 1.0}]
    return made + [
        {"params": list(part.parameters()), "factor": head.lr_factor}
        for part in tuned_stages(net, head)
    ]


def unfrozen_count(head: Head, epoch: int, count: int) -> int:
    """Return how many stages train in an epoch, counted from 0."""
    if epoch < head.first:
        return 0
    return min(count, 1 + (epoch - head.first) // head.unfreeze) if head.unfreeze else count


def freeze_stages(net: Any, head: Head, epoch: int) -> None:
    """Freeze and unfreeze the network's parts for an epoch; call it after `net.train()`.

    What is frozen keeps its statistics and drops no units, what has no weights goes with the stage before it; so do the
    batch norms of what trains, unless they are asked to be `trained`: few images give poor statistics.
    """
    trained = tuned_stages(net, head)
    open_now, on = trained[: unfrozen_count(head, epoch, len(trained))], False
    for part in parts(net.net).values():
        if any(True for _ in part.parameters()):
            on = any(part is other for other in open_now)
        part.requires_grad_(on).train(on)
        for layer in part.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and head.batch_norm == "frozen":
                layer.eval()
