"""Program for tests/pipeline/train/test_distributed.py, run by each of several processes: it trains
recipes one after the other. Usage: python tests/together.py GIVEN.json ANSWER.json, where GIVEN
holds resolved recipes by name; under torchrun as one of several. For each recipe process 0 writes
the history, the sums of the weights, and how far the weights of the processes are apart.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))


def facts(recipe: Any, on: Any, bases: dict[str, Any]) -> dict[str, Any]:
    # Imported here: the processes that write shards import this file again, and need no torch.
    import torch
    from torch import distributed as dist

    from pipeline.core.errors import StageError
    from pipeline.data import prepare
    from pipeline.network import pretrained
    from pipeline.train import checkpoint, distributed, loop, small_maps

    with tempfile.TemporaryDirectory() as work:  # of shards, where the recipe asks for them
        source = prepare.make(recipe.data, Path(work))[0]
        base = bases.get(recipe.needs or "")
        try:
            net, state = loop.fit(recipe, source, on=on, label="together", base=base)
        except StageError as error:
            return {"error": str(error)}
    bases.setdefault(
        "images", pretrained.Base(checkpoint.copy_weights(net), source.about.get("labels", []))
    )
    weights = torch.cat([tensor.double().flatten() for tensor in net.state_dict().values()])
    apart = 0.0
    if distributed.size() > 1:
        own = weights.clone()
        dist.broadcast(weights, 0)
        apart = distributed.sum_over_processes((own - weights).abs().max())[0]
    return {
        "history": state.history,
        "gradients": state.gradients,
        "weights": weights.tolist(),
        "apart": apart,
        "products": sum(isinstance(layer, small_maps.Conv2d) for layer in net.modules()),
    }


def trained(given: str) -> dict[str, Any]:
    """Return the facts of each recipe of a JSON text, as this process or group trains it."""
    import torch

    from pipeline.params.schema import Recipe

    bases: dict[str, Any] = {}
    return {
        name: facts(Recipe.model_validate_json(json.dumps(recipe)), torch.device("cpu"), bases)
        for name, recipe in json.loads(given).items()
    }


def main() -> None:
    import torch

    from pipeline.train import distributed

    given, answer = map(Path, sys.argv[1:])
    with distributed.join_group(torch.device("cpu")):
        found = trained(given.read_text())
        if not distributed.rank():
            answer.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
