"""Attribution methods: maps of how much each pixel contributes to a class.

The gradient methods and LIME are Captum's, on the network. Occlusion is `convline.explain.methods`,
on the served file, as `infer explain` computes it. A model without gradients gets occlusion and
LIME alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from captum import attr
from captum._utils.models.linear_model import SkLearnRidge
from convline.explain import methods as served_methods
from sklearn.cluster import KMeans
from sklearn.metrics import r2_score
from torch import Tensor, nn

from pipeline.explain.activations import select_with_maps
from pipeline.explain.image_grid import to_tensor
from pipeline.explain.sections import require_finite
from pipeline.explain.subject import Subject
from pipeline.network import modules as network
from pipeline.network.modules import Classifier
from pipeline.params.schema import Explain

MIN_CAM_PX = 4  # sides of the map that Grad-CAM weights: a smaller one shows no location
NOISE_SHARE = 0.15  # of 255, SmoothGrad's noise: Smilkov et al. 2017, arXiv:1706.03825, section 3.2
LIME_SEGMENTS = 20
BATCH = 32


class Scores(nn.Module):
    """float images (N, C, H, W) to logits (N, K) for "score", probabilities for "softmax".

    Simonyan et al. 2013, arXiv:1312.6034, section 3, explain the score, because a probability also
    rises when the scores of other classes fall.
    """

    def __init__(self, net: Classifier, of: str):
        super().__init__()
        self.net, self.of = net, of

    def forward(self, images: Tensor) -> Tensor:
        scores = self.net.logits(images)
        return scores if self.of == "score" else scores.softmax(1)


class TorchPredictor:
    """The network with the interface of the served file."""

    def __init__(self, net: nn.Module):
        self.net = net

    @torch.no_grad()
    def predict_proba(self, images: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(np.ascontiguousarray(images)).split(BATCH)
        return torch.cat([self.net(part) for part in parts]).numpy()


class LogOdds:
    """A predictor of log odds, which change even where a probability is almost 1.

    The odds are against the sum of the other classes, which does not round to 0 where a probability
    rounds to 1. Both are at least 1e-6, because the votes of a forest reach 0 and 1.
    """

    def __init__(self, predictor: Any):
        self.predictor = predictor

    def predict_proba(self, images: np.ndarray) -> np.ndarray:
        p = self.predictor.predict_proba(images).astype(np.float64)
        others = p.sum(1, keepdims=True) - p
        return np.asarray(np.log(np.maximum(p, 1e-6) / np.maximum(others, 1e-6)))


@dataclass(frozen=True)
class ExplainedModel:
    """A classifier as the attribution methods see it.

    scores: the network, None where it has no gradient. log_odds: of the served file. cam_layer: the
    layer whose map Grad-CAM weights, None where all are too small. baseline: grey levels (C,) of a
    hidden pixel.
    """

    scores: Scores | None
    log_odds: Any
    cam_layer: str | None
    baseline: np.ndarray
    settings: Explain

    @property
    def network(self) -> Scores:
        assert self.scores is not None, "only occlusion and LIME work without a gradient"
        return self.scores


def explained_model(subject: Subject) -> ExplainedModel:
    """Return the model of an entry; its baseline is the image that normalizes to zero."""
    net, image = subject.net, np.asarray(subject.source.x["test"][:1])
    scores, layers = None, []
    if subject.differentiable:
        scores = Scores(net, subject.settings.of)
        layers = select_with_maps(net, to_tensor(image), list(network.parts(net)), MIN_CAM_PX)
    mean = np.broadcast_to(net.mean.numpy(), (image.shape[3], *image.shape[1:3])).mean((1, 2))
    baseline = np.rint(mean).astype(np.uint8)
    layer = layers[-1] if layers else None
    return ExplainedModel(scores, LogOdds(subject.file), layer, baseline, subject.settings)


def differentiable_input(images: np.ndarray) -> Tensor:
    """Return uint8 images (N, H, W, C) as float32 (N, C, H, W) that takes a gradient."""
    return to_tensor(images).requires_grad_()


def compute_magnitudes(
    kind: Callable[[Scores], Any],
    model: ExplainedModel,
    images: np.ndarray,
    target: np.ndarray,
    **options: Any,
) -> np.ndarray:
    """Return maps (N, H, W) by a method of Captum: the largest magnitude of the channels.

    Simonyan et al. 2013, arXiv:1312.6034, section 3.1.
    """
    x, classes = differentiable_input(images), torch.from_numpy(target)
    attributions = kind(model.network).attribute(x, target=classes, **options)
    return attributions.detach().abs().amax(1).double().numpy()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator, restore it at the end, and silence Captum's warnings."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of hooks on ReLUs: `modified_relu` has prepared them
        torch.manual_seed(seed)
        yield


# Each method: images uint8 (N, H, W, C) and classes (N,) to maps float64 (N, H, W).


def integrate_gradients(
    model: ExplainedModel, images: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return maps (N, H, W), and the share (N,) of the score's difference that each misses.

    A map has each pixel's signed part of the difference between the scores of the image and of
    black: Sundararajan, Taly, Yan 2017, arXiv:1703.01365, eq. 1 and proposition 1 (completeness).
    """
    x, classes = differentiable_input(images), torch.from_numpy(target)
    black = torch.zeros_like(x)
    attributions = attr.IntegratedGradients(model.network).attribute(
        x, black, classes, n_steps=model.settings.steps, internal_batch_size=BATCH
    )
    with torch.no_grad():
        score, score_of_black = (
            model.network(at).gather(1, classes[:, None])[:, 0].double() for at in (x, black)
        )
    maps, rise = attributions.detach().double().sum(1), score - score_of_black
    gap = (maps.sum((1, 2)) - rise).abs() / rise.abs().clamp_min(1e-12)
    return maps.numpy(), gap.numpy()


