"""Methods that say what a classifier's answer rests on: images and a class of each to maps.

The gradient methods and LIME are Captum's, on the network; occlusion is `convline.explain.methods`, on the served file, as `infer
explain` makes it. A head that has no gradient gets the methods that only ask for probabilities.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from captum import attr
from captum._utils.models.linear_model import SkLearnRidge
from convline.explain import methods as maps
from sklearn.cluster import KMeans
from torch import Tensor, nn

from pipeline.explain.subject import Subject, finite
from pipeline.network import modules as network
from pipeline.network.modules import Classifier
from pipeline.params.schema import Explain

LEAST = 4  # pixels of the map that Grad-CAM weighs: a smaller one shows no place
SIGMA = 0.15  # of SmoothGrad's noise, of the range 255: Smilkov et al. 2017, arXiv:1706.03825, section 3.2
SEGMENTS = 20  # of LIME
BATCH = 32


class Scores(nn.Module):
    """float images (N, C, H, W) in grey levels to what is explained (N, K): scores before softmax, or probabilities.

    Simonyan et al. 2013, arXiv:1312.6034, section 3, take the score: a probability also rises as other classes fall.
    """

    def __init__(self, net: Classifier, of: str):
        super().__init__()
        self.net, self.of = net, of

    def forward(self, images: Tensor) -> Tensor:
        scores = self.net.logits(images)
        return scores if self.of == "score" else scores.softmax(1)


class InTorch:
    """The network behind the served file's face."""

    def __init__(self, net: nn.Module):
        self.net = net

    @torch.no_grad()
    def predict_proba(self, images: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(np.ascontiguousarray(images)).split(BATCH)
        return torch.cat([self.net(part) for part in parts]).numpy()


class LogOdds:
    """A file whose answers are log odds: what hides a little of a sure answer's evidence moves them, too.

    Of what the other classes have together, which does not round to nothing where an answer rounds to 1; within 1e-6
    of 0 and 1, which the votes of a forest reach.
    """

    def __init__(self, file: Any):
        self.file = file

    def predict_proba(self, images: np.ndarray) -> np.ndarray:
        p = self.file.predict_proba(images).astype(np.float64)
        others = p.sum(1, keepdims=True) - p
        return np.log(np.maximum(p, 1e-6) / np.maximum(others, 1e-6))


@dataclass(frozen=True)
class Probe:
    """What is explained.

    scores: a network, None where it has no gradient. file: answers predict_proba for uint8 (N, H, W, C), in log odds.
    layer: whose map Grad-CAM weighs, if one is large enough. hidden: grey levels (C,) of what LIME takes away.
    """

    scores: Scores | None
    file: Any
    layer: str | None
    hidden: np.ndarray
    settings: Explain


def probe(subject: Subject) -> Probe:
    """Return what the maps of an entry are made from; hidden is what the network takes for zero."""
    net, image = subject.net, np.asarray(subject.source.x["test"][:1])
    scores = Scores(net, subject.settings.of) if subject.differentiable else None
    layer = grad_cam_layer(net, tensor(image)) if subject.differentiable else None
    mean = np.broadcast_to(net.mean.numpy(), (image.shape[3], *image.shape[1:3])).mean((1, 2))
    return Probe(
        scores, LogOdds(subject.file), layer, np.rint(mean).astype(np.uint8), subject.settings
    )


@torch.no_grad()
def grad_cam_layer(net: Classifier, images: Tensor) -> str | None:
    """Return the last part of the network whose map (N, C, H, W) has LEAST pixels each way, or None."""
    found = []

    def note(name: str) -> Callable[..., None]:
        return lambda _, __, out: (
            found.append(name) if out.dim() == 4 and min(out.shape[2:]) >= LEAST else None
        )

    handles = [part.register_forward_hook(note(name)) for name, part in network.parts(net).items()]
    net.logits(images)
    for handle in handles:
        handle.remove()
    return found[-1] if found else None


def tensor(images: np.ndarray) -> Tensor:
    """Return float32 (N, C, H, W), grey levels, of uint8 (N, H, W, C); its gradient is asked for."""
    return (
        torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().contiguous().requires_grad_()
    )


def strongest(found: Tensor) -> np.ndarray:
    """Return (N, H, W): the largest magnitude of the channels, as Simonyan et al. 2013, section 3.1."""
    return found.detach().abs().amax(1).double().numpy()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's global generator as the seed says, and leave it as it was; Captum's warnings are known."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of hooks on ReLUs, which `relus` has made ready
        torch.manual_seed(seed)
        yield


# Each method: images uint8 (N, H, W, C) and classes (N,) to maps float64 (N, H, W).


def gradient(p: Probe, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """|d score / d pixel|: Simonyan, Vedaldi, Zisserman 2013, arXiv:1312.6034, section 3."""
    return strongest(
        attr.Saliency(p.scores).attribute(tensor(images), torch.from_numpy(target), abs=False)
    )


def guided(p: Probe, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Springenberg et al. 2014, arXiv:1412.6806, section 3.4: a ReLU passes a gradient on that is above 0, as it is."""
    return strongest(
        attr.GuidedBackprop(p.scores).attribute(tensor(images), torch.from_numpy(target))
    )


def deconvolution(p: Probe, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Zeiler & Fergus 2013, arXiv:1311.2901, section 2.1: the gradient's own ReLU in place of the network's."""
    return strongest(
        attr.Deconvolution(p.scores).attribute(tensor(images), torch.from_numpy(target))
    )


def integrated(p: Probe, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Each pixel's part of the score's difference from black's, signed: see `parts_of_score`."""
    return parts_of_score(p, images, target)[0]


def parts_of_score(
    p: Probe, images: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return maps (N, H, W), and by how much each fails to add up, as a share of the score's difference from black's.

    Sundararajan, Taly, Yan 2017, arXiv:1703.01365, eq. 1 and proposition 1 (completeness).
    """
    x, classes = tensor(images), torch.from_numpy(target)
    black = torch.zeros_like(x)
    steps = p.settings.steps
    found = attr.IntegratedGradients(p.scores).attribute(
        x, black, classes, n_steps=steps, internal_batch_size=BATCH
    )
    with torch.no_grad():
        whole, nothing = (
            p.scores(at).gather(1, classes[:, None])[:, 0].double() for at in (x, black)
        )
    parts = found.detach().double().sum(1)
    gap = (parts.sum((1, 2)) - (whole - nothing)).abs() / (whole - nothing).abs().clamp_min(1e-12)
    return parts.numpy(), gap.numpy()


def smoothgrad(p: Probe, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The mean gradient under noise: Smilkov et al. 2017, arXiv:1706.03825, section 2."""
    noisy, samples = attr.NoiseTunnel(attr.Saliency(p.scores)), p.settings.samples
    classes = torch.from_numpy(target)
    return strongest(
        noisy.attribute(
            tensor(images), nt_samples=samples, stdevs=SIGMA * 255, target=classes, abs=False
        )
    )


def grad_cam(p: Probe, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The layer's map weighed by its mean gradient: Selvaraju et al. 2016, arXiv:1610.02391, eq. 1 and 2."""
    x, layer = tensor(images), p.scores.net.get_submodule(p.layer)
    classes = torch.from_numpy(target)
    coarse = attr.LayerGradCam(p.scores, layer).attribute(x, classes, relu_attributions=True)
    return F.interpolate(coarse.detach(), x.shape[2:], mode="bilinear")[:, 0].double().numpy()


def occlusion(p: Probe, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """By how much the answer falls behind a grey patch a quarter of the side wide, signed: `convline.explain.methods`."""
    side = max(1, min(images.shape[1:3]) // 4)
    options = maps.Options(patch=side, stride=max(1, side // 2), batch=BATCH)
    return np.stack(
        [maps.occlusion(p.file, x, int(k), options)[0] for x, k in zip(images, target, strict=True)]
    )


def lime(p: Probe, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """A linear model's weight of each segment, signed: see `local_model`."""
    return np.stack(
        [local_model(p, x, int(k))[0][segments(x)] for x, k in zip(images, target, strict=True)]
    )


class Ridge(SkLearnRidge):
    """Captum's, which also keeps how much of the answers' variance it explains: LIME's fidelity."""

    def fit(self, train_data: Any, **kwargs: Any) -> Any:
        stats = super().fit(train_data, **kwargs)
        x, y, weight = next(iter(train_data))
        mean = (y * weight).sum() / weight.sum()
        left, all_of_it = (
            (weight * (y - self(x).flatten()) ** 2).sum(),
            (weight * (y - mean) ** 2).sum(),
        )
        self.explained = float(1 - left / all_of_it) if all_of_it > 0 else 0.0
        return stats


def local_model(p: Probe, image: np.ndarray, target: int) -> tuple[np.ndarray, float]:
    """Return the weights (S,) of LIME's linear model and its R^2: Ribeiro et al. 2016, arXiv:1602.04938, section 3.

    Segments are k-means of place and colour (as SLIC: Achanta et al. 2012); those taken away become `hidden`.
    """

    def nearness(
        _: Tensor, __: Tensor, kept: Tensor, **___: Any
    ) -> Tensor:  # of lime_image: cosine, width .25
        distance = 1 - kept.float().mean(1).sqrt()
        return torch.exp(-(distance**2) / (2 * 0.25**2))

    def answers(x: Tensor) -> Tensor:
        return torch.from_numpy(
            p.file.predict_proba(x.permute(0, 2, 3, 1).round().byte().numpy())
        ).double()

    model = Ridge(alpha=1.0)
    found = attr.Lime(answers, interpretable_model=model, similarity_func=nearness).attribute(
        tensor(image[None]).detach(),
        baselines=torch.from_numpy(p.hidden).float().reshape(1, -1, 1, 1),
        target=target,
        feature_mask=torch.from_numpy(segments(image))[None, None],
        n_samples=p.settings.perturbations,
        perturbations_per_eval=BATCH,
        return_input_shape=False,
    )
    return found[0].double().numpy(), model.explained


def segments(image: np.ndarray) -> np.ndarray:
    """Return int64 (H, W): which of at most SEGMENTS segments a pixel is in, numbered from 0."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    side = (height * width / SEGMENTS) ** 0.5
    places = np.stack(
        [y / side, x / side], -1
    )  # one segment's side is 1, and so is a third of the grey levels
    rows = np.concatenate(
        [places, image.astype(np.float64) / 85 / image.shape[2] ** 0.5], -1
    ).reshape(height * width, -1)
    count = min(SEGMENTS, height * width // 2)
    found = KMeans(count, n_init=1, max_iter=20, random_state=0).fit_predict(rows)
    return np.unique(found, return_inverse=True)[1].reshape(height, width).astype(np.int64)


GRADIENT: dict[str, Callable[[Probe, np.ndarray, np.ndarray], np.ndarray]] = {
    "gradient": gradient,
    "SmoothGrad": smoothgrad,
    "integrated gradients": integrated,
    "guided backpropagation": guided,
    "deconvolution": deconvolution,
    "Grad-CAM": grad_cam,
}
METHODS = GRADIENT | {"occlusion": occlusion, "LIME": lime}


def methods(p: Probe) -> list[str]:
    """Return the names of the methods that can explain it."""
    if p.scores is None:
        return [name for name in METHODS if name not in GRADIENT]
    without = set() if p.layer else {"Grad-CAM"}
    if not any(isinstance(module, nn.ReLU) for module in p.scores.modules()):
        without |= {"guided backpropagation", "deconvolution"}  # both change what a ReLU passes on
    return [name for name in METHODS if name not in without]


def explain(p: Probe, name: str, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return one method's maps (N, H, W), the same every time; those of a deep net go batch by batch."""
    with seeded(p.settings.seed):
        rows = range(0, len(images), BATCH)
        return finite(
            np.concatenate(
                [METHODS[name](p, images[k : k + BATCH], target[k : k + BATCH]) for k in rows]
            ),
            name,
        )
