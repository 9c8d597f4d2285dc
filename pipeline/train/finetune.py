"""Fine-tuning: which stages of a trained network train, from which epoch on, and how fast."""

from __future__ import annotations

from typing import Any

from torch import nn

from pipeline.core.errors import StageError
from pipeline.network.modules import parts, stages
from pipeline.params.schema import Head


def tuned_stages(net: Any, head: Head) -> list[nn.Module]:
    """Return the stages that train at some time, the network's last one first."""
    known = stages(net.net)
    count = len(known) if head.stages == "all" else head.stages
    if count > len(known):
        names = ", ".join(known)
        raise StageError(
            f"head.stages: {count} asked for, the backbone has {len(known)}: {names}; ask for fewer"
        )
    return list(known.values())[::-1][:count]


def require_trained(net: Any, head: Head, epochs: int) -> None:
    """Raise StageError where a stage with random weights, not copied ones, would never train."""
    known = stages(net.net)
    copied = len(known) if head.copied == "all" else head.copied
    if copied > len(known):
        names = ", ".join(known)
        raise StageError(
            f"head.copied: {copied} asked for, the network has {len(known)}: {names}; ask for fewer"
        )
    fresh = len(known) - copied
    trained = unfrozen_count(head, epochs - 1, len(tuned_stages(net, head)))
    if fresh > trained:
        copies = f"{copied} of {len(known)} stages are copied"
        what = f"{copies}, and of the {fresh} random others {trained}"
        cure = f"set head.stages to {fresh} or more, and train longer"
        raise StageError(f"head.copied: {what} train within {epochs} epochs; {cure}")


def parameter_groups(net: Any, head: Head, epochs: int) -> list[dict[str, Any]]:
    """Return the optimizer's groups: the head at the full rate, each stage at lr_factor of it."""
    require_trained(net, head, epochs)
    groups = [{"params": list(net.net.head.parameters()), "factor": 1.0}]
    for stage in tuned_stages(net, head):
        groups.append({"params": list(stage.parameters()), "factor": head.lr_factor})
    return groups


def unfrozen_count(head: Head, epoch: int, count: int) -> int:
    """Return how many stages train in an epoch, counted from 0."""
    if epoch < head.first:
        return 0
    return min(count, 1 + (epoch - head.first) // head.unfreeze) if head.unfreeze else count


def freeze_stages(net: Any, head: Head, epoch: int) -> None:
    """Freeze and unfreeze the network's parts for an epoch; call it after `net.train()`.

    Frozen parts keep their batch-norm statistics and drop no units. A part without weights follows
    the stage before it. The batch norms of stages that train are frozen too, since few images give
    poor statistics, unless head.batch_norm is `trained`.
    """
    stages_to_train = tuned_stages(net, head)
    unfrozen, on = stages_to_train[: unfrozen_count(head, epoch, len(stages_to_train))], False
    for part in parts(net.net).values():
        if any(True for _ in part.parameters()):
            on = any(part is other for other in unfrozen)
        part.requires_grad_(on).train(on)
        for layer in part.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and head.batch_norm == "frozen":
                layer.eval()