def smoothgrad(model: ExplainedModel, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The mean gradient under noise: Smilkov et al. 2017, arXiv:1706.03825, section 2."""
    options = {"nt_samples": model.settings.samples, "stdevs": NOISE_SHARE * 255, "abs": False}

    def noisy(scores: Scores) -> Any:
        return attr.NoiseTunnel(attr.Saliency(scores))

    return compute_magnitudes(noisy, model, images, target, **options)


def grad_cam(model: ExplainedModel, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """A layer's map weighted by its mean gradient: Selvaraju et al. 2016, arXiv:1610.02391, eq.
    1 and 2.
    """
    assert model.cam_layer is not None
    x, layer = differentiable_input(images), model.network.net.get_submodule(model.cam_layer)
    method, classes = attr.LayerGradCam(model.network, layer), torch.from_numpy(target)
    low_resolution = method.attribute(x, classes, relu_attributions=True).detach()
    return F.interpolate(low_resolution, x.shape[2:], mode="bilinear")[:, 0].double().numpy()


def occlusion(model: ExplainedModel, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The signed fall of the log odds behind a grey patch, a quarter of the side wide."""
    side = max(1, min(images.shape[1:3]) // 4)
    options = served_methods.Options(patch=side, stride=max(1, side // 2), batch=BATCH)
    maps = [
        served_methods.occlusion(model.log_odds, image, int(k), options)[0]
        for image, k in zip(images, target, strict=True)
    ]
    return np.stack(maps)


def lime(model: ExplainedModel, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The signed weight of each segment in a local linear model: see `fit_lime`."""
    segments = [segment(image) for image in images]
    maps = [
        fit_lime(model, image, int(k), places)[0][places]
        for image, k, places in zip(images, target, segments, strict=True)
    ]
    return np.stack(maps)


class RidgeWithR2(SkLearnRidge):  # type: ignore[misc]  # Captum has no types for it
    """Captum's ridge regression that also keeps its weighted R^2 on the perturbed samples:
    LIME's fidelity.
    """

    r2 = 0.0

    def fit(self, train_data: Any, **kwargs: Any) -> Any:
        stats = super().fit(train_data, **kwargs)
        x, y, weight = next(iter(train_data))
        self.r2 = float(r2_score(y, self(x).flatten(), sample_weight=weight))
        return stats


def fit_lime(
    model: ExplainedModel, image: np.ndarray, target: int, segments: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return the weights (S,) of LIME's linear model on segments (H, W), and its R^2.

    Ribeiro et al. 2016, arXiv:1602.04938, section 3. A segment that is removed becomes `baseline`.
    Samples are weighted as in the authors' lime_image: by an exponential kernel of width .25 on the
    cosine distance.
    """

    def similarity(_: Tensor, __: Tensor, kept: Tensor, **___: Any) -> Tensor:
        distance = 1 - kept.float().mean(1).sqrt()
        return torch.exp(-(distance**2) / (2 * 0.25**2))

    def log_odds(x: Tensor) -> Tensor:
        uint8 = x.permute(0, 2, 3, 1).round().byte().numpy()
        return torch.from_numpy(model.log_odds.predict_proba(uint8)).double()

    linear = RidgeWithR2(alpha=1.0)
    weights = attr.Lime(log_odds, linear, similarity_func=similarity).attribute(
        to_tensor(image[None]),
        baselines=torch.from_numpy(model.baseline).float().reshape(1, -1, 1, 1),
        target=target,
        feature_mask=torch.from_numpy(segments)[None, None],
        n_samples=model.settings.perturbations,
        perturbations_per_eval=BATCH,
        return_input_shape=False,
    )
    return weights[0].double().numpy(), linear.r2


def segment(image: np.ndarray) -> np.ndarray:
    """Return int64 (H, W): the segment of each pixel, numbered from 0, at most LIME_SEGMENTS.

    k-means of position and colour, as in SLIC (Achanta et al. 2012), for which scikit-image would
    be needed.
    """
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    side = (height * width / LIME_SEGMENTS) ** 0.5
    # the side of one segment has length 1, and so has a third of the grey levels
    position, colour = np.stack([y / side, x / side], -1), image / 85.0 / image.shape[2] ** 0.5
    rows = np.concatenate([position, colour], -1).reshape(height * width, -1)
    count = min(LIME_SEGMENTS, height * width // 2)
    labels = KMeans(count, n_init=1, max_iter=20, random_state=0).fit_predict(rows)
    return np.unique(labels, return_inverse=True)[1].reshape(height, width).astype(np.int64)


Method = Callable[[ExplainedModel, np.ndarray, np.ndarray], np.ndarray]
RELU_METHODS: dict[str, Method] = {
    # Springenberg et al. 2014, arXiv:1412.6806, section 3.4: ReLUs pass positive gradients
    "guided backpropagation": partial(compute_magnitudes, attr.GuidedBackprop),
    # Zeiler & Fergus 2013, arXiv:1311.2901, section 2.1: a ReLU of the gradient, no derivative
    "deconvolution": partial(compute_magnitudes, attr.Deconvolution),
}
GRADIENT_METHODS: dict[str, Method] = {
    # |d score / d pixel|: Simonyan, Vedaldi, Zisserman 2013, arXiv:1312.6034, section 3
    "gradient": partial(compute_magnitudes, attr.Saliency, abs=False),
    "SmoothGrad": smoothgrad,
    "integrated gradients": lambda *inputs: integrate_gradients(*inputs)[0],
    **RELU_METHODS,
    "Grad-CAM": grad_cam,
}
METHODS: dict[str, Method] = GRADIENT_METHODS | {"occlusion": occlusion, "LIME": lime}


def available_methods(model: ExplainedModel) -> list[str]:
    """Return the names of the methods that can explain the model."""
    if model.scores is None:
        return [name for name in METHODS if name not in GRADIENT_METHODS]
    missing = set() if model.cam_layer else {"Grad-CAM"}
    if not any(isinstance(module, nn.ReLU) for module in model.scores.modules()):
        missing |= RELU_METHODS.keys()
    return [name for name in METHODS if name not in missing]


def compute_maps(
    model: ExplainedModel, name: str, images: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """Return one method's maps (N, H, W), batch by batch, from the same seed every time."""
    with seeded(model.settings.seed):
        maps = [
            METHODS[name](model, images[k : k + BATCH], target[k : k + BATCH])
            for k in range(0, len(images), BATCH)
        ]
    return require_finite(np.concatenate(maps), name)
