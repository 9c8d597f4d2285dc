"""Stage explain: how a trained network sees, in pictures, and how good the explanations of its answers are, in numbers.

Reads out/params/<entry>/, the weights of stage train, the file of stage export and the data.
Writes out/<entry>/explain/ (pictures, and page.json: what each shows, each section's numbers) and, of the numbers those
that are the same on another machine, results/<entry>/explain.json.
Fails when a number is not finite, when integrated gradients do not add up to the score (completeness), when the file's
maps are not torch's (parity), or when the network's ReLUs cannot be made modules. A method that fails its randomisation
check is recorded and marked, not an error.

    python -m pipeline.explain ENTRY
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

import serve
from pipeline import data, network, params
from pipeline.resolved import on_features
from pipeline.seeing import relus
from pipeline.seeing.subject import Section, Subject
from pipeline.stage import OUT, RESULTS, StageError, fresh, of_entry, run, write_json

DIGITS = 4  # of every fact: what repeats from run to run
COMMITTED = 3  # digits of a fact in git: what repeats from machine to machine
# Facts that a last bit decides (k-means, t-SNE, fits and ascents of many steps), by section: under other vector units
# they had other digits. "" is all of a section.
DRIFTING = {
    "attribution": ("parity", "methods.LIME"),
    "embedding": ("embedding.trustworthiness", "embedding.knn_map"),
    "filters": ("gabor.random",),
    "inversion": ("",),
    "style": ("",),
    "synthesis": ("",),
}


def sections(recipe: dict[str, Any]) -> list[Any]:
    """Return the modules that have something to say about the recipe, in the order of the page."""
    from pipeline.seeing import (
        attribution,
        embedding,
        fields,
        filters,
        fooling,
        history,
        influence,
        invariance,
        units,
    )

    found = [attribution, influence, filters, units, fields, invariance, history, embedding, fooling]
    if recipe["synthesis"]:
        from pipeline.seeing import inversion, style, synthesis

        found += [synthesis, inversion, style]
    return found


def opened(name: str) -> Subject:
    """Return the entry with its trained network and its served file."""
    recipe, source = params.entry(name, "data", "train", "explain"), data.load(name)
    net = network.build(recipe, source)
    net.load_state_dict(torch.load(OUT / name / "train" / "weights.pt", weights_only=True))
    inner = net.eval().requires_grad_(False)
    relus.as_modules(inner, torch.from_numpy(np.array(source.example())))
    if headed := on_features(recipe):
        from pipeline import fitted  # scikit-learn: 3 s

        net = fitted.restore(net, recipe, OUT / name / "train")
    file = serve.load(OUT / name / "export" / "model.onnx", device="cpu")
    folder = fresh(OUT / name / "explain")
    return Subject(name, recipe, source, net, file, recipe["explain"], folder, differentiable=not headed)


def repeated(value: Any, drifting: tuple[str, ...], place: str = "") -> Any:
    """Return facts without those at the dotted places that drift, floats to COMMITTED digits."""
    if isinstance(value, dict):
        inner = {key: f"{place}.{key}".lstrip(".") for key in value}
        return {key: repeated(part, drifting, inner[key]) for key, part in value.items() if inner[key] not in drifting}
    if isinstance(value, list):
        return [repeated(part, drifting, place) for part in value]
    return float(f"{value:.{COMMITTED}g}") if isinstance(value, float) else value


def rounded(value: Any, place: str) -> Any:
    """Return facts as JSON takes them, numbers to DIGITS digits; StageError where one is not finite."""
    if isinstance(value, dict):
        return {str(key): rounded(part, f"{place}.{key}") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part, place) for part in value]
    if isinstance(value, bool | str | int | None):
        return value
    if not math.isfinite(value):
        raise StageError(f"explain: {place} is {float(value)}; look at the training curves, or lower train.lr")
    return float(f"{value:.{DIGITS}g}")


def on_page(section: Section) -> dict[str, Any]:
    """Return what report reads of a section: its title, and each picture with its caption."""
    return {"title": section.title, "shown": [asdict(s.picture) | {"caption": s.caption} for s in section.shown]}


def main() -> None:
    with of_entry("explain") as name:
        torch.manual_seed(0)  # a module that forgets its own seed repeats all the same
        subject = opened(name)
        torch.set_num_threads(subject.recipe["threads"])  # what the cores of this machine are decides no number
        found, facts = [], {}
        for module in sections(subject.recipe):
            start, part = time.perf_counter(), module.__name__.rpartition(".")[2]
            section = module.section(subject)
            if section:
                found.append(on_page(section))
                facts[part] = rounded(section.facts, part)
            print(f"   {part} {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
        write_json(subject.folder / "page.json", {"sections": found, "facts": facts})
        same = {part: repeated(f, DRIFTING.get(part, ())) for part, f in facts.items() if DRIFTING.get(part) != ("",)}
        write_json(RESULTS / name / "explain.json", {"facts": same})


if __name__ == "__main__":
    run(main)
