"""Perturbation maps in onnxruntime against Captum's loop in torch: occlusion, LIME and RISE, of
equal maps.

Both sides have the same weights, threads, perturbed images and batches; they take turns, so that a
slow second of the machine slows both. Captum's `perturbations_per_eval` is the batch: the table has
each side's best, and both at the largest. Weights are random: speed does not depend on them.

    occlusion   convline.explain.methods.occlusion    captum.attr.Occlusion
    LIME        one ridge regression    captum.attr.LimeBase, on the same on-off vectors of a grid of patches
    RISE        convline.explain.methods.rise         a loop in torch over the same masks: Captum has none

    python benchmarks/explain.py
    python benchmarks/explain.py --network ResNet-18 --rounds 1 --samples 16 --patch 112 --batch 8     # a smoke run
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

import captum
import click
import numpy as np
import onnxruntime
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import LimeBase, Occlusion
from convline.explain import methods
from convline.runtime import host
from convline.runtime.session import open_session
from sklearn.linear_model import Ridge
from torch import Tensor

import models
from pipeline.export import graph as export
from pipeline.network.modules import Classifier

NETS = {"ResNet-18": ("resnet18", 1.5), "ResNet-50": ("resnet50", 2.5)}  # torchvision's name, goal
SIDE, CELLS, ALPHA, GREY = 224, 8, 1.0, 128
AGREE = 1e-4  # of maps: probabilities, and their differences
Map = Callable[[int], np.ndarray]  # of a batch


class Served:
    """The exported file as serve opens it: what convline.explain.methods asks of a model."""

    def __init__(self, graph: bytes, threads: int):
        self.session = open_session(graph, "cpu", threads=threads)

    def predict_proba(self, images: np.ndarray) -> np.ndarray:
        return self.session.run(["probabilities"], {"images": images})[0]


def network(name: str) -> Classifier:
    """Return torchvision's network with random weights, standardisation and softmax in it, as
    the line exports it.
    """
    torch.manual_seed(0)
    net = models.build("zoo", in_channels=3, size=(SIDE, SIDE), classes=10, name=name)
    return (
        Classifier(net, torch.full((3, 1, 1), 127.0), torch.full((3, 1, 1), 1 / 64))
        .eval()
        .requires_grad_(False)
    )


def ours(model: Served, image: np.ndarray, target: int, options: dict[str, Any]) -> dict[str, Map]:
    """Return the maps of an image uint8 (H, W, C) by the exported file."""

    def of(method: Callable[..., Any], batch: int) -> np.ndarray:
        return method(model, image, target, methods.Options(batch=batch, **options))[0]

    def lime(batch: int) -> np.ndarray:
        vectors = on_off(options["samples"])
        parts = [model.predict_proba(np.where(patches(some)[..., None], image, np.uint8(GREY)))[:, target]
                 for some in np.split(vectors, range(batch, len(vectors), batch))]  # fmt: skip
        return Ridge(alpha=ALPHA).fit(vectors, np.concatenate(parts)).coef_

    return {
        "occlusion": lambda n: of(methods.occlusion, n),
        "LIME": lime,
        "RISE": lambda n: of(methods.rise, n),
    }


def theirs(
    net: Classifier, image: np.ndarray, target: int, options: dict[str, Any]
) -> dict[str, Map]:
    """Return the same maps by Captum, and RISE by a loop, on the network in torch."""
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()

    @torch.inference_mode()
    def probabilities(images: Tensor) -> Tensor:
        return net.logits(images).softmax(1)

    def occlusion(batch: int) -> np.ndarray:
        side = options["patch"]
        window = {
            "sliding_window_shapes": (3, side, side),
            "strides": (3, side // 2, side // 2),
            "baselines": GREY,
        }
        found = Occlusion(probabilities).attribute(
            x, target=target, perturbations_per_eval=batch, **window
        )
        return found[0, 0].numpy()

    def lime(batch: int) -> np.ndarray:
        vectors = iter(torch.from_numpy(on_off(options["samples"])).float()[:, None])
        explainer = LimeBase(
            probabilities,
            SkLearnRidge(alpha=ALPHA),
            similarity_func=lambda *given, **more: 1.0,
            perturb_func=lambda *given, **more: next(vectors),
            perturb_interpretable_space=True,
            from_interp_rep_transform=lambda vector, *given, **more: torch.where(
                torch.from_numpy(patches(vector.bool().numpy())), x, float(GREY)
            ),
            to_interp_rep_transform=None,
        )
        found = explainer.attribute(
            x, target=target, n_samples=options["samples"], perturbations_per_eval=batch
        )
        return found.numpy().ravel()

    def rise(batch: int) -> np.ndarray:
        rng, total = np.random.default_rng(0), torch.zeros(SIDE, SIDE, dtype=torch.float64)
        for some in methods.index_batches(options["samples"], batch):
            masks = torch.from_numpy(np.stack([methods.random_mask(rng, SIDE, SIDE) for _ in some]))
            answers = probabilities((masks[:, None].float() * x).round())[:, target]
            total += torch.tensordot(answers.double(), masks, 1)
        return (total / (options["samples"] * 0.5)).numpy()

    return {"occlusion": occlusion, "LIME": lime, "RISE": rise}


def on_off(samples: int) -> np.ndarray:
    """Return which patches of a CELLS x CELLS grid stay, bool (samples, CELLS ** 2), half of
    them.
    """
    return np.random.default_rng(1).random((samples, CELLS**2)) < 0.5


def patches(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (N, CELLS ** 2) as masks of pixels (N, H, W)."""
    cells = vectors.reshape(-1, CELLS, CELLS)
    return cells.repeat(SIDE // CELLS, 1).repeat(SIDE // CELLS, 2)


def seconds(pair: tuple[Map, Map], batches: list[int], rounds: int) -> dict[tuple[int, int], float]:
    """Return the median time of (side, batch), the sides in turns."""
    times: dict[tuple[int, int], list[float]] = {}
    for _ in range(rounds):
        for batch in batches:
            for side, run in enumerate(pair):
                start = time.perf_counter()
                run(batch)
                times.setdefault((side, batch), []).append(time.perf_counter() - start)
    return {key: statistics.median(taken) for key, taken in times.items()}


@click.command()
@click.option("--network", "names", type=click.Choice([*NETS]), multiple=True, default=[*NETS])
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(1),
    multiple=True,
    default=[8, 16, 32],
    show_default=True,
)
@click.option(
    "--samples",
    type=click.IntRange(8),
    default=200,
    show_default=True,
    help="Masks of LIME and of RISE.",
)
@click.option(
    "--patch",
    type=click.IntRange(8, SIDE),
    default=28,
    show_default=True,
    help="Pixels, of occlusion.",
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def main(
    names: tuple[str, ...], batches: tuple[int, ...], samples: int, patch: int, rounds: int
) -> None:
    """Print seconds for each map and their ratios; an error where the two maps differ."""
    threads = torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    print(f"{host.processor()}, {threads} threads; torch {torch.__version__}; captum {captum.__version__}; "
          f"onnxruntime {onnxruntime.__version__}; batches {', '.join(map(str, batches))}\n")  # fmt: skip
    print(f"| network | map | passes | Captum, s (batch) | ours, s (batch) | ratio | ratio at {max(batches)} | goal "
          "| apart |\n| --- | --- |" + " ---: |" * 7)  # fmt: skip
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    for name in names:
        net = network(NETS[name][0])
        model = Served(
            export.export_network(net, image[None].repeat(2, 0)).SerializeToString(),
            threads,
        )
        target = int(model.predict_proba(image[None]).argmax())
        options = {"samples": samples, "patch": patch}
        mine, peers = ours(model, image, target, options), theirs(net, image, target, options)
        windows = len(methods.patch_starts(SIDE, patch, patch // 2)) ** 2
        for method, run in mine.items():
            apart = float(
                np.abs(run(max(batches)) - peers[method](max(batches))).max()
            )  # and warms both up
            if not apart <= AGREE:
                raise click.ClickException(
                    f"{name}, {method}: the maps differ by {apart:.1e} (limit {AGREE})"
                )
            taken = seconds((run, peers[method]), list(batches), rounds)
            best = [min((taken[side, batch], batch) for batch in batches) for side in (0, 1)]
            ratio, equal = best[1][0] / best[0][0], taken[1, max(batches)] / taken[0, max(batches)]
            cells = [f"{best[side][0]:.2f} ({best[side][1]})" for side in (1, 0)]
            passes = windows if method == "occlusion" else samples
            print(f"| {name} | {method} | {passes} | {' | '.join(cells)} | {ratio:.2f} | {equal:.2f} | {NETS[name][1]} "
                  f"| {apart:.0e} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
